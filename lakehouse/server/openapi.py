"""The description of the routes (OpenAPI 3.1), made from the very types that are decoded and encoded: it cannot drift."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import responses
from typing import Any, get_args, get_type_hints

import msgspec

from lakehouse import __version__
from lakehouse.errors import (
    DiskFull,
    Forbidden,
    KeyReused,
    LakeClosed,
    LakehouseError,
    LakeReadOnly,
    LakeTooNew,
    LakeUnusable,
    LockTimeout,
    MediaTypeUnsupported,
    RequestInFlight,
    RequestInvalid,
    TooManyAttempts,
    Unauthenticated,
)
from lakehouse.server.once import HEADER, REPLAYED
from lakehouse.server.routing import BASE, Route, holes

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was wrong, and where"},
        "code": {"type": "string", "description": "stable; part of the API"},
        "request_id": {"type": "string", "description": "also in the header X-Request-Id, and in the server's log"},
        "hint": {"type": "string", "description": "what to do next"},
    },
}
_ALWAYS: tuple[type[LakehouseError], ...] = (
    RequestInvalid, Unauthenticated, Forbidden, TooManyAttempts, LockTimeout, LakehouseError, LakeUnusable, LakeTooNew,
    LakeClosed,
)  # fmt: skip
_OF_WRITES = (LakeReadOnly, DiskFull)
_OF_KEYS = (KeyReused, RequestInFlight)
_OF_BODIES = {413: {"body_too_large": "The body is larger than one that is decoded whole may be."}}
_HEADERS = {
    HEADER: "Stands for this very request: sent again within 24 hours it gets the same answer"
    f" (and {REPLAYED}: true), and is not done again.",
}


def described(routes: tuple[Route, ...], base: str = "") -> dict[str, Any]:
    """The OpenAPI document of these routes.

    Args:
        routes: all that are served.
        base: the path that the server's own routes begin with, without a slash at its end.
    """
    types = [kind for route in routes for kind in (route.body, _answer(route)) if kind is not None]
    found, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    shared: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = paths.setdefault(route.path.replace("...}", "}"), {})
        path[route.method.lower()] = _operation(route, schema_of, shared)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lakehouse", "version": __version__},
        "servers": [{"url": base + BASE}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "responses": shared,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def errors(route: Route) -> dict[int, dict[str, str]]:
    """Status and code of every error that a route may answer with, and what each means."""
    found: dict[int, dict[str, str]] = {}
    kinds = set(_ALWAYS)
    for kind in route.refuses:
        kinds |= set(_tree(kind))
    if route.label in ("write", "admin"):
        kinds |= set(_OF_WRITES)
    if route.counts_once:
        kinds |= set(_OF_KEYS)
    if route.body is not None:
        kinds.add(MediaTypeUnsupported)
        found |= {status: dict(codes) for status, codes in _OF_BODIES.items()}
    for kind in sorted(kinds, key=lambda one: one.code):
        if kind.status < 500 or kind in (LockTimeout, DiskFull) or kind in route.refuses:
            found.setdefault(kind.status, {})[kind.code] = (kind.__doc__ or "").strip().partition("\n\n")[0]
    return dict(sorted(found.items()))


def _tree(kind: type[LakehouseError]) -> Iterator[type[LakehouseError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _answer(route: Route) -> Any:
    """The type that a route answers with as JSON; None for none."""
    if route.gives is not None:
        return route.gives
    kind = get_type_hints(route.run)["return"]
    kind = (get_args(kind) or (kind,))[0] if getattr(kind, "__origin__", kind).__name__ == "Answer" else kind
    return None if kind is type(None) else kind


def _operation(route: Route, schema_of: dict[Any, dict[str, Any]], shared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    name = f"{route.run.__module__.rpartition('.')[2]}_{route.run.__name__.strip('_')}"
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": (route.run.__doc__ or "").strip(),
        "tags": [name.partition("_")[0]],
        "x-label": route.label,
        "parameters": [*_in_path(route), *_in_query(route.query), *_in_headers(route)],
        "responses": {
            **{str(status): _done(route, status, schema_of) for status in route.statuses},
            **{
                str(status): _refused(status, codes, shared)
                for status, codes in errors(route).items()
                if status not in route.statuses
            },
        },
    }
    if route.streams:
        operation["requestBody"] = {"content": {"application/octet-stream": {}}}
    elif route.body is not None:
        required = any(one.required for one in msgspec.structs.fields(route.body))
        operation["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": schema_of[route.body]}},
        }
    return operation


def _done(route: Route, status: int, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": responses[status]}
    kind = _answer(route)
    if status not in (204, 304) and route.media:
        schema = {} if kind is None else {"schema": schema_of[kind]}
        answer["content"] = {media: dict(schema) if media == "application/json" else {} for media in route.media}
    return answer


def _refused(status: int, codes: dict[str, str], shared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """An error, which many routes may answer with, described once."""
    told = {"properties": {"code": {"enum": list(codes)}, "status": {"const": status}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, told]}
    refused = {
        "description": "\n".join(f"`{code}`: {meaning}" for code, meaning in codes.items()),
        "content": {"application/problem+json": {"schema": schema}},
    }
    same = (name for name, other in shared.items() if other == refused)
    name = next(same, None) or f"Refused{status}.{sum(one.startswith(f'Refused{status}') for one in shared) + 1}"
    shared[name] = refused
    return {"$ref": f"#/components/responses/{name}"}


def _in_path(route: Route) -> list[dict[str, Any]]:
    kind = {"type": "string", "minLength": 1}
    return [{"name": one, "in": "path", "required": True, "schema": kind} for one in holes(route.path)]


def _in_query(kind: type[msgspec.Struct]) -> list[dict[str, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        {"name": one.name, "in": "query", "required": one.required, "schema": msgspec.json.schema(hints[one.name])}
        for one in msgspec.structs.fields(kind)
    ]


def _in_headers(route: Route) -> list[dict[str, Any]]:
    names = [name for name in route.reads if not name.startswith("Content-")]
    names += [HEADER] if route.counts_once else []
    return [
        {"name": name, "in": "header", "schema": {"type": "string"}}
        | ({"description": _HEADERS[name]} if name in _HEADERS else {})
        for name in names
    ]
