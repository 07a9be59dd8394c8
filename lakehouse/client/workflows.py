"""`client.workflows`: the stored workflows of a lake behind a server, and their runs."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from lakehouse.client.wire import LONG, Wire, complete, limited, path
from lakehouse.errors import NotRemote, WorkflowNotFound
from lakehouse.observer.model import Event
from lakehouse.workflow.model import NAME, Value, Workflow
from lakehouse.workflow.plan import Plan
from lakehouse.workflow.runner import Progress
from lakehouse.workflow.runs import Run

if TYPE_CHECKING:
    from lakehouse.workflow.graph import Graph

log = logging.getLogger(__name__)
_KEY = "Idempotency-Key"
_FIRST, _MOST = 0.05, 1.0  # seconds between two looks at a run, longer while nothing happens
_ONLY_THERE = {
    "store": "lakehouse workflow store where the lake is; a definition never goes over HTTP",
    "load": "validate(name) gives the order of a stored one",
    "stored": "validate(name) gives the order of a stored one",
}


class _Place(msgspec.Struct):
    node: str
    mode: str
    after: list[str]
    reads: list[str] | None
    writes: list[str]


class _Definition(msgspec.Struct):
    nodes: list[_Place]

    def plan(self) -> Plan:
        """The order of the nodes, as a lake here tells it."""
        before = {one.node: tuple(one.after) for one in self.nodes}
        behind = {one.node: tuple(other.node for other in self.nodes if one.node in other.after) for one in self.nodes}
        reads = {one.node: None if one.reads is None else tuple(one.reads) for one in self.nodes}
        return Plan(tuple(before), before, behind, reads, {one.node: tuple(one.writes) for one in self.nodes})


class _Run(msgspec.Struct):
    run: str
    workflow: str
    status: str
    started: datetime
    ended: datetime | None
    params: dict[str, Value]
    snapshot: int
    pin: int | None
    principal: str | None
    resumed: int
    events: list[Event] = []
    attempts: list[Event] = []
    modes: dict[str, str] = {}

    def told(self) -> Run:
        """As a lake here tells it, without the definition."""
        events = {event.node: event for event in self.events if event.node is not None}
        return Run(
            self.run, self.workflow, self.status, self.started, self.ended, self.params, self.snapshot, self.pin,
            self.principal, events, self.attempts, self.modes, {}, self.resumed,
        )  # fmt: skip


class RemoteHandle:
    """A run that goes on in the server."""

    def __init__(self, workflows: RemoteWorkflows, run: str) -> None:
        self.id = run
        self._workflows = workflows

    def state(self) -> Run:
        """How it stands."""
        return self._workflows.get(self.id)

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended, or for so many seconds, and give how it stands."""
        return self._workflows._ended(self.id, timeout)

    def cancel(self) -> None:
        """Cancel it; `wait` tells when that is done."""
        self._workflows.cancel(self.id)

    def __repr__(self) -> str:
        return f"<run {self.id} of {self._workflows!r}>"


class RemoteWorkflows:
    """Workflows over HTTP; the methods are those of `lake.workflows`, for stored workflows only.

    Their nodes run in the server, with its settings, on behalf of whoever the token says you are.

    Args:
        wire: the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def names(self) -> list[str]:
        """The stored workflows."""
        return list(self._wire.json("GET", "/workflows", dict[str, list[str]])["workflows"])

    def validate(self, workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any]) -> Plan:
        """Look for everything that would keep a stored workflow from running; gives the order of its nodes.

        Raises:
            WorkflowNotFound, WorkflowInvalid: it is not there, or something is wrong with it.
            NotRemote: it is none of the stored ones.
        """
        return self._definition(workflow).plan()

    def graph(self, workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any], run: str | None = None) -> Graph:
        """The nodes of a stored workflow as a picture and as text; with what came of each in a run."""
        from lakehouse.workflow.graph import Graph

        found = self._definition(workflow)
        modes = {one.node: one.mode for one in found.nodes}
        return Graph(_stored(workflow), modes, found.plan(), self.get(run) if run is not None else None)

    def printed(self, run: str, node: str) -> str:
        """What a node printed in a run."""
        return self._wire.send("GET", path("/runs/{}/nodes/{}/printed", run, node)).content.decode()

    def run(
        self,
        workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any],
        params: Mapping[str, Value] | None = None,
        *,
        executor: str | Executor | None = None,
        workers: int | None = None,
        force: bool = False,
        progress: Progress | None = None,
        principal: str | None = None,
        check: bool = True,
    ) -> Run:
        """Run a stored workflow and wait until it has ended; see `Workflows.run`. An interrupt here cancels it there.

        Raises:
            NotRemote: the workflow is not a stored one, or an executor, workers or a principal are chosen.
        """
        _nothing_of(executor=executor)
        handle = self.start(workflow, params, workers=workers, force=force, principal=principal)
        run = self._ended(handle.id, None, progress, cancel=True)
        return run.checked() if check else run

    def start(
        self,
        workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any],
        params: Mapping[str, Value] | None = None,
        *,
        workers: int | None = None,
        force: bool = False,
        principal: str | None = None,
        request: str | None = None,
    ) -> RemoteHandle:
        """Begin a run that goes on in the server, once, however often the connection breaks; see `Workflows.start`."""
        _nothing_of(workers=workers, principal=principal)
        where, body = path("/workflows/{}/runs", _stored(workflow)), {"params": dict(params or {}), "force": force}
        headers = {_KEY: request or uuid.uuid4().hex}
        begun = self._wire.json("POST", where, _Run, body=body, headers=headers, again=True, wait=LONG)
        return RemoteHandle(self, begun.run)

    def resume(
        self,
        run: str,
        *,
        workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any] | None = None,
        executor: str | Executor | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
        principal: str | None = None,
        check: bool = True,
    ) -> Run:
        """Go on with a run that failed, was cancelled or interrupted; see `Workflows.resume`."""
        _nothing_of(workflow=workflow, executor=executor, workers=workers)
        before = self.get(run)
        if before.success:
            return before
        handle = self.resume_behind(run, principal=principal)
        known = {event.id for event in (*before.events.values(), *before.attempts)}
        found = self._ended(handle.id, None, progress, cancel=True, known=known)
        return found.checked() if check else found

    def resume_behind(self, run: str, *, principal: str | None = None) -> RemoteHandle:
        """`resume` without waiting."""
        _nothing_of(principal=principal)
        begun = self._wire.json("POST", path("/runs/{}/resume", run), _Run, wait=LONG)
        return RemoteHandle(self, begun.run)

    def cancel(self, run: str, *, principal: str | None = None) -> Run:
        """Cancel a run; its nodes are killed, and it ends as soon as its runner has written so."""
        _nothing_of(principal=principal)
        self._wire.send("POST", path("/runs/{}/cancel", run))
        return self.get(run)

    def get(self, run: str) -> Run:
        """A run by its id.

        Raises:
            RunNotFound: there is none.
        """
        found: _Run = self._wire.json("GET", path("/runs/{}", run), _Run, query={"whole": True})
        return found.told()

    def runs(self, workflow: str | None = None, limit: int | None = 20) -> list[Run]:
        """The runs, newest first.

        Raises:
            LakehouseError: without a limit there are more than one answer holds (10,000).
        """
        if workflow is not None and not NAME.fullmatch(workflow):
            raise WorkflowNotFound(f"there is no workflow {workflow!r:.120}")
        if limit is not None and limit < 1:
            return []
        query = {"workflow": workflow, "limit": limited(limit), "whole": True}
        found = self._wire.json("GET", "/runs", dict[str, list[_Run]], query=query, wait=LONG)["runs"]
        return complete([one.told() for one in found], limit)

    def _definition(self, workflow: Any) -> _Definition:
        found: _Definition = self._wire.json("GET", path("/workflows/{}", _stored(workflow)), _Definition, wait=LONG)
        return found

    def __repr__(self) -> str:
        return f"<workflows of {self._wire.base}>"

    def __getattr__(self, name: str) -> NoReturn:
        if hint := _ONLY_THERE.get(name):
            raise NotRemote(f"workflows behind a server have no '{name}' here", hint=hint)
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")

    def _ended(
        self,
        id: str,
        timeout: float | None,
        progress: Progress | None = None,
        *,
        cancel: bool = False,
        known: set[str] | None = None,
    ) -> Run:
        """Wait for the end of a run, or so many seconds; `progress` gets each event that is not `known` once."""
        known, pause = known or set(), _FIRST
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                run = self.get(id)
                new = [event for event in run.events.values() if event.id not in known]
                known.update(event.id for event in new)
                progress = _shown(progress, new)
                left = _MOST if until is None else until - time.monotonic()
                if run.status != "running" or left <= 0:
                    return run
                pause = _FIRST if new else min(2 * pause, _MOST)
                time.sleep(min(pause, left))
        except KeyboardInterrupt:
            if cancel:
                self.cancel(id)
            raise


def _shown(progress: Progress | None, events: list[Event]) -> Progress | None:
    """Tell who watches of events; None from then on, if he fails: who only watches never stops the work."""
    if progress is None:
        return None
    try:
        for event in events:
            progress(event)
    except Exception:  # of any kind: it is the caller's own function, and the run goes on
        log.exception("the progress of a run cannot be shown")
        return None
    return progress


def _stored(workflow: Any) -> str:
    """The name of a stored workflow.

    Raises:
        NotRemote: it is a file or a definition.
        WorkflowNotFound: it can be no name.
    """
    if not isinstance(workflow, str) or workflow.endswith(".toml") or os.sep in workflow:
        raise NotRemote(
            "over HTTP only stored workflows run, by their name", hint="lakehouse workflow store where the lake is"
        )
    if not NAME.fullmatch(workflow):
        raise WorkflowNotFound(f"there is no workflow {workflow!r:.120}")
    return workflow


def _nothing_of(**given: Any) -> None:
    """Refuse what is the server's to say.

    Raises:
        NotRemote: something is chosen.
    """
    if chosen := [name for name, value in given.items() if value is not None]:
        raise NotRemote(f"{chosen[0]} cannot be chosen over HTTP", hint="it is the server's to say: leave it out")
