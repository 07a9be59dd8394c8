"""What a route is: a method, a path, who may call it, and a function of a `Call`. Knows no web framework."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from lakehouse.auth import Principal, Scope
from lakehouse.errors import LakehouseError, RequestInvalid

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse
    from lakehouse.server.body import Body
    from lakehouse.server.service import Service

T = TypeVar("T")
BASE = "/lakehouse/v1"
Label = Literal["public", "read", "write", "admin"]
SCOPES: dict[Label, Scope] = {"read": "read", "write": "write", "admin": "write"}
"""The scope that a label asks for; `admin` says that more than rows may go. `public` asks for nothing."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_HOLE = re.compile(r"\{(\w+)(\.\.\.)?\}")
_encoder = msgspec.json.Encoder(enc_hook=lambda value: value.to_dict() if hasattr(value, "to_dict") else str(value))


def encoded(value: Any) -> bytes:
    """A value as JSON."""
    return _encoder.encode(value)


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A query string or a body in which nothing may stand."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, decoded, as the function of a route gets it."""

    service: Service
    principal: Principal
    path: tuple[str, ...]
    """What stands in the holes of the path."""
    query: Any
    """The route's `query` struct."""
    body: Any
    """The route's `body` struct; None: there was none."""
    stream: Body | None
    """The bytes of the body as they come, when the route streams."""
    headers: Mapping[str, str]
    creates: bool
    """Whether the lake may be made by this call."""
    gone: Callable[[Callable[[], None]], None] = lambda _: None
    """Takes what is to be done, in a thread, when the caller goes away before the end."""
    name: Callable[[], str | None] = lambda: None
    """Gives the name under which this very request is known when it has an `Idempotency-Key`; asked for once the body
    is read and before anything is done, it is noted with what is committed. See `once`."""

    again: Callable[[], bool] = lambda: False
    """Whether a request of that name was begun before, and nobody knows what came of it."""

    @property
    def lake(self) -> Lakehouse:
        """The lake of the server."""
        return self.service.lake(create=self.creates)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What goes back, when it is more than a value."""

    value: T
    """Written as JSON; unused when there are content or chunks."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Iterator[bytes | memoryview] | None = None
    """A body that is written as it is made; its type stands in the headers."""
    live: AsyncIterator[bytes] | None = None
    """A body without an end, on the event loop: while it has nothing to say, no thread waits for it."""
    content: bytes | None = None
    """A body that is there already; its type stands in the headers."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation over HTTP."""

    method: str
    path: str
    """Below the base, with holes: `/tables/{table}`; `{key...}` takes slashes as well."""
    label: Label
    run: Callable[[Call], Any]
    """Runs in a thread; what it returns is an `Answer` or becomes JSON. The description of the API has its type."""
    query: type[msgspec.Struct] = Nothing
    body: type[Any] | None = None
    """What the JSON body is decoded to; None: the body must be empty."""
    streams: bool = False
    """Whether the body is handed on as it comes instead."""
    statuses: tuple[int, ...] = (200,)
    """With what it answers when it is not refused."""
    media: tuple[str, ...] = ("application/json",)
    """The types of what it answers."""
    gives: type[Any] | None = None
    """What its JSON is, where it writes that itself piece by piece."""
    waits: bool = False
    """Whether it may take long, and so has threads of its own to wait in."""
    refuses: tuple[type[LakehouseError], ...] = ()
    """The errors, with all below them in the tree, that it may answer with, beyond those of its shape."""
    reads: tuple[str, ...] = ()
    """The headers of a request that mean something to it."""
    counts_once: bool = False
    """Whether an `Idempotency-Key` is honoured: what it keeps then carries the request's name (`Call.name`), so that
    after a crash it can be run again, and finds what was done."""

    def pattern(self) -> str:
        """The path as a regular expression."""
        parts, end = [], 0
        for hole in _HOLE.finditer(self.path):
            parts += [re.escape(self.path[end : hole.start()]), "(.+)" if hole[2] else "([^/]+)"]
            end = hole.end()
        return "".join([*parts, re.escape(self.path[end:])])


def holes(path: str) -> list[str]:
    """The names in the holes of a path."""
    return [hole[1] for hole in _HOLE.finditer(path)]


def audited(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    """The routes by pattern and method.

    Raises:
        LakehouseError: a route has no label or method that is known, or another one has its place.
    """
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        where = f"the route {route.method} {route.path}"
        if route.label not in get_args(Label):
            raise LakehouseError(f"{where} has no label: it is {route.label!r}", hint=f"one of {get_args(Label)}")
        if route.method not in METHODS:
            raise LakehouseError(f"{where} has no method that is known")
        if route.label == "public" and route.path != "/health":
            raise LakehouseError(f"{where} is public, and only /health may be")
        methods = table.setdefault(route.pattern(), {})
        if route.method in methods:
            raise LakehouseError(f"{where} is there twice")
        methods[route.method] = route
    return table


def decoded_query(arguments: Mapping[str, list[bytes]], wanted: type[msgspec.Struct]) -> Any:
    """The query string as a struct.

    Raises:
        RequestInvalid: a field is unknown, given twice, or of the wrong type; names it.
    """
    hints = _hints(wanted)
    values: dict[str, Any] = {}
    for name, given in arguments.items():
        try:
            texts = [one.decode() for one in given]
        except UnicodeDecodeError:
            raise RequestInvalid(f"the parameter {name!r:.80} is not UTF-8") from None
        if get_origin(hints.get(name)) in (list, tuple):
            values[name] = texts
        elif len(texts) > 1:
            raise RequestInvalid(f"the parameter '{name:.80}' is given {len(texts)} times")
        else:
            values[name] = texts[0]
    try:
        return msgspec.convert(values, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise RequestInvalid(f"query: {error}", hint=_known(wanted)) from None


def made_name(request: str, number: int) -> str:
    """The name of one of the things that a request of a name makes, the same each time it is asked."""
    return f"{request[:24]}{number:08x}"


@cache
def _hints(wanted: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a struct's fields, which take longer to find out than a request to decode."""
    return get_type_hints(wanted)


def decoded_body(content: bytes, wanted: type[Any] | None) -> Any:
    """The body as a struct.

    Raises:
        RequestInvalid: it is no JSON, has an unknown field or a wrong type (named by its path), or should not be there.
    """
    if wanted is None:
        if content.strip() not in (b"", b"{}"):
            raise RequestInvalid("this request takes no body")
        return None
    try:
        return msgspec.json.decode(content, type=wanted)
    except msgspec.ValidationError as error:
        raise RequestInvalid(f"body: {error}", hint=_known(wanted)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestInvalid(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise RequestInvalid("the body is nested too deep") from None


def _known(wanted: Any) -> str | None:
    fields = getattr(wanted, "__struct_encode_fields__", None)
    return None if fields is None else f"known: {', '.join(fields) or 'nothing'}"


def required(kind: type[Any]) -> tuple[str, ...]:
    """The fields that a body must have; one that is no struct must be there."""
    return (
        tuple(one.name for one in msgspec.structs.fields(kind) if one.required)
        if hasattr(kind, "__struct_fields__")
        else ("",)
    )
