"""Filters of traces, as one SQL condition: the same for search, lists and export.

`{"kind": "sql", "tags": "late"}` means both. `{"and": […]}`, `{"or": […]}`, `{"not": {…}}` combine. A field takes a
value (equal) or operators: `{"replay_count": {"gte": 2}, "content.steps.0.sql": {"icontains": "flights"}}`. In a path
into the content, a number is a place in a list.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lakehouse.errors import FilterInvalid

COLUMNS = {
    "uid": "t.uid",
    "kind": "t.kind",
    "version": "t.version",
    "predecessor": "t.predecessor",
    "replay_count": "t.replay_count",
    "retired": "t.retired",
    "retired_reason": "t.retired_reason",
    "score": "t.score",
    "created_at": "t.created_at",
    "updated_at": "t.updated_at",
    "snapshot": "t.snapshot",
}
_COMPARED = {"eq": "IS", "ne": "IS NOT", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
TIMES = frozenset({"created_at", "updated_at"})
OPERATORS = (*_COMPARED, "in", "nin", "contains", "icontains", "exists")
_DEEPEST = 50
_LONGEST = 400_000
"""Characters; SQLite takes a million of a query."""
_LISTED = "(SELECT value FROM json_each(?))"

Condition = tuple[str, list[Any]]
Label = tuple[str, str]
"""A kind, tag or key of scope, and its value."""


def condition(filters: Mapping[str, Any] | None) -> Condition:
    """SQL over the trace `t`, and its parameters.

    Raises:
        FilterInvalid: an unknown field or operator, a value of a kind that cannot be compared, or more than SQLite can
            be asked at once.
    """
    sql, parameters = _all(filters, 0)
    if len(sql) > _LONGEST:
        raise FilterInvalid("the filter has too many conditions", hint="'in' and 'nin' take any number of values")
    return sql, parameters


def _all(filters: Any, depth: int) -> Condition:
    if filters is None:
        return "TRUE", []
    if not isinstance(filters, Mapping):
        raise FilterInvalid(f"a filter is a mapping, not {type(filters).__name__}", hint="{'kind': 'sql'}")
    if depth > _DEEPEST:
        raise FilterInvalid(f"a filter nested deeper than {_DEEPEST} levels")
    return _joined("AND", [_one(key, value, depth + 1) for key, value in filters.items()])


def labels(filters: Mapping[str, Any]) -> list[list[Label]]:
    """Labels that a trace must have to come through a filter: of each list, one.

    The filter may ask more than that; these are what the index finds at once.
    """
    wanted: list[list[Label]] = []
    for key, value in filters.items():
        if key == "and":
            wanted += [either for item in value for either in labels(item)]
        elif key in ("kind", "tags") or key.startswith("scope."):
            asked = value if isinstance(value, Mapping) else {"eq": value}
            for operator, operand in asked.items():
                if operator == "eq" or (operator == "contains" and key == "tags"):
                    wanted.append([(key, operand)])
                elif operator == "in":
                    wanted.append([(key, item) for item in operand])
    return [either for either in wanted if all(isinstance(value, str) for _, value in either)]


def _one(key: Any, value: Any, depth: int) -> Condition:
    if key in ("and", "or"):
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise FilterInvalid(f"'{key}' takes a list of filters, not {value!r}")
        return _joined(key.upper(), [_all(item, depth) for item in value])
    if key == "not":
        sql, parameters = _all(value, depth)
        return f"NOT coalesce({sql}, FALSE)", parameters
    if isinstance(value, Mapping):
        if not value:
            raise FilterInvalid(f"the filter of '{key}' is empty", hint=f"operators: {', '.join(OPERATORS)}")
        return _joined("AND", [_field(key, operator, operand) for operator, operand in value.items()])
    return _field(key, "eq", value)


def _field(key: Any, operator: Any, operand: Any) -> Condition:
    if operator not in OPERATORS:
        raise FilterInvalid(f"there is no operator '{operator}' (of '{key}')", hint=f"known: {', '.join(OPERATORS)}")
    if key == "tags":
        return _tags(operator, operand)
    sql, parameters, kind = _place(key)
    if operator == "exists":
        if not isinstance(operand, bool):
            raise FilterInvalid(f"'exists' of '{key}' takes true or false, not {operand!r}")
        return f"({kind} IS {'NOT ' if operand else ''}NULL)", parameters
    if operator in ("in", "nin"):
        values = [_value(key, item) for item in _listed(key, operator, operand)]
        found = f"coalesce(({sql}) IN {_LISTED}, FALSE)"
        bound = [*parameters, json.dumps([value for value in values if value is not None])]
        if None in values:
            found, bound = f"(({sql}) IS NULL OR {found})", [*parameters, *bound]
        return (found if operator == "in" else f"NOT {found}"), bound
    if operator in ("contains", "icontains"):
        return _contains(key, operator, operand)
    value = _value(key, operand)
    if operator in ("gt", "gte", "lt", "lte"):
        if value is None:
            raise FilterInvalid(f"'{operator}' of '{key}' cannot compare with nothing")
        # SQLite would say that every text is larger than every number.
        same = "'text'" if isinstance(value, str) else "'integer', 'real'"
        return f"(typeof({sql}) IN ({same}) AND ({sql}) {_COMPARED[operator]} ?)", [*parameters, *parameters, value]
    return f"(({sql}) {_COMPARED[operator]} ?)", [*parameters, value]


def _place(key: Any) -> tuple[str, list[Any], str]:
    """SQL of a field, its parameters, and SQL that is NULL where the field is missing."""
    if not isinstance(key, str) or not key:
        raise FilterInvalid(f"{key!r} is no field", hint=_known())
    if key in COLUMNS:
        return COLUMNS[key], [], COLUMNS[key]
    root, _, path = key.partition(".")
    if root not in ("content", "scope") or key.endswith(".") or (root == "scope" and not path):
        raise FilterInvalid(f"there is no field '{key}'", hint=_known())
    _unicode(key, key)
    steps = [] if not path else [path] if root == "scope" else path.split(".")
    if any(not step for step in steps):
        raise FilterInvalid(f"'{key}' has an empty part", hint="such as content.steps.0.sql")
    pointer = "$" + "".join(
        f"[{step}]" if root == "content" and step.isascii() and step.isdigit() else f".{_quoted(step)}"
        for step in steps
    )
    return f"json_extract(t.{root}, ?)", [pointer], f"json_type(t.{root}, ?)"


def _contains(key: str, operator: str, operand: Any) -> Condition:
    """Text within text, or an item of a list."""
    sql, parameters, kind = _place(key)
    if operator == "icontains":
        if not isinstance(operand, str):
            raise FilterInvalid(f"'icontains' of '{key}' takes text, not {operand!r}")
        _unicode(key, operand)
        return f"instr(fold({sql}), fold(?)) > 0", [*parameters, operand]
    value = _value(key, operand)
    listed = "FALSE"
    bound: list[Any] = []
    if key not in COLUMNS:
        root = "scope" if key.startswith("scope") else "content"
        listed = f"({kind} = 'array' AND EXISTS (SELECT 1 FROM json_each(t.{root}, ?) WHERE value IS ?))"
        bound = [*parameters, *parameters, value]
    text = f"(typeof({sql}) = 'text' AND instr({sql}, ?) > 0)" if isinstance(value, str) else "FALSE"
    return f"({listed} OR {text})", [*bound, *([*parameters, *parameters, value] if isinstance(value, str) else [])]


def _tags(operator: str, operand: Any) -> Condition:
    """A trace has several tags: `eq` and `contains` mean one of them."""
    has = "EXISTS (SELECT 1 FROM json_each(t.tags) WHERE value IS ?)"
    if operator == "exists":
        if not isinstance(operand, bool):
            raise FilterInvalid(f"'exists' of 'tags' takes true or false, not {operand!r}")
        return f"(json_array_length(t.tags) {'>' if operand else '='} 0)", []
    if operator in ("eq", "contains", "ne"):
        return (has if operator != "ne" else f"NOT {has}"), [_tag(operand)]
    if operator in ("in", "nin"):
        values = [_tag(item) for item in _listed("tags", operator, operand)]
        either = f"EXISTS (SELECT 1 FROM json_each(t.tags) WHERE value IN {_LISTED})"
        return f"{'NOT ' if operator == 'nin' else ''}{either}", [json.dumps(values)]
    if operator == "icontains" and isinstance(operand, str):
        return "EXISTS (SELECT 1 FROM json_each(t.tags) WHERE instr(fold(value), fold(?)) > 0)", [_tag(operand)]
    raise FilterInvalid(f"'{operator}' cannot be asked of tags", hint="eq ne in nin contains icontains exists")


def moment(key: str, value: Any) -> str:
    """A time as the index keeps it: ISO 8601 in UTC with microseconds.

    Raises:
        FilterInvalid: it is no time.
    """
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return time.astimezone(UTC).isoformat(timespec="microseconds")
    except (TypeError, ValueError, OverflowError):
        raise FilterInvalid(
            f"'{key}' is compared with {value!r}, which is no time", hint="such as 2026-01-31"
        ) from None


def _listed(key: str, operator: str, operand: Any) -> Sequence[Any]:
    if not isinstance(operand, Sequence) or isinstance(operand, str):
        raise FilterInvalid(f"'{operator}' of '{key}' takes a list, not {operand!r}")
    return operand


def _value(key: str, value: Any) -> Any:
    if key in TIMES and value is not None:
        return moment(key, value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return _unicode(key, value)
    if value is None:
        return value
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:  # not nan either
        return value if -(1 << 63) <= value < 1 << 63 else float(value)  # as SQLite reads such a number
    raise FilterInvalid(f"'{key}' cannot be compared with {value!r}", hint="text, a number, true/false, or nothing")


def _unicode(key: str, text: str) -> str:
    """The text, which SQLite can be given."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterInvalid(f"{text!r} of '{key}' is not Unicode") from None
    return text


def _tag(value: Any) -> str:
    if not isinstance(value, str):
        raise FilterInvalid(f"a tag is text, not {value!r}", hint="several: {'tags': {'in': ['a', 'b']}}")
    return _unicode("tags", value)


def _joined(word: str, parts: list[Condition]) -> Condition:
    """All or one of them; by halves, as SQLite takes a thousand levels and no more."""
    if len(parts) < 2:
        return (f"coalesce({parts[0][0]}, FALSE)", parts[0][1]) if parts else ("TRUE", [])
    middle = len(parts) // 2
    (left, first), (right, second) = _joined(word, parts[:middle]), _joined(word, parts[middle:])
    return f"({left} {word} {right})", [*first, *second]


def _quoted(step: str) -> str:
    if '"' in step or "\0" in step:
        raise FilterInvalid(f"a path cannot name the key {step!r}", hint="it has a quotation mark or a NUL character")
    return f'"{step}"'


def _known() -> str:
    return f"fields: {', '.join(COLUMNS)}, tags, scope.KEY, content.PATH"
