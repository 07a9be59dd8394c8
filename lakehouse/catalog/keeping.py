"""Which columns a table can keep. DuckLake 1.5.5 takes some that it reads back changed, or not at all.

Found by writing every type, alone and nested, in few rows (kept in the catalog) and many (in files), and reading,
changing and deleting them from another process:

    rowid                     a column of that name takes the place of DuckLake's row ids: UPDATE loses rows
    HUGEINT, UHUGEINT         files hold them as DOUBLE: rounded beyond 2^53, unreadable near their ends
    INTERVAL                  files cut it at the millisecond, and take no negative one
    TIME WITH TIME ZONE       files lose the offset
    TIME_NS                   the process is aborted while the file is written
    VARIANT                   its rows cannot be fetched
    ENUM, UNION, T[n], …      are refused by DuckLake itself
    STRUCT, JSON in a list    rows kept in the catalog come back changed or cannot be read; files are exact
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import duckdb

from lakehouse.catalog.names import quote
from lakehouse.errors import LakehouseError, QueryError

_WIDE = 1900  # columns; the catalog keeps rows in a SQLite table, which has at most 2,000

_PLAIN = re.compile(
    r"^(?:BOOLEAN|U?(?:TINY|SMALL|BIG)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB|UUID|DATE|TIME|JSON"
    r"|TIMESTAMP(?:_S|_MS|_NS| WITH TIME ZONE)?)$"
)
_WHOLE = "use DECIMAL(38,0)"
_REFUSED = {
    "hugeint": ("is written to files as DOUBLE, which rounds beyond 2^53", _WHOLE),
    "uhugeint": ("is written to files as DOUBLE, which rounds beyond 2^53", _WHOLE),
    "interval": (
        "is cut at the millisecond in files, and cannot be negative there",
        "keep microseconds as BIGINT: epoch_us(…); to_microseconds(…) gives the interval back",
    ),
    "time with time zone": ("loses its offset in files", "use TIME, or TIMESTAMP WITH TIME ZONE"),
    "time_ns": ("cannot be written to files", "use TIME"),
    "variant": ("cannot be fetched", "use JSON"),
    "bit": ("has no place in a lake", "use VARCHAR or BLOB"),
    "bignum": ("has no place in a lake", "use DECIMAL(38,0), or VARCHAR"),
    "union": ("has no place in a lake", "use a STRUCT with a field for each member, or JSON"),
    "enum": ("has no place in a lake", "use VARCHAR"),
    "array": ("has no place in a lake", "use a list without a fixed length, such as FLOAT[]"),
}
_EXACT = {"hugeint": "DECIMAL(38,0)", "uhugeint": "DECIMAL(38,0)", "enum": "VARCHAR"}

Columns = Sequence[tuple[str, str]]


def kept(kind: str) -> str:
    """The type in which a new table keeps what a query gives: another one only where it holds the values exactly.

    `sum()` of whole numbers is a HUGEINT and becomes DECIMAL(38,0), an ENUM becomes VARCHAR, `FLOAT[3]` `FLOAT[]`,
    also inside of other types.
    """
    if (type := _type(kind)) is None or not any(part.id in _EXACT or part.id == "array" for part in _parts(type)):
        return kind
    return _spelled(type)


def check(table: str, columns: Columns, error: type[LakehouseError] = QueryError) -> None:
    """Refuse columns that a table cannot keep.

    Args:
        table: what it is called, for the message.
        columns: names and types.
        error: what to raise.
    """
    for name, kind in columns:
        if name.lower() == "rowid":
            raise error(
                f"{table} cannot have a column called '{name}': UPDATE would lose rows",
                hint="the name stands for DuckLake's own row ids; choose another, such as row_no",
            )
        if reason := _reason(kind):
            raise error(f"{table} cannot keep the column {name}: {kind} {reason[0]}", hint=reason[1])


def way_out(kind: str) -> str | None:
    """What to use in the place of a type that no table keeps."""
    reason = _reason(kind)
    return reason[1] if reason else None


def only_in_files(columns: Columns) -> bool:
    """Whether the catalog could not give back rows of such columns, so that all must go to files."""
    return wide(columns) or any(_garbled(kind) for _, kind in columns)


def wide(columns: Columns) -> bool:
    """Whether these are more columns than the catalog could keep rows of."""
    return len(columns) > _WIDE


def _reason(kind: str) -> tuple[str, str] | None:
    parts = _parts(_type(kind))
    return next((_REFUSED[part.id] for part in parts if part.id in _REFUSED), None)


def _garbled(kind: str) -> bool:
    if (type := _type(kind)) is None:
        return False
    parts = list(_parts(type))
    return any(part.id == "struct" for part in parts) or (len(parts) > 1 and any(str(p) == "JSON" for p in parts))


def _type(kind: str) -> Any:
    """The type as DuckDB takes it apart; None for one that is plainly kept, or that it cannot name."""
    if _PLAIN.match(kind):
        return None
    try:
        return duckdb.sqltype(kind)
    except duckdb.Error:
        return None


def _parts(type: Any) -> Iterator[Any]:
    """A type and everything inside of it."""
    if type is None:
        return
    yield type
    for _, inner in _inside(type):
        yield from _parts(inner)


def _inside(type: Any) -> Iterable[tuple[str, Any]]:
    if type.id in ("list", "array"):
        return [type.children[0]]
    return type.children if type.id in ("struct", "map") else ()


def _spelled(type: Any) -> str:
    inner = [(name, _spelled(part)) for name, part in _inside(type)]
    if type.id in ("list", "array"):
        return f"{inner[0][1]}[]"
    if type.id == "map":
        return f"MAP({inner[0][1]}, {inner[1][1]})"
    if type.id == "struct":
        return f"STRUCT({', '.join(f'{quote(name)} {kind}' for name, kind in inner)})"
    return _EXACT.get(type.id) or str(type)
