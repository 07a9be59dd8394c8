"""What the text of a magic says: its options, the variable that takes the result, and the SQL itself."""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lakehouse.catalog.names import nearest
from lakehouse.errors import LakehouseError, ParameterFault

TYPES = ("df", "arrow", "pl", "relation")
LAKE_WORDS = (
    "tables",
    "columns",
    "snapshots",
    "profile",
    "search",
    "history",
    "lineage",
    "diff",
    "queries",
    "saved",
    "run",
)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a magic."""

    name: str
    value: str | None
    """What its value is called; None for a switch."""
    help: str
    short: str | None = None
    many: bool = False
    """Whether it may be given several times; its values are then joined with commas."""


SQL_OPTIONS = (
    Option("--output", "NAME", "put the result into this variable and show nothing; the same as NAME <<", "-o"),
    Option("--type", "|".join(TYPES), "give a DataFrame, Arrow table, Polars frame or DuckDB relation"),
    Option("--at", "VERSION", "read the lake as of this snapshot id or time"),
    Option("--limit", "N", "give at most N rows"),
    Option("--timeout", "SECONDS", "stop the query after this time"),
    Option("--save", "NAME", "keep the query under this name"),
    Option("--with", "NAME", "put the saved query of this name before the SQL; may be repeated", many=True),
    Option("--format", None, "lay out the SQL for reading, and run nothing"),
    Option("--no-execute", None, "show what would be run, and run nothing"),
    Option("--explain", None, "show the plan, and run nothing"),
    Option("--analyze", None, "with --explain: run the query and show where the time went"),
)
LAKE_OPTIONS = (
    Option("--at", "VERSION", "pin the lake to this snapshot id or time"),
    Option("--read-only", None, "open without the right to write"),
    Option("--magic", "NAME", "call the SQL magic %NAME and %%NAME from now on"),
)

_SCAN = re.compile(
    r"""(?P<skip>\s+|'(?:[^']|'')*'?|"(?:[^"]|"")*"?|\$(\w*)\$.*?(?:\$\2\$|\Z)|/\*.*?(?:\*/|\Z)|\w+)
    |(?P<comment>--(?![A-Za-z]).*)
    |(?P<option>(?<!\S)--?[A-Za-z][\w-]*)
    |(?P<arrow><<)
    |(?P<other>.)""",
    re.X | re.S,
)
_VALUE = re.compile(r"""(?:=|\s+)('[^']*'|"[^"]*"|[^\s'"]\S*)""")
_TARGET = re.compile(r"\s*([^\s<=(]+?)\s*(=?)\s*<<")


@dataclass(frozen=True, slots=True)
class Cell:
    """What `%sql` or `%%sql` was asked to do."""

    sql: str
    output: str | None = None
    """The variable that takes the result; None: it is shown."""
    show: bool = True
    type: str | None = None
    """How the rows are given; None: as a `Result`."""
    at: Any = None
    limit: int | None = None
    timeout: float | None = None
    save: str | None = None
    """The name that the query is kept under."""
    with_: tuple[str, ...] = ()
    """Saved queries that it builds on."""
    format: bool = False
    no_execute: bool = False
    explain: bool = False
    analyze: bool = False


@dataclass(frozen=True, slots=True)
class Errand:
    """What `%lake` was asked to do."""

    words: tuple[str, ...]
    at: Any = None
    read_only: bool = False
    magic: str | None = None


def sql_cell(line: str, body: str | None, values: Mapping[str, Any]) -> Cell:
    """Read the line of `%sql`, or the first line and the body of `%%sql`.

    Options stand before or after the SQL in the magic's own line; `name <<` stands before the SQL,
    `name= <<` shows the result as well.

    Args:
        line: what stands behind the magic's name.
        body: the rest of the cell; None for a line magic.
        values: the notebook's variables; an option's value may be one of them, written `$name`.

    Raises:
        LakehouseError: an option is unknown, lacks its value, or has a wrong one.
    """
    found, rest = take_options(line, SQL_OPTIONS, "sql")
    options = {name: _resolved(value, values) for name, value in found.items()}
    sql = rest if body is None else f"{rest}\n{body}"
    output, show = options.get("--output"), "--output" not in options
    if target := _TARGET.match(sql):
        if output is not None:
            raise LakehouseError(f"the result goes to {output} and to {target[1]}", hint="leave out one of them")
        output, show = target[1], bool(target[2])
        sql = sql[target.end() :]
    if output is not None:
        check_name(output)
    if "--analyze" in options and "--explain" not in options:
        raise LakehouseError("--analyze goes with --explain", hint="write --explain --analyze")
    kind = options.get("--type")
    if kind not in (None, *TYPES):
        raise LakehouseError(f"--type {kind} is not known", hint=nearest(str(kind), TYPES) or " or ".join(TYPES))
    return Cell(
        sql=sql.strip(),
        output=output,
        show=show,
        type=kind,
        at=options.get("--at"),
        limit=_number("--limit", options.get("--limit"), int, 0),
        timeout=_number("--timeout", options.get("--timeout"), float, 0.001),
        save=options.get("--save"),
        with_=tuple(filter(None, (name.strip() for name in str(options.get("--with", "")).split(",")))),
        format="--format" in options,
        no_execute="--no-execute" in options,
        explain="--explain" in options,
        analyze="--analyze" in options,
    )


def without_format(line: str) -> str | None:
    """The line of `%%sql` without `--format`; None when SQL stands in it, too."""
    _, rest = take_options(line, SQL_OPTIONS, "sql")
    if rest[sql_start(rest) :].strip():
        return None
    return re.sub(r"(?:^|\s)--format(?!\S)", "", line).rstrip()


def lake_errand(line: str) -> Errand:
    """Read the line of `%lake`.

    Raises:
        LakehouseError: an option is unknown or lacks its value, or a quote is not closed.
    """
    options, rest = take_options(line, LAKE_OPTIONS, "lake")
    try:
        words = tuple(shlex.split(rest))
    except ValueError:
        raise LakehouseError(
            f"a quote is not closed in %lake {line.strip()}", hint='quote a path with spaces: "my lake"'
        ) from None
    return Errand(words, options.get("--at"), "--read-only" in options, options.get("--magic"))


def take_options(line: str, options: Sequence[Option], magic: str) -> tuple[dict[str, str], str]:
    """The options in a line by name, and the line with spaces in their place.

    Raises:
        LakehouseError: an option is unknown or lacks its value.
    """
    found: dict[str, str] = {}
    rest, at, begun = line, 0, False
    while match := _SCAN.match(line, at):
        at = match.end()
        if match.lastgroup == "comment":
            break
        target = _TARGET.match(rest)
        if target and target.end() == at:  # options may stand behind `name <<` too
            begun = False
        elif match.lastgroup == "option" and (match[0].startswith("--") or not begun):
            option = _option(match[0], options, magic)
            value = ""
            if option.value is not None:
                given = _VALUE.match(line, at)
                if given is None:
                    raise LakehouseError(f"{match[0]} needs a value", hint=f"{option.name} {option.value}")
                value, at = given[1], given.end()
                value = value[1:-1] if value[0] in "'\"" else value
            found[option.name] = f"{found[option.name]},{value}" if option.many and option.name in found else value
            rest = rest[: match.start()] + " " * (at - match.start()) + rest[at:]
        elif not match[0].isspace():
            begun = True
    return found, rest


def sql_start(text: str) -> int:
    """Where the SQL begins behind `name <<`; 0 when there is none."""
    target = _TARGET.match(text)
    return target.end() if target else 0


def check_name(name: str) -> None:
    """Refuse what cannot be a Python variable.

    Raises:
        LakehouseError: it is not an identifier, or a keyword.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise LakehouseError(f"'{name}' cannot be the name of a variable", hint="letters, digits and _, no digit first")


def _option(word: str, options: Sequence[Option], magic: str) -> Option:
    for option in options:
        if word in (option.name, option.short):
            return option
    known = [option.name for option in options]
    hint = nearest(word, known) or f"it has {', '.join(known)}"
    raise LakehouseError(f"%{magic} has no option {word}", hint=f"{hint} (a comment is written -- with a space)")


def _resolved(value: str, values: Mapping[str, Any]) -> Any:
    if not value.startswith("$"):
        return value
    if value[1:] not in values:
        raise ParameterFault(f"there is no variable {value[1:]} for {value}", hint=nearest(value[1:], values))
    return values[value[1:]]


def _number(option: str, value: Any, kind: type[Any], least: float) -> Any:
    if value is None:
        return None
    try:
        number = kind(value)
    except (TypeError, ValueError):
        number = -1
    if not number >= least:
        what = "a whole number" if kind is int else "a number above 0"
        raise LakehouseError(f"{option} {value} is not {what}", hint=f"such as {option} 10")
    return number
