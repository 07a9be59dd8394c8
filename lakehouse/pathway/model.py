"""What the pathway memory keeps: traces, and what is asked and answered about them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from lakehouse.errors import TraceInvalid

MAX_UID = 256
_DEPTH = 100
_ATOMS = frozenset({str, int, bool, type(None)})
_encoder = msgspec.json.Encoder()
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Trace(msgspec.Struct, frozen=True):
    """One record of how a question was answered; a copy, which changes nothing in the memory."""

    uid: str
    content: Any
    """Any JSON."""
    kind: str | None
    tags: tuple[str, ...]
    scope: Mapping[str, str]
    """Whose it is and where it came from: user, agent, run, notebook …"""
    version: int
    """1, and one more with each `update`."""
    predecessor: str | None
    """The trace that this one revises."""
    replay_count: int
    """How often it was added again or replayed."""
    retired: bool
    retired_reason: str | None
    score: float | None
    """The last feedback."""
    created_at: datetime
    updated_at: datetime
    snapshot: int | None
    """The lake's snapshot when it was recorded."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values, times in ISO 8601."""
        return msgspec.structs.asdict(self) | {
            "tags": list(self.tags),
            "scope": dict(self.scope),
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Version:
    """What a trace said at one time."""

    version: int
    content: Any
    at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class History:
    """A trace and those it came from, newest first."""

    items: tuple[Trace, ...]
    truncated: bool
    """A predecessor is not there."""
    missing_predecessor: str | None
    """Its uid."""
    cycle: bool
    """The predecessors run in a circle; `items` holds each once."""


@dataclass(frozen=True, slots=True)
class Found:
    """One result of a search."""

    trace: Trace
    score: float
    """Relevance: larger is better; 0 when nothing was searched for."""
    why: Mapping[str, Any] | None = None
    """The matched words and partial scores, when asked to explain."""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Results, best first (newest first when there is no query)."""

    results: tuple[Found, ...]
    next_cursor: str | None
    """Give it to the next search for what follows; None at the end."""
    position: int
    """The journal position that was searched: `as_of` it gives the same answer again."""
    ranking: str
    """`newest`, `lexical`, `semantic` or `hybrid`."""

    def __iter__(self) -> Any:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of the whole memory."""

    traces: int
    retired: int
    replays: int
    records: int
    """Records of the journal."""
    bytes: int
    """Size of the journal."""


class Draft(msgspec.Struct, gc=False):
    """A new trace, checked, as the journal has it."""

    uid: str
    content: msgspec.Raw
    kind: str | None
    tags: tuple[str, ...]
    scope: Mapping[str, str]
    snapshot: int | None = None
    predecessor: str | msgspec.UnsetType | None = msgspec.UNSET
    origin: Mapping[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """What else is known of an imported one."""
    op: str = "add"


def draft(
    content: Any, *, kind: str | None, tags: Iterable[str], scope: Mapping[str, str] | None, uid: str | None
) -> Draft:
    """Check what a caller gives; without a uid, one is made up.

    Raises:
        TraceInvalid: content that is no JSON; a uid, kind, tag or scope that is no plain text.
    """
    text = msgspec.Raw(encoded(content))
    name = os.urandom(16).hex() if uid is None else check_uid(uid)
    if kind is None and scope is None and tags == ():
        return Draft(name, text, None, (), {})
    if isinstance(tags, str):
        raise TraceInvalid("tags is one text", hint=f"give a list: tags=[{tags!r}]")
    if not isinstance(tags, Iterable):
        raise TraceInvalid(f"tags is {tags!r}", hint="a list of texts: tags=['late']")
    labels = tuple(tags)
    if scope is None:
        pairs: Mapping[str, str] = {}
    elif type(scope) is dict or isinstance(scope, Mapping):
        pairs = dict(scope)
    else:
        raise TraceInvalid("scope is not a mapping", hint="such as scope={'user': 'ann'}")
    texts = (*labels, *pairs, *pairs.values())
    if kind is not None:
        texts += (kind,)
    if texts and not _plain_texts(texts):
        _check(kind, labels, pairs)
    if len(labels) > 1:
        labels = tuple(dict.fromkeys(labels))
    return Draft(name, text, kind, labels, pairs)


def _check(kind: str | None, labels: Iterable[str], pairs: Mapping[str, str]) -> None:
    for tag in labels:
        _text(tag, "a tag")
    for key, value in pairs.items():
        _text(key, "a key of scope")
        _text(value, f"scope.{key}")
    if kind is not None:
        _text(kind, "kind")


def encoded(content: Any) -> bytes:
    """The content as JSON, after `check_json`."""
    if not _plain(content):
        check_json(content)
    try:
        return _encoder.encode(content)
    except UnicodeEncodeError:
        check_json(content)  # says where
        raise
    except TypeError:  # kinds of text, numbers and mappings that are not Python's own, such as NumPy's float64
        return json.dumps(content, ensure_ascii=False, default=dict).encode()
    except (ValueError, OverflowError) as error:
        raise TraceInvalid(f"the content cannot be written as JSON: {error}") from None


def check_uid(uid: Any) -> str:
    """The uid, if it can be one.

    Raises:
        TraceInvalid: it is empty, too long, or no plain text.
    """
    text: str = uid if type(uid) is str and uid.isalnum() else _text(uid, "uid")
    if len(text) > MAX_UID:
        raise TraceInvalid(f"a uid of {len(text)} characters is too long", hint=f"at most {MAX_UID}")
    return text


def _plain(value: Any) -> bool:
    """Whether it surely is JSON, for all but its text being Unicode: quickly told of what most contents are."""
    if type(value) is not dict:
        return type(value) in _ATOMS
    for key, item in value.items():  # noqa: SIM110 - a generator takes twice as long
        if type(key) is not str or type(item) not in _ATOMS:
            return False
    return True


def check_text(text: Any, what: str) -> str | None:
    """A reason or a note: any text, or nothing.

    Raises:
        TraceInvalid: it is something else.
    """
    if text is not None and (not isinstance(text, str) or _SURROGATE.search(text)):
        raise TraceInvalid(f"{what} is {text!r}, which is no text")
    return text


def check_score(score: Any) -> float:
    """A score as a number that every JSON reader and the index can hold.

    Raises:
        TraceInvalid: it is none.
    """
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise TraceInvalid(f"a score is a number, not {score!r}")
    try:
        number = float(score)
    except OverflowError:
        number = math.inf
    check_json(number, "the score")
    return number


def check_json(value: Any, path: str = "content", depth: int = 0) -> None:
    """Refuse what would be another thing after it was written and read again.

    Raises:
        TraceInvalid: says where and what.
    """
    if depth > _DEPTH:
        raise TraceInvalid(f"the content is nested deeper than {_DEPTH} levels")
    if value is None or isinstance(value, bool | int):
        return
    if isinstance(value, str):
        if not value.isascii() and _SURROGATE.search(value):
            raise TraceInvalid(f"{path} is text that is not Unicode")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TraceInvalid(f"{path} is {value}, which JSON has not", hint="use None or text")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            check_json(item, f"{path}.{number}", depth + 1)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TraceInvalid(f"{path} has the key {key!r}, which is no text")
            check_json(item, f"{path}.{key}", depth + 1)
    else:
        raise TraceInvalid(f"{path} is a {type(value).__name__}, which JSON has not", hint="text, numbers, lists, …")


def digest(content: Any) -> str:
    """SHA-256 of the content in one canonical form: equal content, equal digest."""
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def gist(content: Any, *, meaning: bool = False) -> Any:
    """What of a content is searched: all of it; of a recorded analysis not the rows and times of its steps.

    Args:
        content: of a trace.
        meaning: leave out its SQL as well.
    """
    if not isinstance(content, dict) or not isinstance(content.get("question"), str):
        return content
    steps = content.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return content
    inputs = [one.get("name") for step in steps for one in step.get("inputs") or () if isinstance(one, dict)]
    run = [] if meaning else [*(step.get("sql") for step in steps), *inputs]
    return [text for text in (content["question"], content.get("conclusion"), *run) if isinstance(text, str)]


def words(content: Any) -> str:
    """All text in a content as it was read from the journal, keys too, as it is searched."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if type(value) is str:
            found.append(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                found.append(key)
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif value is not None and not isinstance(value, bool):
            found.append(str(value))

    walk(gist(content))
    return " ".join(found)


def prose(content: Any) -> str:
    """The text in a content without its keys and numbers, for its meaning."""
    if isinstance(content, str):
        return content
    content = gist(content, meaning=True)
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return " ".join(filter(None, map(prose, inner)))


def _plain_texts(values: tuple[str, ...]) -> bool:
    """Whether `_text` surely lets all of them through: quickly told of most."""
    try:
        return "".join(values).isprintable() and all(map(str.strip, values))
    except TypeError:
        return False


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip() or _CONTROL.search(value):
        raise TraceInvalid(f"{what} is {value!r}", hint="a text without control characters, not empty")
    return value
