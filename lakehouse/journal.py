"""An append-only JSONL file that several processes write and that survives whatever happens to it.

The format of its lines is described in `lakehouse.records`; compaction begins a new generation of the file.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from lakehouse.durable import Held, explained, make_folder, opened, sync_folder, write_all
from lakehouse.errors import ConfigError, DiskFull, JournalError, LakehouseError
from lakehouse.records import Begin, Entry, Fault, Line, Position, encode, generation_of, hash_of, parse, stamp

Sync = Literal["always", "interval", "never"]

_CHUNK = 1 << 20
_TAIL, _HEAD = 1 << 16, 256
SLACK = 1024
"""Bytes that a record may be longer after a compaction, which says in it what its line said before."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found."""

    records: int
    bytes: int
    generation: int
    corrupt: int
    """Lines that are no records."""
    torn: bool
    """Whether the file ends in the middle of a record."""
    chain_breaks: int
    """Records that do not name the record before them."""
    faults: tuple[Fault, ...]
    """The first hundred corrupt lines."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.corrupt or self.torn or self.chain_breaks)


class Journal:
    """One journal file.

    Args:
        path: the file; made with its folder when it is first written.
        sync: when what was appended is forced to the disk: `always` before it is acknowledged, `interval` by the
            first append so many seconds later or by `close`, `never` when the system likes.
        interval: those seconds.
        max_line: bytes; a longer record is refused, and a longer line is a corrupt one.
    """

    def __init__(self, path: Path, *, sync: Sync = "always", interval: float = 1.0, max_line: int = 16 << 20) -> None:
        if sync not in get_args(Sync):
            raise ConfigError(f"'{sync}' is not a way to sync a journal", hint="always, interval or never")
        self.path = path
        self.max_line = max_line
        self._longest = max_line + SLACK
        self._sync = sync
        self._interval = interval
        self._synced = time.monotonic()
        self._holder = threading.local()
        self._lock = path.with_name(path.name + ".lock")
        self._known: tuple[int, bytes, Position] | None = None  # inode, begin and end, as our last append left them
        self._held: Held | None = None

    @property
    def quarantine(self) -> Path:
        """Where corrupt lines are copied to, once each."""
        return self.path.with_name(self.path.name + ".quarantine")

    def append(self, *data: Any) -> Position:
        """Append values, one record each and all in one write; what returns is durable as `sync` says.

        Raises:
            JournalError: a value is no JSON or too long, or the file cannot be written; nothing was appended.
            DiskFull: there is no space; nothing was appended.
        """
        with self.writing() as writing:
            return writing.append(*data)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Hold the journal: nobody else appends between a look at its end and what is appended then.

        Raises:
            JournalError: the file cannot be opened.
        """
        with self._locked():
            held = self._held
            if held is None or not held.is_at(self.path):
                held = self._held = Held(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            file, head = held.file, os.pread(held.file, _HEAD, 0)
            stat = os.fstat(file)
            if not head:  # made by us, or by one who may have died before this
                sync_folder(self.path.parent)
            known = self._known
            # A file that was removed may have given its inode to one of a later generation, which begins otherwise.
            if known and (known[0] != stat.st_ino or known[2].offset > stat.st_size or not head.startswith(known[1])):
                known = None
            if known and known[2].offset == stat.st_size:
                end, whole = known[2], True
            else:
                end, whole = self._end(file, known[2] if known else None)
            writing = Writing(self, file, end, whole=whole)
            try:
                yield writing
            finally:
                self._known = (stat.st_ino, head, writing.end) if writing.sound and writing.whole else None

    def read(self, after: Position | None = None) -> Iterator[Entry | Fault]:
        """Everything behind a position, as far as it is written when it is reached; memory stays flat.

        A record that is being written right now, or was torn by a crash, is not given. After a compaction the new
        file is read from its beginning: compare `end.generation` with what you knew.
        """
        if not self.path.exists():
            return
        with opened(self.path, os.O_RDONLY) as file:
            yield from self._lines(file, after)

    def replay(self, apply: Callable[[Entry], None], after: Position | None = None) -> tuple[Position, list[Fault]]:
        """Apply every record behind a position; lines that are none, or that `apply` refuses, go into quarantine.

        Returns:
            The end, and the faults, oldest first.
        """
        faults: list[Fault] = []
        end = after or Position()
        for found in self.read(after):
            begin = end.offset if end.generation == found.end.generation else 0
            end = found.end
            if isinstance(found, Fault):
                faults.append(found)
                continue
            try:
                apply(found)
            except DiskFull:
                raise  # the record is good
            except (LakehouseError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
                reason = f"record {found.seq} cannot be applied: {error}"
                faults.append(Fault(begin, end.offset - begin - 1, reason, end))
        if faults:
            self.isolate(faults)
        return end, faults

    def verify(self) -> Verification:
        """Read everything and tell what is wrong."""
        records = corrupt = breaks = 0
        faults: list[Fault] = []
        end = Position()
        for found in self.read():
            end = found.end
            if isinstance(found, Entry):
                records += 1
                breaks += not found.chained
            else:
                corrupt += 1
                faults += [found] if len(faults) < 100 else []
        size = self.path.stat().st_size if self.path.exists() else 0
        return Verification(records, size, end.generation, corrupt, end.offset < size, breaks, tuple(faults))

    def compact(self, keep: Callable[[Iterator[Entry]], Iterable[Any]]) -> Position:
        """Replace all records by those that `keep` makes of them, in a new generation of the file.

        Readers go on in the old file until they look again; writers wait. A crash leaves the old file or the new.

        Raises:
            JournalError, DiskFull: the new file could not be written; the old one stays.
        """
        draft = self.path.with_name(self.path.name + ".new")
        with self._locked(), opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as old:
            last, whole = self._end(old)
            if not whole:  # what has no newline may be a record; if it is none, it belongs into quarantine
                Writing(self, old, last, whole=False).append()
            entries = self._kept(old)
            draft.unlink(missing_ok=True)
            try:
                with opened(draft, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
                    begin = replace(last, generation=last.generation + 1, offset=0)
                    writing = Writing(self, file, begin, draft=True)
                    writing.append(Begin(begin.generation))
                    for data in keep(entries):
                        writing.append(data)
                    deque(entries, maxlen=0)  # what `keep` left: there may be lines for the quarantine
                    with explained(draft):
                        os.fsync(file)
                with explained(self.path):
                    os.replace(draft, self.path)
                sync_folder(self.path.parent)
            finally:
                draft.unlink(missing_ok=True)
            self._known = None
            return writing.end

    def _kept(self, file: int) -> Iterator[Entry]:
        """The records of a file that is going to be replaced; its other lines are put into quarantine."""
        faults: list[Fault] = []
        for found in self._lines(file):
            if isinstance(found, Entry):
                yield found
            else:
                faults.append(found)
        self.isolate(faults)

    def close(self) -> None:
        """Let go of the file, and force what `interval` left open to the disk."""
        self._held = None
        if self._sync == "interval" and self.path.exists():
            with opened(self.path, os.O_RDWR) as file, explained(self.path):
                os.fdatasync(file)

    def due(self) -> bool:
        """Whether what is appended now must be forced to the disk."""
        if self._sync == "interval" and time.monotonic() - self._synced < self._interval:
            return False
        self._synced = time.monotonic()
        return self._sync != "never"

    def _end(self, file: int, start: Position | None = None) -> tuple[Position, bool]:
        """Behind the last record, sought from `start` or from the back, and whether the file ends with a newline."""
        stat = os.fstat(file)
        end = start or self._last(file, stat.st_size)
        for found in self._lines(file, end):
            end = found.end
        if end.offset == stat.st_size:
            return end, True
        # What follows was torn; but if only its newline is missing it is a record, acknowledged or not.
        rest = os.pread(file, min(stat.st_size - end.offset, self._longest + 1), end.offset)
        if isinstance(line := parse(rest, end.seq, self._longest), Line):
            return replace(end, offset=stat.st_size, seq=line.seq, hash=hash_of(rest)), False
        return replace(end, offset=stat.st_size), False

    def _last(self, file: int, size: int) -> Position:
        """Behind the last line that is a record, found from the back: a journal of gigabytes is open at once."""
        generation = self._generation(file)
        tail, start = b"", size
        while start > 0:
            step = min(_CHUNK if tail else _TAIL, start)
            start -= step
            tail = os.pread(file, step, start) + tail
            lines = tail.split(b"\n")
            end = start + len(tail) - len(lines.pop())  # the last piece has no newline
            first = 0 if start == 0 else 1  # the first piece may have begun earlier
            found: Position | None = None
            for line in reversed(lines[first:]):
                if isinstance(parsed := parse(line, 0, self._longest), Line):
                    if found is not None and parsed.seq >= found.seq:
                        return Position(generation)  # out of order: only reading from the beginning tells the number
                    found = found or Position(generation, end, parsed.seq, hash_of(line))
                end -= len(line) + 1
            if found:
                return found
            tail = tail if len(tail) <= self._longest + _CHUNK else tail[: self._longest]
        return Position(generation)

    def _generation(self, file: int) -> int:
        line = parse(os.pread(file, 4096, 0).split(b"\n", 1)[0], 0, self._longest)
        return generation_of(line) if isinstance(line, Line) else 0

    def _lines(self, file: int, after: Position | None = None) -> Iterator[Entry | Fault]:
        """The whole lines behind a position; from the beginning when it is of another generation."""
        generation = self._generation(file)
        end = after if after is not None and after.generation == generation else Position(generation)
        offset, rest, oversize = end.offset, b"", 0
        while chunk := os.pread(file, _CHUNK, offset + len(rest) + oversize):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                size = len(line) + oversize
                if oversize:
                    parsed: Line | str = f"longer than {self.max_line} bytes"
                else:
                    parsed = parse(line, end.seq, self._longest)
                begin, offset, oversize = offset, offset + size + 1, 0
                if isinstance(parsed, str):
                    end = replace(end, offset=offset)
                    if size:
                        yield Fault(begin, size, parsed, end)
                    continue
                # The first record of a compacted file names one that is gone with the old file.
                chained = parsed.prev == end.hash or (begin == 0 and generation > 0)
                end = Position(generation, offset, parsed.seq, hash_of(line))
                if begin == 0 and generation_of(parsed):
                    continue
                yield Entry(parsed.seq, parsed.time, parsed.data, end, chained)
            if len(rest) > self._longest:  # it will not be a record: let go of it, only count
                oversize, rest = oversize + len(rest), b""

    def isolate(self, faults: list[Fault]) -> None:
        """Copy lines into the quarantine file, unless they are there.

        Raises:
            JournalError, DiskFull: it cannot be written.
        """
        if not faults:
            return
        # Its own lock: who waits here may hold the index, and who holds the journal may wait for the index.
        with opened(self.quarantine, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            known, last = set(), b"\n"
            with self.quarantine.open("rb") as lines:
                for last in lines:
                    with suppress(msgspec.DecodeError, KeyError, TypeError):
                        entry = msgspec.json.decode(last)
                        known.add((entry["generation"], entry["offset"], hash(entry["line"])))
            block = bytearray(b"" if last.endswith(b"\n") else b"\n")
            with opened(self.path, os.O_RDONLY) as journal:
                for fault in faults if self._generation(journal) == faults[0].end.generation else ():
                    bad = os.pread(journal, min(fault.size, self._longest), fault.offset)
                    entry = {
                        "time": datetime.now(UTC),
                        "generation": fault.end.generation,
                        "offset": fault.offset,
                        "size": fault.size,
                        "reason": fault.reason,
                        "line": bad.decode("utf-8", "backslashreplace"),
                    }
                    if (entry["generation"], entry["offset"], hash(entry["line"])) not in known:
                        block += msgspec.json.encode(entry) + b"\n"
                        write_all(file, block, self.quarantine)
                        block.clear()
            with explained(self.quarantine):
                os.fsync(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The companion lock file, so that the journal itself can be replaced."""
        if getattr(self._holder, "held", False):
            raise JournalError(f"{self.path} is being written by this thread already")
        if self._known is None:
            make_folder(self.path.parent)
        # An open file of its own for everyone: the lock then also keeps threads apart.
        with opened(self._lock, os.O_RDWR | os.O_CREAT) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._holder.held = True
            try:
                yield
            finally:
                self._holder.held = False


class Writing:
    """The journal in the hands of one writer; `end` is where the next record goes, `time` that of the last one."""

    def __init__(self, journal: Journal, file: int, end: Position, *, whole: bool = True, draft: bool = False) -> None:
        self.end = end
        self.time = datetime.now(UTC)
        self.sound = True
        self._journal = journal
        self._file = file
        self.whole = whole
        self._draft = draft  # of a compaction, which syncs it when it is whole
        self._longest = journal.max_line + SLACK * draft

    def append(self, *data: Any) -> Position:
        """As `Journal.append`."""
        if not self.sound:
            raise JournalError(f"{self._journal.path}: the write before this one failed", hint="begin again")
        now = datetime.now(UTC)
        time = stamp(now)
        lines = [] if self.whole else [b""]
        seq, last = self.end.seq, self.end.hash
        for value in data:
            seq += 1
            line = encode(seq, time, last, value, self._longest)
            last = hash_of(line)
            lines.append(line)
        if not lines:
            return self.end
        block = b"\n".join(lines) + b"\n"
        size = os.fstat(self._file).st_size
        try:
            write_all(self._file, block, self._journal.path)
            if not self._draft and self._journal.due():
                with explained(self._journal.path):
                    os.fdatasync(self._file)
        except BaseException:
            self.sound = False
            with suppress(OSError):
                os.ftruncate(self._file, size)  # what is not acknowledged shall not come back
            raise
        self.whole = True
        self.time = now
        self.end = Position(self.end.generation, size + len(block), seq, last)
        return self.end
