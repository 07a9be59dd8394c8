"""`lake.workflows`: definitions by name, runs, and what is asked of them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.arguments import arguments_told
from lakehouse.catalog.names import nearest
from lakehouse.durable import make_folder
from lakehouse.errors import LakehouseError, LakeReadOnly, WorkflowBusy, WorkflowError, WorkflowNotFound
from lakehouse.query.files import written
from lakehouse.query.statements import Parser
from lakehouse.workflow import executors, modes
from lakehouse.workflow.locks import running
from lakehouse.workflow.model import NAME, Node, Value, Workflow, from_dict, read
from lakehouse.workflow.plan import Plan, plan
from lakehouse.workflow.renewed import outdated, renewal
from lakehouse.workflow.runner import Progress, Running
from lakehouse.workflow.runs import Again, Begin, Run, Runs, clear, new_run
from lakehouse.workflow.site import Here, Site
from lakehouse.workflow.workers import Warm

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse
    from lakehouse.workflow.graph import Graph

log = logging.getLogger("lakehouse.workflow")
_MOST = 100_000  # events of one run
_REQUESTS = 1000  # runs among which a request that is sent again is looked for


class Handle:
    """A run that goes on in the background."""

    def __init__(self, workflows: Workflows, run: str) -> None:
        self.id = run
        self._workflows = workflows
        self._thread: threading.Thread | None = None

    def state(self) -> Run:
        """How it stands."""
        return self._workflows.get(self.id)

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended, or for so many seconds, and give how it stands."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.state()

    def cancel(self) -> None:
        """Cancel it; `wait` tells when that is done."""
        self._workflows.cancel(self.id)

    def __repr__(self) -> str:
        return repr(self.state())


@arguments_told
class Workflows:
    """The workflows of one lake.

    Args:
        lake: the lake.
        folder: where definitions and runs are kept.
        opener: `module:function` that opens a lake, for the processes of the nodes.
    """

    def __init__(self, lake: Lakehouse, folder: Path, opener: str) -> None:
        self._lake = lake
        self._folder = folder
        self._opener = opener
        self._runs = Runs(folder)
        self._warm: Warm | None = None
        self._parser: Parser | None = None
        self._lock = threading.Lock()
        self._background: list[Handle] = []

    def names(self) -> list[str]:
        """The stored workflows."""
        return sorted(path.stem for path in self._folder.glob("*.toml") if NAME.fullmatch(path.stem))

    def store(self, path: str | os.PathLike[str]) -> str:
        """Keep a definition in the lake under the name of its file, so that it can be run by that name, also over HTTP.

        Relative paths in it then begin in the lake's folder for workflows.

        Raises:
            WorkflowInvalid: something is wrong with it.
            LakeReadOnly: the lake is open for reading only.
        """
        self._writable()
        source = Path(path)
        self.validate(read(source, self._modes()))
        if not NAME.fullmatch(source.stem):
            raise WorkflowError(f"'{source.stem}' cannot be a name", hint="letters, digits, _ and -, at most 100")
        make_folder(self._folder)
        with written(self._folder / f"{source.stem}.toml") as temporary:
            temporary.write_bytes(source.read_bytes())
        return source.stem

    def load(self, workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any]) -> Workflow:
        """A workflow: a stored one by its name, one in a TOML file by its path, or one made in Python.

        Raises:
            WorkflowNotFound: nothing of that name is stored.
            WorkflowInvalid: it is none; names the file, node and key of every problem.
        """
        if isinstance(workflow, Workflow):
            return from_dict(workflow.to_dict(), self._modes())  # what Python made is held to the same rules
        if isinstance(workflow, Mapping):
            return from_dict(workflow, self._modes())
        if isinstance(workflow, os.PathLike) or workflow.endswith(".toml") or os.sep in workflow:
            return read(Path(workflow), self._modes())
        return self.stored(workflow)

    def stored(self, name: str) -> Workflow:
        """A stored workflow; nothing but a name is ever taken for one.

        Raises:
            WorkflowNotFound: there is none of that name.
        """
        path = self._folder / f"{name}.toml"
        if not NAME.fullmatch(name) or not path.is_file():
            known = nearest(name, self.names()) or f"stored: {', '.join(self.names()) or 'none'}"
            raise WorkflowNotFound(f"there is no workflow {name!r:.120}", hint=known)
        return read(path, self._modes())

    def validate(self, workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any]) -> Plan:
        """Look for everything that would keep a workflow from running; nothing is run.

        Returns:
            The order of its nodes.

        Raises:
            WorkflowInvalid: names the file, node and key of every problem.
        """
        loaded = self.load(workflow)
        return plan(loaded, self._site(loaded))

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
        """Run a workflow and wait until it has ended.

        Args:
            workflow: as of `load`.
            params: values of its parameters.
            executor: from where the processes of the nodes are started: None or `threads`: from this process;
                `processes`; `dask`, or `dask:tcp://HOST:PORT`; or any executor as of `concurrent.futures`.
            workers: nodes that run at once; None: as the workflow or the settings say.
            force: run nodes also when nothing has changed.
            progress: called with the event of each node as it ends; if it has a method `begun`, that is called with
                an event of status `started` as each attempt begins, or waits for its time, which is its reason.
            principal: who runs it.
            check: raise RunFailed unless all is done; else look at the answer.

        Raises:
            WorkflowInvalid: it cannot run; nothing was run.
            WorkflowBusy: it runs already.
            RunFailed: a node failed; `resume` goes on from there.
        """
        with self._begun(workflow, params, workers, executor, force, progress, principal) as going:
            self._go(going)
        return going.run.checked() if check else going.run

    def start(
        self,
        workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any],
        params: Mapping[str, Value] | None = None,
        *,
        workers: int | None = None,
        force: bool = False,
        principal: str | None = None,
        request: str | None = None,
    ) -> Handle:
        """Begin a run that goes on in the background of this process; raises as `run`, apart from RunFailed.

        Args:
            workflow: as of `run`, with the next four.
            params: values of its parameters.
            workers: nodes that run at once.
            force: run nodes also when nothing has changed.
            principal: who runs it.
            request: a name for this very request; a run that was begun for it before is given instead of a new one.
        """
        if request is not None:
            name = self.load(workflow).name
            for run in self._runs.newest(name, _REQUESTS):
                if run.request == request:
                    return Handle(self, run.id)
        return self._behind(self._begun(workflow, params, workers, None, force, None, principal, request))

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
        """Go on with a run that failed, was cancelled or interrupted: what is done stays, the rest is run.

        Args:
            run: its id.
            workflow: a changed definition to go on with, as of `load`: the nodes that it has otherwise are done again,
                and all that come after them. None: the one that the run began with, also when its file was changed
                since; `note` of the answer then says so.
            executor: as of `run`, with the next four.
            workers: nodes that run at once.
            progress: called with the event of each node.
            principal: who resumes it.
            check: raise RunFailed unless all is done.

        Raises:
            RunNotFound: there is no such run.
            WorkflowError, WorkflowInvalid: the changed definition is of another workflow, or cannot run.
            WorkflowBusy: the workflow runs.
            RunFailed: a node failed.
        """
        with self._resumed(run, workers, executor, progress, principal, workflow) as going:
            if going is None:
                return self.get(run)
            self._go(going)
        return going.run.checked() if check else going.run

    def resume_behind(self, run: str, *, principal: str | None = None) -> Handle:
        """`resume` in the background of this process."""
        return self._behind(self._resumed(run, None, None, None, principal))

    def cancel(self, run: str, *, principal: str | None = None) -> Run:
        """Cancel a run, of whatever process; its nodes are killed, and it ends as soon as its runner has written so.

        Raises:
            RunNotFound: there is no such run.
            LakeReadOnly: the lake is open for reading only.
        """
        self._writable()
        found = self.get(run)
        if found.status == "running":
            self._runs.cancel(found, principal)
        return found

    def get(self, run: str) -> Run:
        """A run by its id.

        Raises:
            RunNotFound: there is none.
        """
        return self._runs.get(run)

    def runs(self, workflow: str | None = None, limit: int | None = 20) -> list[Run]:
        """The runs, newest first."""
        if workflow is not None and not NAME.fullmatch(workflow):
            raise WorkflowNotFound(f"there is no workflow {workflow!r:.120}")
        return list(self._runs.newest(workflow, limit))

    def printed(self, run: str, node: str) -> str:
        """What a node printed in a run."""
        found = self.get(run)
        path = self._runs.place(found.workflow, found.id) / f"{node}.log"
        return path.read_text("utf-8", "replace") if node in found.nodes and path.is_file() else ""

    def graph(self, workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any], run: str | None = None) -> Graph:
        """The nodes of a workflow as a picture and as text; with what came of each in a run."""
        from lakehouse.workflow.graph import Graph

        loaded = self.load(workflow)
        modes = {name: node.mode for name, node in loaded.nodes.items()}
        order = plan(loaded, self._site(loaded))
        return Graph(loaded.name, modes, order, self.get(run) if run is not None else None)

    def close(self) -> None:
        """Cancel what this process runs in the background, and end its processes."""
        for handle in self._background:
            if handle._thread is not None and handle._thread.is_alive():
                try:
                    handle.cancel()
                except LakehouseError:
                    pass
                handle._thread.join(60)
        with self._lock:
            if self._warm is not None:
                self._warm.close()
                self._warm = None
            if self._parser is not None:
                self._parser.close()
                self._parser = None

    def _modes(self) -> dict[str, type[Node]]:
        return modes.known()

    def _site(self, workflow: Workflow) -> Site:
        with self._lock:
            if self._parser is None:
                self._parser = Parser()
        return Here(self._lake, workflow, self._parser)

    def _ready(self, workflow: Workflow) -> Warm:
        with self._lock:
            if self._warm is None:
                wanted = {module for node in workflow.nodes.values() for module in node.preload}
                if workflow.params:
                    wanted.add("pandas")  # DuckDB loads it to bind the first value
                first = self._opener.partition(":")[0]
                self._warm = Warm([first, *sorted(wanted), *self._lake.settings.workflow.preload])
            return self._warm

    def _writable(self) -> None:
        if self._lake.read_only:
            raise LakeReadOnly

    @contextmanager
    def _begun(
        self,
        workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any],
        params: Mapping[str, Value] | None,
        workers: int | None,
        executor: str | Executor | None,
        force: bool,
        progress: Progress | None,
        principal: str | None,
        request: str | None = None,
    ) -> Iterator[Running]:
        self._writable()
        loaded = self.load(workflow)
        site = self._site(loaded)
        order = plan(loaded, site)
        bound = loaded.bound(params or {})
        with ExitStack() as stack:
            lock = running(self._runs.lock(loaded.name), lambda: new_run(self._runs.last(loaded.name)))
            id = stack.enter_context(lock)
            before = next(self._runs.newest(loaded.name, 1), None)
            now = self._lake.catalog.metadata.current()
            begin = Begin(
                run=id,
                workflow=loaded.to_dict(),
                params=bound,
                snapshot=now,
                pin=now if loaded.pin else None,
                principal=principal,
                time=datetime.now(UTC),
                request=request,
            )
            journal = self._runs.begin(loaded.name, begin, self._lake.settings.workflow.keep_runs)
            going = Running(
                self._lake, loaded, order, site, self._runs.get(id), self._runs, journal, self._ready(loaded),
                self._opener, self._workers(workers, loaded), stack.enter_context(executors.named(executor)),
                force, progress, before,
            )  # fmt: skip
            yield going

    @contextmanager
    def _resumed(
        self,
        id: str,
        workers: int | None,
        executor: str | Executor | None,
        progress: Progress | None,
        principal: str | None,
        workflow: str | os.PathLike[str] | Workflow | Mapping[str, Any] | None = None,
    ) -> Iterator[Running | None]:
        self._writable()
        name = self.get(id).workflow
        with ExitStack() as stack:
            stack.enter_context(running(self._runs.lock(name), lambda: id))
            journal = self._runs.journal(name, id)
            run = self._runs.get(id)  # again: now nobody else writes it
            loaded = from_dict(run.definition, self._modes()) if workflow is None else self.load(workflow)
            site = self._site(loaded)
            order = plan(loaded, site)
            again = Again(principal=principal, time=datetime.now(UTC))
            if workflow is not None:
                now = self._lake.catalog.metadata.current()
                again = renewal(run, loaded, order, principal, now, again.time)
            renewed = set(again.renewed)
            done = (node in run.events and run.events[node].success and node not in renewed for node in loaded.nodes)
            if all(done) and run.ended is not None:
                yield None
                return
            clear(self._runs.cancel_file(name, id))
            journal.append(again)
            self._told_again(run)
            run.renew(again)
            run.note = outdated(run, self._modes())
            run.status, run.ended = "running", None
            begun = frozenset(node for node in run.nodes if node not in run.events or not run.events[node].success)
            yield Running(
                self._lake, loaded, order, site, run, self._runs, journal, self._ready(loaded), self._opener,
                self._workers(workers, loaded), stack.enter_context(executors.named(executor)), False, progress, None,
                begun,
            )  # fmt: skip

    def _told_again(self, run: Run) -> None:
        """Tell the observer what the account has and it has not: a runner that was killed came no further."""
        told = {event.id for event in self._lake.observer.events(run=run.id, limit=_MOST)}
        if missing := [event for event in run.events.values() if event.id not in told]:
            self._lake.observer.record_many(missing)

    def _workers(self, workers: int | None, workflow: Workflow) -> int:
        return workers or workflow.workers or self._lake.settings.workflow.workers or os.cpu_count() or 1

    def _go(self, going: Running) -> None:
        try:
            going.go()
        except KeyboardInterrupt:
            going.close_cancelled()
            raise

    def _behind(self, begun: Any) -> Handle:
        """Enter a run here, where its errors are the caller's, and go on in a thread."""
        stack = ExitStack()
        going = stack.enter_context(begun)
        if going is None:
            stack.close()
            raise WorkflowBusy("there is nothing left of this run to do")
        handle = Handle(self, going.run.id)

        def work() -> None:
            try:
                with stack:
                    self._go(going)
            except Exception:  # of any kind: nobody is there to catch it, and the run shows as interrupted
                log.exception("run %s of '%s' broke off", going.run.id, going.run.workflow)

        handle._thread = threading.Thread(target=work, name=f"lakehouse-run-{handle.id}", daemon=True)
        self._background = [one for one in self._background if one._thread and one._thread.is_alive()] + [handle]
        handle._thread.start()
        return handle
