"""Whether the server is ready, and reading its tokens again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lakehouse import __version__
from lakehouse.errors import LakehouseError
from lakehouse.server.openapi import described
from lakehouse.server.routes.catalog import Newest
from lakehouse.server.routing import Answer, Call, Route
from lakehouse.server.service import log


def ready(call: Call) -> Answer:
    """Whether catalog, objects and journals answer; 503 when one does not."""
    checks: dict[str, Callable[[], Any]] = {
        "catalog": lambda: call.lake.catalog.current_snapshot().id,
        "storage": lambda: len(call.lake.storage.list("", 1)),
        "journals": lambda: call.lake.pathway.stats().records,
        "observer": lambda: msgspec.to_builtins(call.lake.observer.counters()),
    }
    parts: dict[str, dict[str, Any]] = {}
    for name, check in checks.items():
        try:
            parts[name] = {"ok": True, "found": check()}
        except LakehouseError as error:
            parts[name] = {"ok": False, "why": error.message}
        except Exception:
            log.exception("%s does not answer", name)
            parts[name] = {"ok": False, "why": "an error that the log tells"}
    sql = {"ok": False, "why": "SQL is not served before it can run in a process that cannot write the lake"}
    fine = all(part["ok"] for part in parts.values())
    value = {"status": "ready" if fine else "not ready", "version": __version__, "checks": parts, "sql": sql}
    return Answer(value, 200 if fine else 503)


def whoami(call: Call) -> dict[str, Any]:
    """Who the token says you are."""
    return {"principal": call.principal.name, "scopes": sorted(call.principal.scopes)}


def writes(call: Call) -> dict[str, Any]:
    """The newest writes over HTTP: who, what, when, and what came of it."""
    return {"writes": call.service.audit.newest(call.query.limit)}


def queries(call: Call) -> dict[str, Any]:
    """What `lake.sql` was asked on this lake by any process, newest first."""
    return {"queries": [one.to_dict() for one in call.lake.queries(call.query.limit)]}


def openapi(_: Call) -> dict[str, Any]:
    """The routes, and what they take (OpenAPI 3.1)."""
    from lakehouse.server.routes import all as every

    return described(every.ROUTES)


def reload(call: Call) -> dict[str, Any]:
    """Read tokens and allowlist again, as SIGHUP does."""
    guard = call.service.reload()
    return {
        "tokens": guard.tokens,
        "allowed_networks": len(guard.allowed),
        "trusted_proxies": len(guard.proxies),
        "wrong_tokens": guard.attempts.total,
    }


ROUTES = (
    Route("GET", "/ready", "read", ready),
    Route("GET", "/whoami", "read", whoami),
    Route("GET", "/queries", "read", queries, query=Newest),
    Route("GET", "/openapi.json", "read", openapi),
    Route("GET", "/admin/writes", "admin", writes, query=Newest),
    Route("POST", "/admin/reload", "admin", reload),
)
