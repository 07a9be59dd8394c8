"""What the browsers of a lake have in common: a tree beside what is opened of it, and the messages between both sides.

The page sends one of three messages, each with the number of its question and the values of the controls:

`{"kind": "list", "under": key or null, "after": text or null, "count": number}` asks for entries of the tree,
`{"kind": "open", "key": key}` for what is behind one, and `{"kind": "act", "act": name, "key": key}` for something to
be done that the widget has a name for. Keys are names of things; there is no SQL and no code in any message.
"""

from __future__ import annotations

import html
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import ipywidgets
import traitlets

from lakehouse import LakehouseError
from lakehouse_widgets.filters import Filter
from lakehouse_widgets.look import styled
from lakehouse_widgets.pages import MessageInvalid, number_of

_HERE = Path(__file__).parent
PAGE_ITEMS = 200
"""A page of the tree has at most so many entries."""
TEXT_CHARACTERS = 100_000
"""Longer texts are cut for the page."""
_CELL_CHARACTERS = 500
_KEY_CHARACTERS = 2_000
_VALUE_CHARACTERS = 1_000
_WORKERS = 4  # questions answered at once: a slow one does not keep the others waiting
_WAITING = 100
_FALLBACK_ROWS = 50
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can say them, and nothing takes them


@dataclass(frozen=True)
class Words(Filter):
    """Any short text; white space around it does not count."""

    placeholder: str = ""
    live: bool = False
    """Whether it counts while it is typed."""

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > _VALUE_CHARACTERS or _SURROGATE.search(value):
            raise self._refused(f"a text of at most {_VALUE_CHARACTERS:,} characters")
        return value.strip()

    def start(self) -> str:
        return ""

    def described(self) -> dict[str, Any]:
        return {"kind": "words", "name": self.name, "placeholder": self.placeholder, "live": self.live}


@dataclass(frozen=True)
class Check(Filter):
    """Yes or no."""

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._refused("yes or no")
        return value

    def start(self) -> bool:
        return False

    def described(self) -> dict[str, Any]:
        return {"kind": "check", "name": self.name}


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of the tree."""

    key: str
    text: str
    detail: str = ""
    status: str = ""
    """One word that is shown before it, such as `failed`."""
    group: bool = False
    """Whether there are entries under it."""
    opened: bool = False
    """Whether those are shown from the start."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of entries."""

    items: Sequence[Item]
    next: str | None = None
    """What to ask with for those that follow; None: there are none."""
    total: int | None = None
    """How many there are, where that is known."""
    said: str = ""
    """One line about the whole."""
    again: float | None = None
    """Seconds after which to ask again, for what changes by itself."""
    suggested: Mapping[str, Sequence[str]] | None = None
    """Values that a control may be given, by its name."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What is behind an entry: parts as `facts`, `table`, `text`, `problem` and `buttons` make them."""

    title: str
    parts: Sequence[dict[str, Any]]
    again: float | None = None


class Explorer(anywidget.AnyWidget):  # type: ignore[misc]
    """A tree of a lake's things beside what is opened of it; the base of the browsers.

    Messages are answered in threads of their own, several at once; of those that wait the newest of a kind counts.
    """

    _esm = _HERE / "explorer.js"
    _css = styled("explorer.css")
    label = traitlets.Unicode().tag(sync=True)
    """What it is called for who cannot see it."""
    hint = traitlets.Unicode().tag(sync=True)
    """What to do, said where nothing is opened yet."""
    controls = traitlets.List().tag(sync=True)
    height = traitlets.Int(440).tag(sync=True)
    grid = traitlets.Instance(ipywidgets.DOMWidget, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)
    """Rows that an act has shown."""

    filters: ClassVar[Sequence[Filter]] = ()
    acts: ClassVar[frozenset[str]] = frozenset()
    fallback: ClassVar[Sequence[str]] = ()
    """The heads of the table that stands for the widget where no widget lives."""

    def __init__(self, *, height: int = 440) -> None:
        super().__init__(height=height, controls=[one.described() for one in self.filters])
        self._known = {one.name: one for one in self.filters}
        self._waiting: OrderedDict[Any, Any] = OrderedDict()
        self._working = 0
        self._lock = threading.Lock()
        self.on_msg(self._heard)

    def entries(self, under: str | None, after: str | None, count: int, values: Mapping[str, Any]) -> Listed:
        """A page of the entries under one, or of the topmost."""
        raise NotImplementedError

    def opened(self, key: str, values: Mapping[str, Any]) -> Opened:
        """What is behind an entry."""
        raise NotImplementedError

    def act(self, name: str, key: str, values: Mapping[str, Any]) -> str:
        """Do what one of `acts` says; a line about what was done."""
        raise NotImplementedError

    def overview(self) -> tuple[str, list[Sequence[Any]]]:
        """A caption and the rows of the table that stands for the widget where no widget lives."""
        raise NotImplementedError

    def answer(self, content: Any) -> dict[str, Any]:
        """What a message from the page is answered; also what is wrong with it, and never an exception."""
        request = content.get("request") if isinstance(content, dict) else None
        try:
            if not isinstance(content, dict) or content.get("kind") not in ("list", "open", "act"):
                raise MessageInvalid("a browser is asked to list, to open or to act")
            request = number_of(content, "request")
            values = self._read(content.get("values", {}))
            return {"kind": content["kind"], "request": request, **self._answered(content, values)}
        except LakehouseError as error:
            told = {"message": error.message, "hint": error.hint, "code": error.code}
        except Exception:
            told = {"message": "this could not be read", "hint": None, "code": "internal"}
        return {"kind": "error", "request": request if type(request) is int else None, **told}

    def _answered(self, content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        if content["kind"] == "list":
            count = number_of(content, "count", PAGE_ITEMS)
            under, after = (_text(content, name, optional=True) for name in ("under", "after"))
            return asdict(self.entries(under, after, count, values))
        key = _text(content, "key") or ""
        if content["kind"] == "open":
            return asdict(self.opened(key, values))
        name = content.get("act")
        if not isinstance(name, str) or name not in self.acts:
            raise MessageInvalid(f"'act' is one of {', '.join(sorted(self.acts)) or 'none'}")
        return {"said": self.act(name, key, values)}

    def _read(self, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict) or not self._known.keys() >= given.keys():
            raise MessageInvalid(f"'values' has values of {', '.join(self._known) or 'nothing'}")
        return {name: one.read(given[name]) if name in given else one.start() for name, one in self._known.items()}

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        lane = _lane(content)
        with self._lock:
            self._waiting.pop(lane, None)
            if len(self._waiting) < _WAITING:  # a page of ours never asks so much
                self._waiting[lane] = content
            if self._working >= _WORKERS:
                return
            self._working += 1
        threading.Thread(target=self._work, name="lakehouse-explorer", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._working -= 1
                    return
                _, content = self._waiting.popitem(last=False)
            answer = self.answer(content)
            try:
                self.send(answer)
            except Exception:  # what cannot be sent must not end who answers
                told = {"message": "the answer could not be sent", "hint": None, "code": "internal"}
                self.send({"kind": "error", "request": answer["request"], **told})

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        found = super()._repr_mimebundle_(**kwargs)
        if found is None:
            return None
        bundle, metadata = found
        return {**bundle, "text/html": self._html()}, metadata

    def _html(self) -> str:
        try:
            caption, rows = self.overview()
        except LakehouseError as error:
            return f"<p>{html.escape(str(error))}</p>"
        except Exception:
            return "<p>this could not be read</p>"
        head = "".join(f'<th scope="col" style="text-align:left">{html.escape(name)}</th>' for name in self.fallback)
        body = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cut(cell))}</td>' for cell in row) + "</tr>"
            for row in rows[:_FALLBACK_ROWS]
        )
        more = f", the first {_FALLBACK_ROWS} of {len(rows):,}" if len(rows) > _FALLBACK_ROWS else ""
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p><small>{html.escape(caption)}{more}</small></p>"
        )


def facts(*pairs: tuple[str, Any]) -> dict[str, Any]:
    """Names and values; what is None or empty is left out."""
    return {"kind": "facts", "rows": [[name, cut(value)] for name, value in pairs if value not in (None, "")]}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> dict[str, Any]:
    """Rows of texts, and of what `link` and `status` give."""
    cells = [[cell if isinstance(cell, dict) else cut(cell) for cell in row] for row in rows]
    return {"kind": "table", "title": title, "columns": list(columns), "rows": cells, "note": note}


def text(title: str, content: str, *, code: bool = False, end: bool = False) -> dict[str, Any]:
    """A text, whose beginning (or `end`) is shown when it is very long."""
    shown = content[-TEXT_CHARACTERS:] if end else content[:TEXT_CHARACTERS]
    left = len(content) - len(shown)
    note = f"{left:,} characters {'before' if end else 'behind'} are not shown" if left else ""
    return {"kind": "text", "title": title, "text": shown, "code": code, "note": note}


def problem(error: LakehouseError) -> dict[str, Any]:
    """What went wrong with a part of what is shown."""
    return {"kind": "problem", "text": error.message, "hint": error.hint or ""}


def buttons(*given: dict[str, Any]) -> dict[str, Any]:
    """Each has a `label` and one of `act`: the name of an act, `open`: a key, `set`: values of controls."""
    return {"kind": "buttons", "buttons": list(given)}


def link(shown: Any, key: str) -> dict[str, Any]:
    """A cell that opens something."""
    return {"text": cut(shown), "open": key}


def status(word: str) -> dict[str, Any]:
    """A cell with one of the words that have a mark and a colour."""
    return {"text": word, "status": word}


def cut(value: Any) -> str:
    """A value as a text of a cell."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    shown = f"{value:,}" if type(value) is int else f"{value:,.3f}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= _CELL_CHARACTERS else shown[: _CELL_CHARACTERS - 1] + "…"


def counted(number: int, what: str) -> str:
    """A number and what is counted."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def place_of(after: str | None) -> int:
    """The place that a page begins at, where pages are counted.

    Raises:
        MessageInvalid: it is none.
    """
    if after is None:
        return 0
    if not after.isascii() or not after.isdigit() or len(after) > 9:
        raise MessageInvalid("'after' is what came with the page before")
    return int(after)


def sliced(
    things: Sequence[Any], after: str | None, count: int, item: Callable[[Any], Item] = lambda one: one, **more: Any
) -> Listed:
    """A page of things that are all here; `item` makes an entry of one."""
    first = place_of(after)
    last = first + count
    return Listed(
        [item(one) for one in things[first:last]], str(last) if last < len(things) else None, len(things), **more
    )


def _text(content: Mapping[str, Any], name: str, *, optional: bool = False) -> str | None:
    value = content.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, str) or not value or len(value) > _KEY_CHARACTERS or _SURROGATE.search(value):
        raise MessageInvalid(f"'{name}' is a text of at most {_KEY_CHARACTERS:,} characters")
    return value


def _lane(content: Any) -> Any:
    """Of messages with the same one only the newest counts."""
    kind, under = (content.get("kind"), content.get("under")) if isinstance(content, dict) else (None, None)
    return (kind, under) if isinstance(kind, str) and isinstance(under, str | None) else None
