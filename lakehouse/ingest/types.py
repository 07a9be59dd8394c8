"""Column types that somebody fixed for a table: kept in the state file by the table's id, used by later loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from lakehouse.catalog import keeping
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.names import quote
from lakehouse.errors import IngestError, LakehouseError, TableNotFound
from lakehouse.ingest.receipt import Target


def given(options: Mapping[str, Any]) -> dict[str, str]:
    """The types that the options name, by lower-cased column; a list, which names no columns, is only for this load.

    Raises:
        IngestError: it is no mapping of columns to types, or DuckDB knows no such type.
    """
    types = options.get("types")
    if not isinstance(types, Mapping):
        return {}
    if not all(isinstance(kind, str) for kind in types.values()):
        raise IngestError("the option types maps columns to DuckDB types", hint="such as {'id': 'BIGINT'}")
    return {str(name).lower(): _spelled(kind) for name, kind in types.items()}


def remembered(catalog: Catalog, target: Target, asked: Mapping[str, str]) -> dict[str, str]:
    """The types fixed for a table, those of this load first."""
    try:
        relation = catalog.find(quote(target.schema, target.name))
    except TableNotFound:
        return dict(asked)
    kept = catalog.state.read("SELECT name, type FROM column_type WHERE table_id = ?", (relation.id,))
    return {**dict(kept), **asked}


def remember(catalog: Catalog, target: Target, types: Mapping[str, str]) -> None:
    """Keep the types of a load that is committed; a table that was made anew in its place has a new id.

    That they could not be kept does not undo the load: the table itself has the types, and they can be given again.
    """
    if not types:
        return
    try:
        relation = catalog.find(quote(target.schema, target.name))
        rows = [(relation.id, name, kind) for name, kind in types.items()]
        if set(rows) <= set(catalog.state.read("SELECT * FROM column_type WHERE table_id = ?", (relation.id,))):
            return
        with catalog.state.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO column_type VALUES (?, ?, ?)", rows)
    except LakehouseError:
        return


def carry(catalog: Catalog, before: int, after: int) -> None:
    """Give a table that was made anew (old id, new id) the types that were fixed."""
    if catalog.state.read("SELECT 1 FROM column_type WHERE table_id = ? LIMIT 1", (before,)):
        with catalog.state.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO column_type SELECT ?, name, type FROM column_type WHERE table_id = ?",
                (after, before),
            )


def _spelled(kind: str) -> str:
    """A type as DuckDB spells it."""
    try:
        spelled = str(duckdb.sqltype(kind))
    except duckdb.Error:
        raise IngestError(f"'{kind}' is not a DuckDB type", hint="such as BIGINT, DOUBLE, VARCHAR, TIMESTAMP") from None
    if (hint := keeping.way_out(spelled)) is not None:
        raise IngestError(f"a table cannot keep the type {spelled}", hint=hint)
    return spelled
