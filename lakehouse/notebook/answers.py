"""What `%lake WORD …` answers: the words, what each takes, and how its answer looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakehouseError
from lakehouse.notebook import displays
from lakehouse.notebook.displays import Listing
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.notebook.remote import Lake

_SNAPSHOTS = _QUERIES = _HITS = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """One word of `%lake`."""

    takes: str
    """What stands behind the word, as the help writes it."""
    least: int
    most: int
    give: Callable[[Lake, Sequence[str]], Any]


def answer(lake: Lake, word: str, rest: Sequence[str]) -> Any:
    """What a word of `%lake` shows.

    Raises:
        LakehouseError: there is too little or too much behind the word.
    """
    one = ANSWERS[word]
    if not one.least <= len(rest) <= one.most:
        raise LakehouseError(f"%lake {word} takes {one.takes or 'nothing'}", hint=f"%lake {word} {one.takes}".rstrip())
    return one.give(lake, rest)


def _tables(lake: Lake, rest: Sequence[str]) -> Listing:
    return displays.tables(lake, rest[0] if rest else None)


def _snapshots(lake: Lake, rest: Sequence[str]) -> Listing:
    return displays.snapshots(lake.catalog.snapshots(_number(rest, _SNAPSHOTS, "snapshots")))


def _history(lake: Lake, rest: Sequence[str]) -> Listing:
    found = lake.catalog.table(rest[0]).snapshots()
    return displays.snapshots(found[: _number(rest[1:], len(found), "snapshots")])


def _profile(lake: Lake, rest: Sequence[str]) -> Any:
    return lake.catalog.table(rest[0]).profile()


def _search(lake: Lake, rest: Sequence[str]) -> Listing:
    text = " ".join(rest)
    hits = lake.catalog.search(text)
    rows = [
        (hit.name, hit.kind, "; ".join(f"{match.where} {match.text}" for match in hit.matches[:3]))
        for hit in hits[:_HITS]
    ]
    shown = f", the best {_HITS}" if len(hits) > _HITS else ""
    caption = f"{counted(len(hits), 'hit')} for '{text}'{shown}"
    return Listing(("name", "kind", "found in"), rows, caption)


def _lineage(lake: Lake, rest: Sequence[str]) -> Any:
    return lake.catalog.table(rest[0]).lineage()


def _diff(lake: Lake, rest: Sequence[str]) -> Any:
    return lake.diff(*rest)


def _queries(lake: Lake, rest: Sequence[str]) -> Listing:
    found = lake.queries(_number(rest, _QUERIES, "queries"))
    rows = [
        (
            query.id,
            query.started.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            query.status if query.code is None or query.status != "failed" else query.code,
            f"{query.elapsed:.3f} s",
            None if query.rows is None else f"{query.rows:,}",
            displays.short(query.sql),
            query.origin,
        )
        for query in found
    ]
    header = ("id", "started", "status", "elapsed", "rows", "sql", "from")
    numbers = frozenset({"id", "elapsed", "rows"})
    return Listing(header, rows, f"{counted(len(rows), 'query', 'queries')}, newest first", numbers)


def _saved(lake: Lake, rest: Sequence[str]) -> Any:
    if rest:
        return displays.Text(lake.saved.get(rest[0]).sql)
    rows = [(one.name, displays.short(one.sql), ", ".join(one.uses)) for one in lake.saved]
    caption = f"{counted(len(rows), 'saved query', 'saved queries')}; build on one with %%sql --with NAME"
    return Listing(("name", "sql", "with"), rows, caption)


def _run(lake: Lake, rest: Sequence[str]) -> Any:
    from lakehouse.workflow.progress import Shown

    workflows, name, values = lake.workflows, rest[0], dict(map(_pair, rest[1:]))
    nodes = workflows.validate(name).order
    with Shown(name, len(nodes)) as progress:
        run = workflows.run(name, values, progress=progress, check=False)
    return run.checked()


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise LakehouseError(f"'{text}' is not NAME=VALUE", hint="%lake run WORKFLOW NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _number(rest: Sequence[str], default: int, what: str) -> int:
    if not rest:
        return default
    if not (rest[0].isdigit() and int(rest[0]) > 0):
        raise LakehouseError(f"'{rest[0]}' is not a number of {what}", hint=f"%lake {what} 10")
    return int(rest[0])


ANSWERS = {
    "tables": Answer("[SCHEMA]", 0, 1, _tables),
    "columns": Answer("TABLE", 1, 1, lambda lake, rest: displays.columns(lake, rest[0])),
    "snapshots": Answer("[N]", 0, 1, _snapshots),
    "profile": Answer("TABLE", 1, 1, _profile),
    "search": Answer("WORD …", 1, 100, _search),
    "history": Answer("TABLE [N]", 1, 2, _history),
    "lineage": Answer("TABLE", 1, 1, _lineage),
    "diff": Answer("VERSION VERSION", 2, 2, _diff),
    "queries": Answer("[N]", 0, 1, _queries),
    "saved": Answer("[NAME]", 0, 1, _saved),
    "run": Answer("WORKFLOW [NAME=VALUE …]", 1, 100, _run),
}
