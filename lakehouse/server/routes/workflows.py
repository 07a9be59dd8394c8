"""Workflows over HTTP: only those that are stored, by their name; a definition never comes this way."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from lakehouse.errors import (
    DiskFull,
    JournalError,
    LakeReadOnly,
    RunNotFound,
    WorkflowBusy,
    WorkflowError,
    WorkflowInvalid,
    WorkflowNotFound,
)
from lakehouse.observer.model import Event
from lakehouse.server.routing import BASE, Answer, Call, Route
from lakehouse.workflow.runs import Run as Account

Value = bool | int | float | str


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """Values of parameters, and whether nodes run also when nothing has changed."""

    params: dict[str, Value] = {}
    force: bool = False


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """The runs of one workflow, or of all; the newest."""

    workflow: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    whole: bool = False
    """With what came of each node."""


class One(msgspec.Struct, forbid_unknown_fields=True):
    """How much of a run is wanted."""

    whole: bool = False
    """With what came of each node."""


class Names(msgspec.Struct):
    """The stored workflows."""

    workflows: list[str]


class Place(msgspec.Struct):
    """A node among the others."""

    node: str
    mode: str
    after: list[str]
    reads: list[str] | None
    writes: list[str]


class Definition(msgspec.Struct):
    """A workflow that can run."""

    workflow: str
    description: str
    params: dict[str, Value]
    nodes: list[Place]


class Run(msgspec.Struct):
    """How a run stands."""

    run: str
    workflow: str
    status: str
    success: bool | None
    started: datetime
    ended: datetime | None
    params: dict[str, Value]
    snapshot: int
    pin: int | None
    principal: str | None
    resumed: int
    counts: dict[str, int]
    nodes: int
    events: list[Event] | msgspec.UnsetType = msgspec.UNSET
    """When the whole of it is wanted: the last word on each node that has one."""
    attempts: list[Event] | msgspec.UnsetType = msgspec.UNSET
    """Likewise: failures after which a node was tried again."""
    modes: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """Likewise: the mode of each node."""


class Listed(msgspec.Struct):
    """Runs, newest first."""

    runs: list[Run]


class Told(msgspec.Struct):
    """The last word on each node that has one."""

    run: str
    status: str
    events: list[Event]


def names(call: Call) -> Names:
    """The stored workflows."""
    return Names(call.lake.workflows.names())


def definition(call: Call) -> Definition:
    """A stored workflow and the order of its nodes; refused when it cannot run."""
    workflows = call.lake.workflows
    loaded = workflows.stored(call.path[0])
    plan = workflows.validate(loaded)
    nodes = []
    for name in plan.order:
        reads = plan.reads[name]
        told = None if reads is None else list(reads)
        nodes.append(Place(name, loaded.nodes[name].mode, list(plan.before[name]), told, list(plan.writes[name])))
    return Definition(loaded.name, loaded.description, dict(loaded.params), nodes)


def start(call: Call) -> Answer[Run]:
    """Begin a run; it goes on in the server after the answer."""
    body: Start = call.body
    workflows = call.lake.workflows
    name = call.path[0]
    loaded = workflows.stored(name)
    handle = workflows.start(loaded, body.params, force=body.force, principal=call.principal.name, request=call.name())
    return _accepted(handle.state())


def listed(call: Call) -> Listed:
    """The newest runs."""
    found = call.lake.workflows.runs(call.query.workflow, call.query.limit)
    return Listed([_run(one, whole=call.query.whole) for one in found])


def run(call: Call) -> Run:
    """How a run stands."""
    return _run(call.lake.workflows.get(call.path[0]), whole=call.query.whole)


def events(call: Call) -> Told:
    """What came of the nodes of a run, as far as it is."""
    found = call.lake.workflows.get(call.path[0])
    return Told(found.id, found.status, list(found.events.values()))


def printed(call: Call) -> Answer[None]:
    """What a node printed in a run, as far as it is; nothing for a node that there is not."""
    text = call.service.told(call.lake.workflows.printed(*call.path))
    return Answer(None, 200, {"Content-Type": _TEXT}, content=text.encode())


def cancel(call: Call) -> Answer[Run]:
    """Cancel a run; its nodes are killed, and it has ended as soon as its status says so."""
    return _accepted(call.lake.workflows.cancel(call.path[0], principal=call.principal.name))


def resume(call: Call) -> Answer[Run]:
    """Go on with a run that failed, was cancelled or interrupted; what is done stays."""
    handle = call.lake.workflows.resume_behind(call.path[0], principal=call.principal.name)
    return _accepted(handle.state())


def _run(account: Account, *, whole: bool = False) -> Run:
    values: dict[str, Any] = account.to_dict()
    if whole:
        values |= {"events": [*account.events.values()], "attempts": account.attempts, "modes": account.nodes}
    return Run(**values)


def _accepted(account: Account) -> Answer[Run]:
    return Answer(_run(account), 202, {"Location": f"{BASE}/runs/{account.id}"})


_TEXT = "text/plain; charset=utf-8"
_BEGUN = (LakeReadOnly, WorkflowBusy, WorkflowInvalid, WorkflowError, JournalError, DiskFull)
ROUTES = (
    Route("GET", "/workflows", "read", names),
    Route("GET", "/workflows/{workflow}", "read", definition, refuses=(WorkflowNotFound, WorkflowInvalid)),
    Route(
        "POST",
        "/workflows/{workflow}/runs",
        "write",
        start,
        body=Start,
        statuses=(202,),
        refuses=(WorkflowNotFound, *_BEGUN),
        counts_once=True,
    ),
    Route("GET", "/runs", "read", listed, query=Which, refuses=(WorkflowNotFound,)),
    Route("GET", "/runs/{run}", "read", run, query=One, refuses=(RunNotFound,)),
    Route("GET", "/runs/{run}/events", "read", events, refuses=(RunNotFound,)),
    Route("GET", "/runs/{run}/nodes/{node}/printed", "read", printed, media=(_TEXT,), refuses=(RunNotFound,)),
    Route("POST", "/runs/{run}/cancel", "write", cancel, statuses=(202,), refuses=(RunNotFound,)),
    Route("POST", "/runs/{run}/resume", "write", resume, statuses=(202,), refuses=(RunNotFound, *_BEGUN)),
)
