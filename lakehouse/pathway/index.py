"""The index of the traces: a SQLite file that all processes share, caught up from the journal, rebuilt when lost.

Every event of the journal is kept with its position, so that the state of any trace at any past position can be put
together again; `rows` is the one definition of what a trace is at a moment.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from lakehouse.errors import DiskFull, LakeUnusable
from lakehouse.journal import Journal
from lakehouse.pathway import events, place, words
from lakehouse.pathway.filters import moment
from lakehouse.records import Entry, Fault, Position

FORMAT = 2
_PATIENCE = 60.0
_BATCH = 20_000
_CACHE = 65_536
"""KiB; what a batch changes should not be written twice."""
_LIVE = "(SELECT t.*, v.content FROM trace t JOIN version v ON v.id = t.text)"
# The same columns, each as it was at a position; the latest event that set it decides.
_SINCE = "event e WHERE e.trace = t.id AND e.op <> 'add' AND e.seq <= :seq"
_PAST = f"""(SELECT t.id, t.uid, t.digest, t.kind, t.tags, t.scope, t.predecessor, t.snapshot, t.created_seq,
    t.created_at, v.version, v.content, v.id AS text,
    (SELECT count(*) FROM {_SINCE} AND e.op = 'replay') AS replay_count,
    coalesce((SELECT e.op = 'retire' FROM {_SINCE} AND e.op IN ('retire', 'restore') ORDER BY e.seq DESC LIMIT 1), 0)
        AS retired,
    (SELECT CASE e.op WHEN 'retire' THEN e.value END FROM {_SINCE} AND e.op IN ('retire', 'restore')
        ORDER BY e.seq DESC LIMIT 1) AS retired_reason,
    (SELECT e.value FROM {_SINCE} AND e.op = 'feedback' ORDER BY e.seq DESC LIMIT 1) AS score,
    coalesce((SELECT e.at FROM {_SINCE} ORDER BY e.seq DESC LIMIT 1), t.created_at) AS updated_at
    FROM trace t JOIN version v ON v.id = coalesce(
        (SELECT max(w.id) FROM version w WHERE w.trace = t.id AND w.version > 1 AND w.seq <= :seq), t.id)
    WHERE t.created_seq <= :seq)"""


class Index:
    """The index of one journal.

    Args:
        journal: the truth.
        path: the SQLite file.
    """

    def __init__(self, journal: Journal, path: Path) -> None:
        self._journal = journal
        self.path = path
        self.beside = path
        self._how: str | None = None
        self._settled = False
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._settling = threading.RLock()
        self._local = threading.local()

    @property
    def position(self) -> int:
        """The last event that is in the index."""
        return int(self._value("SELECT coalesce(max(seq), 0) FROM event"))

    def at(self, time: Any) -> int:
        """The last event before the first one that is later than a time.

        So what is written later with an earlier time, because a clock was set back, does not change the answer.
        """
        when = moment("as_of", time)
        later = self.ask("SELECT seq FROM event WHERE at > ? ORDER BY seq LIMIT 1", [when])
        return int(later[0][0]) - 1 if later else self.position

    def rows(self, where: str, parameters: Sequence[Any] = (), *, seq: int | None = None) -> list[sqlite3.Row]:
        """Traces as they are, or were at a position; `where` is SQL over `t`, with what may follow it."""
        state = _LIVE if seq is None else _PAST.replace(":seq", str(int(seq)))
        return self.ask(f"SELECT t.* FROM {state} t WHERE {where}", parameters)

    def ask(self, sql: str, parameters: Any = ()) -> list[sqlite3.Row]:
        """The rows of a query on the index, which is caught up before."""
        self.catch_up()
        with self._explained():
            return self._connection().execute(sql, parameters).fetchall()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One state of the index for several questions of this thread, whatever is written meanwhile."""
        self.catch_up()
        with self._explained():
            connection = self._connection()
            connection.execute("BEGIN")
        self._local.reading = True
        try:
            yield
        finally:
            self._local.reading = False
            connection.execute("COMMIT")

    @property
    def end(self) -> Position:
        """How far the journal is in the index as it is, not caught up."""
        with self._explained():
            return self._known(self._connection())

    def named(self, uids: Sequence[str]) -> tuple[Position, str | None]:
        """One of some uids that is in the index as it is, not caught up, and how far the journal is in it."""
        with self._explained(), _transaction(self._connection(), "BEGIN") as connection:
            known = self._known(connection)
            sql = "SELECT uid FROM trace WHERE uid IN (SELECT value FROM json_each(?)) LIMIT 1"
            found = connection.execute(sql, [msgspec.json.encode(uids).decode()]).fetchone()
        return known, found[0] if found else None

    def texts(self, seq: int) -> int:
        """How many texts were written up to a position."""
        found = self.ask("SELECT texts FROM event WHERE seq <= ? ORDER BY seq DESC LIMIT 1", [seq])
        return int(found[0][0]) if found else 0

    def ranking(self, seq: int) -> words.Ranking:
        """Scores of the texts up to a position; use it inside `reading`."""
        texts = self.texts(seq)
        length = self.ask("SELECT length FROM version WHERE id = ?", [texts - 1])
        return words.Ranking(self._connection(), texts, length[0][0] if length else 0)

    def terms(self, query: str) -> dict[str, int]:
        """The different words of a query, as they are in the index, and the numbers that stand for them."""
        with self._explained():
            self._connection()
            found: dict[str, int] = self._local.terms.named(query)
            return found

    def catch_up(self) -> None:
        """Apply what the journal has and the index has not; cheap when there is nothing."""
        if getattr(self._local, "reading", False):
            return
        with self._explained():
            seen = self._signature()
            if seen is not None and seen == getattr(self._local, "seen", None):
                return
            connection = self._connection()
            if self._behind(self._known(connection)):
                if self._how is not None:  # it cannot be caught up where it is
                    self._move()
                    connection = self._connection()
                with self._alone():
                    connection.execute(f"PRAGMA cache_size = -{_CACHE}")
                    self._apply(connection)
                    connection.execute("PRAGMA cache_size = -2000")
        self._local.seen = seen

    def rebuild(self) -> None:
        """Forget everything and read the journal again."""
        self.close()
        with self._alone():
            self._remove()
        self.catch_up()

    def close(self) -> None:
        """Close this thread's connection, and remove what was made in the temporary folder."""
        self._disconnect()
        with self._settling:
            if self._temporary is not None:
                self._temporary.cleanup()
            self.path, self._how, self._settled, self._temporary = self.beside, None, False, None

    def scratch(self) -> Path:
        """A folder for what cannot be made beside the journal; it is removed by `close`."""
        with self._settling:
            if self._temporary is None:
                self._temporary = place.temporary(self._journal.path)
            return Path(self._temporary.name)

    def _settle(self) -> None:
        """See where the index can be: beside the journal, unless nothing can be written there."""
        with self._settling:
            if self._settled:
                return
            if not place.writable(self.beside):
                self._how = place.as_it_is(self.beside)
                if self._how is None:
                    self.path = self.scratch() / self.beside.name
            self._settled = True

    def _move(self) -> None:
        """Go on with a copy in the temporary folder."""
        with self._settling:
            if self._how is not None:
                copy = self.scratch() / self.beside.name
                with closing(self._connected()) as source, closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
                self.path, self._how = copy, None
        self._disconnect()

    def _disconnect(self) -> None:
        if connection := getattr(self._local, "connection", None):
            connection.close()
        self._local = threading.local()

    def _apply(self, connection: sqlite3.Connection) -> None:
        """Read the journal from where the index ends, and commit what it says now and then."""
        faults: list[Fault] = []
        with _transaction(connection):
            last = self._known(connection)  # another process may have been faster
            if self._replaced(last):
                events.forget(connection)
                last = Position()
            applying = events.Applying(connection, self._local.terms)
            for count, found in enumerate(self._journal.read(last), start=1):
                if found.end.generation != last.generation and last != Position():
                    events.forget(connection)  # the journal was compacted: its new file tells everything again
                    applying = events.Applying(connection, self._local.terms)
                begin = last.offset if found.end.generation == last.generation else 0
                last = found.end
                if isinstance(found, Fault):
                    faults.append(found)
                elif wrong := _applied(applying, found):
                    reason = f"record {found.seq} cannot be applied: {wrong}"
                    faults.append(Fault(begin, last.offset - begin - 1, reason, last))
                if count % _BATCH == 0:  # a transaction is not larger than needed
                    applying.flush()
                    self._remember(connection, last, faults)
                    connection.execute("COMMIT")
                    connection.execute("BEGIN IMMEDIATE")
            applying.finish()
            self._remember(connection, last, faults)

    def _remember(self, connection: sqlite3.Connection, end: Position, faults: list[Fault]) -> None:
        """What is not applied is kept aside before the index goes on: a full disk then stops both."""
        if self.path == self.beside:
            self._journal.isolate(faults)
        faults.clear()
        values = {"generation": end.generation, "offset": end.offset, "seq": end.seq, "hash": end.hash}
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def _behind(self, known: Position) -> bool:
        """Whether the journal says more than the index, or another thing."""
        return self._replaced(known) or next(self._journal.read(known), None) is not None

    def _replaced(self, known: Position) -> bool:
        """Whether the journal is not the one that the index was made of: an older one was restored, perhaps."""
        if known == Position():
            return False
        if not self._journal.path.exists() or self._journal.path.stat().st_size < known.offset:
            return True
        found = next(self._journal.read(known), None)
        return isinstance(found, Entry) and found.end.generation == known.generation and not found.chained

    @staticmethod
    def _known(connection: sqlite3.Connection) -> Position:
        found = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        if "offset" not in found:
            return Position()
        return Position(found["generation"], found["offset"], found["seq"], found["hash"])

    def _value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return self.ask(sql, parameters)[0][0]

    def _signature(self) -> Any:
        """What changes when the journal grows or the index is another file."""
        try:
            journal, index = self._journal.path.stat(), self.path.stat()
        except FileNotFoundError:
            return None
        if self._how is not None and "immutable" in self._how and self.path.with_name(self.path.name + "-wal").exists():
            self.close()  # somebody writes it now, and it can be read beside what they write
        return journal.st_ino, journal.st_size, journal.st_mtime_ns, index.st_ino

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and not getattr(self._local, "reading", False):
            with suppress(FileNotFoundError):
                if self.path.stat().st_ino == self._local.file:
                    return connection
            self._disconnect()  # somebody deleted the file; it is made again
            connection = None
        if connection is None:
            self._settle()
            connection = self._opened()
            self._local.connection, self._local.file = connection, self.path.stat().st_ino
            self._local.terms = words.Terms(connection)
        return connection

    def _opened(self) -> sqlite3.Connection:
        try:
            if self.path.exists():
                return self._connected()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            if self._how is not None:
                self.path, self._how = self.scratch() / self.beside.name, None
        with self._alone():  # missing, damaged, or of another version
            with suppress(sqlite3.DatabaseError):
                if self.path.exists():
                    return self._connected()
            self._remove()
            connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            with _transaction(connection):
                for statement in f"{events.SCHEMA};\n{words.SCHEMA}".split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.close()
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        where = f"file:{quote(str(self.path))}?{self._how or 'mode=rw'}"
        connection = sqlite3.connect(where, timeout=_PATIENCE, isolation_level=None, uri=True)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                raise sqlite3.DatabaseError("of another version")
            connection.execute("PRAGMA synchronous = NORMAL")  # the journal is the truth; this can be rebuilt
            connection.execute("PRAGMA mmap_size = 4294967296")
        except sqlite3.DatabaseError:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        connection.create_function("fold", 1, _fold, deterministic=True)
        return connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the index: one process writes it, the others wait for what it finds."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a process that was forked meanwhile has it open too
            os.close(lock)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise DiskFull(f"{self.path} could not be written: {error}") from None
            raise LakeUnusable(
                f"{self.path} cannot be used: {error}", hint="it may be deleted: it is rebuilt"
            ) from None
        except sqlite3.DatabaseError as error:
            raise LakeUnusable(f"{self.path} is damaged: {error}", hint="delete it: it is rebuilt") from None
        except OSError as error:
            raise LakeUnusable(f"{self.path} cannot be used: {error.strerror}") from None


def _applied(applying: events.Applying, entry: Entry) -> str:
    """Apply the events of a record; what was wrong, or nothing. One that does not fit costs only itself."""
    try:
        data = msgspec.json.decode(entry.data)
        at = entry.time.isoformat(timespec="microseconds")
        listed = list(data.get("batch", [data]))
    except (ValueError, AttributeError, TypeError) as error:
        return str(error)
    wrong = ""
    for event in listed:
        try:
            applying.apply(event.get("seq", entry.seq), event.get("at", at), event)
        except (
            ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
            sqlite3.InterfaceError, sqlite3.ProgrammingError,  # a value that SQLite has no column for
        ) as error:  # fmt: skip
            wrong = wrong or str(error)
    return wrong


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
    connection.execute(begin)
    try:
        yield connection
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _fold(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value
