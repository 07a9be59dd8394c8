"""What a definition is held against before anything runs: the lake's tables, the files around it, the settings."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.lineage import reads as lineage_reads
from lakehouse.catalog.names import shown, split
from lakehouse.errors import LakehouseError
from lakehouse.query.statements import Parser, Statement

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse
    from lakehouse.workflow.model import Workflow


_SYSTEM = frozenset({"information_schema", "pg_catalog"})
_FILE = re.compile(r"[/*]|\.(csv|tsv|json|ndjson|jsonl|parquet|xlsx)(\.\w+)?$", re.I)


class Site:
    """Where a workflow would run."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.statement = lru_cache(None)(self._statement)
        self.query_reads = lru_cache(None)(self._query_reads)
        self.installed = lru_cache(None)(_installed)
        self._seen: set[str] = set()

    @property
    def lake(self) -> Lakehouse:
        """The lake."""
        raise NotImplementedError

    @property
    def parser(self) -> Parser:
        """DuckDB's parser."""
        raise NotImplementedError

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters with their defaults."""
        return self.workflow.params

    @cached_property
    def relations(self) -> dict[str, str]:
        """What is in the lake: `table` or `view`, by lower-cased name."""
        metadata = self.lake.catalog.metadata
        found = metadata.relations(metadata.current())
        return {shown(*key): relation.kind for key, relation in found.items()}

    @cached_property
    def views(self) -> dict[str, str]:
        """The queries of the views, by lower-cased name."""
        metadata = self.lake.catalog.metadata
        found = metadata.relations(metadata.current())
        return {shown(*key): relation.sql for key, relation in found.items() if relation.sql is not None}

    @cached_property
    def schemas(self) -> frozenset[str]:
        """Lower-cased names of the schemas."""
        return frozenset(name.lower() for name in self.lake.catalog.schemas())

    def table(self, name: str) -> str:
        """A table's name in the one spelling by which nodes are compared."""
        schema, table = split(name)
        return shown(schema.lower(), table.lower())

    def target(self, name: str) -> str | None:
        """Why a table cannot be written; None when it can."""
        try:
            schema, _ = split(name)
        except LakehouseError as error:
            return error.message
        if schema.lower() not in self.schemas:
            return f"there is no schema '{schema}' (lake.catalog.create_schema makes it)"
        if self.relations.get(self.table(name)) == "view":
            return f"'{name}' is a view, which nothing can be written to"
        return "the lake is open for reading only" if self.lake.read_only else None

    def path(self, text: str) -> Path:
        """A path of the definition; a relative one begins in the workflow's folder."""
        return Path(self.workflow.folder, Path(text).expanduser())

    def _statement(self, sql: str) -> Statement | str:
        """The one statement of a text; a text: why it is not one query."""
        try:
            found = self.parser.parse(sql)
        except LakehouseError as error:
            return error.message
        if len(found) != 1:
            return f"expected one query, and these are {len(found)} statements"
        return found[0] if found[0].kind == "read" else f"expected a query, not {found[0].verb}"

    def _query_reads(self, sql: str) -> tuple[str, ...] | None:
        """The tables that a query reads, by itself or through views; None when it is not understood."""
        shape = self.parser.inspect(sql)
        if shape is not None:
            named = {(catalog, schema, name) for catalog, schema, name in shape.tables}
        elif (found := lineage_reads.query(sql)) is not None:
            named = {(one.catalog, one.schema, one.name) for one in found if one.kind == "table"}
        else:
            return None
        tables: dict[str, None] = {}
        for catalog, schema, name in sorted(named):
            if catalog.lower() not in ("", "lake") or schema.lower() in _SYSTEM or (not schema and _FILE.search(name)):
                continue
            table = shown(schema.lower() or "main", name.lower())
            tables[table] = None
            if (view := self.views.get(table)) is not None and table not in self._seen:
                self._seen.add(table)
                tables |= dict.fromkeys(self.query_reads(view) or ())
                self._seen.discard(table)
        return tuple(tables)


def _installed(module: str) -> bool:
    """Whether Python finds a module, which is not run for that."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class Here(Site):
    """A site whose lake is open in this process."""

    def __init__(self, lake: Lakehouse, workflow: Workflow, parser: Parser) -> None:
        super().__init__(workflow)
        self._lake, self._parser = lake, parser

    @property
    def lake(self) -> Lakehouse:
        return self._lake

    @property
    def parser(self) -> Parser:
        return self._parser
