"""The account of each run: a journal of its own, which is the one truth about what of it is done.

`workflows/runs/<workflow>/<run>.jsonl` in the lake folder; beside it a folder with what its nodes printed.
"""

from __future__ import annotations

import html
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from lakehouse.durable import explained, make_folder, sync_folder
from lakehouse.errors import RunFailed, RunNotFound
from lakehouse.journal import Journal
from lakehouse.observer.model import Event
from lakehouse.records import Entry
from lakehouse.workflow.locks import runner

RUNS, LOCKS = "runs", "locks"
_RUN = re.compile(r"\d{8}T\d{6}(\d{6})?-[0-9a-f]{8}")
_MOMENT = "%Y%m%dT%H%M%S%f"


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag="begin"):
    """The first record: all that is needed to go on without the file of the definition."""

    run: str
    workflow: dict[str, Any]
    params: dict[str, Any]
    snapshot: int
    """The newest snapshot when it began."""
    pin: int | None
    principal: str | None
    time: datetime
    request: str | None = None
    """The name of the request over HTTP that began it, by which it is known when that is sent again."""


class Again(msgspec.Struct, frozen=True, kw_only=True, tag="resume"):
    """It is resumed."""

    principal: str | None
    time: datetime
    workflow: dict[str, Any] | None = None
    """The definition by which it goes on; None: the one it had."""
    params: dict[str, Any] | None = None
    """The values of its parameters; likewise."""
    renewed: tuple[str, ...] = ()
    """Nodes that are done again, because that definition has them otherwise, or what comes before them."""
    snapshot: int | None = None
    """The newest snapshot then: what these nodes wrote before it is no output of theirs."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, tag="attempt"):
    """A node failed and will be tried again."""

    event: Event
    wait: float
    """Seconds until then."""


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """A node came to its end, or was not run; of several the last one counts."""

    event: Event


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The run came to its end."""

    status: str
    time: datetime


Record = Begin | Again | Attempt | Ended | End


@dataclass
class Run:
    """A run as its journal tells it."""

    id: str
    workflow: str
    status: str
    """`running`, `done`, `failed`, `cancelled`, or `interrupted`: its runner died, and it can be resumed."""
    started: datetime
    ended: datetime | None
    params: Mapping[str, Any]
    snapshot: int
    pin: int | None
    principal: str | None
    events: dict[str, Event]
    """By node, the last word on it; what has none yet is missing."""
    attempts: list[Event]
    """Failures after which a node was tried again, or the run resumed; and what was done again by a new definition."""
    nodes: dict[str, str]
    """The mode of each node of the workflow."""
    definition: dict[str, Any] = field(repr=False)
    resumed: int = 0
    request: str | None = None
    since: dict[str, int] = field(default_factory=dict, repr=False)
    """For nodes that a new definition has otherwise: the newest snapshot when it was taken."""
    note: str | None = None
    """What whoever resumed it should know."""

    @property
    def success(self) -> bool:
        """Whether every node is done."""
        return self.status == "done"

    @property
    def failed(self) -> list[Event]:
        """The nodes that did not succeed, apart from those that were not run."""
        return [event for event in self.events.values() if not event.success and event.status != "not_run"]

    def checked(self) -> Run:
        """The run itself, when all of it is done.

        Raises:
            RunFailed: it is not; names the first node that failed.
        """
        if not self.success:
            first = self.failed[0] if self.failed else None
            why = f": node '{first.node}': {first.error.message if first.error else first.status}" if first else ""
            raise RunFailed(
                f"run {self.id} of '{self.workflow}' is {self.status}{why}",
                hint=self.note or f"lake.workflows.resume('{self.id}') goes on from there",
            )
        return self

    def renew(self, again: Again) -> None:
        """Go by the definition with which it was resumed, if there was one."""
        if again.workflow is None:
            return
        self.definition, self.params = again.workflow, again.params or {}
        self.nodes = {name: node["mode"] for name, node in again.workflow["nodes"].items()}
        self.attempts += [event for name, event in self.events.items() if name in again.renewed]
        self.events = {
            name: event for name, event in self.events.items() if name in self.nodes and name not in again.renewed
        }
        self.since.update(dict.fromkeys(again.renewed, again.snapshot or self.snapshot))

    def rows(self) -> list[dict[str, Any]]:
        """One row for each node."""
        found = []
        for name, mode in self.nodes.items():
            event = self.events.get(name)
            row: dict[str, Any] = {"node": name, "mode": mode, "status": "waiting", "success": None}
            row |= {"attempt": None, "seconds": None, "error": None, "outputs": None}
            if event is not None:
                told = f"{event.error.type}: {event.error.message}" if event.error else event.reason
                row |= {"status": event.status, "success": event.success, "attempt": event.attempt, "error": told}
                row["seconds"] = None if event.elapsed is None else round(event.elapsed, 3)
                row["outputs"] = ", ".join(one.name for one in event.outputs) or None
            found.append(row)
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        counts: dict[str, int] = {}
        for event in self.events.values():
            counts[event.status] = counts.get(event.status, 0) + 1
        return {
            "run": self.id,
            "workflow": self.workflow,
            "status": self.status,
            "success": self.success if self.status != "running" else None,
            "started": self.started,
            "ended": self.ended,
            "params": dict(self.params),
            "snapshot": self.snapshot,
            "pin": self.pin,
            "principal": self.principal,
            "resumed": self.resumed,
            "counts": counts,
            "nodes": len(self.nodes),
        }

    def _repr_html_(self) -> str:
        names = ("node", "mode", "status", "seconds", "outputs", "error")
        head = "".join(f'<th style="text-align:left">{name}</th>' for name in names)
        body = ""
        for row in self.rows():
            texts = ["" if row[name] is None else html.escape(str(row[name])) for name in names]
            body += "<tr>" + "".join(f'<td style="text-align:left">{text}</td>' for text in texts) + "</tr>"
        title = f"run {self.id} of {html.escape(self.workflow)}: <b>{self.status}</b>"
        title += f"<br>{html.escape(self.note)}" if self.note else ""
        return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        lines = [f"run {self.id} of {self.workflow}: {self.status}", *([self.note] if self.note else [])]
        for row in self.rows():
            told = f"  {row['error']}" if row["error"] else ""
            lines.append(f"  {row['node']:<24} {row['mode']:<9} {row['status']:<10}{told}".rstrip()[:200])
        return "\n".join(lines)


class Runs:
    """The runs of one lake.

    Args:
        folder: where they are; made when the first begins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock(self, workflow: str) -> Path:
        """The lock file of a workflow."""
        return self.folder / LOCKS / f"{workflow}.lock"

    def place(self, workflow: str, run: str) -> Path:
        """The folder for what the nodes of a run print."""
        return self.folder / RUNS / workflow / run

    def cancel_file(self, workflow: str, run: str) -> Path:
        """The file that says that a run is cancelled."""
        return self.folder / RUNS / workflow / f"{run}.cancel"

    def journal(self, workflow: str, run: str) -> Journal:
        """The journal of a run."""
        return Journal(self.folder / RUNS / workflow / f"{run}.jsonl")

    def last(self, workflow: str) -> str | None:
        """The id of the newest run of a workflow."""
        return max((path.stem for path in (self.folder / RUNS / workflow).glob("*.jsonl")), default=None)

    def begin(self, workflow: str, begin: Begin, keep: int) -> Journal:
        """Make the journal of a new run, and let go of the oldest ones that are more than `keep`."""
        make_folder(self.place(workflow, begin.run))
        journal = self.journal(workflow, begin.run)
        journal.append(begin)
        for path in sorted((self.folder / RUNS / workflow).glob("*.jsonl"), reverse=True)[keep:]:
            for other in path.parent.glob(f"{path.stem}.*"):
                other.unlink(missing_ok=True)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        return journal

    def cancel(self, run: Run, principal: str | None) -> None:
        """Say that a run is cancelled, for every process to see, and durably."""
        path = self.cancel_file(run.workflow, run.id)
        with explained(path):
            path.write_text(principal or "", "utf-8")
        sync_folder(path.parent)

    def get(self, run: str) -> Run:
        """A run by its id.

        Raises:
            RunNotFound: there is none.
        """
        if _RUN.fullmatch(run):
            for path in (self.folder / RUNS).glob(f"*/{run}.jsonl"):
                if (found := self._read(path)) is not None:
                    return found
        raise RunNotFound(f"there is no run {run!r:.80}", hint="lakehouse workflow runs")

    def newest(self, workflow: str | None = None, limit: int | None = 20) -> Iterator[Run]:
        """The runs, newest first."""
        paths = sorted(
            (self.folder / RUNS).glob(f"{workflow or '*'}/*.jsonl"), key=lambda path: path.name, reverse=True
        )
        count = 0
        for path in paths:
            if limit is not None and count >= limit:
                return
            if (found := self._read(path)) is not None:
                count += 1
                yield found

    def _read(self, path: Path) -> Run | None:
        """What a journal tells; None when not even its first record is there."""
        run: Run | None = None
        # Asked before it is read: a runner that ends meanwhile has written so.
        alive = runner(self.lock(path.parent.name)) == path.stem
        for one in Journal(path).read():
            if not isinstance(one, Entry):
                continue
            record = msgspec.json.decode(one.data, type=Record)
            if isinstance(record, Begin):
                nodes = {name: node["mode"] for name, node in record.workflow["nodes"].items()}
                run = Run(
                    record.run, path.parent.name, "interrupted", record.time, None, record.params, record.snapshot,
                    record.pin, record.principal, {}, [], nodes, record.workflow, 0, record.request,
                )  # fmt: skip
            elif run is None:
                continue
            elif isinstance(record, Ended):
                assert record.event.node is not None
                run.events[record.event.node] = record.event
            elif isinstance(record, Attempt):
                run.attempts.append(record.event)
            elif isinstance(record, End):
                run.status, run.ended = record.status, record.time
            else:  # what was not done waits again
                run.attempts += [event for event in run.failed if event not in run.attempts]
                run.events = {name: event for name, event in run.events.items() if event.success}
                run.status, run.ended, run.resumed = "interrupted", None, run.resumed + 1
                run.renew(record)
        if run is not None and run.status == "interrupted" and alive:
            run.status = "running"
        return run


def new_run(last: str | None = None) -> str:
    """The id of a new run: when it began, and a random part; it sorts behind the last one, whatever the clock says."""
    moment = f"{datetime.now(UTC):{_MOMENT}}"
    if last is not None and moment <= (before := last.partition("-")[0].ljust(len(moment), "0")):
        moment = f"{datetime.strptime(before, _MOMENT) + timedelta(microseconds=1):{_MOMENT}}"
    return f"{moment}-{secrets.token_hex(4)}"


def clear(path: Path) -> None:
    """Take back that a run is cancelled, when it is resumed."""
    if os.path.exists(path):
        with explained(path):
            path.unlink()
        sync_folder(path.parent)
