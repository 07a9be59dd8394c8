"""The walk over DuckDB's parsed form of a SELECT: only what is known here passes, down to the last field.

The form is the one of `json_serialize_sql` (https://duckdb.org/docs/stable/data/json/sql_to_and_from_json), with every
field written out. A node of a kind that is not in `_NODES`, or a field that is not named there and is not empty, is
refused: so is whatever a newer DuckDB adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lakehouse.errors import LakehouseError, SqlRefused
from lakehouse.query.gate.functions import Functions
from lakehouse.query.gate.names import Names

Node = dict[str, Any]
_NOWHERE: Final = 2**64 - 1  # where DuckDB has no place in the text
_EMPTY: Final[tuple[Any, ...]] = (None, "", False, [], {}, 0)
# The schema that a recursive query with USING KEY reads all its rows of so far under.
_RECURRING: Final = "recurring"
_TEXTS_DEEP: Final = 20  # views and macros within each other
_FILE: Final = "filename"  # tells where the lake is, in every table that has no such column of its own


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that WITH gave, seen from one place of a query; `recurring` has those of recursion with keys."""

    ctes: frozenset[str] = frozenset()
    recurring: frozenset[str] = frozenset()

    def plus(self, name: str, *, keyed: bool = False) -> Scope:
        word = frozenset({name.lower()})
        return Scope(self.ctes | word, self.recurring | word if keyed else self.recurring - word)


@dataclass(slots=True)
class Walk:
    """One walk: checks every node, and collects the tables that are read.

    Args:
        names: what the lake has.
        functions: what may be called.
        view: turns the text of a view or macro into its tree; it is walked as well.
        defaults: whether DEFAULT may stand for a value, as in the rows of an INSERT.
    """

    names: Names
    functions: Functions
    view: Callable[[str], Node]
    defaults: bool = False
    tables: dict[tuple[str, str], None] = field(default_factory=dict)
    _macros: set[str] = field(default_factory=set)
    _file: Node | None = None
    _files: bool = False
    place: int | None = None
    """How many bytes of the text stand before what was looked at last; None where that is not known."""
    _inside: tuple[str, ...] = ()

    def statement(self, node: Node) -> None:
        """Check one statement, `{"node": …, "named_param_map": …}`.

        Raises:
            SqlRefused: something in it is not allowed; `place` says where.
        """
        self._fields(node, _STATEMENT, Scope(), "statement")
        if self._file is not None and self._files:
            raise self._refuse(f"the column {_FILE} would tell where the lake is", self._file)

    def _select(self, node: Node | None, scope: Scope) -> None:
        if node is not None:
            self._fields(node, _STATEMENT, scope, "query")

    def _refuse(self, what: str, node: Node | None = None, hint: str | None = None) -> SqlRefused:
        self._at(node)
        if self._inside:
            what = f"{self._inside[-1]} has what SQL may not: {what}"
        return SqlRefused(what, hint=hint)

    def _at(self, node: Node | None) -> None:
        place = (node or {}).get("query_location", _NOWHERE)
        if place != _NOWHERE and not self._inside:
            self.place = place

    def _fields(self, node: Node, known: Mapping[str, _Check], scope: Scope, kind: str) -> None:
        self._at(node)
        for name, value in node.items():
            check = known.get(name)
            if check is not None:
                check(self, value, scope)
            elif value not in _EMPTY:
                raise self._refuse(f"'{name}' of {kind} is not known", node)

    def _node(self, node: Node, scope: Scope, kind: str, allowed: Mapping[str, Mapping[str, _Check]]) -> None:
        known = allowed.get(kind)
        if known is None:
            raise self._refuse(f"{kind.lower().replace('_', ' ')} is not allowed", node)
        self._fields(node, known, scope, kind)

    # Queries

    def _query(self, node: Node, scope: Scope) -> None:
        for entry in node["cte_map"]["map"]:
            self._cte(entry, scope)
            scope = scope.plus(entry["key"])
        if node["type"] == "RECURSIVE_CTE_NODE":
            # Only the part after UNION sees the rows so far; in the part before it the name is whatever else has it.
            self._query(node["right"], scope.plus(node["cte_name"], keyed=bool(node["key_targets"])))
        self._node(node, scope, node["type"], _QUERIES)

    def _queries(self, nodes: list[Node], scope: Scope) -> None:
        for node in nodes:
            self._query(node, scope)

    def _cte(self, entry: Node, scope: Scope) -> None:
        self._fields(entry, {"key": _ignore, "value": Walk._cte_value}, scope, "WITH")

    def _cte_value(self, node: Node, scope: Scope) -> None:
        self._fields(node, _CTE, scope, "WITH")

    def _modifier(self, node: Node, scope: Scope) -> None:
        self._node(node, scope, node["type"], _MODIFIERS)

    def _modifiers(self, nodes: list[Node], scope: Scope) -> None:
        for node in nodes:
            self._modifier(node, scope)

    def _orders(self, nodes: list[Node], scope: Scope) -> None:
        for node in nodes:
            self._fields(node, {"type": _ignore, "null_order": _ignore, "expression": Walk._one}, scope, "ORDER BY")

    def _sample(self, node: Node | None, scope: Scope) -> None:
        if node is not None:
            self._fields(node, _SAMPLE, scope, "SAMPLE")

    # Tables

    def _table(self, node: Node | None, scope: Scope) -> None:
        if node is None:
            return
        if node["type"] == "BASE_TABLE":
            self._base(node, scope)
        self._node(node, scope, node["type"], _TABLES)

    def _base(self, node: Node, scope: Scope) -> None:
        catalog, schema, name = node["catalog_name"], node["schema_name"], node["table_name"]
        if not catalog and not schema and name.lower() in scope.ctes:
            return
        if not catalog and schema.lower() == _RECURRING and name.lower() in scope.recurring:
            return
        self._at(node)
        try:
            found = self.names.resolve(catalog, schema, name)
        except SqlRefused as refused:
            raise self._refuse(refused.message, node, refused.hint) from None
        if found.key in self.tables:
            return
        self.tables[found.key] = None
        if found.sql is not None:
            self._text(f"the view {found.shown}", found.sql, node)
        elif not found.has_filename:
            self._files = True

    def _text(self, name: str, sql: str, node: Node) -> None:
        """Check what a view or macro stands for; WITH outside of it is not seen inside."""
        if len(self._inside) >= _TEXTS_DEEP:
            raise self._refuse("views and macros use each other too deeply", node)
        self._inside = (*self._inside, name)
        defaults, self.defaults = self.defaults, False
        try:
            tree = self.view(sql)
        except LakehouseError as error:
            raise self._refuse(error.message, node) from None
        self._select(tree, Scope())
        self._inside, self.defaults = self._inside[:-1], defaults

    def _table_function(self, node: Node, scope: Scope) -> None:
        self._callable("table", "table function", node)
        self._fields(node, _CALL, scope, "TABLE_FUNCTION")

    def _show(self, value: str, scope: Scope) -> None:
        if value not in ("", '"tables"'):  # SHOW TABLES lists the tables of the lake's main schema
            raise self._refuse("SHOW of anything but a table is not allowed", None, "DESCRIBE and SUMMARIZE a table")

    def _at_clause(self, node: Node | None, scope: Scope) -> None:
        if node is not None:
            self._fields(node, {"unit": _ignore, "expr": Walk._one}, scope, "AT")

    def _pivots(self, nodes: list[Node], scope: Scope) -> None:
        for node in nodes:
            self._fields(node, _PIVOT_COLUMN, scope, "PIVOT")

    def _pivot_entries(self, nodes: list[Node], scope: Scope) -> None:
        for node in nodes:
            self._fields(node, {"values": Walk._columns_of, "star_expr": Walk._one, "alias": _ignore}, scope, "PIVOT")

    def _columns(self, names: list[str], scope: Scope) -> None:
        for name in names:
            self._column(name)

    def _columns_of(self, values: list[Node], scope: Scope) -> None:
        for value in values:  # UNPIVOT has the names of columns here
            self._value(value, scope)
            self._column(str(value.get("value")))

    # Expressions

    def _one(self, node: Node | None, scope: Scope) -> None:
        if node is None:
            return
        kind = node["class"]
        if kind in ("FUNCTION", "WINDOW"):
            self._function(node)
        elif kind == "TYPE":
            self._named_type(node)
        elif kind == "COLUMN_REF":
            for name in node["column_names"]:
                self._column(name, node)
        elif kind == "COLLATE":
            self._collation(node)
        elif kind == "OPERATOR" and node["type"] not in _OPERATORS:
            raise self._refuse(f"the operator {node['type'].lower().replace('_', ' ')} is not allowed", node)
        elif kind == "DEFAULT" and not self.defaults:
            raise self._refuse("DEFAULT stands only for a value of an INSERT or UPDATE", node)
        self._node(node, scope, kind, _EXPRESSIONS)

    def _many(self, nodes: list[Node], scope: Scope) -> None:
        for node in nodes:
            self._one(node, scope)

    def _rows(self, rows: list[list[Node]], scope: Scope) -> None:
        for row in rows:
            self._many(row, scope)

    def _function(self, node: Node) -> None:
        self._callable("expression", "function", node)
        if self.functions.by_name(node["function_name"]):
            self._named_aggregate(node)

    def _callable(self, space: str, kind: str, node: Node) -> None:
        """A function of the allow-list, or a macro of the lake whose text passes, too; it may hide a function."""
        name: str = node["function_name"]
        why = self.functions.refused(space, name)
        texts = self.names.macros.get(name.lower(), ())
        if why and (not texts or self.functions.known(space, name)):
            raise self._refuse(f"the {kind} {name} is not allowed{why}", node)
        if texts and name.lower() not in self._macros:
            self._macros.add(name.lower())
            for text in texts:
                self._text(f"the macro {name}", text, node)

    def _column(self, name: str, node: Node | None = None) -> None:
        if name.lower() == _FILE and not self._inside:
            self._file = node or {}

    def _named_aggregate(self, node: Node) -> None:
        """`list_aggregate(list, 'sum')` calls the function that its second argument names.

        With `column.list_aggregate('sum')` DuckDB takes the column for a schema at first, so the name may be the first.
        """
        arguments = node["children"]
        names = arguments[:2] if node["schema"] else arguments[1:2]
        texts = [one["value"]["value"] for one in names if one["class"] == "CONSTANT" and not one["value"]["is_null"]]
        if not any(isinstance(text, str) and self.functions.aggregate(text) for text in texts) or (
            not node["schema"] and len(texts) != 1
        ):
            raise self._refuse(
                f"{node['function_name']} must name an allowed aggregate, as text", node, "such as list_sum"
            )

    def _collation(self, node: Node) -> None:
        for part in node["collation"].lower().split("."):
            if not self.functions.collation(part):
                raise self._refuse(f"the collation {part} is not allowed", node)

    def _named_type(self, node: Node) -> None:
        name = node["type_name"]
        if node["catalog"] or node["schema"] or not self.functions.type(name):
            raise self._refuse(f"the type {name} is not allowed", node)

    def _type(self, node: Node, scope: Scope) -> None:
        self._fields(node, {"id": Walk._type_id, "type_info": Walk._type_info}, scope, "type")

    def _type_id(self, name: str, scope: Scope) -> None:
        if name != "UNBOUND" and not self.functions.type(name):
            raise self._refuse(f"the type {name} is not allowed")

    def _type_info(self, node: Node | None, scope: Scope) -> None:
        if node is not None:
            self._node(node, scope, node["type"], _TYPES)

    def _fields_of_type(self, nodes: list[Node], scope: Scope) -> None:
        for node in nodes:
            self._fields(node, {"first": _ignore, "second": Walk._type}, scope, "type")

    def _value(self, node: Node, scope: Scope) -> None:
        self._fields(node, {"type": Walk._type, "is_null": _ignore, "value": _ignore}, scope, "constant")

    def _replaced(self, entries: list[Node], scope: Scope) -> None:
        for entry in entries:
            self._fields(entry, {"key": _ignore, "value": Walk._one}, scope, "REPLACE")

    def _cases(self, entries: list[Node], scope: Scope) -> None:
        for entry in entries:
            self._fields(entry, {"when_expr": Walk._one, "then_expr": Walk._one}, scope, "CASE")


_Check = Callable[[Walk, Any, Scope], None]


def _ignore(walk: Walk, value: Any, scope: Scope) -> None:
    """A value that names nothing outside of the query: an alias, a flag, a number."""


def _known(*names: str, **checks: _Check) -> dict[str, _Check]:
    """Fields that are ignored, and fields with a check."""
    return {**dict.fromkeys(names, _ignore), **checks}


_ONE, _MANY, _QUERY, _TABLE = Walk._one, Walk._many, Walk._query, Walk._table

_STATEMENT = _known("named_param_map", node=_QUERY)
_CTE = _known("aliases", "materialized", query=Walk._select, key_targets=_MANY, payload_aggregates=_MANY)
_SAMPLE = _known("is_percentage", "method", "seed", sample_size=Walk._value)
_PIVOT_COLUMN = _known("unpivot_names", pivot_expressions=_MANY, entries=Walk._pivot_entries)

_BASE_QUERY = _known("type", "cte_map", modifiers=Walk._modifiers)
_QUERIES = {
    "SELECT_NODE": _BASE_QUERY
    | _known(
        "group_sets",
        "aggregate_handling",
        select_list=_MANY,
        from_table=_TABLE,
        where_clause=_ONE,
        group_expressions=_MANY,
        having=_ONE,
        sample=Walk._sample,
        qualify=_ONE,
    ),
    "SET_OPERATION_NODE": _BASE_QUERY
    | _known("setop_type", "setop_all", left=_QUERY, right=_QUERY, children=Walk._queries),
    # `right` has been walked, with one name more
    "RECURSIVE_CTE_NODE": _BASE_QUERY
    | _known("cte_name", "union_all", "aliases", "right", left=_QUERY, key_targets=_MANY, payload_aggregates=_MANY),
}


_MODIFIERS = {
    "ORDER_MODIFIER": _known("type", orders=Walk._orders),
    "LIMIT_MODIFIER": _known("type", limit=_ONE, offset=_ONE),
    "LIMIT_PERCENT_MODIFIER": _known("type", limit=_ONE, offset=_ONE),
    "DISTINCT_MODIFIER": _known("type", distinct_on_targets=_MANY),
}

_BASE_TABLE = _known("type", "alias", "query_location", sample=Walk._sample)
_TABLES = {
    "EMPTY": _BASE_TABLE,
    "BASE_TABLE": _BASE_TABLE
    | _known("schema_name", "table_name", "catalog_name", "column_name_alias", at_clause=Walk._at_clause),
    "SUBQUERY": _BASE_TABLE | _known("column_name_alias", subquery=Walk._select),
    "JOIN": _BASE_TABLE
    | _known("join_type", "ref_type", "using_columns", "is_implicit", left=_TABLE, right=_TABLE, condition=_ONE),
    "EXPRESSION_LIST": _BASE_TABLE | _known("expected_names", values=Walk._rows),
    "TABLE_FUNCTION": _BASE_TABLE | _known("column_name_alias", "with_ordinality", function=Walk._table_function),
    "PIVOT": _BASE_TABLE
    | _known(
        "unpivot_names",
        "column_name_alias",
        "include_nulls",
        source=_TABLE,
        aggregates=_MANY,
        pivots=Walk._pivots,
        groups=Walk._columns,
    ),
    "SHOW_REF": _BASE_TABLE
    | _known("show_type", query=lambda w, n, s: _QUERY(w, n, s) if n else None, table_name=Walk._show),
}

_BASE = _known("class", "type", "alias", "query_location")
_CALL = _BASE | _known(
    "function_name",
    "schema",
    "catalog",
    "distinct",
    "is_operator",
    children=_MANY,
    filter=_ONE,
    order_bys=lambda w, n, s: w._modifier(n, s) if n else None,
)
_EXPRESSIONS = {
    "FUNCTION": _CALL,
    "WINDOW": _BASE
    | _known(
        "function_name",
        "schema",
        "catalog",
        "start",
        "end",
        "ignore_nulls",
        "exclude_clause",
        "distinct",
        children=_MANY,
        partitions=_MANY,
        orders=Walk._orders,
        start_expr=_ONE,
        end_expr=_ONE,
        offset_expr=_ONE,
        default_expr=_ONE,
        filter_expr=_ONE,
        arg_orders=Walk._orders,
    ),
    "OPERATOR": _BASE | _known(children=_MANY),
    "CONJUNCTION": _BASE | _known(children=_MANY),
    "COMPARISON": _BASE | _known(left=_ONE, right=_ONE),
    "BETWEEN": _BASE | _known(input=_ONE, lower=_ONE, upper=_ONE),
    "CASE": _BASE | _known(case_checks=Walk._cases, else_expr=_ONE),
    "CAST": _BASE | _known("try_cast", child=_ONE, cast_type=Walk._type),
    "COLLATE": _BASE | _known("collation", child=_ONE),
    "COLUMN_REF": _BASE | _known("column_names"),
    "CONSTANT": _BASE | _known(value=Walk._value),
    "DEFAULT": _BASE,
    "LAMBDA": _BASE | _known("syntax_type", lhs=_ONE, expr=_ONE),
    "PARAMETER": _BASE | _known("identifier"),
    "POSITIONAL_REFERENCE": _BASE | _known("index"),
    "STAR": _BASE
    | _known(
        "relation_name",
        "exclude_list",
        "qualified_exclude_list",
        "rename_list",
        "columns",
        "unpacked",
        replace_list=Walk._replaced,
        expr=_ONE,
    ),
    "SUBQUERY": _BASE | _known("subquery_type", "comparison_type", subquery=Walk._select, child=_ONE),
    "TYPE": _BASE | _known("type_name", "catalog", "schema", children=_MANY),
}
_OPERATORS = frozenset(
    "OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE OPERATOR_NULLIF OPERATOR_TRY OPERATOR_UNPACK"
    " COMPARE_IN COMPARE_NOT_IN ARRAY_EXTRACT ARRAY_SLICE STRUCT_EXTRACT ARRAY_CONSTRUCTOR ARROW GROUPING_FUNCTION".split()
)

_BASE_TYPE = _known("type", "alias")
_TYPES = {
    "DECIMAL_TYPE_INFO": _BASE_TYPE | _known("width", "scale"),
    "STRING_TYPE_INFO": _BASE_TYPE,
    "LIST_TYPE_INFO": _BASE_TYPE | _known(child_type=Walk._type),
    "ARRAY_TYPE_INFO": _BASE_TYPE | _known("size", child_type=Walk._type),
    "STRUCT_TYPE_INFO": _BASE_TYPE | _known(child_types=Walk._fields_of_type),
    "UNBOUND_TYPE_INFO": _BASE_TYPE | _known(expr=_ONE),
}
