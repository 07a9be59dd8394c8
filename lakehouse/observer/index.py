"""The index of the events: a SQLite file that all processes share, caught up from the journal, rebuilt when lost.

Who writes events never touches it; who reads brings it up to date first. Where it cannot be written (a read-only
folder, a full disk) one in the temporary folder takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lakehouse.durable import opened
from lakehouse.errors import DiskFull, EventInvalid, JournalError, LakeUnusable
from lakehouse.journal import Journal
from lakehouse.observer.encoding import decoded
from lakehouse.observer.model import Event
from lakehouse.observer.questions import Question
from lakehouse.records import Entry, Fault, Position, stamp

FORMAT = 1
COLUMNS = (
    "place", "number", "recorded", "id", "run", "workflow", "node", "mode", "status", "success", "elapsed",
    "principal", "text",
)  # fmt: skip
_TABLE = (
    "(place INTEGER {key}, number INTEGER, recorded TEXT, id TEXT, run TEXT, workflow TEXT, node TEXT, mode TEXT,"
    " status TEXT, success INTEGER, elapsed REAL, principal TEXT, text BLOB)"
)
_SCHEMA = (
    f"CREATE TABLE event {_TABLE.format(key='PRIMARY KEY')}",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value)",
    "CREATE INDEX event_run ON event (run)",
    "CREATE INDEX event_node ON event (workflow, node)",
    "CREATE INDEX event_recorded ON event (recorded)",
    f"PRAGMA user_version = {FORMAT}",
)
_INSERT = f"INSERT OR REPLACE INTO {{}} VALUES ({', '.join('?' * len(COLUMNS))})"
# Behind what its own process had written, and behind what others had by then.
_PLACE = """UPDATE loose SET place = max(place, coalesce((SELECT e.place FROM event e WHERE e.recorded <= loose.recorded
    ORDER BY e.recorded DESC, e.place DESC LIMIT 1), 0))"""
_BATCH = 10_000
_PATIENCE = 60.0  # seconds
_NO_PLACE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def row(event: Event, text: bytes, place: int, number: int | None, recorded: datetime) -> tuple[Any, ...]:
    """An event as the tables have it.

    Args:
        event: what it is.
        text: the same as JSON.
        place: where it stands in the journal, or behind which record it came.
        number: of one that is in no journal, which of them it is.
        recorded: when it was taken.
    """
    success = None if event.success is None else int(event.success)
    return (
        place, number, stamp(recorded), event.id, event.run, event.workflow, event.node, event.mode, event.status,
        success, event.elapsed, event.principal, text,
    )  # fmt: skip


class Index:
    """The index of one journal.

    Args:
        journal: the truth; None: there is none, and only what is given with a question is asked.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._seen: tuple[Any, str] | None = None

    def ask(self, questions: Iterable[Question], loose: Iterable[tuple[Any, ...]] = ()) -> list[list[sqlite3.Row]]:
        """The rows of each query on the tables `event` and `loose`, all at one moment.

        Args:
            questions: the queries with their values.
            loose: rows of events that are in no journal, in order.

        Raises:
            LakeUnusable, DiskFull: there is no place for the index.
        """
        try:
            with closing(self._current()) as connection:
                connection.execute("PRAGMA temp_store = MEMORY")
                connection.execute(f"CREATE TEMP TABLE loose {_TABLE.format(key='')}")
                if connection.executemany(_INSERT.format("loose"), loose).rowcount > 0:
                    connection.execute(_PLACE)
                connection.execute("BEGIN")
                return [connection.execute(sql, values).fetchall() for sql, values in questions]
        except (sqlite3.Error, OSError, _Elsewhere) as error:
            full = getattr(error, "errno", None) in _FULL or _is_full(error)
            raise (DiskFull if full else LakeUnusable)(
                f"the index of the events cannot be used: {error}", hint="it may be deleted: it is rebuilt"
            ) from None

    def close(self) -> None:
        """Remove what was made in the temporary folder."""
        with self._lock:
            self._seen = None
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None

    def signature(self) -> Any:
        """What changes when the journal grows or is another file."""
        try:
            stat = os.stat(self._journal.path) if self._journal is not None else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LakeUnusable(f"the journal of the events cannot be read: {error.strerror}") from None
        return stat and (stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def _current(self) -> sqlite3.Connection:
        """A connection to an index that knows all that the journal says now."""
        journal, signature = self._journal, self.signature()
        if journal is None or signature is None:
            connection = _opened(":memory:")
            connection.execute(_SCHEMA[0])
            return connection
        with self._lock:
            if self._seen is not None and self._seen[0] == signature:
                with suppress(sqlite3.Error):
                    return _checked(_opened(self._seen[1]))
            beside = journal.path.with_suffix(".index")
            with suppress(*_NOT_HERE):
                return self._seen_at(signature, *_caught_up(journal, beside, isolate=True))
            with suppress(*_NOT_HERE):
                return self._seen_at(signature, *_as_it_is(journal, beside))
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="lakehouse-observer-", ignore_cleanup_errors=True)
            own = Path(self._temporary.name, beside.name)
            return self._seen_at(signature, *_caught_up(journal, own, isolate=False))

    def _seen_at(self, signature: Any, where: str, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._seen = (signature, where)
        return connection


class _Elsewhere(Exception):
    """The index cannot be written, or cannot be used, where it is."""


_NOT_HERE = (_Elsewhere, sqlite3.OperationalError, DiskFull)


def _caught_up(journal: Journal, path: Path, *, isolate: bool) -> tuple[str, sqlite3.Connection]:
    """The index at a path, made if need be and caught up; one process does it, others wait for what it finds.

    Args:
        journal: the truth.
        path: of the index.
        isolate: whether lines that are no events are copied into the quarantine.
    """
    where = _uri(path, "rwc")
    try:
        with opened(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                connection = _checked(_opened(where))
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # missing, damaged, or of another version
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                connection = _opened(where)
                connection.execute("PRAGMA journal_mode = WAL")
                with _transaction(connection):
                    for statement in _SCHEMA:
                        connection.execute(statement)
            try:
                faults = _apply(journal, connection)
                if isolate:
                    journal.isolate(faults)
            except BaseException:
                connection.close()
                raise
    except (OSError, JournalError) as error:
        raise _Elsewhere(str(error)) from error
    return where, connection


def _as_it_is(journal: Journal, path: Path) -> tuple[str, sqlite3.Connection]:
    """The index at a path if it knows everything already: it can be read where nothing can be written."""
    log = path.with_name(path.name + "-wal")
    for mode in ("ro", "ro&immutable=1"):
        if "immutable" in mode and log.exists() and log.stat().st_size:
            break  # what is in its log would not be seen
        with suppress(sqlite3.DatabaseError):
            connection = _checked(_opened(_uri(path, mode)))
            known = _position(connection)
            if not _replaced(journal, known) and next(journal.read(known), None) is None:
                return _uri(path, mode), connection
            connection.close()
    raise _Elsewhere("there is none that knows everything")


def _apply(journal: Journal, connection: sqlite3.Connection) -> list[Fault]:
    """Read the journal from where the index ends; gives the lines that are no events."""
    faults: list[Fault] = []
    last = _position(connection)
    if _replaced(journal, last):
        last = Position()
        with _transaction(connection):
            _forget(connection)
    entries = journal.read(last)
    while True:
        with _transaction(connection):
            count = 0
            for found in entries:
                count += 1
                begin = last.offset if found.end.generation == last.generation else 0
                if found.end.generation != last.generation and last != Position():
                    _forget(connection)  # the journal was compacted: its new file tells everything again
                last = found.end
                if isinstance(found, Fault):
                    faults.append(found)
                else:
                    try:
                        event = decoded(found.data)
                        at = event.recorded or found.time
                        values = row(event, bytes(found.data), event.seq or found.seq, None, at)
                        connection.execute(_INSERT.format("event"), values)
                    except (ValueError, EventInvalid, OverflowError) as error:
                        reason = f"record {found.seq} is no event: {error}"
                        faults.append(Fault(begin, last.offset - begin - 1, reason, last))
                if count == _BATCH:
                    break
            if count:
                known = {"generation": last.generation, "offset": last.offset, "seq": last.seq, "hash": last.hash}
                connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(known.items()))
        if count < _BATCH:
            return faults


def _forget(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM event")
    connection.execute("DELETE FROM meta")


def _replaced(journal: Journal, known: Position) -> bool:
    """Whether the journal is not the one that the index was made of: an older one was restored, perhaps."""
    if known == Position():
        return False
    if not journal.path.exists() or journal.path.stat().st_size < known.offset:
        return True
    found = next(journal.read(known), None)
    return isinstance(found, Entry) and found.end.generation == known.generation and not found.chained


def _position(connection: sqlite3.Connection) -> Position:
    found = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    return Position(found["generation"], found["offset"], found["seq"], found["hash"]) if found else Position()


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path))}?mode={mode}"


def _opened(where: str) -> sqlite3.Connection:
    connection = sqlite3.connect(where, timeout=_PATIENCE, isolation_level=None, uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def _checked(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, if it is to an index of this version."""
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            raise sqlite3.DatabaseError("of another version")
        connection.execute("PRAGMA synchronous = OFF")  # the journal is the truth; this can be rebuilt
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _is_full(error: Exception) -> bool:
    return any(words in str(error) for words in ("full", "disk I/O", "No space"))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
