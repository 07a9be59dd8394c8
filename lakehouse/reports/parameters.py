"""The parameters of a report: what its notebook declares, and whether values fit it.

Papermill writes names and values into the notebook as code. So only declared names are accepted, only values of the
declared kind, and the cell that papermill wrote is read again before it runs: it must say exactly what was given.
"""

from __future__ import annotations

import ast
import datetime as dt
import json
import keyword
import math
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from lakehouse.errors import ReportInvalid
from lakehouse.reports.model import Kind, Parameter

_LONGEST = 100_000  # characters of a text
_MOST = 10_000  # values of a list
_KINDS: dict[str, Kind] = {
    "int": "int",
    "float": "float",
    "str": "str",
    "bool": "bool",
    "date": "date",
    "datetime.date": "date",
    "list": "list",
}
SECRET = "env:"  # noqa: S105 - how a reference to one begins
METADATA = "lakehouse"
"""The key of our part in a notebook's metadata: `{"parameters": {name: {"kind", "choices", …}}}`."""


class Refinement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a notebook's metadata says of a parameter beyond its cell."""

    kind: Kind | None = None
    help: str | None = None
    choices: list[Any] | None = None
    minimum: Any = None
    maximum: Any = None


def declared(notebook: Any, where: str) -> list[Parameter]:
    """The parameters of a notebook: those that papermill finds in its cell, refined by its metadata.

    Args:
        notebook: an nbformat node.
        where: the name to say in errors.

    Raises:
        ReportInvalid: a default is no plain value, or the metadata is not as it should be; says where.
    """
    import papermill

    try:
        refined = msgspec.convert(
            notebook.metadata.get(METADATA, {}).get("parameters", {}), dict[str, Refinement], strict=True
        )
    except msgspec.ValidationError as error:
        raise ReportInvalid(f"{where}: metadata.{METADATA}.parameters: {error}") from None
    found = papermill.inspect_notebook(notebook)
    if strangers := refined.keys() - found.keys():
        raise ReportInvalid(f"{where}: the metadata speaks of '{min(strangers)}', which the parameters cell has not")
    parameters = []
    for name, inferred in found.items():
        try:
            default = ast.literal_eval(inferred["default"])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ReportInvalid(
                f"{where}: the default of '{name}' is no plain value: {inferred['default']:.60}",
                hint="a number, a text, True, False, None or a list of them",
            ) from None
        more = refined.get(name, Refinement())
        parameter = Parameter(
            name,
            more.kind or _kind(inferred["inferred_type_name"], default),
            default,
            more.help if more.help is not None else inferred["help"],
            more.choices,
            more.minimum,
            more.maximum,
        )
        if default is not None:
            check(parameter, default, where)
        parameters.append(parameter)
    return parameters


def _kind(inferred: str, default: Any) -> Kind:
    word = inferred.partition("[")[0].partition("|")[0].strip().lower()
    return _KINDS.get(word) or _KINDS.get(type(default).__name__, "str")


def filled(parameters: list[Parameter], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters with their values, the defaults for those not given.

    Raises:
        ReportInvalid: a name that is not declared, or a value that does not fit; names it.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            raise ReportInvalid(f"{where} has no parameter {name!r:.60}", hint=f"it has: {', '.join(known) or 'none'}")
    values = {}
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        values[name] = None if value is None and parameter.default is None else check(parameter, value, where)
    return values


def parsed(parameters: list[Parameter], texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """Values from texts, as a shell has them.

    Raises:
        ReportInvalid: a text cannot be a value of its parameter.
    """
    kinds = {parameter.name: parameter.kind for parameter in parameters}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if kinds.get(name, "str") in ("str", "date", "secret"):
            values[name] = text
            continue
        try:
            values[name] = json.loads(text)
        except ValueError:
            raise _unfit(name, text, kinds[name], where) from None
    return values


def check(parameter: Parameter, value: Any, where: str) -> Any:
    """The value in the form in which it is written into the notebook and noted.

    Raises:
        ReportInvalid: it does not fit.
    """
    fitted = _fitted(parameter.kind, value)
    if fitted is None:
        raise _unfit(parameter.name, value, parameter.kind, where)
    if parameter.choices is not None:
        for one in fitted if isinstance(fitted, list) else [fitted]:
            if one not in parameter.choices:
                raise ReportInvalid(
                    f"{where}: {one!r:.60} is no choice for '{parameter.name}'",
                    hint=f"one of {', '.join(map(str, parameter.choices))}",
                )
    least, most = parameter.minimum, parameter.maximum
    try:
        outside = (least is not None and fitted < least) or (most is not None and fitted > most)
    except TypeError:
        raise ReportInvalid(f"{where}: the bounds of '{parameter.name}' are of another type") from None
    if outside:
        raise ReportInvalid(
            f"{where}: {fitted!r:.60} is outside what '{parameter.name}' may be",
            hint=f"from {'…' if least is None else least} to {'…' if most is None else most}",
        )
    return fitted


def _fitted(kind: Kind, value: Any) -> Any:
    """The value as this kind, or None."""
    if kind == "int":
        return value if type(value) is int and abs(value) < 1 << 63 else None
    if kind == "float":
        return float(value) if type(value) in (int, float) and math.isfinite(value) else None
    if kind == "bool":
        return value if type(value) is bool else None
    if kind == "date":
        return _date(value)
    if kind == "list":
        return _list(value)
    if not isinstance(value, str) or len(value) > _LONGEST or not _plain(value):
        return None
    return value if kind == "str" or (value.startswith(SECRET) and value[len(SECRET) :].isidentifier()) else None


def _date(value: Any) -> str | None:
    if isinstance(value, dt.date):
        return value.isoformat()[:10]
    try:
        return dt.date.fromisoformat(value).isoformat()
    except (ValueError, TypeError):
        return None


def _list(value: Any) -> list[Any] | None:
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        return None
    fine = all(
        item is None
        or type(item) is bool
        or _fitted("int", item) is not None
        or _fitted("float", item) is not None
        or _fitted("str", item) is not None
        for item in value
    )
    return list(value) if fine else None


def _plain(text: str) -> bool:
    try:
        return "\0" not in text and text.encode() is not None
    except UnicodeEncodeError:
        return False


def _unfit(name: str, value: Any, kind: str, where: str) -> ReportInvalid:
    assert kind in get_args(Kind)
    wanted = {
        "int": "a whole number",
        "float": "a finite number",
        "bool": "true or false",
        "date": "a date such as 2013-02-08",
        "list": "a list of plain values",
        "secret": "a reference such as env:DATABASE_PASSWORD",
        "str": "a text",
    }[kind]
    shown = "the value" if kind == "secret" else f"{value!r:.60}"
    return ReportInvalid(f"{where}: {shown} does not fit '{name}'", hint=f"it takes {wanted}")


def written(notebook: Any, values: Mapping[str, Any]) -> Any:
    """The notebook with the values in a cell of their own, as papermill writes it and read again.

    Raises:
        ReportInvalid: what papermill wrote is not what was given.
    """
    from papermill.parameterize import parameterize_notebook

    notebook.metadata.setdefault("papermill", {})
    ready = parameterize_notebook(notebook, dict(values))
    cell = next((c for c in ready.cells if "injected-parameters" in c.metadata.get("tags", [])), None)
    said = {}
    for statement in ast.parse(cell.source).body if cell is not None else []:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if not isinstance(target, ast.Name) or keyword.iskeyword(target.id):
            raise ReportInvalid("the parameters cannot be written into the notebook")
        try:
            said[target.id] = ast.literal_eval(statement.value)
        except ValueError:
            raise ReportInvalid(f"the value of '{target.id}' cannot be written into the notebook") from None
    if said != dict(values):
        raise ReportInvalid("the parameters cannot be written into the notebook")
    return ready
