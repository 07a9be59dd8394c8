"""The walk over DuckDB's parsed form of a SELECT: only what is known passes, down to the last field.

The form is the one of `json_serialize_sql` (https://duckdb.org/docs/stable/data/json/sql_to_and_from_json), with every
field written out; `nodes` says which kinds of nodes and which fields there may be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from lakehouse.errors import LakehouseError, SqlRefused
from lakehouse.query.gate import nodes
from lakehouse.query.gate.functions import Functions
from lakehouse.query.gate.names import Named, Names

Node = dict[str, Any]
_NOWHERE: Final = 2**64 - 1  # where DuckDB has no place in the text
_EMPTY: Final[tuple[Any, ...]] = (None, "", False, [], {}, 0)
# The schema that a recursive query with USING KEY reads all its rows of so far under.
_RECURRING: Final = "recurring"
_PLAIN: Final = re.compile(r"[^\W\d]\w*")
_CHANGES: Final = frozenset({"table_changes", "table_insertions", "table_deletions"})
_VERSIONS: Final = tuple(product(("INTEGER", "BIGINT"), repeat=2))
_TEXTS_DEEP: Final = 20  # views and macros within each other
_FILE: Final = "filename"  # tells where the lake is, in every table that has no such column of its own


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that WITH gave, seen from one place of a query; `recurring` has those of recursion with keys."""

    ctes: frozenset[str] = frozenset()
    recurring: frozenset[str] = frozenset()

    def plus(self, name: str, *, keyed: bool = False) -> Scope:
        """With one name more, which hides an older one."""
        word = frozenset({name.lower()})
        return Scope(self.ctes | word, self.recurring | word if keyed else self.recurring - word)


class Walk:
    """One walk: checks every node, and collects the tables that are read.

    Args:
        names: what the lake has.
        functions: what may be called.
        parse: turns the text of a view or macro into its tree; it is walked as well.
        defaults: whether DEFAULT may stand for a value, as in the rows of an INSERT.
    """

    def __init__(
        self, names: Names, functions: Functions, parse: Callable[[str], Node], *, defaults: bool = False
    ) -> None:
        self.tables: dict[tuple[str, str], None] = {}
        self.place: int | None = None
        """How many bytes of the text stand before what was looked at last; None where that is not known."""
        self.apart: frozenset[str] | None = None
        """Names that DuckDB has of its own, where parts of the statement are run by themselves (`pivots`): it does not
        always see a name that WITH gave there, and would take it for a file or for one of these. None elsewhere."""
        self._names = names
        self._functions = functions
        self._parse = parse
        self._defaults = defaults
        self._inside: tuple[str, ...] = ()
        self._macros: set[str] = set()
        self._file: Node | None = None
        self._files = False

    def statement(self, node: Node) -> None:
        """Check one statement, `{"node": …, "named_param_map": …}`.

        Raises:
            SqlRefused: something in it is not allowed; `place` says where.
            TableNotFound: the lake has no such table.
        """
        self._fields(node, nodes.STATEMENT, Scope(), "statement")
        self._untold()

    def _untold(self) -> None:
        """Raise SqlRefused if a column is named here that tells the file of a row."""
        if self._file is not None and self._files:
            raise self._refuse(
                f"the column {_FILE} would tell where the lake is", self._file, "another name for a column of your own"
            )

    def _refuse(self, what: str, node: Node | None = None, hint: str | None = None) -> SqlRefused:
        self._at(node)
        if self._inside:
            what = f"{self._inside[-1]} has what SQL may not: {what}"
        return SqlRefused(what, hint=hint)

    def _at(self, node: Node | None) -> None:
        place = (node or {}).get("query_location", _NOWHERE)
        if place != _NOWHERE and not self._inside:
            self.place = place

    def _fields(self, node: Node, known: nodes.Fields, scope: Scope, kind: str) -> None:
        self._at(node)
        for name, value in node.items():
            if name not in known:
                if value not in _EMPTY:
                    raise self._refuse(f"'{name}' of {kind} is not known", node)
            elif value is not None and (check := known[name]) is not None:
                getattr(self, f"_{check}")(value, scope)

    def _node(self, node: Node, scope: Scope, kind: str, allowed: Mapping[str, nodes.Fields]) -> None:
        known = allowed.get(kind)
        if known is None:
            raise self._refuse(f"{kind.lower().replace('_', ' ')} is not allowed", node)
        self._fields(node, known, scope, kind)

    def _each(self, found: list[Node], known: nodes.Fields, scope: Scope, kind: str) -> None:
        for node in found:
            self._fields(node, known, scope, kind)

    # Queries

    def _select(self, node: Node, scope: Scope) -> None:
        self._fields(node, nodes.STATEMENT, scope, "query")

    def _query(self, node: Node, scope: Scope) -> None:
        for entry in node["cte_map"]["map"]:
            self._fields(entry, nodes.WITH, scope, "WITH")
            self._given(entry["key"])
            scope = scope.plus(entry["key"])
        if node["type"] == "RECURSIVE_CTE_NODE":
            # Only the part after UNION sees the rows so far; in the part before it the name is whatever else has it.
            self._query(node["right"], scope.plus(node["cte_name"], keyed=bool(node["key_targets"])))
        self._node(node, scope, node["type"], nodes.QUERIES)

    def _given(self, name: str) -> None:
        if self.apart is not None and (not _PLAIN.fullmatch(name) or name.lower() in self.apart):
            raise self._refuse(
                f"WITH may not give the name '{name}' where the columns of a PIVOT come from the data",
                hint="a name of letters, or IN (…) with the values",
            )

    def _queries(self, found: list[Node], scope: Scope) -> None:
        for node in found:
            self._query(node, scope)

    def _cte(self, node: Node, scope: Scope) -> None:
        self._fields(node, nodes.CTE, scope, "WITH")

    def _modifier(self, node: Node, scope: Scope) -> None:
        self._node(node, scope, node["type"], nodes.MODIFIERS)

    def _modifiers(self, found: list[Node], scope: Scope) -> None:
        for node in found:
            self._modifier(node, scope)

    def _orders(self, found: list[Node], scope: Scope) -> None:
        self._each(found, nodes.ORDER, scope, "ORDER BY")

    def _sample(self, node: Node, scope: Scope) -> None:
        self._fields(node, nodes.SAMPLE, scope, "SAMPLE")

    # Tables

    def _table(self, node: Node, scope: Scope) -> None:
        if node["type"] == "BASE_TABLE":
            self._base(node, scope)
        self._node(node, scope, node["type"], nodes.TABLES)

    def _base(self, node: Node, scope: Scope) -> None:
        catalog, schema, name = node["catalog_name"], node["schema_name"], node["table_name"]
        if not catalog and not schema and name.lower() in scope.ctes:
            return
        if not catalog and schema.lower() == _RECURRING and name.lower() in scope.recurring:
            return
        self._at(node)
        try:
            found = self._names.resolve(catalog, schema, name)
        except SqlRefused as refused:
            raise self._refuse(refused.message, node, refused.hint) from None
        if found.sql is None and (not found.has_filename or node["at_clause"] is not None):  # then it may have had none
            self._files = True
        if found.key in self.tables:
            return
        self.tables[found.key] = None
        if found.sql is not None:
            self._view(found, found.sql, node)

    def _view(self, view: Named, sql: str, node: Node) -> None:
        """Check the query of a view, whose columns are none of those outside of it."""
        outside = self._file, self._files, self._macros
        self._file, self._files, self._macros = None, False, set()
        self._text(f"the view {view.shown}", sql, node, whole=True)
        self._file, self._files, self._macros = outside

    def _text(self, name: str, sql: str, node: Node, *, whole: bool = False) -> None:
        """Check what a view or macro stands for; WITH outside of it is not seen inside."""
        if len(self._inside) >= _TEXTS_DEEP:
            raise self._refuse("views and macros use each other too deeply", node)
        self._at(node)
        self._inside = (*self._inside, name)
        defaults, self._defaults = self._defaults, False
        try:
            tree = self._parse(sql)
        except LakehouseError as error:
            raise self._refuse(error.message, node) from None
        self._select(tree, Scope())
        if whole:
            self._untold()
        self._inside, self._defaults = self._inside[:-1], defaults

    def _table_function(self, node: Node, scope: Scope) -> None:
        name = node["function_name"].lower()
        if name in _CHANGES and name not in self._names.macros:
            self._changes(node)
        else:
            self._callable("table", "table function", node)
        self._fields(node, nodes.CALL, scope, "TABLE_FUNCTION")

    def _changes(self, node: Node) -> None:
        """DuckLake's `lake.table_changes('orders', 3, 7)`: of a table of the lake, between snapshots up to this one."""
        values = [one["value"] for one in node["children"] if one["class"] == "CONSTANT" and not one["alias"]]
        types = ["" if value["is_null"] else value["type"]["id"] for value in values]
        if len(node["children"]) != 3 or types not in (["VARCHAR", first, last] for first, last in _VERSIONS):
            raise self._refuse(
                f"{node['function_name']} must have a table's name as a text and two numbers of snapshots", node
            )
        self._at(node)
        name, first, last = (value["value"] for value in values)
        try:
            found = self._names.resolve(node["catalog"], node["schema"], name)
        except SqlRefused as refused:
            raise self._refuse(refused.message, node, refused.hint) from None
        if found.key not in self._names.tables:
            raise self._refuse(f"{found.shown} is no table whose changes are kept", node)
        if not 0 <= first <= last <= self._names.snapshot:
            raise self._refuse(f"the snapshots of {name} must be between 0 and {self._names.snapshot}, in order", node)
        self.tables[found.key] = None
        self._files = True

    def _show(self, value: str, scope: Scope) -> None:
        if value not in ("", '"tables"'):  # SHOW TABLES lists the tables of the lake's main schema
            raise self._refuse("SHOW of anything but a table is not allowed", None, "DESCRIBE and SUMMARIZE a table")

    def _at_clause(self, node: Node, scope: Scope) -> None:
        self._fields(node, nodes.AT, scope, "AT")

    def _pivots(self, found: list[Node], scope: Scope) -> None:
        self._each(found, nodes.PIVOT_COLUMN, scope, "PIVOT")

    def _pivot_entries(self, found: list[Node], scope: Scope) -> None:
        self._each(found, nodes.PIVOT_ENTRY, scope, "PIVOT")

    def _columns(self, names: list[str], scope: Scope) -> None:
        for name in names:
            self._column(name)

    def _columns_of(self, values: list[Node], scope: Scope) -> None:
        for value in values:  # UNPIVOT has the names of columns here
            self._value(value, scope)
            self._column(str(value.get("value")))

    def _column(self, name: str, node: Node | None = None) -> None:
        if name.lower() == _FILE:
            self._file = node or {}

    # Expressions

    def _one(self, node: Node, scope: Scope) -> None:
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
        elif kind == "OPERATOR" and node["type"] not in nodes.OPERATORS:
            raise self._refuse(f"the operator {node['type'].lower().replace('_', ' ')} is not allowed", node)
        elif kind == "DEFAULT" and not self._defaults:
            raise self._refuse("DEFAULT stands only for a value of an INSERT or UPDATE", node)
        self._node(node, scope, kind, nodes.EXPRESSIONS)

    def _many(self, found: list[Node], scope: Scope) -> None:
        for node in found:
            self._one(node, scope)

    def _rows(self, rows: list[list[Node]], scope: Scope) -> None:
        for row in rows:
            self._many(row, scope)

    def _replaced(self, found: list[Node], scope: Scope) -> None:
        self._each(found, nodes.REPLACE, scope, "REPLACE")

    def _cases(self, found: list[Node], scope: Scope) -> None:
        self._each(found, nodes.WHEN, scope, "CASE")

    def _value(self, node: Node, scope: Scope) -> None:
        self._fields(node, nodes.CONSTANT, scope, "constant")

    def _function(self, node: Node) -> None:
        self._callable("expression", "function", node)
        if self._functions.by_name(node["function_name"]):
            self._named_aggregate(node)

    def _callable(self, space: str, kind: str, node: Node) -> None:
        """A function of the allow-list, or a macro of the lake whose text passes, too; it may hide a function."""
        name: str = node["function_name"]
        why = self._functions.refused(space, name)
        texts = self._names.macros.get(name.lower(), ())
        if why and (not texts or self._functions.known(space, name)):
            raise self._refuse(f"the {kind} {name} is not allowed{why}", node)
        if texts and name.lower() not in self._macros:
            self._macros.add(name.lower())
            for text in texts:
                self._text(f"the macro {name}", text, node)

    def _named_aggregate(self, node: Node) -> None:
        """`list_aggregate(list, 'sum')` calls the function that its second argument names.

        With `column.list_aggregate('sum')` DuckDB takes the column for a schema at first, so the name may be the first.
        """
        arguments = node["children"][:2] if node["schema"] else node["children"][1:2]
        named = [
            one["value"]["value"] for one in arguments if one["class"] == "CONSTANT" and not one["value"]["is_null"]
        ]
        texts = [name for name in named if isinstance(name, str)]
        if not any(map(self._functions.aggregate, texts)):
            raise self._refuse(
                f"{node['function_name']} must name an allowed aggregate, as a text", node, "such as list_sum"
            )

    def _collation(self, node: Node) -> None:
        for part in node["collation"].lower().split("."):
            if not self._functions.collation(part):
                raise self._refuse(f"the collation {part} is not allowed", node)

    # Types

    def _named_type(self, node: Node) -> None:
        name = node["type_name"]
        if node["catalog"] or node["schema"] or not self._functions.type(name):
            raise self._refuse(f"the type {name} is not allowed", node)

    def _type(self, node: Node, scope: Scope) -> None:
        self._fields(node, nodes.TYPE, scope, "type")

    def _type_id(self, name: str, scope: Scope) -> None:
        if name != "UNBOUND" and not self._functions.type(name):
            raise self._refuse(f"the type {name} is not allowed")

    def _type_info(self, node: Node, scope: Scope) -> None:
        self._node(node, scope, node["type"], nodes.TYPES)

    def _child_types(self, found: list[Node], scope: Scope) -> None:
        self._each(found, nodes.CHILD_TYPE, scope, "type")
