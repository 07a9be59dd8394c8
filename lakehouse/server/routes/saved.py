"""Saved queries over HTTP: what is kept by name, for everybody who asks the lake."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lakehouse.errors import AlreadyExists, NotFound, ParameterFault, QueryError
from lakehouse.query.saved import SavedQuery, check_name
from lakehouse.server.routes.queries import sandbox_of
from lakehouse.server.routing import Answer, Call, Route


class NewQuery(msgspec.Struct, forbid_unknown_fields=True):
    """One SELECT, and the saved queries that it reads."""

    sql: str
    uses: list[str] = []
    replace: bool = True
    """Whether another one of that name is given up."""


class Forced(msgspec.Struct, forbid_unknown_fields=True):
    """Whether it goes even if others read it."""

    force: bool = False


class Found(msgspec.Struct):
    """The saved queries, by name."""

    saved: list[SavedQuery]


class Gone(msgspec.Struct):
    """What was deleted."""

    name: Annotated[str, msgspec.Meta(description="as it was saved")]


def listed(call: Call) -> Found:
    """All saved queries, by name."""
    return Found(call.lake.saved.list())


def one(call: Call) -> SavedQuery:
    """A saved query: its SQL, and which others it reads."""
    return call.lake.saved.get(call.path[0])


def put(call: Call) -> Answer[SavedQuery]:
    """Save one SELECT that may run here: 201 when it is new, 200 when it took the place of another.

    Whoever reads it later may do so where no gate stands. So only what the gate lets through is kept, and it is parsed
    in a sandbox before it is here.
    """
    body: NewQuery = call.body
    saved, (name,) = call.lake.saved, call.path
    check_name(name)
    try:
        with sandbox_of(call).sql(f"EXPLAIN {saved.joined(body.sql, body.uses)}") as plan:
            plan.arrow()
    except ParameterFault:
        pass  # it has passed the gate, and its values are given when it is run
    known = name in saved
    return Answer(saved.add(name, body.sql, with_=body.uses, replace=body.replace), 200 if known else 201)


def delete(call: Call) -> Gone:
    """Give up a saved query; refused while others read it, unless forced."""
    saved = call.lake.saved
    name = saved.get(call.path[0]).name
    saved.delete(name, force=call.query.force)
    return Gone(name)


_REFUSES = (QueryError, NotFound)
ROUTES = (
    Route("GET", "/saved", "read", listed),
    Route("GET", "/saved/{name}", "read", one, refuses=(NotFound,)),
    Route(
        "PUT",
        "/saved/{name}",
        "write",
        put,
        body=NewQuery,
        statuses=(200, 201),
        refuses=(*_REFUSES, AlreadyExists),
        waits=True,
    ),
    Route("DELETE", "/saved/{name}", "write", delete, query=Forced, refuses=_REFUSES),
)
