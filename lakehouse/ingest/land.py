"""Landing the rows of a source in a table, in their order.

DuckLake's own INSERT writes row groups in whatever order its threads finish
(https://github.com/duckdb/ducklake/issues/1356). Where Parquet holds every type exactly, the rows
are written by an ordered COPY into the table's folder and the file is handed to the catalog;
otherwise DuckLake inserts them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lakehouse.catalog import inlining, keeping
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import LANDED_PREFIX, Metadata, Relation
from lakehouse.catalog.names import exactly, literal, quote, shown
from lakehouse.errors import DiskFull, IngestError, LakehouseError
from lakehouse.ingest import exact

_EXACT = re.compile(
    r"^(?:BOOLEAN|U?(?:TINY|SMALL|BIG)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB|DATE"
    r"|TIMESTAMP(?: WITH TIME ZONE)?)$"
)
_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_OPTIONS = {
    "parquet_compression": "compression",
    "parquet_compression_level": "compression_level",
    "parquet_row_group_size": "row_group_size",
    "parquet_version": "parquet_version",
}
"""Options of a lake, a schema or a table, and those of COPY; by bytes, row groups would lose the order of the rows."""
_SPLIT = ("FLOAT", "DOUBLE")
"""The second version writes them as `BYTE_STREAM_SPLIT`, which Spark reads from 4.3 on only."""
_DICTIONARY = "12288"
"""Different values, a tenth of a whole row group; to try for a fifth, as is DuckDB's own way, is mostly in vain."""

Columns = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Landing:
    """Where rows go: a table that is there, or one to be made."""

    schema: str
    name: str
    columns: Columns
    """Names and types the rows are written with."""
    given: Columns
    """The same columns as the source has them, in its order and types."""
    relation: Relation | None
    """The table as it is, or None when it is made in this transaction."""
    create: bool
    empty: bool
    """Delete what is in the table first."""
    direct: bool = True
    """Whether `columns` are all columns of the table, so that a file of ours can be added."""
    large: bool = False
    """Whether the rows fill whole row groups."""

    @property
    def only_in_files(self) -> bool:
        """Whether the catalog could not give back its rows."""
        return keeping.only_in_files(self.columns)

    @property
    def sql(self) -> str:
        """The table's name in SQL."""
        return quote(ALIAS, self.schema, self.name)


def land(
    database: Database,
    catalog: Catalog,
    run: Callable[[str], duckdb.DuckDBPyConnection],
    landing: Landing,
    reading: str,
    undo: ExitStack,
) -> int:
    """Write all rows that `reading` (SQL after FROM) gives and return how many there were.

    Args:
        database: the lake's database.
        catalog: its catalog.
        run: executes SQL in the open transaction.
        landing: the table.
        reading: a FROM clause whose columns fit the table's by name.
        undo: what to do when the transaction is not committed after all.
    """
    if landing.create:
        columns = ", ".join(f"{quote(name)} {kind}" for name, kind in landing.columns)
        keeping.check(shown(landing.schema, landing.name), landing.columns, IngestError)
        transaction = catalog.writer.active
        if landing.only_in_files and transaction is not None:
            wide = keeping.wide(landing.columns)
            inlining.write_files(transaction, landing.schema, landing.name, wide=wide)
        run(f"CREATE TABLE {landing.sql} ({columns})")
    if landing.empty:
        run(f"DELETE FROM {landing.sql}")
    given = {name.lower(): kind for name, kind in landing.given}
    casts = ", ".join(exact.cast(name, given[name.lower()], kind) for name, kind in landing.columns)
    select = f"SELECT {casts} FROM {reading}"
    folder = _folder(database, catalog.metadata, landing)
    if folder is None:
        return _count(run(f"INSERT INTO {landing.sql} BY NAME {select}"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskFull(f"the folder {folder} cannot be made: {error.strerror}", hint="nothing was written") from None
    file = folder / f"{LANDED_PREFIX}{uuid.uuid4()}.parquet"
    undo.callback(_discard, catalog.metadata, file)
    with catalog.writer.flushing(file):
        rows = _count(run(f"COPY ({select}) TO {literal(str(file))} ({_format(catalog.metadata, landing)})"))
    if (
        rows > inlining.INLINED or landing.only_in_files or landing.create
    ):  # a first load gets a file: it reads as fast as any
        table = f"{literal(ALIAS)}, {literal(landing.name)}, {literal(str(file))}, schema => {literal(landing.schema)}"
        run(f"CALL ducklake_add_data_files({table})")
        return rows
    landed = f"read_parquet({literal(exactly(str(file)))}, hive_partitioning = false)"
    run(f"INSERT INTO {landing.sql} BY NAME FROM {landed}")
    file.unlink()
    return rows


def _format(metadata: Metadata, landing: Landing) -> str:
    """The options of COPY: what was set for the table, else for its schema, else for the lake; else ours."""
    table = "NULL" if landing.relation is None else str(landing.relation.id)
    metadata.current()
    rows = metadata.rows(
        "ss",
        "SELECT m.key, m.value FROM ducklake_metadata m LEFT JOIN ducklake_schema s"
        " ON m.scope = 'schema' AND s.schema_id = m.scope_id AND s.end_snapshot IS NULL WHERE m.scope IS NULL"
        f" OR s.schema_name = {literal(landing.schema)} OR (m.scope = 'table' AND m.scope_id = {table})"
        " ORDER BY m.scope IS NOT NULL, m.scope = 'table'",
    )
    split = any(kind in _SPLIT for _, kind in landing.columns)
    chosen = {} if split else {"parquet_version": "V2"}
    chosen |= {_OPTIONS[key]: value for key, value in rows if key in _OPTIONS}  # the last of each is the nearest
    if landing.large and "row_group_size" not in chosen:
        chosen["dictionary_size_limit"] = _DICTIONARY
    return ", ".join(["FORMAT parquet", *(f"{option} {literal(value)}" for option, value in chosen.items())])


def _discard(metadata: Metadata, file: Path) -> None:
    """Remove a file that was written for a commit that did not come about."""
    try:
        kept = metadata.has_file(file.name)
    except LakehouseError:
        return  # it cannot be told; a file too many does no harm, one too few does
    if not kept:
        file.unlink(missing_ok=True)


def _folder(database: Database, metadata: Metadata, landing: Landing) -> Path | None:
    """The table's data folder, or None when DuckLake must place the rows itself."""
    if not landing.direct or not all(_EXACT.match(kind) for _, kind in landing.columns):
        return None
    if landing.relation is None:
        # DuckLake names the folders of plainly named tables after them, others by an identifier of its own.
        if not (_PLAIN.match(landing.schema) and _PLAIN.match(landing.name)):
            return None
        return database.data / landing.schema / landing.name
    if metadata.placed_by_ducklake(landing.relation.id) or landing.relation.folder is None:
        return None
    return database.data / landing.relation.folder


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    row = connection.fetchone()
    return int(row[0]) if row else 0
