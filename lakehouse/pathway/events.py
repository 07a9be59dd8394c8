"""The events of the journal as rows of the index: what a trace is now, what it was, and its words."""

from __future__ import annotations

import sqlite3
import zlib
from dataclasses import dataclass
from typing import Any

import msgspec

from lakehouse.pathway.model import digest, words
from lakehouse.pathway.words import Terms, add_to_tail, packed_label, seal

# A trace has the number of its first text, so that one number serves for both.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value);
CREATE TABLE trace (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, kind TEXT, tags TEXT NOT NULL,
    scope TEXT NOT NULL, predecessor TEXT, snapshot INTEGER, created_seq INTEGER NOT NULL, created_at TEXT NOT NULL,
    version INTEGER NOT NULL, text INTEGER NOT NULL, replay_count INTEGER NOT NULL DEFAULT 0, retired INTEGER NOT NULL DEFAULT 0,
    retired_reason TEXT, score REAL, updated_at TEXT NOT NULL);
CREATE INDEX trace_predecessor ON trace (predecessor) WHERE predecessor IS NOT NULL;
CREATE TABLE version (
    id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, trace INTEGER NOT NULL, version INTEGER NOT NULL, at TEXT NOT NULL,
    content TEXT NOT NULL, length INTEGER NOT NULL, mark INTEGER NOT NULL);
CREATE INDEX version_later ON version (trace, id) WHERE version > 1;
CREATE TABLE event (seq INTEGER PRIMARY KEY, trace INTEGER NOT NULL, op TEXT NOT NULL, at TEXT NOT NULL, value,
    texts INTEGER NOT NULL);
CREATE INDEX event_later ON event (trace, seq) WHERE op <> 'add'
"""
# Made when the first events are in: filling it in their order is slow.
DIGESTS = "CREATE INDEX IF NOT EXISTS trace_digest ON trace (digest)"

_FLUSH = 2000
_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class _Text:
    """What is kept of a content."""

    content: str
    digest: str
    words: str
    labels: list[tuple[str, str]]

    @staticmethod
    def of(content: Any, kind: str | None, tags: list[str], scope: dict[str, str]) -> _Text:
        labels = [("tags", tag) for tag in tags] + [(f"scope.{key}", value) for key, value in scope.items()]
        labels += [("kind", kind)] if kind is not None else []
        found = " ".join((words(content), kind or "", *tags))
        return _Text(_json(content), digest(content), found, labels)


class Applying:
    """Applies events inside a transaction; `flush` before it is committed.

    Args:
        connection: of the index.
        terms: its words.
    """

    def __init__(self, connection: sqlite3.Connection, terms: Terms) -> None:
        self._connection = connection
        self._terms = terms
        last = connection.execute("SELECT id, length, mark FROM version ORDER BY id DESC LIMIT 1").fetchone()
        self._next: int = last[0] + 1 if last else 0
        self._length: int = last[1] if last else 0
        self._mark: int = last[2] if last else 0
        self._versions: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._texts: list[str] = []
        self._labels: list[bytes] = []
        self._known_labels: dict[tuple[str, str], bytes] = {}

    def apply(self, seq: int, at: str, event: dict[str, Any]) -> None:
        """Apply one event.

        Raises:
            ValueError, KeyError, TypeError: it does not fit; nothing is changed.
        """
        operation, uid = event["op"], event["uid"]
        if operation == "add":
            self._add(seq, at, uid, event)
            return
        trace = self._connection.execute(
            "SELECT id, version, kind, tags, scope FROM trace WHERE uid = ?", [uid]
        ).fetchone()
        if trace is None:
            raise ValueError(f"there is no trace {uid}")
        identity, version, kind, tags, scope = trace
        value: Any = None
        values: list[Any] = []
        if operation == "update":
            text = _Text.of(event["content"], kind, msgspec.json.decode(tags), msgspec.json.decode(scope))
            changes, values = "digest = ?, text = ?, version = ?", [text.digest, self._next, version + 1]
            self._keep(seq, at, identity, version + 1, text)
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
        self._connection.execute(f"UPDATE trace SET {changes}, updated_at = ? WHERE id = ?", [*values, at, identity])
        self._events.append((seq, identity, operation, at, value, self._next))

    def _add(self, seq: int, at: str, uid: str, event: dict[str, Any]) -> None:
        kind, tags, scope = event.get("kind"), event.get("tags", []), event.get("scope", {})
        text = _Text.of(event["content"], kind, tags, scope)
        identity = self._next
        row = self._connection.execute(
            "INSERT OR IGNORE INTO trace (id, uid, digest, kind, tags, scope, predecessor, snapshot, created_seq,"
            " created_at, version, text, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
            (identity, uid, text.digest, kind, _json(tags), _json(scope), event.get("predecessor"),
             event.get("snapshot"), seq, at, identity, at),
        )  # fmt: skip
        if not row.rowcount:
            raise ValueError(f"there is a trace {uid} already")
        self._keep(seq, at, identity, 1, text)
        self._events.append((seq, identity, "add", at, None, self._next))

    def _keep(self, seq: int, at: str, trace: int, version: int, text: _Text) -> None:
        self._versions.append((self._next, seq, trace, version, at, text.content))
        self._texts.append(text.words)
        if len(self._known_labels) > _REMEMBERED:
            self._known_labels.clear()
        for label in text.labels:
            if label not in self._known_labels:
                self._known_labels[label] = packed_label(*label)
        self._labels.append(b"".join({self._known_labels[label] for label in text.labels}))
        self._next += 1
        if len(self._texts) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what was held back."""
        first = self._next - len(self._texts)
        terms = self._terms.of(self._texts)
        rows = []
        for version, text, found in zip(self._versions, self._texts, terms, strict=True):
            self._length += len(found) // 8
            self._mark = zlib.crc32(text.encode(), self._mark)
            rows.append((*version, self._length, self._mark))
        self._connection.executemany("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        add_to_tail(self._connection, first, terms, self._labels)
        seal(self._connection, small=False)
        self._connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", self._events)
        for held in (self._versions, self._texts, self._labels, self._events):
            held.clear()

    def finish(self) -> None:
        """At the end of all events: what makes the next readers fast."""
        self.flush()
        seal(self._connection, small=True)
        self._connection.execute(DIGESTS)


def forget(connection: sqlite3.Connection) -> None:
    """Empty the index."""
    for table in ("meta", "trace", "version", "event", "block", "posting", "tail"):
        connection.execute(f"DELETE FROM {table}")


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
