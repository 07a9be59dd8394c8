"""The description of the routes (OpenAPI 3.1), made from the very structs that decode what is sent."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec

from lakehouse import __version__
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


def described(routes: tuple[Route, ...]) -> dict[str, Any]:
    """The whole document."""
    bodies = list({route.body for route in routes if route.body is not None})
    _, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = paths.setdefault(route.path.replace("...}", "}"), {})
        path[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lakehouse", "version": __version__},
        "servers": [{"url": BASE}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    name = f"{route.run.__module__.rpartition('.')[2]}_{route.run.__name__.strip('_')}"
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": (route.run.__doc__ or "").strip(),
        "tags": [route.path.split("/")[1]],
        "x-label": route.label,
        "parameters": [*_in_path(route), *_in_query(route.query)],
        "responses": {
            "2XX": {"description": "done"},
            "default": {
                "description": "refused",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if route.streams:
        operation["requestBody"] = {"content": {"application/octet-stream": {}}}
    elif route.body is not None:
        schema = {"$ref": f"#/components/schemas/{route.body.__name__}"}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _in_path(route: Route) -> list[dict[str, Any]]:
    return [{"name": one, "in": "path", "required": True, "schema": {"type": "string"}} for one in holes(route.path)]


def _in_query(kind: type[msgspec.Struct]) -> list[dict[str, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        {"name": one.name, "in": "query", "required": one.required, "schema": msgspec.json.schema(hints[one.name])}
        for one in msgspec.structs.fields(kind)
    ]
