"""Runs the nodes of a workflow in their order and writes down what came of each, as soon as it is known."""

from __future__ import annotations

import heapq
import logging
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.errors import LakehouseError
from lakehouse.observer.model import Event, Problem
from lakehouse.workflow.locks import disown
from lakehouse.workflow.model import Workflow, described
from lakehouse.workflow.runs import Attempt, End, Ended, Run, Runs
from lakehouse.workflow.unchanged import FINGERPRINT, fingerprint, stands
from lakehouse.workflow.work import Outcome, Task, encoded
from lakehouse.workflow.workers import Warm, attempt, attempt_here, settings_of

if TYPE_CHECKING:
    from lakehouse.journal import Journal
    from lakehouse.lake import Lakehouse
    from lakehouse.workflow.plan import Plan
    from lakehouse.workflow.site import Site

Progress = Callable[[Event], None]
_STEP = 0.25  # seconds between two looks at whether the run is cancelled
_LONGEST_BACKOFF = 300.0  # seconds
log = logging.getLogger("lakehouse.workflow")
_TRIED = frozenset({"failed", "timeout"})


@dataclass
class Running:
    """All that one run goes by."""

    lake: Lakehouse
    workflow: Workflow
    plan: Plan
    site: Site
    run: Run
    runs: Runs
    journal: Journal
    warm: Warm
    opener: str
    workers: int
    executor: Executor | None = None
    """Where the processes of the nodes are started; None: from threads of this process."""
    force: bool = False
    progress: Progress | None = None
    before: Run | None = None
    """The run before, whose fingerprints say what may be skipped."""
    again: frozenset[str] = frozenset()
    """Nodes that an interrupted run may have begun."""
    _tries: dict[str, int] = field(default_factory=dict)
    _flying: dict[Future[Any], tuple[str, datetime, str | None]] = field(default_factory=dict)
    _later: list[tuple[float, str]] = field(default_factory=list)

    def go(self) -> None:
        """Run what is left to run, until everything has its event.

        Raises:
            JournalError, DiskFull: the account of the run cannot be written; it is then interrupted, and all stops.
        """
        self._head = {name: getattr(self.workflow, name) for name in Workflow.__struct_fields__ if name != "nodes"}
        self._settings = settings_of(self.lake)
        self._path = _absolute_path()
        self._base: dict[str, int] = {}
        for event in (*self.run.attempts, *self.run.events.values()):
            if event.node is not None and event.status != "not_run":
                self._base[event.node] = max(event.attempt, self._base.get(event.node, 0))
        self.run.events = {name: event for name, event in self.run.events.items() if event.success}
        done = set(self.run.events)
        self._left = {
            name: sum(source not in done for source in self.plan.before[name])
            for name in self.plan.order
            if name not in done
        }
        self._ready = deque(name for name, count in self._left.items() if count == 0)
        self._gone: set[str] = set()
        cancelled = False
        self._tell_whole("started")
        with self._pool() as submit:
            try:
                while self._ready or self._flying or self._later:
                    cancelled = cancelled or self._cancelled()
                    if cancelled:
                        self._ready.clear()
                        self._later.clear()
                    self._launch(submit)
                    self._land()
            except BaseException as error:
                # Ctrl-C, or an account that cannot be written: nothing may go on that nobody writes down.
                try:
                    self.runs.cancel(self.run, self.run.principal)
                except LakehouseError:  # on a full disk no file can be made; a run without a name has no runner
                    disown(self.runs.lock(self.run.workflow))
                wait(self._flying)
                if not isinstance(error, KeyboardInterrupt):
                    self._tell_whole("interrupted", Problem.of(error, "the account of the run"))
                raise
        cancelled = cancelled or self._cancelled()
        rest = [name for name in self._left if name not in self.run.events and name not in self._gone]
        self._not_run(rest, "the run was cancelled" if cancelled else "what it comes after was not done")
        bad = [event for event in self.run.events.values() if not event.success]
        self._end("cancelled" if cancelled and bad else "failed" if bad else "done")

    def close_cancelled(self) -> None:
        """After `go` was broken off: what flew has landed or was killed; write that down and end the run."""
        for future, (name, began, mark) in list(self._flying.items()):
            self._landed(future, name, began, mark, final=True)
        self._flying.clear()
        rest = [name for name in self._left if name not in self.run.events]
        self._not_run(rest, "the run was cancelled")
        self._end("cancelled")

    def _launch(self, submit: Callable[[Task], Future[Any]]) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[1])
        while self._ready and len(self._flying) < self.workers:
            name = self._ready.popleft()
            node = self.workflow.nodes[name]
            mark = fingerprint(node, self.site, self.run.params, self.run.pin)
            if self._skipped(name, mark):
                continue
            self._tries[name] = self._tries.get(name, 0) + 1
            began = datetime.now(UTC)
            try:
                future = submit(self._task(name))
            except Exception as error:
                future = Future()
                future.set_exception(error)
            self._flying[future] = (name, began, mark)
            self._tell_begun(name, began)

    def _task(self, name: str) -> Task:
        node = self.workflow.nodes[name]
        upstream = set(self.plan.upstream(name)) if self.run.pin is not None else set()
        made = [table for one in self.plan.order if one in upstream for table in self.plan.writes[one]]
        return Task(
            opener=self.opener,
            lake=str(self.lake.path),
            settings=self._settings,
            workflow=self._head,
            node=name,
            definition=described(node),
            run=self.run.id,
            attempt=self._number(name),
            params=dict(self.run.params),
            since=self.run.since.get(name, self.run.snapshot),
            pin=self.run.pin,
            made=tuple(dict.fromkeys(made)),
            again=self._tries[name] > 1 or name in self.again,
            path=self._path,
            log=str(self.runs.place(self.run.workflow, self.run.id) / f"{name}.log"),
            timeout=node.timeout,
            cancel=str(self.runs.cancel_file(self.run.workflow, self.run.id)),
            lock=str(self.runs.lock(self.run.workflow)),
        )

    def _land(self) -> None:
        """Wait for a node to end, or for the time of a retry, or for the next look at the cancel file."""
        if not self._flying:
            if self._later and not self._ready:
                time.sleep(max(0.0, min(_STEP, self._later[0][0] - time.monotonic())))
            return
        left = min(_STEP, max(0.0, self._later[0][0] - time.monotonic())) if self._later else _STEP
        for future in wait(self._flying, timeout=left, return_when=FIRST_COMPLETED).done:
            name, began, mark = self._flying[future]
            self._landed(future, name, began, mark)
            del self._flying[future]

    def _landed(
        self, future: Future[Any], name: str, began: datetime, mark: str | None, *, final: bool = False
    ) -> None:
        try:
            outcome = future.result()
            outcome = msgspec.json.decode(outcome, type=Outcome) if isinstance(outcome, bytes) else outcome
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and future.exception() is not error:
                raise  # meant for us, not the node's
            outcome = Outcome(status="failed", error=Problem.of(error, "the executor"))
        event = self._event(name, outcome, began, mark)
        tries = self._tries[name]
        node = self.workflow.nodes[name]
        if outcome.status in _TRIED and tries <= node.retries and not final and not self._cancelled():
            pause = min(_LONGEST_BACKOFF, node.backoff * 2 ** (tries - 1)) * random.uniform(0.5, 1.5)  # noqa: S311 - nobody's secret
            self.journal.append(Attempt(event=event, wait=pause))
            self.run.attempts.append(event)
            heapq.heappush(self._later, (time.monotonic() + pause, name))
            self._tell_begun(name, None, f"attempt {event.attempt} {_how(event)}; the next one in {pause:.0f} s")
            return
        event = self._report(event)
        if event.success:
            self._release(name)
        else:
            below = [one for one in self.plan.downstream(name) if one not in self.run.events and one not in self._gone]
            self._not_run(below, f"node '{name}' {_how(event)}")

    def _event(self, name: str, outcome: Outcome, began: datetime, mark: str | None) -> Event:
        fields = {**outcome.fields, **({FINGERPRINT: mark} if mark and outcome.status == "done" else {})}
        return Event(
            run=self.run.id,
            workflow=self.run.workflow,
            node=name,
            mode=self.workflow.nodes[name].mode,
            status=outcome.status,  # type: ignore[arg-type]
            error=outcome.error,
            reason=outcome.reason,
            started=began,
            ended=datetime.now(UTC),
            elapsed=outcome.elapsed,
            inputs=outcome.inputs,
            outputs=outcome.outputs,
            attempt=self._number(name),
            principal=self.run.principal,
            fields=fields,
        )

    def _report(self, event: Event) -> Event:
        """Write down what came of a node: first in the account of the run, then for the observer."""
        self._wrote([event])
        try:
            self._observed([event])
        except LakehouseError as error:  # only if it must be kept
            told = Problem(type(error).__name__, f"what came of it could not be reported: {error.message}", "report")
            changes = {"status": "failed", "success": False, "reason": None, "error": told}
            event = msgspec.structs.replace(event, **changes)
            self._wrote([event])
        self._tell(event)
        return event

    def _observed(self, events: list[Event]) -> None:
        self.lake.observer.record_many(events)

    def _tell(self, event: Event) -> None:
        self._show(self.progress, event)

    def _tell_begun(self, name: str, began: datetime | None, reason: str | None = None) -> None:
        """Tell who watches that a node has begun, or waits for its next attempt."""
        if (begun := getattr(self.progress, "begun", None)) is not None:
            mode, attempt = self.workflow.nodes[name].mode, self._number(name)
            event = Event(
                run=self.run.id, workflow=self.run.workflow, node=name, mode=mode, status="started",
                started=began, attempt=attempt, reason=reason, principal=self.run.principal,
            )  # fmt: skip
            self._show(begun, event)

    def _show(self, progress: Progress | None, event: Event) -> None:
        if progress is not None:
            try:
                progress(event)
            except Exception:  # of any kind: who only watches never stops the work
                log.exception("the progress of run %s cannot be shown", self.run.id)
                self.progress = None

    def _wrote(self, events: list[Event]) -> None:
        self.journal.append(*(Ended(event=event) for event in events))
        self.run.events.update({event.node: event for event in events if event.node is not None})

    def _not_run(self, names: list[str], reason: str) -> None:
        if not names:
            return
        now = datetime.now(UTC)
        events = [
            Event(
                run=self.run.id,
                workflow=self.run.workflow,
                node=name,
                mode=self.workflow.nodes[name].mode,
                status="not_run",
                reason=reason,
                ended=now,
                principal=self.run.principal,
            )
            for name in names
        ]
        self._gone.update(names)
        self._wrote(events)
        try:
            self._observed(events)
        except LakehouseError:
            pass  # they are no successes, and stand in the account of the run
        for event in events:
            self._tell(event)

    def _release(self, name: str) -> None:
        for end in self.plan.behind[name]:
            if end in self._left:
                self._left[end] -= 1
                if self._left[end] == 0 and end not in self._gone:
                    self._ready.append(end)

    def _skipped(self, name: str, mark: str | None) -> bool:
        """Skip a node that has nothing new to do."""
        then = self.before.events.get(name) if self.before is not None else None
        if self.force or mark is None or then is None or not then.success or then.fields.get(FINGERPRINT) != mark:
            return False
        if not stands(then, self.site):
            return False
        now = datetime.now(UTC)
        reason = "its definition, its parameters and its inputs are what they were"
        event = Event(
            run=self.run.id,
            workflow=self.run.workflow,
            node=name,
            mode=self.workflow.nodes[name].mode,
            status="skipped",
            reason=reason,
            started=now,
            ended=now,
            inputs=then.inputs,
            outputs=then.outputs,
            principal=self.run.principal,
            fields={FINGERPRINT: mark},
        )
        self._tries.setdefault(name, 0)
        if self._report(event).success:
            self._release(name)
        else:
            below = [one for one in self.plan.downstream(name) if one not in self.run.events]
            self._not_run(below, f"node '{name}' failed")
        return True

    def _number(self, name: str) -> int:
        """Which attempt it is, counted over resumes."""
        return self._base.get(name, 0) + self._tries.get(name, 0)

    def _cancelled(self) -> bool:
        return self.runs.cancel_file(self.run.workflow, self.run.id).exists()

    def _end(self, status: str) -> None:
        ended = datetime.now(UTC)
        self.journal.append(End(status=status, time=ended))
        self.run.status, self.run.ended = status, ended
        first = self.run.failed[0] if status == "failed" and self.run.failed else None
        self._tell_whole(status, first.error if first else None)

    def _tell_whole(self, status: str, error: Problem | None = None) -> None:
        """Tell OpenLineage of the run as a whole, which is the parent of its nodes there; here its account tells it."""
        self.lake.observer.tell(
            Event(
                run=self.run.id,
                workflow=self.run.workflow,
                status=status,  # type: ignore[arg-type]
                error=error or (Problem("NodeFailed", "a node failed") if status == "failed" else None),
                started=datetime.now(UTC) if status == "started" else self.run.started,
                ended=self.run.ended,
                principal=self.run.principal,
            )
        )

    @contextmanager
    def _pool(self) -> Iterator[Callable[[Task], Future[Any]]]:
        if self.executor is not None:
            executor, modules = self.executor, tuple(self.warm._modules)
            yield lambda task: executor.submit(attempt_here, encoded(task), modules)
            return
        try:
            yield self._threaded
        finally:
            wait(self._flying)
            self.warm.rest()

    def _threaded(self, task: Task) -> Future[Any]:
        """Attempt a task in a thread that keeps no interpreter from its end, as those of a pool would.

        A process that ends without waiting for its run leaves it interrupted, and its nodes end with it.
        """
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(attempt(task, self.warm))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name=f"lakehouse-node-{task.node}", daemon=True).start()
        return future


def _how(event: Event) -> str:
    return {"timeout": "took too long", "cancelled": "was cancelled"}.get(event.status, "failed")


def _absolute_path() -> list[str]:
    return [os.path.abspath(one or ".") for one in sys.path]
