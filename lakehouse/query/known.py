"""What is known of a query before it runs: whether its snapshot says everything about its rows."""

from __future__ import annotations

from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.metadata import Metadata, Relation
from lakehouse.query.statements import Parser, Shape

_SAMPLED = frozenset({"reservoir_quantile"})  # an aggregate that draws at random
_WINDOW = frozenset(
    "row_number rank dense_rank rank_dense percent_rank cume_dist ntile lag lead first_value last_value nth_value"
    " fill".split()
)
_DEPTH = 20  # views upon views


class Known:
    """Answers from the parse of a query, the catalog, and DuckDB's own list of functions."""

    def __init__(self, database: Database, metadata: Metadata, parser: Parser) -> None:
        self._database = database
        self._metadata = metadata
        self._parser = parser
        self._functions: frozenset[str] | None = None
        self._aggregates: frozenset[str] = frozenset()

    def relations(self, shape: Shape, snapshot: int, depth: int = 0) -> list[Relation] | None:
        """The tables and views of the lake that a query reads; None when it may depend on anything else."""
        if not shape.plain or depth > _DEPTH or not shape.functions <= self._constant():
            return None
        if shape.functions & self._metadata.macros(snapshot):
            return None  # a macro of the lake may hide a function of DuckDB
        found: list[Relation] = []
        known = self._metadata.relations(snapshot)
        for catalog, schema, name in shape.tables:
            relation = known.get(((schema or "main").lower(), name.lower()))
            if relation is None or catalog.lower() not in ("", ALIAS):
                return None
            if relation.kind == "view":
                inner = self._parser.inspect(relation.sql or "")
                if inner is None or self.relations(inner, snapshot, depth + 1) is None:
                    return None
            found.append(relation)
        return found

    def repeats(self, shape: Shape | None, relations: list[Relation] | None) -> bool:
        """Whether reading it again gives the rows in the same order: groups, joins and sorts need not."""
        if shape is None or relations is None or not shape.scan or shape.functions & self._aggregates:
            return False
        return all(relation.kind == "table" for relation in relations)

    def _constant(self) -> frozenset[str]:
        """DuckDB's own functions that always give the same value for the same arguments."""
        if self._functions is None:
            with self._database.lent(schema=False) as connection:
                rows = connection.execute(
                    "SELECT function_name, bool_or(function_type = 'aggregate') FROM duckdb_functions() WHERE internal"
                    " GROUP BY function_name HAVING bool_and(coalesce(stability = 'CONSISTENT', false)"
                    " OR function_type = 'aggregate')"
                ).fetchall()
            self._aggregates = frozenset(name.lower() for name, aggregate in rows if aggregate)
            self._functions = (frozenset(row[0].lower() for row in rows) | _WINDOW) - _SAMPLED
        return self._functions
