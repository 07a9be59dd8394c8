"""How a table lies on the disk: its data files, and how rows written from now on are partitioned and sorted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.metadata import visible
from lakehouse.catalog.names import quote
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.catalog.table import Column, Table

_TRANSFORM = re.compile(r"\s*(\w+)\s*\(\s*(?:(\d+)\s*,\s*)?(.+?)\s*\)\s*", re.S)
_SORT = re.compile(r"(.+?)(?:\s+(asc|desc))?(?:\s+nulls\s+(first|last))?\s*", re.I | re.S)
_PARTS = ("year", "month", "day", "hour", "bucket")
_NESTED = re.compile(r"STRUCT\(|MAP\(|UNION\(|.*\]$|VARIANT|GEOMETRY|BLOB|JSON", re.S)
_HINT = "write a column, or year, month, day or hour(column), or bucket(16, column)"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table."""

    path: str
    rows: int
    """Rows in the file, those deleted since included."""
    deleted: int
    """How many of them are deleted."""
    bytes: int
    snapshot: int
    """The commit that brought it."""
    partition: dict[str, str | None]
    """The value of each part of the partitioning it was written under; empty when there was none."""

    def to_dict(self) -> dict[str, Any]:
        """All facts as values that JSON has."""
        return {name: getattr(self, name) for name in ("path", "rows", "deleted", "bytes", "snapshot", "partition")}


def files(table: Table) -> list[DataFile]:
    """The data files of a table at the snapshot it is read at, oldest first; see `Table.files`."""
    metadata, version, relation = table._catalog.metadata, table.version, table._refreshed()
    if relation.kind == "view":
        return []
    root = table._catalog._database.data / (relation.folder or "")
    deleted = _deleted(table, version)
    partitions = _partitions(table)
    rows = metadata.rows(
        "isiiii",
        "SELECT data_file_id, path, path_is_relative, record_count, file_size_bytes, begin_snapshot"
        f" FROM ducklake_data_file WHERE table_id = {relation.id} AND {visible(version)} ORDER BY data_file_id",
    )
    return [
        DataFile(
            str(root / path) if relative else path, count, deleted.get(id, 0), size, snapshot, partitions.get(id, {})
        )
        for id, path, relative, count, size, snapshot in rows
    ]


def _deleted(table: Table, version: int) -> dict[int, int]:
    """Deleted rows by data file, from delete files and from those that the catalog keeps itself."""
    metadata, id = table._catalog.metadata, table.relation.id
    found: dict[int, int] = {}
    parts = [
        f"SELECT data_file_id, delete_count FROM ducklake_delete_file WHERE table_id = {id} AND {visible(version)}"
    ]
    inlined = f"ducklake_inlined_delete_{id}"
    if metadata.rows("s", f"SELECT name FROM sqlite_master WHERE name = '{inlined}'"):
        parts.append(f"SELECT file_id, count(*) FROM {inlined} WHERE begin_snapshot <= {version} GROUP BY file_id")
    for file, count in metadata.rows("ii", " UNION ALL ".join(parts)):
        found[file] = found.get(file, 0) + count
    return found


def _partitions(table: Table) -> dict[int, dict[str, str | None]]:
    """The partition of every file by its id."""
    found: dict[int, dict[str, str | None]] = {}
    rows = table._catalog.metadata.rows(
        "isss",
        "SELECT v.data_file_id, p.transform, (SELECT c.column_name FROM ducklake_column c WHERE"
        " c.table_id = v.table_id AND c.column_id = p.column_id ORDER BY c.begin_snapshot DESC LIMIT 1),"
        " v.partition_value FROM ducklake_file_partition_value v"
        " JOIN ducklake_data_file f ON f.data_file_id = v.data_file_id"
        " JOIN ducklake_partition_column p ON p.partition_id = f.partition_id"
        f" AND p.partition_key_index = v.partition_key_index WHERE v.table_id = {table.relation.id}"
        " ORDER BY v.data_file_id, v.partition_key_index",
    )
    for file, transform, column, value in rows:
        found.setdefault(file, {})[_written(transform, column)] = value
    return found


def partitioning(table: Table) -> tuple[str, ...]:
    """How new rows are partitioned, as `set_partitioning` takes it."""
    rows = table._catalog.metadata.rows(
        "ss",
        "SELECT p.transform, c.column_name FROM ducklake_partition_info i JOIN ducklake_partition_column p"
        " USING (partition_id) JOIN ducklake_column c ON c.table_id = i.table_id AND c.column_id = p.column_id"
        f" AND {visible(table.version, 'c')} WHERE i.table_id = {table.relation.id} AND {visible(table.version, 'i')}"
        " ORDER BY p.partition_key_index",
    )
    return tuple(_written(transform, column) for transform, column in rows)


def sorting(table: Table) -> tuple[str, ...]:
    """How new rows are sorted, as `set_sorting` takes it."""
    rows = table._catalog.metadata.rows(
        "sss",
        "SELECT e.expression, e.sort_direction, e.null_order FROM ducklake_sort_info i JOIN ducklake_sort_expression e"
        f" USING (sort_id) WHERE i.table_id = {table.relation.id} AND {visible(table.version, 'i')}"
        " ORDER BY e.sort_key_index",
    )
    return tuple(
        expression.strip('"').replace('""', '"')
        + (" desc" if direction == "DESC" else "")
        + (" nulls first" if nulls == "NULLS_FIRST" else "")
        for expression, direction, nulls in rows
    )


def _written(transform: str, column: str) -> str:
    if transform == "identity":
        return column
    if transform.startswith("bucket("):
        return f"{transform[:-1]}, {column})"
    return f"{transform}({column})"


def partition_clause(table: Table, parts: Sequence[str]) -> str:
    """What ALTER TABLE does to partition a table; without parts, to end it.

    Raises:
        ColumnNotFound: a part names no column.
        LakehouseError: a part is none that DuckLake can partition by.
    """
    if not parts:
        return "RESET PARTITIONED BY"
    columns = table.schema
    return f"SET PARTITIONED BY ({', '.join(_part(table, columns, part) for part in parts)})"


def _part(table: Table, columns: list[Column], part: str) -> str:
    if column := _column(columns, part):
        if _NESTED.match(column.type):
            raise LakehouseError(f"a table cannot be partitioned by {column.name} ({column.type})", hint=_HINT)
        return quote(column.name)
    match = _TRANSFORM.fullmatch(part)
    if match is None:
        table._column(part)  # says which column it may have meant
        raise LakehouseError(f"a table cannot be partitioned by '{part}'", hint=_HINT)
    transform, number, name = match[1].lower(), match[2], match[3]
    if transform not in _PARTS or (transform == "bucket") != (number is not None):
        raise LakehouseError(f"a table cannot be partitioned by '{part}'", hint=_HINT)
    column = _column(columns, name) or _column(columns, table._column(name))
    assert column is not None
    if transform == "bucket":
        if not 1 <= int(number) <= 10_000:
            raise LakehouseError(f"bucket takes a number from 1 to 10,000, not {number}", hint=_HINT)
        return f"bucket({int(number)}, {quote(column.name)})"
    if not column.type.startswith("TIMESTAMP") and (column.type != "DATE" or transform == "hour"):
        wanted = "a timestamp" if transform == "hour" else "a date or timestamp"
        raise LakehouseError(f"{transform}({column.name}) needs {wanted}, and {column.name} is {column.type}")
    return f"{transform}({quote(column.name)})"


def sort_clause(table: Table, parts: Sequence[str]) -> str:
    """What ALTER TABLE does to sort a table; without parts, to end it.

    Raises:
        ColumnNotFound: a part names no column.
        LakehouseError: a part is no column with `asc` or `desc`.
    """
    if not parts:
        return "RESET SORTED BY"
    columns = table.schema
    return f"SET SORTED BY ({', '.join(_key(table, columns, part) for part in parts)})"


def _key(table: Table, columns: list[Column], part: str) -> str:
    if column := _column(columns, part):
        return f"{quote(column.name)} ASC"
    match = _SORT.fullmatch(part.strip()) if isinstance(part, str) else None
    if match is None:
        raise LakehouseError(f"a table cannot be sorted by {part!r}", hint="write a column, or column desc nulls first")
    column = _column(columns, match[1])
    name = table._column(match[1]) if column is None else column.name
    nulls = f" NULLS {match[3].upper()}" if match[3] else ""
    return f"{quote(name)} {(match[2] or 'asc').upper()}{nulls}"


def _column(columns: list[Column], name: str) -> Column | None:
    """The column of a name, which may stand in double quotes."""
    if not isinstance(name, str):
        raise LakehouseError(f"a column's name is text, not a {type(name).__name__}")
    bare = name.strip()
    if len(bare) > 1 and bare[0] == bare[-1] == '"':
        bare = bare[1:-1].replace('""', '"')
    return next((column for column in columns if column.name.lower() in (name.lower(), bare.lower())), None)
