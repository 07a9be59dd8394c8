"""What the memory of a lake holds: traces, found by words, with what came before and after each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lakehouse_widgets.explorer import (
    Check,
    Explorer,
    Item,
    Listed,
    Opened,
    Words,
    buttons,
    counted,
    cut,
    facts,
    link,
    place_of,
    table,
    text,
)
from lakehouse_widgets.filters import Filter
from lakehouse_widgets.pages import MessageInvalid

if TYPE_CHECKING:
    from lakehouse import Lakehouse

_SEARCH, _KIND, _TAGS, _RETIRED = "Search", "Kind", "Tags", "Retired too"
_TITLE = 120  # characters
_ROWS = 200  # versions, revisions and steps that are listed
_NEWEST = 50


class PathwayExplorer(Explorer):
    """The traces of a lake: searched by words, kind and tags, each with its versions and the pathway it stands in.

    It reads only, so it may be given to viewers who may see the lake. Retired traces are shown when they are asked for.

    Args:
        lake: the lake, or one behind a server (`lakehouse.connect`).
        height: of list and details in pixels.
    """

    filters: ClassVar[Sequence[Filter]] = (
        Words(_SEARCH, "a question, or words", live=True),
        Words(_KIND, "any"),
        Words(_TAGS, "any; several with commas"),
        Check(_RETIRED),
    )
    fallback: ClassVar[Sequence[str]] = ("Trace", "Kind", "Tags", "Updated")

    def __init__(self, lake: Lakehouse, *, height: int = 440) -> None:
        super().__init__(height=height)
        self._memory = lake.pathway
        self.label, self.hint = "Traces of the lake", "Choose a trace."

    def entries(self, under: str | None, after: str | None, count: int, values: Mapping[str, Any]) -> Listed:
        if under is not None:
            raise MessageInvalid("nothing stands under a trace")
        tags = [tag for part in values[_TAGS].split(",") if (tag := part.strip())]
        page = self._memory.search(
            values[_SEARCH] or None,
            kind=values[_KIND] or None,
            tags=tags or None,
            include_retired=values[_RETIRED],
            limit=max(1, count),
            cursor=after,
        )
        traces = [found.trace for found in page]
        counts = self._memory.stats()
        retired = f", {counts.retired:,} of them retired" if counts.retired else ""
        order = "the newest first" if page.ranking == "newest" else "the best first"
        return Listed(
            [_item(trace) for trace in traces],
            page.next_cursor,
            said=f"{counted(counts.traces, 'trace')}{retired}; {order}",
            suggested={
                _KIND: sorted({trace.kind for trace in traces if trace.kind}),
                _TAGS: sorted({tag for trace in traces for tag in trace.tags}),
            },
        )

    def opened(self, key: str, values: Mapping[str, Any]) -> Opened:
        kind, _, rest = key.partition(":")
        if kind == "trace" and rest:
            return self._trace(rest)
        number, _, uid = rest.partition(":")
        if kind == "version" and uid:
            return self._version(uid, place_of(number))
        raise MessageInvalid("a memory has traces and their versions")

    def overview(self) -> tuple[str, list[Sequence[Any]]]:
        counts = self._memory.stats()
        found = self._memory.search(None, limit=_NEWEST)
        rows = [
            (_title(one.trace.content), one.trace.kind, ", ".join(one.trace.tags), one.trace.updated_at)
            for one in found
        ]
        return f"{counted(counts.traces, 'trace')}, {counts.retired:,} retired", list(rows)

    def _trace(self, uid: str) -> Opened:
        trace = self._memory.get(uid)
        content = trace.content
        parts = [
            facts(
                ("Kind", trace.kind),
                ("Status", f"retired: {trace.retired_reason or 'no reason given'}" if trace.retired else None),
                ("Tags", ", ".join(trace.tags)),
                ("Scope", ", ".join(f"{name}={value}" for name, value in trace.scope.items())),
                ("Updated", trace.updated_at),
                ("Created", trace.created_at),
                ("Version", str(trace.version)),
                ("Score", trace.score),
                ("Replayed", trace.replay_count or None),
                ("Snapshot", None if trace.snapshot is None else str(trace.snapshot)),
                ("Uid", trace.uid),
            )
        ]
        if trace.tags:
            parts.append(
                buttons(*({"label": f"All tagged {tag}", "set": {_TAGS: tag, _SEARCH: ""}} for tag in trace.tags))
            )
        parts += [*_analysis(content), text("Content", _json(content), code=True)]
        parts += self._pathway(uid)
        if trace.version > 1:
            versions = self._memory.versions(uid)[::-1]
            rows = [
                (link(one.version, f"version:{one.version}:{uid}"), one.at, _title(one.content)) for one in versions
            ]
            parts.append(table("Versions", ("Version", "Written", "What it said"), rows[:_ROWS], _cut_note(len(rows))))
        return Opened(_title(content), parts)

    def _pathway(self, uid: str) -> list[dict[str, Any]]:
        """What a trace revises, and what revises it."""
        heads = ("Trace", "Kind", "Created")
        found = self._memory.history(uid)
        note = _cut_note(len(found.items) - 1)
        if found.missing_predecessor:
            note = f"the one before, {cut(found.missing_predecessor)}, is not here"
        elif found.cycle:
            note = "they go round in a circle"
        parts = []
        if found.items[1:] or note:
            parts.append(table("Revises", heads, [_linked(one) for one in found.items[1 : _ROWS + 1]], note))
        if later := self._memory.descendants(uid):
            rows = [_linked(one) for one in later[:_ROWS]]
            parts.append(table("Revised by", heads, rows, _cut_note(len(later))))
        return parts

    def _version(self, uid: str, number: int) -> Opened:
        for one in self._memory.versions(uid):
            if one.version == number:
                parts = [
                    facts(("Version", str(number)), ("Written", one.at)),
                    buttons({"label": "The trace as it is", "open": f"trace:{uid}"}),
                    *_analysis(one.content),
                    text("Content", _json(one.content), code=True),
                ]
                return Opened(f"Version {number}: {_title(one.content)}", parts)
        raise MessageInvalid(f"the trace has no version {number}")


def _item(trace: Any) -> Item:
    facts = [trace.kind or "", ", ".join(trace.tags), cut(trace.updated_at)]
    status = "retired" if trace.retired else ""
    return Item(f"trace:{trace.uid}", _title(trace.content), " · ".join(filter(None, facts)), status)


def _linked(trace: Any) -> tuple[Any, ...]:
    return link(_title(trace.content), f"trace:{trace.uid}"), trace.kind, trace.created_at


def _title(content: Any) -> str:
    """The question a trace answers, or the beginning of what it says."""
    if isinstance(content, dict):
        named = (content.get(name) for name in ("question", "title", "text", "sql", "conclusion"))
        content = next((one for one in named if isinstance(one, str) and one.strip()), content)
    line = " ".join((content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).split())
    return line if 0 < len(line) <= _TITLE else f"{line[: _TITLE - 1]}…" if line else "(empty)"


def _analysis(content: Any) -> list[dict[str, Any]]:
    """Of a recorded analysis what was found, and its steps."""
    if not isinstance(content, dict):
        return []
    parts = []
    if isinstance(conclusion := content.get("conclusion"), str):
        parts.append(text("Conclusion", conclusion))
    steps = content.get("steps")
    if isinstance(steps, list) and all(isinstance(step, dict) for step in steps) and steps:
        rows = [(str(number), step.get("sql"), _came(step)) for number, step in enumerate(steps[:_ROWS], 1)]
        parts.append(table("Steps", ("Step", "SQL", "What came"), rows, _cut_note(len(steps))))
    return parts


def _came(step: Mapping[str, Any]) -> str:
    error, rows, changed = step.get("error"), step.get("rows"), step.get("changed")
    if isinstance(error, dict):
        return f"failed: {error.get('message', error.get('code', ''))}"
    if type(rows) is int:
        return f"{rows:,} row{'' if rows == 1 else 's'}"
    return f"{changed:,} changed" if type(changed) is int else ""


def _json(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)


def _cut_note(number: int) -> str:
    return f"the first {_ROWS} of {number:,}" if number > _ROWS else ""
