"""An append-only JSONL file that several processes write and that survives whatever happens to it.

The format of its lines is described in `lakehouse.records`; compaction begins a new generation of the file.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec.structs import replace

from lakehouse import lines
from lakehouse.durable import Held, explained, make_folder, opened, sync_folder, told, write_all
from lakehouse.errors import ConfigError, DiskFull, JournalError, LakehouseError
from lakehouse.quarantine import isolate
from lakehouse.records import SLACK, Begin, Entry, Fault, Position, encode, hash_of, stamp

Sync = Literal["always", "interval", "never"]

_HEAD = 256
_FIRST = 100
_MANY = 10_000


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
        self.longest = max_line + SLACK
        self._sync = sync
        self._interval = interval
        self._synced = time.monotonic()
        self._owner: int | None = None
        self._lock = os.fspath(path) + ".lock"
        self._place = os.fspath(path)
        self._held: Held | None = None
        self._head = b""  # how the held file begins
        self._known: Position | None = None  # its end, as our last append left it

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

    def writing(self) -> Holding:
        """Hold the journal: `with journal.writing() as writing` keeps others from appending meanwhile.

        Nobody else appends between a look at its end and what is appended then.

        Raises:
            JournalError: the file cannot be opened.
        """
        return Holding(self)

    def read(self, after: Position | None = None) -> Iterator[Entry | Fault]:
        """Everything behind a position, as far as it is written when it is reached; memory stays flat.

        A record that is being written right now, or was torn by a crash, is not given. After a compaction the new
        file is read from its beginning: compare `end.generation` with what you knew.
        """
        if not self.path.exists():
            return
        with opened(self.path, os.O_RDONLY) as file:
            yield from lines.lines(file, after, self.longest)

    def replay(self, apply: Callable[[Entry], None], after: Position | None = None) -> tuple[Position, list[Fault]]:
        """Apply every record behind a position; lines that are none, or that `apply` refuses, go into quarantine.

        Returns:
            The end, and the first hundred faults, oldest first; the quarantine has them all.
        """
        faults: list[Fault] = []
        first: list[Fault] = []

        def skip(fault: Fault) -> None:
            self._collect(faults, fault)
            if len(first) < _FIRST:
                first.append(fault)

        end = after or Position()
        for found in self.read(after):
            begin = end.offset if end.generation == found.end.generation else 0
            end = found.end
            if isinstance(found, Fault):
                skip(found)
                continue
            try:
                apply(found)
            except DiskFull:
                raise  # the record is good
            except (LakehouseError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
                reason = f"record {found.seq} cannot be applied: {error}"
                skip(Fault(begin, end.offset - begin - 1, reason, end))
        self.isolate(faults)
        return end, first

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
                faults += [found] if len(faults) < _FIRST else []
        size = self.path.stat().st_size if self.path.exists() else 0
        return Verification(records, size, end.generation, corrupt, end.offset < size, breaks, tuple(faults))

    def compact(self, keep: Callable[[Iterator[Entry]], Iterable[Any]]) -> Position:
        """Replace all records by those that `keep` makes of them, in a new generation of the file.

        Readers go on in the old file until they look again; writers wait. A crash leaves the old file or the new.

        Raises:
            JournalError, DiskFull: the new file could not be written; the old one stays.
        """
        draft = self.path.with_name(self.path.name + ".new")
        with self._alone(), opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as old:
            last, whole = lines.end_of(old, None, self.longest)
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
        for found in lines.lines(file, None, self.longest):
            if isinstance(found, Entry):
                yield found
            else:
                self._collect(faults, found)
        self.isolate(faults)

    def close(self) -> None:
        """Let go of the file, and force what `interval` left open to the disk."""
        self._held = None
        if self._sync == "interval" and self.path.exists():
            with opened(self.path, os.O_RDWR) as file, explained(self.path):
                os.fdatasync(file)

    def due(self) -> bool:
        """Whether what is appended now must be forced to the disk."""
        if self._sync != "interval":
            return self._sync == "always"
        now = time.monotonic()
        if now - self._synced < self._interval:
            return False
        self._synced = now
        return True

    def _collect(self, faults: list[Fault], fault: Fault) -> None:
        """One more fault; many are put into quarantine at once, and never so many kept in memory."""
        faults.append(fault)
        if len(faults) >= _MANY:
            self.isolate(faults)
            faults.clear()

    def isolate(self, faults: Sequence[Fault]) -> None:
        """Copy lines into the quarantine file, unless they are there.

        Args:
            faults: of one generation, in the order of the file.

        Raises:
            JournalError, DiskFull: it cannot be written.
        """
        if faults:
            isolate(self.path, self.quarantine, faults, self.longest)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        file = self.lock()
        try:
            yield
        finally:
            self.unlock(file)

    def lock(self) -> int:
        """Wait until nobody else writes, and keep them from it until `unlock` is given what this returns.

        A companion file, so that the journal itself can be replaced; opened anew by everyone, which keeps threads
        apart too.
        """
        if self._owner == threading.get_ident():
            raise JournalError(f"{self.path} is being written by this thread already")
        if self._known is None:
            make_folder(self.path.parent)
        try:
            file = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise told(Path(self._lock), error) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._owner = threading.get_ident()
        except BaseException:
            os.close(file)
            raise
        return file

    def unlock(self, file: int) -> None:
        """Let others write."""
        self._owner = None
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: a process that was forked meanwhile has it too
        os.close(file)

    def begin(self) -> Writing:
        """The end of the file, for who holds the lock."""
        held = self._held
        try:
            size = held.size_at(self._place) if held else None
        except OSError as error:
            raise told(self.path, error) from None
        if held is None or size is None:
            held = self._held = Held(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._known, self._head = None, b""
            size = os.fstat(held.file).st_size
        if not size:  # made by us, or by one who may have died before this
            sync_folder(self.path.parent)
        known = self._known
        if known and known.offset == size:
            return Writing(self, held.file, known)
        head = os.pread(held.file, _HEAD, 0)
        if known and (known.offset > size or not head.startswith(self._head)):  # it was written over
            known = None
        self._head = head
        end, whole = lines.end_of(held.file, known, self.longest)
        return Writing(self, held.file, end, whole=whole)

    def ended(self, writing: Writing) -> None:
        """Remember where a writer left the end."""
        self._known = writing.end if writing.sound and writing.whole else None


class Holding:
    """`with` this as a `Writing`: nobody else appends. A class costs a third of a generator, and appends are many."""

    __slots__ = ("_file", "_journal", "_writing")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> Writing:
        self._file = self._journal.lock()
        try:
            self._writing = self._journal.begin()
        except BaseException:
            self._journal.unlock(self._file)
            raise
        return self._writing

    def __exit__(self, *_: object) -> None:
        try:
            self._journal.ended(self._writing)
        finally:
            self._journal.unlock(self._file)


class Writing:
    """The journal in the hands of one writer; `end` is where the next record goes, `time` that of the last one."""

    __slots__ = ("_draft", "_file", "_journal", "_longest", "end", "sound", "time", "whole")

    time: datetime

    def __init__(self, journal: Journal, file: int, end: Position, *, whole: bool = True, draft: bool = False) -> None:
        self.end = end
        self.sound = True
        self._journal = journal
        self._file = file
        self.whole = whole
        self._draft = draft  # of a compaction, which syncs it when it is whole
        self._longest = journal.longest if draft else journal.max_line

    def append(self, *data: Any) -> Position:
        """As `Journal.append`."""
        if not self.sound:
            raise JournalError(f"{self._journal.path}: the write before this one failed", hint="begin again")
        now = datetime.now(UTC)
        time = stamp(now)
        block = [] if self.whole else [b""]
        seq, last, longest = self.end.seq, self.end.hash, self._longest
        for value in data:
            seq += 1
            line = encode(seq, time, last, value, longest)
            last = hash_of(line)
            block.append(line)
        if not block:
            return self.end
        block.append(b"")
        written = b"\n".join(block)
        size = self.end.offset  # of the file: what follows the last record is counted, and nobody else writes
        journal = self._journal
        try:
            write_all(self._file, written, journal.path)
            if not self._draft and journal.due():
                try:
                    os.fdatasync(self._file)
                except OSError as error:
                    raise told(journal.path, error) from None
        except BaseException:
            self.sound = False
            with suppress(OSError):
                os.ftruncate(self._file, size)  # what is not acknowledged shall not come back
            raise
        self.whole = True
        self.time = now
        self.end = Position(self.end.generation, size + len(written), seq, last)
        return self.end
