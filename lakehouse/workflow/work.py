"""What happens in the process of a node: the task comes in, the work is done, what came of it goes out."""

from __future__ import annotations

import functools
import importlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.catalog.names import quote, shown, split
from lakehouse.catalog.origin import NODE_VARIABLE
from lakehouse.errors import LakehouseError, NodeFailed
from lakehouse.observer.model import Data, Problem
from lakehouse.query.statements import Parser
from lakehouse.workflow import modes
from lakehouse.workflow.locks import working
from lakehouse.workflow.model import Node, Value, Workflow
from lakehouse.workflow.site import Site

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse

OUTPUT = "output_of"
"""In the note of the commit that is a node's output: `run/node`. Whether it is there is asked of the catalog itself."""
_LONGEST = 4000  # characters of an error


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one node, as it is sent to a process."""

    opener: str
    """`module:function` that opens a lake."""
    lake: str
    settings: dict[str, Any]
    workflow: dict[str, Any]
    """A `Workflow` without its nodes."""
    node: str
    definition: dict[str, Any]
    run: str
    attempt: int
    params: dict[str, Value]
    since: int
    """The snapshot from which the run began."""
    pin: int | None
    """The snapshot that the run reads; None: the newest."""
    made: tuple[str, ...]
    """Tables that nodes of this run make before this one: they are read as they are now."""
    again: bool
    """Whether an earlier attempt may have left its output."""
    path: list[str]
    """Where Python finds modules."""
    log: str
    """The file for what it prints."""
    timeout: float | None
    cancel: str
    """It is cancelled as soon as this file is there."""
    lock: str
    """The run is alive as long as this file is locked by it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an attempt."""

    status: str
    """As of `observer.model.Event`."""
    error: Problem | None = None
    reason: str | None = None
    inputs: tuple[Data, ...] = ()
    outputs: tuple[Data, ...] = ()
    fields: dict[str, Any] = {}
    elapsed: float = 0.0


class Work:
    """What a mode works with: the lake, the parameters, and what it tells of itself."""

    def __init__(self, task: Task, site: Place) -> None:
        self.task = task
        self.site = site
        self.params = task.params
        self.inputs: list[Data] = []
        self.outputs: list[Data] = []
        self.fields: dict[str, Any] = {}
        self.unchanged: str | None = None
        """Why what it made before stands; None: it was made now."""
        self.at = "start"

    @property
    def lake(self) -> Lakehouse:
        """The lake, opened on first use."""
        return self.site.lake

    def stage(self, name: str) -> None:
        """Note how far it is: `start`, `middle` (it has what it writes), `write`, `report`; an error says where."""
        self.at = name

    def read_tables(self, tables: Sequence[str]) -> None:
        """Note tables that are read, each with the snapshot at which it is."""
        if not tables:
            return
        now = self.lake.catalog.metadata.current()
        for table in tables:
            pinned = self.task.pin is not None and table not in self.task.made
            self.inputs.append(Data(table, snapshot=self.task.pin if pinned else now))

    def query(self, sql: str, params: Mapping[str, Any], reads: Sequence[str] | None, **options: Any) -> Any:
        """Run a query; in a pinned run on the pinned lake, apart from the tables that the run has made."""
        if self.task.pin is None:
            return self.lake.sql(sql, params or None, **options)
        made = [table for table in self.task.made if reads is None or table in reads]
        if hidden := [table for table in made if split(table)[0] != "main"]:
            raise NodeFailed(f"a pinned run cannot read '{hidden[0]}', which it made outside the schema main")
        tables = {split(table)[1]: self.lake.sql(f"SELECT * FROM {quote(*split(table))}") for table in made}
        return self.lake.sql(sql, params or None, at=self.task.pin, tables=tables or None, **options)

    def found(self) -> int | None:
        """The snapshot of the commit that is this node's output in this run, if an earlier attempt has made it."""
        if not self.task.again:
            return None
        mine = f"{self.task.run}/{self.task.node}"
        for snapshot in self.lake.catalog.metadata.snapshots(f"s.snapshot_id > {self.task.since}"):
            if mine in (snapshot.note or "") and msgspec.json.decode(snapshot.note or "{}").get(OUTPUT) == mine:
                return snapshot.id
        return None

    def write_query(
        self,
        table: str,
        sql: str,
        params: Mapping[str, Any],
        *,
        append: bool,
        reads: Sequence[str] | None,
        tables: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the rows of a query into a table, in one commit that says whose output it is; at most once in a run.

        Args:
            table: where to; made when missing.
            sql: the query.
            params: values of its `$name`.
            append: add the rows by name, instead of making them the whole table.
            reads: the tables that it reads; None: not known.
            tables: frames by the name under which it reads them.
        """
        name = self.site.table(table)
        if (snapshot := self.found()) is not None:
            self.fields["found"] = "an earlier attempt had written it before it died"
            self.outputs.append(Data(name, snapshot=snapshot))
            return
        if self.task.pin is not None and not tables:
            result = self.query(sql, params, reads)
            sql, params, tables = "SELECT * FROM _pinned", {}, {"_pinned": result}
        options: dict[str, Any] = {"tables": tables} if tables else {}
        given = params or None
        place = quote(*split(table))
        there = self.site.relations_now().get(name)
        with self.lake.transaction(f"{self.task.workflow['name']}: {self.task.node}") as transaction:
            transaction.note[OUTPUT] = f"{self.task.run}/{self.task.node}"
            if there is None or not (append or (name not in (reads or ()) and self._same(place, sql, given, options))):
                verb = "CREATE TABLE" if append else "CREATE OR REPLACE TABLE"
                if append and there is not None:
                    raise NodeFailed(f"'{table}' is a {there}")
                result = self.lake.sql(f"{verb} {place} AS {sql}", given, **options)
            else:
                if not append:  # the table itself stays, with its comments, tags and history
                    self.lake.sql(f"DELETE FROM {place}")
                result = self.lake.sql(f"INSERT INTO {place} BY NAME {sql}", given, **options)
            self.stage("write")
        count = getattr(result, "rowcount", None)
        self.outputs.append(Data(name, snapshot=transaction.committed, rows=count if isinstance(count, int) else None))

    def made(self, tables: Sequence[str]) -> None:
        """Note tables that must be there now.

        Raises:
            NodeFailed: one is not.
        """
        there = self.site.relations_now() if tables else {}
        for table in tables:
            if (name := self.site.table(table)) not in there:
                raise NodeFailed(f"its output '{table}' is not there")
            self.outputs.append(Data(name, snapshot=self.lake.catalog.table(table).snapshots()[0].id))

    def temporary(self) -> Path:
        """A folder for what is thrown away."""
        folder = Path(self.lake.settings.storage.temp_directory or self.lake.path / "tmp")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, file: Path, suffix: str) -> None:
        """Keep a file with the run, beside what the node printed."""
        if file.exists():
            kept = Path(self.task.log).with_suffix(suffix)
            kept.write_bytes(file.read_bytes())
            self.fields["kept"] = kept.name

    def _same(self, place: str, sql: str, params: Any, options: dict[str, Any]) -> bool:
        """Whether a table has the columns of a query."""
        wanted, there = (
            [(row[0], row[1]) for row in self.lake.sql(f"DESCRIBE {one}", given, **more).fetchall()]
            for one, given, more in ((sql, params, options), (f"SELECT * FROM {place}", None, {}))
        )
        return bool(wanted == there)


def serve(sock: socket.socket) -> None:
    """Do the tasks that come over a socket, one after the other, until it is closed or a task is the last."""
    lake: dict[str, Lakehouse] = {}
    reader = sock.makefile("rb")
    try:
        while line := reader.readline():
            task = msgspec.json.decode(line, type=Task)
            kind = _mode(task.definition["mode"])
            outcome = perform(task, kind, lake)
            sock.sendall(encoded(outcome) + b"\n")
            if not kind.reusable or outcome.status not in ("done", "skipped"):
                return
    finally:
        for one in lake.values():
            one.close()


def perform(task: Task, kind: type[Node], lakes: dict[str, Lakehouse]) -> Outcome:
    """Do one task; whatever happens short of the end of the process becomes an outcome."""
    os.environ[NODE_VARIABLE] = f"{task.workflow['name']}/{task.run}/{task.node}"
    _print_to(task.log)
    sys.path[:] = task.path
    started = time.monotonic()
    work = Work(task, Place(task, lakes))
    try:
        node = msgspec.convert({key: value for key, value in task.definition.items() if key != "mode"}, kind)
        with working(Path(task.lock), task.run):
            work.stage("start")
            node.run(work)
        work.stage("report")
        status, error = ("skipped" if work.unchanged else "done"), None
    except BaseException as caught:
        status, error = "failed", _problem(caught, work.at)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return Outcome(
        status=status,
        error=error,
        reason=work.unchanged if status == "skipped" else None,
        inputs=tuple(work.inputs),
        outputs=tuple(work.outputs),
        fields={**work.fields, **({"stage": work.at} if error else {})},
        elapsed=time.monotonic() - started,
    )


def encoded(value: Any) -> bytes:
    """As JSON on one line; what JSON does not have as text."""
    return msgspec.json.encode(value, enc_hook=str)


class Place(Site):
    """A site in the process of a node: the lake is opened when it is first needed."""

    def __init__(self, task: Task, lakes: dict[str, Lakehouse]) -> None:
        super().__init__(Workflow(**{**task.workflow, "nodes": {}, "params": task.params}))
        self._task, self._lakes = task, lakes

    @property
    def lake(self) -> Lakehouse:
        if not self._lakes:
            module, _, name = self._task.opener.partition(":")
            opener = getattr(importlib.import_module(module), name)
            self._lakes["lake"] = opener(self._task.lake, settings=self._task.settings)
        return self._lakes["lake"]

    @property
    def parser(self) -> Parser:
        return _parser()

    def relations_now(self) -> dict[str, str]:
        """`relations`, asked anew: a process may do several tasks."""
        metadata = self.lake.catalog.metadata
        return {shown(*key): one.kind for key, one in metadata.relations(metadata.current()).items()}


@functools.cache
def _parser() -> Parser:
    return Parser()


def _mode(name: str) -> type[Node]:
    ours = {one.mode: one for one in modes.OURS}
    return ours.get(name) or modes.known()[name]


def _print_to(log: str) -> None:
    """Send what is printed, also by programs that are started, to a file; nobody waits to read it from us."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.close(nothing)


def _problem(error: BaseException, stage: str) -> Problem:
    try:
        text = error.message if isinstance(error, LakehouseError) else str(error)
    except Exception:
        text = "(it cannot be shown)"
    if isinstance(error, SystemExit):
        text = f"it left its process with exit code {error.code!r}"
    if not isinstance(error, LakehouseError):
        traceback.print_exception(error)  # whole, into the log of the node
    frames = traceback.extract_tb(error.__traceback__)
    where = stage
    if frames and not isinstance(error, LakehouseError):
        where = f"{stage}, {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}"
    return Problem(type(error).__name__, text[:_LONGEST], where)
