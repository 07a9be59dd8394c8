"""Many runs of one report, and the page that lists them."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import msgspec

from lakehouse.reports.model import Report, ReportRun
from lakehouse.reports.page import document

if TYPE_CHECKING:
    from lakehouse.reports.records import Records


class Batch(msgspec.Struct, frozen=True):
    """What came of many runs."""

    report: str
    snapshot: int
    runs: list[ReportRun]
    page: str
    """The key of the page that lists them, an object of the lake."""

    @property
    def failed(self) -> list[ReportRun]:
        """Those that did not end well."""
        return [run for run in self.runs if run.status != "ok"]


def summed(records: Records, report: Report, snapshot: int, runs: list[ReportRun]) -> Batch:
    """Keep the page of a batch beside its first run."""
    names = [p.name for p in report.parameters if len({repr(run.parameters[p.name]) for run in runs}) > 1]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*names, "status", "seconds", "report"))
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(str(run.parameters[name]))}</td>" for name in names)
        + f"<td>{run.status}{_why(run)}</td><td>{run.seconds:.1f}</td>"
        + f'<td><a href="{html.escape(_beside(run.artefacts["html"]))}">open</a></td></tr>'
        for run in runs
    )
    failed = sum(run.status != "ok" for run in runs)
    count = f"{len(runs)} runs on snapshot {snapshot}, {'all complete' if not failed else f'{failed} not complete'}"
    body = f"<h1>{html.escape(report.title)}</h1><p>{count}</p><table><thead><tr>{head}</tr></thead>{rows}</table>"
    if not runs:
        return Batch(report.name, snapshot, [], "")
    key = records.keep(runs[0], "batch.html", document(report.title, body).encode())
    return Batch(report.name, snapshot, runs, key)


def _why(run: ReportRun) -> str:
    return "" if run.error is None else f": {html.escape(run.error.message[:120])}"


def _beside(key: str) -> str:
    """The path from the page of a batch to an artefact of another run of the report."""
    return "../" + "/".join(key.split("/")[2:])
