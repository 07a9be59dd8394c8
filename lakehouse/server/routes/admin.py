"""Whether the server is ready, and reading its tokens again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lakehouse import __version__
from lakehouse.errors import BindRefused, ConfigError, LakehouseError
from lakehouse.observer.model import Counters
from lakehouse.server.answers import Check, Ready, Reloaded, Sql, Whoami, Writes
from lakehouse.server.metrics import CONTENT_TYPE
from lakehouse.server.openapi import described
from lakehouse.server.page import POLICY, page
from lakehouse.server.routes.catalog import Newest
from lakehouse.server.routing import Answer, Call, Route
from lakehouse.server.service import log


def ready(call: Call) -> Answer[Ready]:
    """Whether catalog, objects and journals answer; 503 when one does not."""
    checks: dict[str, Callable[[], int | Counters]] = {
        "catalog": lambda: call.lake.catalog.current_snapshot().id,
        "storage": lambda: len(call.lake.storage.list("", 1)),
        "journals": lambda: call.lake.pathway.stats().records,
        "observer": lambda: call.lake.observer.counters(),  # noqa: PLW0108 - the lake may fail to open: below
    }
    parts: dict[str, Check] = {}
    for name, check in checks.items():
        try:
            parts[name] = Check(ok=True, found=check())
        except LakehouseError as error:
            parts[name] = Check(ok=False, why=call.service.told(error.message))
        except Exception:
            log.exception("%s does not answer", name)
            parts[name] = Check(ok=False, why="an error that the log tells")
    held = call.service.protection
    sql = Sql(call.service.sql_served, held.level, held.reason)
    fine = all(part.ok for part in parts.values())
    return Answer(Ready("ready" if fine else "not ready", __version__, parts, sql), 200 if fine else 503)


def whoami(call: Call) -> Whoami:
    """Who the token says you are."""
    return Whoami(call.principal.name, sorted(call.principal.scopes))


def writes(call: Call) -> Writes:
    """The newest writes over HTTP: who, what, when, and what came of it."""
    return Writes(call.service.audit.newest(call.query.limit))


def metrics(call: Call) -> Answer[None]:
    """What the server counts, as Prometheus reads it."""
    headers = {"Content-Type": CONTENT_TYPE}
    return Answer(None, 200, headers, content=call.service.metrics.text())


def docs(call: Call) -> Answer[None]:
    """The routes as a page to read; it needs nothing from elsewhere."""
    from lakehouse.server.routes import all as every

    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY}
    return Answer(None, 200, headers, content=page(described(every.ROUTES, call.service.base)).encode())


def openapi(call: Call) -> dict[str, Any]:
    """The routes, and what they take (OpenAPI 3.1)."""
    from lakehouse.server.routes import all as every

    return described(every.ROUTES, call.service.base)


def reload(call: Call) -> Reloaded:
    """Read tokens and allowlist again, as SIGHUP does."""
    guard = call.service.reload()
    return Reloaded(guard.tokens, len(guard.allowed), len(guard.proxies), guard.attempts.total)


ROUTES = (
    Route("GET", "/ready", "read", ready, statuses=(200, 503)),
    Route("GET", "/whoami", "read", whoami),
    Route("GET", "/openapi.json", "read", openapi),
    Route("GET", "/docs", "read", docs, media=("text/html",)),
    Route("GET", "/metrics", "read", metrics, media=("text/plain",)),
    Route("GET", "/admin/writes", "admin", writes, query=Newest),
    Route("POST", "/admin/reload", "admin", reload, refuses=(ConfigError, BindRefused)),
)
