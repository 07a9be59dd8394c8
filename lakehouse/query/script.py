"""A script: which statements belong together, and which values each of them takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lakehouse.errors import ParameterFault, QueryError
from lakehouse.query.statements import Statement

_VIEW = re.compile(r"\s*create(?:\s+or\s+replace)?(?:\s+temp(?:orary)?)?(?:\s+recursive)?\s+view\b", re.I)

Parameters = Mapping[str, Any] | Sequence[Any] | None


def grouped(statements: list[Statement]) -> Iterator[list[Statement]]:
    """Statements one by one, but everything from BEGIN to its COMMIT or ROLLBACK together.

    Raises:
        QueryError: a transaction is begun and not ended, or ended and not begun.
    """
    group: list[Statement] = []
    groups: list[list[Statement]] = []
    for statement in statements:
        begins = statement.kind == "transaction" and statement.text.lower().startswith(("begin", "start"))
        if group:
            if begins:
                raise QueryError("BEGIN inside a transaction", hint="end the first one before")
            group.append(statement)
            if statement.kind == "transaction":
                groups.append(group)
                group = []
        elif begins:
            group = [statement]
        elif statement.kind == "transaction":
            raise QueryError(f"{statement.text} without BEGIN in the same script", hint="see lake.transaction()")
        else:
            groups.append([statement])
    if group:
        raise QueryError(
            "the script begins a transaction and does not end it; nothing was run",
            hint="end it with COMMIT, or use `with lake.transaction():` over several calls",
        )
    yield from groups


def check_parameters(statements: list[Statement], params: Parameters) -> None:
    """See that every `$name` of a script has a value, and every value a `$name`.

    Raises:
        ParameterFault: one has not.
    """
    if params is not None and (isinstance(params, str | bytes) or not isinstance(params, Mapping | Sequence)):
        raise ParameterFault(
            f"params is a {type(params).__name__}", hint="a mapping for $name, or a list or tuple for ?"
        )
    wanted = frozenset[str]().union(*(statement.parameters for statement in statements))
    if isinstance(params, Mapping):
        given = {str(name) for name in params}
    else:
        given = {str(i) for i in range(1, len(params or ()) + 1)}
    if missing := sorted(wanted - given):
        named = ", ".join(f"${name}" for name in missing)
        raise ParameterFault(
            f"the query needs a value for {named}",
            hint=f"given: {', '.join(sorted(given)) or 'nothing'}; pass params={{'{missing[0]}': …}}",
        )
    if unknown := sorted(given - wanted):
        named = ", ".join(f"${name}" for name in sorted(wanted)) or "no parameters"
        raise ParameterFault(f"the query has no parameter ${unknown[0]}", hint=f"it has {named}")


def bind(statement: Statement, params: Parameters) -> Any:
    """The values that one statement of a script takes, as DuckDB wants them; None when it takes none."""
    if not params or not statement.parameters:
        return None
    if isinstance(params, Mapping):
        return {name: _plain(params[name]) for name in statement.parameters}
    return [_plain(value) for value in params]


def check_views(statements: list[Statement], tables: Mapping[str, Any]) -> None:
    """See that no view is made of a frame: the view would stay and the frame would not.

    Raises:
        QueryError: one is.
    """
    for statement in statements:
        if _VIEW.match(statement.text):
            for name in tables:
                if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", statement.text, re.I):
                    raise QueryError(
                        f"a view cannot read '{name}', which is not in the lake",
                        hint=f"keep it first: CREATE TABLE … AS FROM {name}",
                    )


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python value that DuckDB can bind."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value
