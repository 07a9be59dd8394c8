"""The traces as a table of SQL: `SELECT kind, count(*) FROM pathway.traces GROUP BY 1`.

DuckDB reads them from a Parquet file in the temporary folder, written when they were last asked for and have changed
since. It must not read the index itself: two copies of SQLite in one process drop each other's locks.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.catalog import faults
from lakehouse.catalog.attach import Database
from lakehouse.catalog.names import exactly, literal, quote
from lakehouse.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.catalog.metadata import Metadata
    from lakehouse.pathway.reading import Memory

SCHEMA, NAME = "pathway", "traces"

_NAMED = re.compile(r"\bpathway\b\"?\s*\.\s*\"?traces\b", re.I)
_VIEW = re.compile(r"\s*create\s+(?:or\s+replace\s+)?view\b", re.I)
_WRITES = re.compile(
    r"\s*(?:insert\s+(?:or\s+\w+\s+)?into|update|delete\s+from|truncate|merge\s+into|alter\s+\w+|drop\s+\w+(?:\s+if\s+exists)?"
    r"|(?:create|comment\s+on)\s+(?:or\s+replace\s+)?\w+(?:\s+if\s+not\s+exists)?)\s+\"?pathway\b\"?\s*\.",
    re.I,
)
_BATCH = 10_000  # traces
_KEPT = 2  # files: a query of another thread may be about to open the one before


class TraceTable:
    """`pathway.traces` in one DuckDB.

    Args:
        memory: whose traces.
        database: where they are to be read.
        metadata: the lake's catalog tables; a schema `pathway` of the lake goes before.
    """

    def __init__(self, memory: Memory, database: Database, metadata: Metadata) -> None:
        self._memory = memory
        self._database = database
        self._metadata = metadata
        self._lock = threading.Lock()
        self._position: int | None = None
        self._files: list[Path] = []

    def offer(self, sql: str) -> None:
        """Make the table ready if the SQL names it.

        Raises:
            QueryError: the SQL writes to it, or makes a view of it.
        """
        if not _NAMED.search(sql):
            return
        with self._lock, faults.translated():
            cursor = self._database.root.cursor()
            if SCHEMA in self._metadata.schemas(self._metadata.current()):  # the lake's own goes before
                cursor.execute(f"DETACH DATABASE IF EXISTS {SCHEMA}")
                return
            _check(sql)
            for statement in _made(self._newest()):
                cursor.execute(statement)

    def lent(self, sql: str, folder: Path) -> tuple[str, ...]:
        """Statements that make the table in another DuckDB, from a copy of the rows in `folder`.

        None where the SQL does not name it, or means a schema of the lake.
        """
        if not _NAMED.search(sql) or SCHEMA in self._metadata.schemas(self._metadata.current()):
            return ()
        with self._lock:
            newest = self._newest()
            copy = folder / newest.name
            if not copy.exists():
                for older in folder.glob("traces-*.parquet"):
                    older.unlink()
                shutil.copyfile(newest, copy)
        return _made(copy)

    def _newest(self) -> Path:
        """The file with the traces as they are now."""
        if (position := self._memory.position) != self._position:
            self._write()
            self._position = position
        return self._files[-1]

    def close(self) -> None:
        """Remove the files."""
        while self._files:
            self._files.pop().unlink(missing_ok=True)

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file, schema = self._database.temp / f"traces-{uuid.uuid4()}.parquet", _schema()
        self._files.append(file)
        with pq.ParquetWriter(file, schema, compression="snappy") as writer:
            for rows in self._memory.pages(_BATCH):
                columns = {field.name: [_value(field.name, row[field.name]) for row in rows] for field in schema}
                writer.write_table(pa.table(columns, schema=schema))
        while len(self._files) > _KEPT:
            self._files.pop(0).unlink(missing_ok=True)


def _made(file: Path) -> tuple[str, ...]:
    rows = f"read_parquet({literal(exactly(str(file)))}, hive_partitioning = false)"
    view = f"CREATE OR REPLACE VIEW {quote(SCHEMA, 'main', NAME)}"
    return (
        f"ATTACH IF NOT EXISTS ':memory:' AS {SCHEMA}",
        f"{view} AS SELECT * REPLACE (CAST(content AS JSON) AS content) FROM {rows}",
    )


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("uid", text),
            ("kind", text),
            ("content", text),
            ("tags", pa.list_(text)),
            ("scope", pa.map_(text, text)),
            ("version", pa.int32()),
            ("predecessor", text),
            ("replay_count", pa.int64()),
            ("retired", pa.bool_()),
            ("retired_reason", text),
            ("score", pa.float64()),
            ("created_at", time),
            ("updated_at", time),
            ("snapshot", pa.int64()),
        ]
    )


def _value(name: str, value: Any) -> Any:
    if name == "tags":
        return json.loads(value)
    if name == "scope":
        return list(json.loads(value).items())
    if name in ("created_at", "updated_at"):
        return datetime.fromisoformat(value)
    return bool(value) if name == "retired" else value


def _check(sql: str) -> None:
    if _VIEW.match(sql):
        raise QueryError(
            f"a view cannot read {SCHEMA}.{NAME}, which is not in the lake",
            hint=f"keep a copy: CREATE TABLE … AS FROM {SCHEMA}.{NAME}",
        )
    if _WRITES.match(sql):
        raise QueryError(f"{SCHEMA}.{NAME} can only be read", hint="lake.pathway.add, update and retire write")
