"""What the notebook's variables give to a query: values for its `$names`, and frames to use as tables."""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.names import nearest
from lakehouse.errors import ParameterFault, QueryError
from lakehouse.notebook import scopes

if TYPE_CHECKING:
    from lakehouse.query.statements import Parser, Statement

# Known by name, so that looking at a variable imports nothing. A RecordBatchReader is not among them: it is read once.
_FRAMES = frozenset(
    {
        ("pandas", "DataFrame"),
        ("polars", "DataFrame"),
        ("polars", "LazyFrame"),
        ("pyarrow", "Table"),
        ("pyarrow", "RecordBatch"),
        ("pyarrow", "Dataset"),
        ("_duckdb", "DuckDBPyRelation"),
        ("lakehouse", "Result"),
    }
)
_LISTS = frozenset({("pandas", "Series"), ("pandas", "Index"), ("polars", "Series"), ("pyarrow", "Array")})
_BINDABLE = (
    *(bool, int, float, str, bytes, bytearray, list, tuple, dict, uuid.UUID, decimal.Decimal, type(None)),
    *(datetime.date, datetime.time, datetime.timedelta),
)
_ALSO_BINDABLE = _LISTS | {("numpy", "generic"), ("numpy", "ndarray"), ("pandas", "NAType")}
_MADE = re.compile(
    r"create\s+(?:or\s+replace\s+)?(?:temp(?:orary)?\s+)?(?P<kind>table|view)\s+(?:if\s+not\s+exists\s+)?"
    r'(?:lake\.)?(?:main\.)?(?P<name>"(?:[^"]|"")+"|\w+)',
    re.I,
)


def parameters(statements: Iterable[Statement], values: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every `$name` in the statements, from the notebook's variables.

    Raises:
        ParameterFault: there is no variable of that name, or DuckDB cannot take its value.
    """
    wanted = sorted(frozenset[str]().union(*(statement.parameters for statement in statements)))
    return {name: _value(name, values) for name in wanted}


def tables(
    statements: Sequence[Statement], parser: Parser, values: Mapping[str, Any], taken: Callable[[], Collection[str]]
) -> dict[str, Any]:
    """The variables that the statements use as tables: frames whose name is not one of the lake's.

    Args:
        statements: the script.
        parser: says what a SELECT refers to.
        values: the notebook's variables.
        taken: gives the lower-cased names that mean a table already; asked only when it matters.

    Raises:
        QueryError: a view would keep a variable, or a name means a variable and a table the script makes.
    """
    named = [_named(statement, parser) for statement in statements]
    frames = {name for names in named for name in names if is_frame(values.get(name))}
    if frames:
        known = taken()
        frames = {name for name in frames if name.lower() not in known}
    for i, statement in enumerate(statements):
        made = _MADE.search(statement.text) if statement.kind in ("ddl", "session") else None
        if made is None:
            continue
        name = made["name"].strip('"')
        if made["kind"].lower() == "view" and (kept := sorted((frames & named[i]) - {name})):
            raise QueryError(
                f"the view '{name}' cannot keep the notebook's variable '{kept[0]}'",
                hint=f"write {kept[0]} into a table first: CREATE TABLE … AS FROM {kept[0]}",
            )
        if name in frames and any(name in names for names in named[i + 1 :]):
            raise QueryError(
                f"'{name}' is a variable of the notebook and a table that this script makes", hint="rename one of them"
            )
    return {name: _table(values[name]) for name in sorted(frames)}


def is_frame(value: Any) -> bool:
    """Whether a variable can be used as a table."""
    return _is_one_of(value, _FRAMES)


def is_value(value: Any) -> bool:
    """Whether a variable can be bound as `$name`."""
    return isinstance(value, (*_BINDABLE, set, frozenset, range)) or _is_one_of(value, _ALSO_BINDABLE)


def frame_columns(value: Any) -> list[str]:
    """The column names of a frame, without computing it."""
    if _is_one_of(value, {("polars", "LazyFrame")}):
        return list(value.collect_schema().names())
    if _is_one_of(value, {("pyarrow", "Table"), ("pyarrow", "RecordBatch"), ("pyarrow", "Dataset")}):
        return list(value.schema.names)
    return [str(name) for name in value.columns]


def _named(statement: Statement, parser: Parser) -> set[str]:
    """The names that may be tables: those a SELECT reads; of other statements every name in it."""
    if statement.verb == "SELECT" and (shape := parser.inspect(statement.text)):
        return {name for catalog, schema, name in shape.tables if not catalog and not schema}
    return {token.name for token in scopes.lex(statement.text) if token.name}


def _table(value: Any) -> Any:
    """A frame in a form that any connection can read."""
    if _is_one_of(value, {("_duckdb", "DuckDBPyRelation")}):
        return value.to_arrow_table()  # a relation belongs to its own connection
    if _is_one_of(value, {("pyarrow", "RecordBatch")}):
        import pyarrow as pa

        return pa.Table.from_batches([value])
    return value


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name.isdigit():
        raise ParameterFault("a value must have a name here", hint="write $name instead of ?; it is the variable name")
    if name not in values:
        named = [k for k, v in values.items() if is_value(v) and not k.startswith("_") and k not in ("In", "Out")]
        raise ParameterFault(
            f"there is no variable '{name}' for ${name}", hint=nearest(name, named) or f"define it: {name} = …"
        )
    value = values[name]
    if is_frame(value):
        raise ParameterFault(f"${name} is a table, not a value", hint=f"write {name} without $, as in FROM {name}")
    if not is_value(value):
        raise ParameterFault(
            f"${name} is a {type(value).__name__}, which is no SQL value", hint="numbers, texts, dates, lists, dicts"
        )
    if _is_one_of(value, _LISTS):
        return value.to_pylist() if hasattr(value, "to_pylist") else value.to_list()
    if isinstance(value, (set, frozenset, range)):
        return list(value)
    if _is_one_of(value, {("numpy", "timedelta64")}):
        return value.astype("timedelta64[us]").item()  # of nanoseconds numpy would make a bare number
    if _is_one_of(value, {("numpy", "number"), ("numpy", "bool"), ("numpy", "bool_")}):
        return value.item()
    return value


def _is_one_of(value: Any, names: Collection[tuple[str, str]]) -> bool:
    return any((base.__module__.partition(".")[0], base.__name__) in names for base in type(value).__mro__)
