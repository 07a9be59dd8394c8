"""The index of the traces: a SQLite file that all processes share, caught up from the journal, rebuilt when lost.

Every event of the journal is kept with its position, so that the state of any trace at any past position can be put
together again. `state(as_of)` is the one definition of what a trace is at a moment; everything reads through it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lakehouse.errors import DiskFull, LakeUnusable
from lakehouse.journal import Journal
from lakehouse.pathway.filters import moment
from lakehouse.pathway.model import digest, words
from lakehouse.records import Entry, Position

FORMAT = 1
_PATIENCE = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value);
CREATE TABLE IF NOT EXISTS trace (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, kind TEXT, tags TEXT NOT NULL,
    scope TEXT NOT NULL, predecessor TEXT, snapshot INTEGER, created_seq INTEGER NOT NULL, created_at TEXT NOT NULL,
    version INTEGER NOT NULL, content TEXT NOT NULL, replay_count INTEGER NOT NULL DEFAULT 0,
    retired INTEGER NOT NULL DEFAULT 0, retired_reason TEXT, score REAL, updated_at TEXT NOT NULL, text INTEGER);
CREATE INDEX IF NOT EXISTS trace_digest ON trace (digest);
CREATE INDEX IF NOT EXISTS trace_predecessor ON trace (predecessor) WHERE predecessor IS NOT NULL;
CREATE INDEX IF NOT EXISTS trace_kind ON trace (kind);
CREATE TABLE IF NOT EXISTS version (
    seq INTEGER PRIMARY KEY, trace INTEGER NOT NULL, version INTEGER NOT NULL, at TEXT NOT NULL, content TEXT NOT NULL,
    length INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS version_trace ON version (trace, seq);
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY, trace INTEGER NOT NULL, op TEXT NOT NULL, at TEXT NOT NULL, value);
CREATE INDEX IF NOT EXISTS event_trace ON event (trace, seq);
CREATE VIRTUAL TABLE IF NOT EXISTS text USING fts5(words, content='', tokenize='porter unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE IF NOT EXISTS posting USING fts5vocab(text, 'instance')
"""
_QUERY = """
CREATE VIRTUAL TABLE temp.asked USING fts5(words, tokenize='porter unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE temp.term USING fts5vocab(temp, asked, 'row')
"""
_LIVE = "trace"
# The same columns, each as it was at a position; the latest event that set it decides.
_PAST = """(SELECT t.id, t.uid, t.digest, t.kind, t.tags, t.scope, t.predecessor, t.snapshot, t.created_seq, t.created_at,
    v.version, v.content, v.seq AS text,
    (SELECT count(*) FROM event e WHERE e.trace = t.id AND e.op = 'replay' AND e.seq <= :seq) AS replay_count,
    coalesce((SELECT e.op = 'retire' FROM event e WHERE e.trace = t.id AND e.op IN ('retire', 'restore')
        AND e.seq <= :seq ORDER BY e.seq DESC LIMIT 1), 0) AS retired,
    (SELECT CASE e.op WHEN 'retire' THEN e.value END FROM event e WHERE e.trace = t.id
        AND e.op IN ('retire', 'restore') AND e.seq <= :seq ORDER BY e.seq DESC LIMIT 1) AS retired_reason,
    (SELECT e.value FROM event e WHERE e.trace = t.id AND e.op = 'feedback' AND e.seq <= :seq
        ORDER BY e.seq DESC LIMIT 1) AS score,
    (SELECT e.at FROM event e WHERE e.trace = t.id AND e.seq <= :seq ORDER BY e.seq DESC LIMIT 1) AS updated_at
    FROM trace t JOIN version v
        ON v.seq = (SELECT max(w.seq) FROM version w WHERE w.trace = t.id AND w.seq <= :seq)
    WHERE t.created_seq <= :seq)"""

# Okapi BM25 (Robertson et al., TREC-3, 1994) with the usual k1 and b, over the versions written up to the position:
# unlike FTS5's own bm25() it does not change when more is written later.
_K1, _B = 1.2, 0.75
_SCORES = f"""
WITH hit AS (
    SELECT p.term AS term, p.doc AS doc, count(*) AS tf, v.length AS length
    FROM posting p JOIN version v ON v.seq = p.doc
    WHERE p.term = :term AND v.seq <= :seq GROUP BY p.doc),
df AS (SELECT count(*) AS n FROM hit)
SELECT doc, ln(1 + (:total - n + 0.5) / (n + 0.5)) * tf * {_K1 + 1} / (tf + {_K1} * (1 - {_B} + {_B} * length / :mean))
FROM hit, df"""


class Index:
    """The index of one journal.

    Args:
        journal: the truth.
        path: the SQLite file.
    """

    def __init__(self, journal: Journal, path: Path) -> None:
        self._journal = journal
        self._path = path
        self._local = threading.local()

    @property
    def position(self) -> int:
        """The last event that is in the index."""
        return int(self._value("SELECT coalesce(max(seq), 0) FROM event"))

    def at(self, time: Any) -> int:
        """The last event at or before a time."""
        return int(self._value("SELECT coalesce(max(seq), 0) FROM event WHERE at <= ?", [moment("as_of", time)]))

    def rows(self, where: str, parameters: Sequence[Any] = (), *, seq: int | None = None) -> list[sqlite3.Row]:
        """Traces as they are, or were at a position; `where` is SQL over `t`, with what may follow it."""
        state = _LIVE if seq is None else _PAST.replace(":seq", str(int(seq)))
        return self.ask(f"SELECT t.* FROM {state} t WHERE {where}", parameters)

    def ask(self, sql: str, parameters: Any = ()) -> list[sqlite3.Row]:
        """The rows of a query on the index, which is caught up before."""
        self.catch_up()
        with self._explained():
            return self._connection().execute(sql, parameters).fetchall()

    def scores(self, query: str, seq: int) -> dict[int, tuple[float, dict[str, float]]]:
        """BM25 of every version up to a position that has one of the words: total, and by word.

        Args:
            query: words in any order; each is stemmed as the texts were.
            seq: the position.
        """
        self.catch_up()
        result: dict[int, tuple[float, dict[str, float]]] = {}
        with self._explained():
            connection = self._connection()
            total, mean = connection.execute(
                "SELECT count(*), avg(length) FROM version WHERE seq <= ?", [seq]
            ).fetchone()
            connection.execute("DELETE FROM temp.asked")
            connection.execute("INSERT INTO temp.asked VALUES (?)", [query])
            for (term,) in connection.execute("SELECT term FROM temp.term").fetchall():
                values = {"term": term, "seq": seq, "total": total, "mean": mean or 1.0}
                for document, score in connection.execute(_SCORES, values):
                    before, parts = result.get(document, (0.0, {}))
                    result[document] = (before + score, {**parts, term: score})
        return result

    def catch_up(self) -> None:
        """Apply what the journal has and the index has not; cheap when there is nothing."""
        try:
            size = self._journal.path.stat()
        except FileNotFoundError:
            size = None
        seen = (size.st_ino, size.st_size, size.st_mtime_ns) if size else None
        if seen is not None and seen == getattr(self._local, "seen", None):
            return
        with self._explained():
            connection = self._connection()
            known = self._known(connection)
            if size is None and known == Position():
                return
            with _transaction(connection):
                known = self._known(connection)  # another process may have been faster
                self._apply(connection, known)
        self._local.seen = seen

    def rebuild(self) -> None:
        """Forget everything and read the journal again."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self.catch_up()

    def close(self) -> None:
        """Close this thread's connection."""
        if connection := getattr(self._local, "connection", None):
            connection.close()
        self._local = threading.local()

    def _apply(self, connection: sqlite3.Connection, known: Position) -> None:
        last = known

        def apply(entry: Entry) -> None:
            nonlocal last
            if entry.end.generation != last.generation:
                _forget(connection)  # the journal was compacted: its new file tells everything again
            last = entry.end
            data = msgspec.json.decode(entry.data)
            events = data.get("batch", [data])
            at = entry.time.isoformat(timespec="microseconds")
            for event in events:
                _event(connection, event.get("seq", entry.seq), event.get("at", at), event)

        end, faults = self._journal.replay(apply, known)
        if end == known and not self._shrunk(known):
            return
        if end == known:
            _forget(connection)
            end, faults = self._journal.replay(apply)
        values = {"generation": end.generation, "offset": end.offset, "seq": end.seq, "hash": end.hash}
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))
        connection.execute(
            "INSERT INTO meta VALUES ('faults', ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [len(faults)],
        )

    def _shrunk(self, known: Position) -> bool:
        """Whether the journal is shorter than what is in the index: it was replaced, by a restore perhaps."""
        return not self._journal.path.exists() or self._journal.path.stat().st_size < known.offset

    @staticmethod
    def _known(connection: sqlite3.Connection) -> Position:
        found = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        if "offset" not in found:
            return Position()
        return Position(found["generation"], found["offset"], found["seq"], found["hash"])

    def _value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return self.ask(sql, parameters)[0][0]

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._local.connection = self._opened()
        return connection

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # the journal is the truth; this can be rebuilt
            if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, FORMAT):
                raise sqlite3.DatabaseError("of another version")
            with _transaction(connection):
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            for statement in _QUERY.split(";\n"):
                connection.execute(statement)
        except sqlite3.OperationalError:
            connection.close()
            raise
        except sqlite3.DatabaseError:  # damaged, or of another version: it is rebuilt
            connection.close()
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._opened()
        connection.row_factory = sqlite3.Row
        connection.create_function("fold", 1, _fold, deterministic=True)
        return connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise DiskFull(f"{self._path} could not be written: {error}") from None
            raise LakeUnusable(
                f"{self._path} cannot be used: {error}", hint="it may be deleted: it is rebuilt"
            ) from None
        except sqlite3.DatabaseError as error:
            raise LakeUnusable(f"{self._path} is damaged: {error}", hint="delete it: it is rebuilt") from None


def _event(connection: sqlite3.Connection, seq: int, at: str, event: dict[str, Any]) -> None:
    """Apply one event; one that does not fit changes nothing and is an error, which puts it in quarantine."""
    operation, uid = event["op"], event["uid"]
    if operation == "add":
        text = _json(event["content"])
        row = connection.execute(
            "INSERT OR IGNORE INTO trace (uid, digest, kind, tags, scope, predecessor, snapshot, created_seq, created_at,"
            " version, content, updated_at, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)",
            [uid, digest(event["content"]), event.get("kind"), _json(event.get("tags", [])),
             _json(event.get("scope", {})), event.get("predecessor"), event.get("snapshot"), seq, at, text, at, seq],
        )  # fmt: skip
        if not row.rowcount:
            raise ValueError(f"there is a trace {uid} already")
        found = " ".join((words(event["content"]), event.get("kind") or "", *event.get("tags", ())))
        _version(connection, int(row.lastrowid or 0), 1, seq, at, text, found)
        connection.execute("INSERT INTO event VALUES (?, ?, 'add', ?, NULL)", [seq, row.lastrowid, at])
        return
    known = connection.execute("SELECT id, version FROM trace WHERE uid = ?", [uid]).fetchone()
    if known is None:
        raise ValueError(f"there is no trace {uid}")
    trace, version = known
    value: Any = None
    values: list[Any] = []
    if operation == "update":
        text = _json(event["content"])
        changes = "version = ?, content = ?, digest = ?, text = ?"
        values = [version + 1, text, digest(event["content"]), seq]
        _version(connection, trace, version + 1, seq, at, text, words(event["content"]))
    elif operation == "replay":
        changes = "replay_count = replay_count + 1"
    elif operation == "retire":
        value = event.get("reason")
        changes, values = "retired = 1, retired_reason = ?", [value]
    elif operation == "restore":
        changes = "retired = 0, retired_reason = NULL"
    elif operation == "feedback":
        value = event["score"]
        changes, values = "score = ?", [value]
    else:
        raise ValueError(f"'{operation}' is no operation")
    connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", [seq, trace, operation, at, value])
    connection.execute(f"UPDATE trace SET {changes}, updated_at = ? WHERE id = ?", [*values, at, trace])


def _version(
    connection: sqlite3.Connection, trace: int, version: int, seq: int, at: str, content: str, text: str
) -> None:
    length = max(1, len(text.split()))
    connection.execute("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?)", [seq, trace, version, at, content, length])
    connection.execute("INSERT INTO text (rowid, words) VALUES (?, ?)", [seq, text])


def _forget(connection: sqlite3.Connection) -> None:
    for table in ("meta", "trace", "version", "event"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("INSERT INTO text (text) VALUES ('delete-all')")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _fold(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value
