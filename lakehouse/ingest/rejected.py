"""Whose a table of rejected rows is: it stays with its table when that gets another name."""

from __future__ import annotations

from dataclasses import replace

from lakehouse.catalog import notes
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Relation, visible
from lakehouse.catalog.names import literal, quote
from lakehouse.errors import TableNotFound

REJECTS = "__rejects"
"""What the name of a table of rejected rows ends with."""


def of(catalog: Catalog, schema: str, name: str) -> Relation | None:
    """The table of the rows that a table rejected; it may still be called after the table's earlier name.

    What is called `<name>__rejects` belongs to the table `<name>`, unless the table that it was made for is there
    under another name. So the rejects of a table that was dropped are those of the next one with its name.
    """
    table, named = _find(catalog, schema, name), _find(catalog, schema, name + REJECTS)
    owners = _owners(catalog, schema)
    if named is not None and _elsewhere(catalog, owners.get(named.id), table) is None:
        return named
    if table is None or not owners:
        return None
    by_owner = {owner: id for id, owner in owners.items()}
    now = catalog.metadata.current()
    for id in _ids(catalog, table):
        if id in by_owner:
            return catalog.metadata.relation(by_owner[id], now)
    return None


def misplaced(catalog: Catalog, schema: str, name: str) -> tuple[Relation, Relation] | None:
    """What is called `<name>__rejects` but belongs to a table that has another name now, and that table."""
    named = _find(catalog, schema, name + REJECTS)
    if named is None:
        return None
    owner = _elsewhere(catalog, _owners(catalog, schema).get(named.id), _find(catalog, schema, name))
    return None if owner is None else (named, owner)


def _elsewhere(catalog: Catalog, owner: int | None, table: Relation | None) -> Relation | None:
    """The table of that id if it is there and another one."""
    found = None if owner is None else catalog.metadata.relation(owner, catalog.metadata.current())
    return None if found is None or (table is not None and table.id == found.id) else found


def _owners(catalog: Catalog, schema: str) -> dict[int, int]:
    """The ids of the tables that had the name when their rejects got theirs, by the ids of the rejects."""
    now = catalog.metadata.current()
    relations = catalog.metadata.relations(now).values()
    if not any(r.name.lower().endswith(REJECTS) and r.schema.lower() == schema.lower() for r in relations):
        return {}
    rows = catalog.metadata.rows(
        "ii",
        "SELECT r.table_id AS id, t.table_id AS owner FROM ducklake_table r JOIN ducklake_table t ON t.schema_id = r.schema_id"
        " AND t.begin_snapshot <= r.begin_snapshot AND (t.end_snapshot IS NULL OR t.end_snapshot > r.begin_snapshot)"
        f" AND lower(t.table_name || {literal(REJECTS)}) = lower(r.table_name)"
        f" JOIN ducklake_schema s ON s.schema_id = r.schema_id AND {visible(now, 's')}"
        f" WHERE lower(s.schema_name) = lower({literal(schema)}) AND {visible(now, 'r')}",
    )
    return dict(rows)


def _ids(catalog: Catalog, table: Relation) -> list[int]:
    """The id of a table, and those that it had before it was made anew."""
    found, here = [table.id], notes.before(catalog.notes(table), table)
    while here is not None:
        found.append(here)
        older = replace(table, id=here)
        here = notes.before(catalog.notes(older), older)
    return found


def _find(catalog: Catalog, schema: str, name: str) -> Relation | None:
    try:
        return catalog.find(quote(schema, name))
    except TableNotFound:
        return None
