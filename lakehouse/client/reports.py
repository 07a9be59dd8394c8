"""`client.reports`: the reports of a lake behind a server."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from lakehouse.catalog.metadata import Version
from lakehouse.client import table
from lakehouse.client.wire import LONG, Wire, path
from lakehouse.errors import ReportInvalid, RunNotFound
from lakehouse.reports import batch as batches
from lakehouse.reports.compare import Comparison
from lakehouse.reports.model import Format, Report, ReportRun, check_formats, check_name
from lakehouse.reports.parameters import filled, parsed
from lakehouse.reports.records import UNDER_WAY, Records
from lakehouse.reports.reports import Told, nobody
from lakehouse.storage.base import ObjectStore

_KEY = "Idempotency-Key"
_FIRST, _MOST = 0.05, 1.0  # seconds between two looks at a run, longer while nothing happens
_BATCH = 8  # runs of a batch that are begun at once; how many of them run is the server's to say


class RemoteReports:
    """Reports over HTTP; the methods are those of `lake.reports`. They run in the server.

    What a run leaves are objects of the lake: `client.storage.get(run.artefacts["html"])`.

    Args:
        wire: the server.
        storage: the objects of its lake.
    """

    def __init__(self, wire: Wire, storage: ObjectStore) -> None:
        self._wire = wire
        self._storage = storage

    def list(self) -> list[Report]:
        """All reports, by name."""
        return list(self._wire.json("GET", "/reports", dict[str, list[Report]])["reports"])

    def describe(self, name: str) -> Report:
        """A report with its parameters; see `Reports.describe`."""
        report: Report = self._wire.json("GET", path("/reports/{}", check_name(name)), Report)
        return report

    def parsed(self, name: str, texts: Mapping[str, str]) -> dict[str, Any]:
        """Values for `run` from texts, as a shell or a form has them."""
        return parsed(self.describe(name).parameters, texts, f"the report '{name}'")

    def run(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        at: Version | None = None,
        formats: Sequence[Format] = ("html",),
        force: bool = False,
        timeout: float | None = None,
        told: Told = nobody,
    ) -> ReportRun:
        """Have a report executed, and wait for what comes of it; see `Reports.run`.

        An interrupt here ends the run there. `told` is called as often as it is seen to have come further.
        """
        run = seen = self.start(name, parameters, at=at, formats=formats, force=force, timeout=timeout)
        pause, id = _FIRST, run.id
        try:
            while run.status in UNDER_WAY:
                time.sleep(pause)
                run = self.get(id)
                pause = min(2 * pause, _MOST)
                if (run.cell, run.status) != (seen.cell, seen.status):
                    seen, pause = run, _FIRST
                    told(run)
        except KeyboardInterrupt:
            self.cancel(id)
            raise
        return run

    def start(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        at: Version | None = None,
        formats: Sequence[Format] = ("html",),
        force: bool = False,
        timeout: float | None = None,
        request: str | None = None,
    ) -> ReportRun:
        """Like `run`, without waiting: `get(run.id)` says how it stands.

        It is begun once, however often the connection breaks. A parameter that is a secret cannot be chosen over HTTP.
        """
        check_formats(formats)
        if timeout is not None and not timeout > 0:
            raise ReportInvalid(f"timeout is {timeout!r}", hint="seconds above 0")
        body = {
            "parameters": _values(parameters or {}),
            "at": None if at is None else table.version_text(at),
            "formats": [*formats],
            "force": force,
            "timeout": timeout,
        }
        headers = {_KEY: request or uuid.uuid4().hex}
        where = path("/reports/{}/runs", check_name(name))
        run: ReportRun = self._wire.json("POST", where, ReportRun, body=body, headers=headers, again=True, wait=LONG)
        return run

    def get(self, id: str) -> ReportRun:
        """A run by its id.

        Raises:
            RunNotFound: there is none.
        """
        run: ReportRun = self._wire.json("GET", _of(id), ReportRun)
        return run

    def runs(self, name: str | None = None, *, limit: int = 100) -> Sequence[ReportRun]:
        """Runs of one report or of all, newest first; at most 10,000."""
        if limit < 1:
            return []
        query = {"report": None if name is None else check_name(name), "limit": limit}
        found: dict[str, list[ReportRun]] = self._wire.json(
            "GET", "/report-runs", dict[str, list[ReportRun]], query=query, wait=LONG
        )
        return found["runs"]

    def cancel(self, id: str) -> bool:
        """End a run; False when it is not under way."""
        before: ReportRun = self._wire.json("POST", f"{_of(id)}/cancel", ReportRun)
        return before.status in UNDER_WAY

    def batch(
        self,
        name: str,
        parameters: Iterable[Mapping[str, Any]],
        *,
        at: Version | None = None,
        formats: Sequence[Format] = ("html",),
        force: bool = False,
        workers: int | None = None,
        told: Told = nobody,
    ) -> batches.Batch:
        """Run one report for many sets of parameters on one snapshot, with a page that lists the runs.

        As many are begun at once as `workers` says; the server runs as many of them at once as its own settings say.
        The rest is as of `Reports.batch`.
        """
        check_formats(formats)
        report = self.describe(name)
        given = [{**one} for one in parameters]
        for one in given:
            filled(report.parameters, one, f"the report '{name}'")
        snapshot = (table.snapshots(self._wire, 1)[0][0] if at is None else table.snapshot(self._wire, at)).id

        def finished(one: Mapping[str, Any]) -> ReportRun:
            run = self.run(name, one, at=snapshot, formats=formats, force=force)
            told(run)
            return run

        with ThreadPoolExecutor(workers or _BATCH, thread_name_prefix="lakehouse-batch") as pool:
            runs = [*pool.map(finished, given)]
        return batches.summed(Records(self._storage, Path(tempfile.gettempdir())), report, snapshot, runs)

    def compare(self, run_a: str, run_b: str) -> Comparison:
        """What differs from one run to another; see `Reports.compare`."""
        _of(run_b)
        where = path("/reports/{}/compare", _report(run_a))
        found: Comparison = self._wire.json("GET", where, Comparison, query={"a": run_a, "b": run_b}, wait=LONG)
        return found

    def __repr__(self) -> str:
        return f"<reports of {self._wire.base}>"


def _report(id: str) -> str:
    """The report that a run is of, as its id says.

    Raises:
        RunNotFound: there can be no such run.
    """
    name = id.rpartition("--")[0]
    try:
        return check_name(name)
    except ReportInvalid:
        raise RunNotFound(f"there is no run '{id:.120}'", hint="list them: reports.runs()") from None


def _of(id: str) -> str:
    return path("/reports/{}/runs/{}", _report(id), id)


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them; a date as its text."""
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in parameters.items()}
