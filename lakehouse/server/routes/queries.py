"""SQL over HTTP, in processes that can do the lake no harm; and what was asked before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from lakehouse.errors import Conflict, NotAcceptable, NotFound, ParameterFault, QueryError, SandboxUnavailable
from lakehouse.pathway.values import decoded
from lakehouse.query.history import Status
from lakehouse.query.sandbox.sandbox import Done
from lakehouse.server import formats
from lakehouse.server.answers import Queries
from lakehouse.server.asked import HEADER, Asked, Progress
from lakehouse.server.routes.catalog import Newest
from lakehouse.server.routing import Answer, Call, Route

if TYPE_CHECKING:
    from lakehouse.query.sandbox.sandbox import Answer as Rows
    from lakehouse.query.sandbox.sandbox import Sandbox

SNAPSHOT, ROWS = "Lakehouse-Snapshot", "Lakehouse-Rows"
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Which(Newest, forbid_unknown_fields=True):
    """The newest so many; with this in their SQL, and ended so."""

    text: str | None = None
    status: Status | None = None


class Statement(msgspec.Struct, forbid_unknown_fields=True):
    """One statement that changes tables, views or schemas."""

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    """Values for `?` or `$name`; what JSON has no type for stands as `{"$date": "2026-01-02"}`, and so `$timestamp`,
    `$time`, `$interval` (seconds), `$decimal`, `$int`, `$float`, `$uuid`, `$blob` (base64) and `$map` (pairs)."""
    timeout: Seconds | None = None


class Question(Statement, forbid_unknown_fields=True):
    """One query."""

    at: int | str | None = None
    """Read the lake as of this snapshot id, tag or time."""
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Give at most so many rows."""


class Page(msgspec.Struct):
    """Rows as JSON: each a list of values, in the order of the columns."""

    query_id: str
    snapshot: int
    columns: list[dict[str, str]]
    """`name` and `type`, as DuckDB calls it."""
    rows: list[list[Any]]
    """Decimals and times are texts, bytes base64; NaN and infinity null."""
    row_count: int


def query(call: Call) -> Answer[None]:
    """Run one SELECT over the lake; the rows come as `Accept` says, as they are found. Going away cancels it.

    `Lakehouse-Query-Id` names it: choose one to watch or cancel it before the first row is there.
    """
    body: Question = call.body
    kind = formats.chosen(call.headers.get("Accept"))
    params, sandbox = _values(body.params), sandbox_of(call)
    asked = call.service.asked.begin(call.headers.get(HEADER), call.principal, body.sql, sandbox)
    call.gone(asked.cancel)
    try:
        rows = sandbox.sql(
            body.sql,
            params,
            at=body.at,
            limit=body.limit,
            timeout=body.timeout,
            query_id=asked.query_id,
        )
    except BaseException as error:
        asked.ended(error)
        raise
    return _answer(kind, asked, rows)


def statement(call: Call) -> Done:
    """Run one statement that inserts, updates, deletes, creates, alters or drops; who goes away does not stop it."""
    body: Statement = call.body
    params, sandbox = _values(body.params), sandbox_of(call)
    asked = call.service.asked.begin(call.headers.get(HEADER), call.principal, body.sql, sandbox)
    try:
        done = sandbox.run(
            body.sql, params, timeout=body.timeout, query_id=asked.query_id, mark=call.name(), again=call.again()
        )
    except BaseException as error:
        asked.ended(error)
        raise
    asked.ended(rows=done.rows)
    return done


def queries(call: Call) -> Queries:
    """What runs on this server, and what `lake.sql` was asked on this lake by any process, newest first."""
    running = [one.told() for one in call.service.asked.of(call.principal)]
    asked: Which = call.query
    return Queries(call.lake.queries(asked.limit, text=asked.text, status=asked.status), running)


def progress(call: Call) -> Progress:
    """How far a query is; your own, or any when you may write."""
    return call.service.asked.find(call.path[0], call.principal).told()


def cancel(call: Call) -> Progress:
    """Stop a query; your own, or any when you may write. One that has ended stays as it ended."""
    asked = call.service.asked.find(call.path[0], call.principal)
    asked.cancel()
    return asked.told()


def _values(params: Any) -> Any:
    """The values of parameters.

    Raises:
        ParameterFault: one is written as a type that it is not.
    """
    try:
        return decoded(params)
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ParameterFault(
            f"a value in params cannot be read: {error}", hint='such as {"$date": "2026-01-02"}'
        ) from None


def sandbox_of(call: Call) -> Sandbox:
    """Where the SQL of a caller runs.

    Raises:
        SandboxUnavailable: the kernel does not hold it, and others than this machine can reach the server.
    """
    held = call.service.protection
    if held.level == "gate-only" and not call.service.sql_served:
        raise SandboxUnavailable(
            f"SQL is held by its gate alone here ({held.reason}), which will do for this machine only",
            hint="listen on 127.0.0.1, or on a machine with Landlock",
        )
    return call.lake.sandbox(call.principal.name)


def _answer(kind: str, asked: Asked, rows: Rows) -> Answer[None]:
    """The rows in a format; when they are few they are all there now, and how many there are is said before them."""
    try:
        taken = rows.frames()
        first = list(islice(taken, 2))
        headers = {"Content-Type": kind, HEADER: asked.query_id, SNAPSHOT: str(rows.snapshot)}
        columns = [{"name": name, "type": type} for name, type in zip(rows.schema.names, rows.types, strict=True)]
        facts = {"query_id": asked.query_id, "snapshot": rows.snapshot, "columns": columns}
        pieces = formats.written(kind, rows.schema, chain(first, taken), facts)
        if len(first) < 2:
            content = b"".join(pieces)
            asked.ended(rows=rows.rows)
            return Answer(None, 200, {**headers, ROWS: str(rows.rows)}, content=content)
        start = next(pieces, b"")  # what the format cannot hold is told before anything is sent
    except BaseException as error:
        rows.close()
        asked.ended(error)
        raise
    return Answer(None, 200, headers, chunks=_watched(asked, rows, chain([start], pieces)))


def _watched(asked: Asked, rows: Rows, pieces: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The pieces; however they end, the worker is given back and it is written down."""
    try:
        yield from pieces
    except BaseException as error:
        rows.close()
        asked.ended(error, rows.rows)
        raise
    asked.ended(rows=rows.rows)


_REFUSES = (QueryError, NotFound, Conflict)

ROUTES = (
    Route(
        "POST",
        "/query",
        "read",
        query,
        body=Question,
        gives=Page,
        media=formats.MEDIA,
        refuses=(*_REFUSES, NotAcceptable),
        reads=(HEADER,),
        waits=True,
    ),
    Route(
        "POST",
        "/statements",
        "write",
        statement,
        body=Statement,
        refuses=_REFUSES,
        reads=(HEADER,),
        counts_once=True,
        waits=True,
    ),
    Route("GET", "/queries", "read", queries, query=Which),
    Route("GET", "/queries/{query_id}", "read", progress, refuses=(NotFound,)),
    Route("DELETE", "/queries/{query_id}", "read", cancel, refuses=(NotFound,)),
)
