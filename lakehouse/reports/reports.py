"""`lake.reports`: what there is, running it, what came of it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets as random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.arguments import arguments_told
from lakehouse.errors import LakeReadOnly, ReportInvalid
from lakehouse.reports import batch, compare, page, running
from lakehouse.reports.model import Fault, Format, Report, ReportRun, check_formats
from lakehouse.reports.parameters import filled, parsed, written
from lakehouse.reports.records import Records
from lakehouse.reports.shelf import Shelf

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.metadata import Version
    from lakehouse.config import Settings
    from lakehouse.storage.base import ObjectStore

INPUT, EXECUTED = "input.ipynb", "executed.ipynb"
_NAMES = {"notebook": "notebook.ipynb", "html": "report.html", "pdf": "report.pdf"}
Told = Callable[[ReportRun], None]
log = logging.getLogger(__name__)


def nobody(_: ReportRun) -> None:
    """Who is told of a run when nobody is given."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A run that can begin."""

    report: Report
    run: ReportRun
    notebook: Any
    hidden: dict[str, str]
    """References of secrets by parameter."""
    question: str
    formats: tuple[Format, ...]
    force: bool
    limit: float
    """Seconds until it is ended."""


@arguments_told
class Reports:
    """The reports of a lake: notebooks with parameters, executed on one snapshot, and what came of them.

    A report's notebook stands in `reports` in the lake folder, in the folder `[reports] folder`, or ships with the
    package. It opens the lake with `lakehouse.open()`, and gets it pinned to the snapshot of the run and read-only.
    """

    def __init__(
        self, folder: Path, settings: Settings, catalog: Catalog, storage: ObjectStore, temp: Path, *, read_only: bool
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._catalog = catalog
        self._temp = temp
        self._read_only = read_only
        self._shelf = Shelf(folder, settings.reports.folder)
        self._records = Records(storage, temp)
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(settings.reports.workers, thread_name_prefix="lakehouse-report")

    def list(self) -> list[Report]:
        """All reports, by name."""
        return [self._shelf.report(name) for name in self._shelf.names()]

    def describe(self, name: str) -> Report:
        """A report with its parameters: kind, default, help, choices, bounds.

        Raises:
            ReportNotFound: there is none of that name.
            ReportInvalid: its notebook is not as it should be.
        """
        return self._shelf.report(name)

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
        """Execute a report and keep what comes of it; a run of the same code, parameters and snapshot is given again.

        Args:
            name: the report.
            parameters: values by name; those not given have their defaults.
            at: the snapshot to read: an id, a tag or a time; None: the newest.
            formats: `html`, `pdf`, or both; the executed notebook is always kept.
            force: execute it even if there is such a run.
            timeout: seconds until it is ended; None: `reports.timeout`.
            told: called with the run after each cell.

        Returns:
            the run; its `status` says whether it went well, and `error` why not.

        Raises:
            ReportNotFound, ReportInvalid: there is no such report, or a parameter does not fit.
            SnapshotNotFound: there is no snapshot `at`.
            LakeReadOnly: the lake is read-only, and the run could not be kept.
        """
        return self._go(self._prepared(name, parameters, at, formats, force, timeout), told)

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
        """Like `run`, without waiting: `get(run.id)` says how it stands; a few run at once (`reports.workers`).

        `request` is a name for this very request: a run that was begun for it before is given instead of a new one.
        """
        if request is not None and (known := self._records.requested(name, request)) is not None:
            return known
        prepared = self._prepared(name, parameters, at, formats, force, timeout)
        stored = self._stored(prepared)
        if stored is not None:
            return self._formatted(prepared.report, stored, formats)
        if request is not None:
            self._records.promised(prepared.run, request)
        held = ExitStack()
        held.enter_context(self._records.alone(prepared.run.id))
        run = self._records.save(msgspec.structs.replace(prepared.run, status="queued"))

        def work() -> None:
            with held:
                try:
                    self._go(prepared, nobody, held=True)
                except Exception as error:  # there is nobody to raise it to but the run's own record
                    log.warning("the run %s could not be done: %s", run.id, error)
                    fault, now = Fault(type(error).__name__, str(error)), self._records.get(run.id)
                    end = now.status if now.artefacts else "failed"  # what it has left stays, such as all but the PDF
                    self._records.save(msgspec.structs.replace(now, status=end, error=now.error or fault))

        try:
            self._pool.submit(work)
        except BaseException:
            held.close()
            raise
        return run

    def get(self, id: str) -> ReportRun:
        """A run by its id.

        Raises:
            RunNotFound: there is none.
        """
        return self._records.get(id)

    def runs(self, name: str | None = None, *, limit: int = 100) -> Sequence[ReportRun]:
        """Runs of one report or of all, newest first."""
        return self._records.runs(name, limit)

    def cancel(self, id: str) -> bool:
        """End a run, in whatever process it is under way; False when it is not under way."""
        return self._records.cancel(id)

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
    ) -> batch.Batch:
        """Run one report for many sets of parameters on one snapshot, with a page that lists the runs.

        As many run at once as `workers` says (None: `reports.workers`); `told` is called with each run that has
        ended; the rest is as for `run`.

        Raises:
            ReportInvalid: a set of parameters does not fit; nothing was run.
        """
        snapshot = self._catalog.current_snapshot().id if at is None else self._catalog.resolve(at)
        prepared = [self._prepared(name, one, snapshot, formats, force, None) for one in parameters]

        def finished(one: _Prepared) -> ReportRun:
            run = self._go(one, nobody)
            told(run)
            return run

        with ThreadPoolExecutor(workers or self._settings.reports.workers) as pool:
            runs = [*pool.map(finished, prepared)]
        return batch.summed(self._records, self.describe(name), snapshot, runs)

    def compare(self, run_a: str, run_b: str) -> compare.Comparison:
        """What differs from one run to another: parameters, snapshot, code, and outputs, tables row by row.

        Raises:
            RunNotFound: there is no such run.
            ReportInvalid: one of them left no notebook.
        """
        return compare.compared(self._records, self.get(run_a), self.get(run_b))

    def close(self) -> None:
        """End the runs of this process; what they have is kept, as for one that was cancelled."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _prepared(
        self,
        name: str,
        parameters: Mapping[str, Any] | None,
        at: Version | None,
        formats: Sequence[Format],
        force: bool,
        timeout: float | None,
    ) -> _Prepared:
        """A run with everything checked that can be before it begins."""
        if self._read_only:
            raise LakeReadOnly("a run of a report cannot be kept in a read-only lake")
        check_formats(formats)
        notebook = self._shelf.notebook(name)
        report = self._shelf.report(name, notebook)
        values = filled(report.parameters, parameters or {}, f"the report '{name}'")
        hidden = {p.name: values[p.name] for p in report.parameters if p.kind == "secret" and values[p.name]}
        running.secrets(hidden, os.environ)
        snapshot = self._catalog.current_snapshot().id if at is None else self._catalog.resolve(at)
        question = hashlib.sha256(json.dumps([report.code, values, snapshot], sort_keys=True).encode()).hexdigest()
        ready = written(notebook, values)
        now = datetime.now(UTC)
        run = ReportRun(_new_id(name), name, "running", snapshot, values, report.code, now, cells=len(ready.cells))
        limit = self._settings.reports.timeout if timeout is None else timeout
        if not limit > 0:  # nor is it NaN, at which nothing would end
            raise ReportInvalid(f"a run cannot end after {limit} s", hint="timeout is seconds, more than none")
        return _Prepared(report, run, ready, hidden, question, tuple(formats), force, limit)

    def _stored(self, prepared: _Prepared) -> ReportRun | None:
        """The run from before that answers the same question."""
        if prepared.force:
            return None
        found = self._records.answer(prepared.run.report, prepared.question)
        return found if found is not None and found.status == "ok" else None

    def _go(self, prepared: _Prepared, told: Told, *, held: bool = False) -> ReportRun:
        """The answer of a run, from before or executed now; `held`: its record and its lock are there already."""
        with self._records.alone(prepared.question):
            stored = self._stored(prepared)
            if stored is None:
                with nullcontext() if held else self._records.alone(prepared.run.id):
                    return self._executed(prepared, told)
            answer = self._formatted(prepared.report, stored, prepared.formats)
            if held:  # somebody else answered the question meanwhile
                self._records.save(msgspec.structs.replace(answer, id=prepared.run.id, started=prepared.run.started))
            return answer

    def _executed(self, prepared: _Prepared, told: Told) -> ReportRun:
        import nbformat

        started = time.monotonic()
        run = self._records.save(prepared.run)
        self._temp.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="report-", dir=self._temp))
        try:
            nbformat.write(prepared.notebook, folder / INPUT)
            env = running.environment(self._folder, run.snapshot, prepared.hidden, os.environ)

            def step(cell: int, cells: int) -> None:
                nonlocal run
                run = msgspec.structs.replace(run, cell=cell, cells=cells, seconds=time.monotonic() - started)
                told(self._records.save(run))

            end, fault = running.execute(
                folder,
                env,
                timeout=prepared.limit,
                most=self._settings.reports.max_output_bytes,
                told=step,
                cancelled=lambda: self._closing.is_set() or self._records.cancelled(run.id),
            )
            result = _result(folder, prepared.notebook)
            values = running.secrets(prepared.hidden, os.environ).values()
            content = _masked(nbformat.writes(result), values)
            if fault is not None:
                place = fault.cell if fault.cell is not None else _place(result)
                fault = msgspec.structs.replace(fault, message=_masked(fault.message, values), cell=place)
            run = msgspec.structs.replace(run, status=end, error=fault, seconds=time.monotonic() - started)
            run = self._kept(run, "notebook", content.encode())
            run = self._records.save(self._formatted(prepared.report, run, ("html",), fresh=True))
        finally:
            self._records.forget_cancel(run.id)
            shutil.rmtree(folder, ignore_errors=True)
        if run.status == "ok":
            self._records.answered(run, prepared.question)
        # Whatever a PDF may want for, the run is kept by now.
        run = msgspec.structs.replace(self._formatted(prepared.report, run, prepared.formats), reused=False)
        told(run)
        return run

    def _formatted(
        self, report: Report, run: ReportRun, formats: Sequence[Format], *, fresh: bool = False
    ) -> ReportRun:
        """The run with an artefact of each format; those that are there stay."""
        import nbformat

        missing = [one for one in dict.fromkeys(("html", *formats)) if one not in run.artefacts]
        if missing:
            notebook = nbformat.reads(self._records.storage.get(run.artefacts["notebook"]).decode(), as_version=4)
            content = page.page(report, run, notebook)
            for one in missing:
                run = self._kept(run, one, content.encode() if one == "html" else page.pdf(content))
            if not fresh:
                self._records.save(run)
        return run if fresh else msgspec.structs.replace(run, reused=True)

    def _kept(self, run: ReportRun, what: str, content: bytes) -> ReportRun:
        key = self._records.keep(run, _NAMES[what], content)
        return msgspec.structs.replace(run, artefacts={**run.artefacts, what: key})


def _new_id(name: str) -> str:
    """An id for a run; ids of one report sort by time."""
    return f"{name}--{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{random.token_hex(3)}"


def _result(folder: Path, notebook: Any) -> Any:
    """What was executed, as far as it came; without papermill's own marks, so that cells keep their numbers."""
    import nbformat

    try:
        result = nbformat.read(folder / EXECUTED, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        result = notebook  # it ended before its first cell, or while it was written
    result.cells = [c for c in result.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    result.metadata.get("papermill", {}).pop("environment_variables", None)
    return result


def _place(notebook: Any) -> int | None:
    """The number of the cell that was begun last: papermill calls it complete even if the kernel died in it."""
    begun = [n for n, cell in enumerate(notebook.cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    return begun[-1] if begun else None


def _masked(text: str, values: Iterable[str]) -> str:
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = text.replace(value, "***").replace(json.dumps(value)[1:-1], "***")
    return text
