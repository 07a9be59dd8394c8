"""What SQL from strangers may name: the tables and views of a lake at one snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.metadata import visible
from lakehouse.catalog.names import nearest, shown
from lakehouse.errors import SqlRefused, TableNotFound

if TYPE_CHECKING:
    from lakehouse.catalog.metadata import Metadata

DEFAULT = "main"
_FILENAMES = (
    "SELECT table_id FROM ducklake_column WHERE lower(column_name) = 'filename' AND parent_column IS NULL AND {visible}"
)
_TRACES = ("pathway", "traces")
_HERE = "{DUCKLAKE_CATALOG}"  # what DuckLake writes for the catalog's name in the query of a view
# Catalogs of DuckDB itself: a name behind them is never a table of the lake.
_FOREIGN = frozenset({"system", "temp", "memory", "information_schema", "pg_catalog"})


@dataclass(frozen=True, slots=True)
class Named:
    """One table or view."""

    schema: str
    name: str
    sql: str | None = None
    """The query of a view; None for a table."""
    has_filename: bool = False
    """Whether a column of its own is called so, and hides DuckLake's, which tells where the file is."""

    @property
    def key(self) -> tuple[str, str]:
        return self.schema, self.name

    @property
    def shown(self) -> str:
        return shown(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Names:
    """What a lake has at one snapshot.

    Args:
        relations: tables and views by lower-cased schema and name.
        schemas: schemas by lower-cased name.
        macros: the queries that the lake's macros stand for, by lower-cased name.
        traces: whether `pathway.traces` can be read.
        snapshot: which snapshot it is.
    """

    relations: Mapping[tuple[str, str], Named]
    schemas: Mapping[str, str]
    macros: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    traces: bool = False
    snapshot: int = 0

    @property
    def tables(self) -> frozenset[tuple[str, str]]:
        """Schema and name, as the lake writes them, of what is a table and no view."""
        return frozenset(one.key for one in self.relations.values() if one.sql is None)

    def resolve(self, catalog: str, schema: str, name: str) -> Named:
        """The table or view of that name, each part as written without quotes and empty where left out.

        Raises:
            TableNotFound: a name as a table of the lake could have, but there is none.
            SqlRefused: a name of something else: a file, a table of DuckDB, another catalog.
        """
        inner = schema.lower()
        if catalog and catalog.lower() != ALIAS:
            raise SqlRefused(f"{shown(catalog, name)} is in another catalog than the lake")
        if not catalog and inner == ALIAS and ALIAS not in self.schemas:
            inner = DEFAULT  # lake.orders
        key = (inner or DEFAULT, name.lower())
        if (found := self.relations.get(key)) is not None:
            return found
        if self.traces and not catalog and key == _TRACES and "pathway" not in self.schemas:
            return Named(*_TRACES)
        written = ".".join(part for part in (catalog, schema, name) if part)
        if any(mark in name for mark in "./\\*?[:'\"`{~ ") or inner in _FOREIGN or "ducklake" in inner:
            raise SqlRefused(
                f"'{written}' is no table of the lake", hint="files and DuckDB's own tables are not read here"
            )
        every = [one.shown for one in self.relations.values()]
        raise TableNotFound(f"there is no table {written}", hint=nearest(written, every))

    def schema(self, name: str) -> str | None:
        """The schema of that name as the lake writes it, None when there is none."""
        return self.schemas.get(name.lower())


def names(metadata: Metadata, snapshot: int, *, traces: bool = False) -> Names:
    """What the catalog says at a snapshot.

    Args:
        metadata: the lake's catalog.
        snapshot: its id.
        traces: whether `pathway.traces` can be read where the SQL will run.
    """
    named = {row[0] for row in metadata.rows("i", _FILENAMES.format(visible=visible(snapshot)))}
    relations = {
        key: Named(one.schema, one.name, _here(one.sql), one.id in named)
        for key, one in metadata.relations(snapshot).items()
    }
    schemas = {schema.lower(): schema for schema in metadata.schemas(snapshot)}
    macros = {name: tuple(map(_here, metadata.macro(name, snapshot))) for name in metadata.macros(snapshot)}
    return Names(relations, schemas, macros, traces, snapshot)


@overload
def _here(sql: str) -> str: ...


@overload
def _here(sql: str | None) -> str | None: ...


def _here(sql: str | None) -> str | None:
    return sql.replace(_HERE, ALIAS) if sql is not None else None
