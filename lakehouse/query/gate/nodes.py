"""Every kind of node in DuckDB's tree of a SELECT that is let through, with its fields and how each is looked at.

Plain data: the value of a field names a method of `walk.Walk`; None is a field that names nothing outside of the query,
such as an alias, a flag or a number. A kind or a field that is not here is refused, unless the field is empty.
"""

from __future__ import annotations

from collections.abc import Mapping

Fields = Mapping[str, str | None]


def _known(*plain: str, **checks: str) -> dict[str, str | None]:
    return {**dict.fromkeys(plain), **checks}


STATEMENT: Fields = _known("named_param_map", node="query")
WITH: Fields = _known("key", value="cte")
CTE: Fields = _known("aliases", "materialized", query="select", key_targets="many", payload_aggregates="many")
ORDER: Fields = _known("type", "null_order", expression="one")
SAMPLE: Fields = _known("is_percentage", "method", "seed", sample_size="value")
AT: Fields = _known("unit", expr="one")
PIVOT_COLUMN: Fields = _known("unpivot_names", pivot_expressions="many", entries="pivot_entries")
PIVOT_ENTRY: Fields = _known("alias", values="columns_of", star_expr="one")
REPLACE: Fields = _known("key", value="one")
WHEN: Fields = _known(when_expr="one", then_expr="one")
CONSTANT: Fields = _known("is_null", "value", type="type")
TYPE: Fields = _known(id="type_id", type_info="type_info")
CHILD_TYPE: Fields = _known("first", second="type")

_QUERY = _known("type", "cte_map", modifiers="modifiers")
QUERIES: Mapping[str, Fields] = {
    "SELECT_NODE": _QUERY
    | _known(
        "group_sets",
        "aggregate_handling",
        select_list="many",
        from_table="table",
        where_clause="one",
        group_expressions="many",
        having="one",
        sample="sample",
        qualify="one",
    ),
    "SET_OPERATION_NODE": _QUERY | _known("setop_type", "setop_all", left="query", right="query", children="queries"),
    # `right` is walked apart, with one name more
    "RECURSIVE_CTE_NODE": _QUERY
    | _known("cte_name", "union_all", "aliases", "right", left="query", key_targets="many", payload_aggregates="many"),
}
MODIFIERS: Mapping[str, Fields] = {
    "ORDER_MODIFIER": _known("type", orders="orders"),
    "LIMIT_MODIFIER": _known("type", limit="one", offset="one"),
    "LIMIT_PERCENT_MODIFIER": _known("type", limit="one", offset="one"),
    "DISTINCT_MODIFIER": _known("type", distinct_on_targets="many"),
}

_TABLE = _known("type", "alias", "query_location", sample="sample")
TABLES: Mapping[str, Fields] = {
    "EMPTY": _TABLE,
    "BASE_TABLE": _TABLE
    | _known("schema_name", "table_name", "catalog_name", "column_name_alias", at_clause="at_clause"),
    "SUBQUERY": _TABLE | _known("column_name_alias", subquery="select"),
    "JOIN": _TABLE
    | _known(
        "join_type", "ref_type", "is_implicit", left="table", right="table", condition="one", using_columns="columns"
    ),
    "EXPRESSION_LIST": _TABLE | _known("expected_names", values="rows"),
    "TABLE_FUNCTION": _TABLE | _known("column_name_alias", "with_ordinality", function="table_function"),
    "PIVOT": _TABLE
    | _known(
        "unpivot_names",
        "column_name_alias",
        "include_nulls",
        source="table",
        aggregates="many",
        pivots="pivots",
        groups="columns",
    ),
    "SHOW_REF": _TABLE | _known("show_type", query="query", table_name="show"),
}

_EXPRESSION = _known("class", "type", "alias", "query_location")
CALL: Fields = _EXPRESSION | _known(
    "function_name",
    "schema",
    "catalog",
    "distinct",
    "is_operator",
    children="many",
    filter="one",
    order_bys="modifier",
)
EXPRESSIONS: Mapping[str, Fields] = {
    "FUNCTION": CALL,
    "WINDOW": _EXPRESSION
    | _known(
        "function_name",
        "schema",
        "catalog",
        "start",
        "end",
        "ignore_nulls",
        "exclude_clause",
        "distinct",
        children="many",
        partitions="many",
        orders="orders",
        start_expr="one",
        end_expr="one",
        offset_expr="one",
        default_expr="one",
        filter_expr="one",
        arg_orders="orders",
    ),
    "OPERATOR": _EXPRESSION | _known(children="many"),
    "CONJUNCTION": _EXPRESSION | _known(children="many"),
    "COMPARISON": _EXPRESSION | _known(left="one", right="one"),
    "BETWEEN": _EXPRESSION | _known(input="one", lower="one", upper="one"),
    "CASE": _EXPRESSION | _known(case_checks="cases", else_expr="one"),
    "CAST": _EXPRESSION | _known("try_cast", child="one", cast_type="type"),
    "COLLATE": _EXPRESSION | _known("collation", child="one"),
    "COLUMN_REF": _EXPRESSION | _known("column_names"),
    "CONSTANT": _EXPRESSION | _known(value="value"),
    "DEFAULT": _EXPRESSION,
    "LAMBDA": _EXPRESSION | _known("syntax_type", lhs="one", expr="one"),
    "PARAMETER": _EXPRESSION | _known("identifier"),
    "POSITIONAL_REFERENCE": _EXPRESSION | _known("index"),
    "STAR": _EXPRESSION
    | _known(
        "relation_name",
        "exclude_list",
        "qualified_exclude_list",
        "rename_list",
        "columns",
        "unpacked",
        replace_list="replaced",
        expr="one",
    ),
    "SUBQUERY": _EXPRESSION | _known("subquery_type", "comparison_type", subquery="select", child="one"),
    "TYPE": _EXPRESSION | _known("type_name", "catalog", "schema", children="many"),
}
OPERATORS = frozenset(
    "OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE OPERATOR_NULLIF OPERATOR_TRY OPERATOR_UNPACK"
    " COMPARE_IN COMPARE_NOT_IN ARRAY_EXTRACT ARRAY_SLICE STRUCT_EXTRACT ARRAY_CONSTRUCTOR ARROW GROUPING_FUNCTION".split()
)

_TYPE = _known("type", "alias")
TYPES: Mapping[str, Fields] = {
    "DECIMAL_TYPE_INFO": _TYPE | _known("width", "scale"),
    "STRING_TYPE_INFO": _TYPE,
    "LIST_TYPE_INFO": _TYPE | _known(child_type="type"),
    "ARRAY_TYPE_INFO": _TYPE | _known("size", child_type="type"),
    "STRUCT_TYPE_INFO": _TYPE | _known(child_types="child_types"),
    "UNBOUND_TYPE_INFO": _TYPE | _known(expr="one"),
}
