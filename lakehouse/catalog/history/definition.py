"""What a table or view is at a snapshot, how two of them differ, and the SQL that makes one anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.metadata import Metadata, Relation, visible
from lakehouse.catalog.names import literal, quote

if TYPE_CHECKING:
    import duckdb

_HERE = "{DUCKLAKE_CATALOG}"  # what DuckLake writes for the catalog's name in the query of a view
_VIRTUAL = frozenset({"rowid", "snapshot_id"})
_VERSIONED = (
    ("table", "table_id"),
    ("view", "view_id"),
    ("column", "table_id"),
    ("tag", "object_id"),
    ("column_tag", "table_id"),
    ("partition_info", "table_id"),
    ("sort_info", "table_id"),
)
"""The catalog's tables that say what a table or view is, and the column with its id."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column as the catalog knows it."""

    id: int
    """The same for as long as the column is there, whatever it is called."""
    name: str
    type: str
    """As DuckLake writes it; `parts` has what is inside a nested one."""
    nullable: bool
    default: str | None
    """The SQL of its default value."""
    comment: str | None
    parts: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a table are placed: the SQL expressions of its partitions and of its sort order."""

    partitions: tuple[str, ...]
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """A table without its rows, or a view."""

    relation: Relation
    fields: tuple[Field, ...]
    layout: Layout
    aliases: str | None
    """The column names that a view gives."""

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be equal for the rows of one to fit the other as they are."""
        return tuple((f.id, f.name, f.type, f.nullable, f.parts) for f in self.fields)

    @property
    def plain(self) -> bool:
        """Whether DuckLake's own columns `rowid` and `snapshot_id` can be read: no column hides them."""
        return not any(f.name.lower() in _VIRTUAL for f in self.fields)


class Definitions:
    """The definitions of one catalog at one snapshot."""

    def __init__(self, metadata: Metadata, snapshot: int) -> None:
        self.metadata = metadata
        self.snapshot = snapshot
        self.schemas = metadata.schemas(snapshot)
        self.by_id = {r.id: r for r in metadata.relations(snapshot).values()}

    def of(self, relation: Relation) -> Definition:
        """What a table or view is there."""
        if relation.kind == "view":
            rows = self.metadata.rows(
                "s",
                f"SELECT column_aliases FROM ducklake_view WHERE view_id = {relation.id} AND {visible(self.snapshot)}",
            )
            return Definition(relation, (), Layout((), ()), rows[0][0])
        return Definition(relation, self._fields(relation), self._layout(relation), None)

    def _fields(self, relation: Relation) -> tuple[Field, ...]:
        comments = {row[1]: row[5] for row in self.metadata.columns(self.snapshot, relation.id)}
        rows = self.metadata.rows(
            "isssisis",
            "SELECT column_id, column_name, column_type, default_value, nulls_allowed, default_value_type, parent_column,"
            f" column_order FROM ducklake_column WHERE table_id = {relation.id} AND {visible(self.snapshot)}"
            " ORDER BY column_order, column_id",
        )
        parents = {row[0]: row[6] for row in rows}

        def top(column: int) -> int:
            while parents[column] is not None:
                column = parents[column]
            return column

        return tuple(
            Field(
                id=row[0],
                name=row[1],
                type=row[2],
                nullable=bool(row[4]),
                default=_default(row[3], row[5]),
                comment=comments.get(row[0]),
                parts=tuple((r[0], r[1], r[2]) for r in rows if r[0] != row[0] and top(r[0]) == row[0]),
            )
            for row in rows
            if row[6] is None
        )

    def _layout(self, relation: Relation) -> Layout:
        at = f"i.table_id = {relation.id} AND {visible(self.snapshot, 'i')}"
        partitions = self.metadata.rows(
            "ss",
            "SELECT c.column_name, p.transform FROM ducklake_partition_info i JOIN ducklake_partition_column p"
            " ON p.partition_id = i.partition_id JOIN ducklake_column c ON c.table_id = i.table_id"
            f" AND c.column_id = p.column_id AND {visible(self.snapshot, 'c')} WHERE {at} ORDER BY p.partition_key_index",
        )
        order = self.metadata.rows(
            "sss",
            "SELECT e.expression, e.sort_direction, e.null_order FROM ducklake_sort_info i JOIN ducklake_sort_expression e"
            f" ON e.sort_id = i.sort_id WHERE {at} ORDER BY e.sort_key_index",
        )
        return Layout(
            tuple(_partition(name, transform) for name, transform in partitions),
            tuple(f"{expression} {way} {nulls.replace('_', ' ')}" for expression, way, nulls in order),
        )


def changed_ids(before: Definitions, after: Definitions) -> set[int]:
    """Ids of the tables and views that were made, dropped or defined anew between two snapshots of one catalog.

    The rows of the others may have changed. `after.metadata` is asked, so it is that of the newer snapshot.
    """
    since = f"begin_snapshot > {before.snapshot} OR end_snapshot > {before.snapshot}"
    rows = after.metadata.rows(
        "i", " UNION ".join(f"SELECT {id} FROM ducklake_{table} WHERE {since}" for table, id in _VERSIONED)
    )
    return (before.by_id.keys() ^ after.by_id.keys()) | {
        row[0] for row in rows if row[0] in before.by_id and row[0] in after.by_id
    }


def differences(before: Definition, after: Definition) -> list[str]:
    """What changed of the columns from one state of a table to another, a line for each."""
    old, new = {f.id: f for f in before.fields}, {f.id: f for f in after.fields}
    lines = [f"{f.name} {f.type} was dropped" for f in before.fields if f.id not in new]
    lines += [f"{f.name} {f.type} was added" for f in after.fields if f.id not in old]
    for id in (f.id for f in before.fields if f.id in new):
        was, now = old[id], new[id]
        if was.name != now.name:
            lines.append(f"{was.name} was renamed to {now.name}")
        if (was.type, was.parts) != (now.type, now.parts):
            lines.append(f"{now.name} was {_written(was)}, is {_written(now)}")
        if was.nullable != now.nullable:
            lines.append(f"{now.name} {'takes' if now.nullable else 'no longer takes'} NULL")
    if not lines and before.shape != after.shape:
        lines.append("the columns stand in another order")
    return lines


def create_table(connection: duckdb.DuckDBPyConnection, definition: Definition, source: str) -> list[str]:
    """The statements that make a table of the lake as it was defined, still without rows.

    Args:
        connection: where the types of the columns are asked for.
        definition: the table, under the name it is to have.
        source: the name in SQL of the table that has those columns.
    """
    name = quote(ALIAS, definition.relation.schema, definition.relation.name)
    described = connection.execute(f"DESCRIBE {source}").fetchall()
    types = {row[0]: row[1] for row in described}
    columns = ", ".join(
        f"{quote(f.name)} {types[f.name]}"
        + ("" if f.nullable else " NOT NULL")
        + ("" if f.default is None else f" DEFAULT {f.default}")
        for f in definition.fields
    )
    made = [f"CREATE TABLE {name} ({columns})"]
    if definition.layout.partitions:
        made.append(f"ALTER TABLE {name} SET PARTITIONED BY ({', '.join(definition.layout.partitions)})")
    if definition.layout.order:
        made.append(f"ALTER TABLE {name} SET SORTED BY ({', '.join(definition.layout.order)})")
    return made


def comments(before: Definition | None, after: Definition) -> list[str]:
    """The statements that give a table or view of the lake its comments, where they are others than before."""
    relation = after.relation
    name = quote(ALIAS, relation.schema, relation.name)
    made = []
    if (before.relation.comment if before else None) != relation.comment:
        made.append(f"COMMENT ON {relation.kind.upper()} {name} IS {_text(relation.comment)}")
    old = {f.id: f.comment for f in before.fields} if before else {}
    made += [
        f"COMMENT ON COLUMN {name}.{quote(f.name)} IS {_text(f.comment)}"
        for f in after.fields
        if old.get(f.id) != f.comment
    ]
    return made


def create_view(definition: Definition) -> str:
    """The statement that makes a view of the lake as it was defined."""
    relation = definition.relation
    names = f" ({definition.aliases})" if definition.aliases else ""
    query = (relation.sql or "").replace(_HERE, quote(ALIAS))
    return f"CREATE VIEW {quote(ALIAS, relation.schema, relation.name)}{names} AS {query}"


def _text(comment: str | None) -> str:
    return "NULL" if comment is None else literal(comment)


def _default(value: str | None, kind: str | None) -> str | None:
    if value is None or (kind != "expression" and value == "NULL"):
        return None
    return value if kind == "expression" else literal(value)


def _partition(name: str, transform: str) -> str:
    if transform == "identity":
        return quote(name)
    function, _, argument = transform.partition("(")
    return f"{function}({argument.rstrip(')')}, {quote(name)})" if argument else f"{function}({quote(name)})"


def _written(field: Field) -> str:
    inside = ", ".join(f"{name} {type}" for _, name, type in field.parts)
    return f"{field.type}({inside})" if inside else field.type
