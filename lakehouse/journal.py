"""An append-only JSONL file that several processes write and that survives whatever happens to it.

The format of its lines is described in `lakehouse.records`; compaction begins a new generation of the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from lakehouse.errors import ConfigError, DiskFull, JournalError, LakehouseError
from lakehouse.records import Begin, Entry, Fault, Line, Position, encode, generation_of, hash_of, parse

Sync = Literal["always", "interval", "never"]

_CHUNK = 1 << 20
_MODE = 0o644
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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
        self._sync = sync
        self._interval = interval
        self._synced = time.monotonic()
        self._holder = threading.local()
        self._lock = path.with_name(path.name + ".lock")
        self._known: tuple[int, Position] | None = None  # inode and end, as our last append left them

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
            created = self._known is None and not self.path.exists()
            with _opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
                if created:
                    _sync_folder(self.path.parent)
                end, whole = self._end(file)
                writing = Writing(self, file, end, whole=whole)
                try:
                    yield writing
                finally:
                    self._known = (os.fstat(file).st_ino, writing.end) if writing.sound else None

    def read(self, after: Position | None = None) -> Iterator[Entry | Fault]:
        """Everything behind a position, as far as it is written when it is reached; memory stays flat.

        A record that is being written right now, or was torn by a crash, is not given. After a compaction the new
        file is read from its beginning: compare `end.generation` with what you knew.
        """
        if not self.path.exists():
            return
        with _opened(self.path, os.O_RDONLY) as file:
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
            except (LakehouseError, ValueError, TypeError, KeyError) as error:
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
        with self._locked(), _opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as old:
            last, _ = self._end(old)
            entries = (found for found in self._lines(old) if isinstance(found, Entry))
            draft.unlink(missing_ok=True)
            try:
                with _opened(draft, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
                    begin = replace(last, generation=last.generation + 1, offset=0)
                    writing = Writing(self, file, begin, forced=False)
                    writing.append(Begin(begin.generation))
                    for data in keep(entries):
                        writing.append(data)
                    with _explained(draft):
                        os.fsync(file)
                os.replace(draft, self.path)
                _sync_folder(self.path.parent)
            finally:
                draft.unlink(missing_ok=True)
            self._known = None
            return writing.end

    def close(self) -> None:
        """Force what `interval` left open to the disk."""
        if self._sync == "interval" and self.path.exists():
            with _opened(self.path, os.O_RDWR) as file, _explained(self.path):
                os.fdatasync(file)

    def due(self) -> bool:
        """Whether what is appended now must be forced to the disk."""
        if self._sync == "interval" and time.monotonic() - self._synced < self._interval:
            return False
        self._synced = time.monotonic()
        return self._sync != "never"

    def _end(self, file: int) -> tuple[Position, bool]:
        """Behind the last record, and whether the file ends there with a newline."""
        stat = os.fstat(file)
        start = None
        if self._known and self._known[0] == stat.st_ino and self._known[1].offset <= stat.st_size:
            # A file that was removed may have given its inode to one of a later generation.
            start = self._known[1] if self._known[1].generation == self._generation(file) else None
        if start is not None and start.offset == stat.st_size:
            return start, True
        end = start or self._last(file, stat.st_size)
        for found in self._lines(file, end):
            end = found.end
        if end.offset == stat.st_size:
            return end, True
        # What follows was torn; but if only its newline is missing it is a record, acknowledged or not.
        rest = os.pread(file, min(stat.st_size - end.offset, self.max_line + 1), end.offset)
        if isinstance(line := parse(rest, end.seq, self.max_line), Line):
            return replace(end, offset=stat.st_size, seq=line.seq, hash=hash_of(rest)), False
        return replace(end, offset=stat.st_size), False

    def _last(self, file: int, size: int) -> Position:
        """Behind the last line that is a record, found from the back: a journal of gigabytes is open at once."""
        generation = self._generation(file)
        tail, start = b"", size
        while start > 0:
            step = min(_CHUNK, start)
            start -= step
            tail = os.pread(file, step, start) + tail
            lines = tail.split(b"\n")
            end = start + len(tail) - len(lines.pop())  # the last piece has no newline
            first = 0 if start == 0 else 1  # the first piece may have begun earlier
            for line in reversed(lines[first:]):
                if isinstance(parsed := parse(line, 0, self.max_line), Line):
                    return Position(generation, end, parsed.seq, hash_of(line))
                end -= len(line) + 1
            tail = tail if len(tail) <= self.max_line + _CHUNK else tail[: self.max_line]
        return Position(generation)

    def _generation(self, file: int) -> int:
        line = parse(os.pread(file, 4096, 0).split(b"\n", 1)[0], 0, self.max_line)
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
                    parsed = parse(line, end.seq, self.max_line)
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
            if len(rest) > self.max_line:  # it will not be a record: let go of it, only count
                oversize, rest = oversize + len(rest), b""

    def isolate(self, faults: list[Fault]) -> None:
        """Copy lines into the quarantine file, unless they are there.

        Raises:
            JournalError, DiskFull: it cannot be written.
        """
        with self._locked(), _opened(self.quarantine, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
            known = set()
            for line in self.quarantine.read_bytes().splitlines():
                with suppress(msgspec.DecodeError, KeyError, TypeError):
                    entry = msgspec.json.decode(line)
                    known.add((entry["generation"], entry["offset"]))
            lines = []
            for fault in faults:
                if (fault.end.generation, fault.offset) in known:
                    continue
                with _opened(self.path, os.O_RDONLY) as journal:
                    if self._generation(journal) != fault.end.generation:
                        continue  # compacted away meanwhile
                    bad = os.pread(journal, min(fault.size, self.max_line), fault.offset)
                entry = {
                    "time": datetime.now(UTC),
                    "generation": fault.end.generation,
                    "offset": fault.offset,
                    "size": fault.size,
                    "reason": fault.reason,
                    "line": bad.decode("utf-8", "backslashreplace"),
                }
                lines.append(msgspec.json.encode(entry) + b"\n")
            with _explained(self.quarantine):
                for line in lines:
                    os.write(file, line)
                os.fsync(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The companion lock file, so that the journal itself can be replaced."""
        if self._known is None:
            with _explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        # An open file of its own for everyone: the lock then also keeps threads apart.
        with _opened(self._lock, os.O_RDWR | os.O_CREAT) as file:
            if not getattr(self._holder, "held", False):  # by this thread: a look at the records while writing
                fcntl.flock(file, fcntl.LOCK_EX)
                self._holder.held = owner = True
            else:
                owner = False
            try:
                yield
            finally:
                if owner:
                    self._holder.held = False


class Writing:
    """The journal in the hands of one writer; `end` is where the next record goes."""

    def __init__(self, journal: Journal, file: int, end: Position, *, whole: bool = True, forced: bool = True) -> None:
        self.end = end
        self.sound = True
        self._journal = journal
        self._file = file
        self._whole = whole
        self._forced = forced

    def append(self, *data: Any) -> Position:
        """As `Journal.append`."""
        lines = bytearray(b"" if self._whole else b"\n")
        seq, last = self.end.seq, self.end.hash
        for value in data:
            seq += 1
            line = encode(seq, last, value, self._journal.max_line)
            last = hash_of(line)
            lines += line + b"\n"
        size = os.fstat(self._file).st_size
        try:
            with _explained(self._journal.path):
                written = os.write(self._file, lines)
                if written != len(lines):
                    raise DiskFull(f"{self._journal.path} could be written only in part", hint="nothing was appended")
                if self._forced and self._journal.due():
                    os.fdatasync(self._file)
        except LakehouseError:
            self.sound = False
            with suppress(OSError):
                os.ftruncate(self._file, size)  # what is not acknowledged shall not come back
            raise
        self._whole = True
        self.end = Position(self.end.generation, size + len(lines), seq, last)
        return self.end


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    with _explained(path):
        file = os.open(path, flags | os.O_CLOEXEC, _MODE)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in _FULL else JournalError
        raise kind(f"{path} cannot be used: {error.strerror}", hint="nothing was appended") from None


def _sync_folder(path: Path) -> None:
    with _opened(path, os.O_RDONLY) as folder, _explained(path):
        os.fsync(folder)
