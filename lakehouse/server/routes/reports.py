"""Reports over HTTP: those that the lake has, by name; a run is begun and asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from lakehouse.errors import NotFound, ObjectNotFound, ReportInvalid, ReportNotFound, RunNotFound, SnapshotNotFound
from lakehouse.reports.compare import Comparison
from lakehouse.reports.model import Report, ReportRun
from lakehouse.reports.records import UNDER_WAY
from lakehouse.server.routing import Answer, Call, Route

_TYPES = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "notebook": "application/x-ipynb+json"}
# A page of a report is of nobody's origin here, and has no script: it can reach nothing of the server.
_ALONE = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """What a run is of."""

    parameters: dict[str, Any] = {}
    at: int | str | None = None
    """Read the lake as of this snapshot id, tag or time; null: the newest."""
    formats: tuple[Literal["html", "pdf"], ...] = ("html",)
    force: bool = False
    """Run it even if there is a run of the same."""
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Limited(msgspec.Struct, forbid_unknown_fields=True):
    """How many."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """The runs of one report, or of all; the newest."""

    report: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    """Two runs."""

    a: str
    b: str


class Found(msgspec.Struct):
    """The reports there are."""

    reports: list[Report]


class Runs(msgspec.Struct):
    """Runs, newest first."""

    runs: list[ReportRun]


def reports(call: Call) -> Found:
    """All reports, by name."""
    return Found(call.lake.reports.list())


def report(call: Call) -> Report:
    """A report with its parameters."""
    return call.lake.reports.describe(call.path[0])


def start(call: Call) -> Answer[ReportRun]:
    """Begin a run: 202 and its id; 200 when there is a run of the same code, parameters and snapshot."""
    body: Start = call.body
    reports, (name,) = call.lake.reports, call.path
    declared = {parameter.name: parameter for parameter in reports.describe(name).parameters}
    for key, value in body.parameters.items():
        parameter = declared.get(key)
        if parameter is not None and parameter.kind == "secret" and value != parameter.default:
            raise ReportInvalid(f"the secret '{key}' cannot be chosen from here", hint="leave it out")
    run = reports.start(
        name,
        body.parameters,
        at=body.at,
        formats=body.formats,
        force=body.force,
        timeout=body.timeout,
        request=call.name(),
    )
    where = {"Location": f"reports/{name}/runs/{run.id}"}
    return Answer(run, 202 if run.status in UNDER_WAY else 200, where)


def runs(call: Call) -> Runs:
    """The runs of a report, newest first."""
    call.lake.reports.describe(call.path[0])
    return Runs([*call.lake.reports.runs(call.path[0], limit=call.query.limit)])


def all_runs(call: Call) -> Runs:
    """Runs of any report, newest first, also of one that is no longer there."""
    return Runs([*call.lake.reports.runs(call.query.report, limit=call.query.limit)])


def run(call: Call) -> ReportRun:
    """How a run stands, or how it ended."""
    name, id = call.path
    found = call.lake.reports.get(id)
    if found.report != name:
        raise RunNotFound(f"the run '{id:.120}' is not one of '{name:.80}'")
    return found


def cancel(call: Call) -> ReportRun:
    """Ask for the end of a run; one that has ended stays as it ended."""
    found = run(call)
    call.lake.reports.cancel(found.id)
    return found


def artefact(call: Call) -> Answer[None]:
    """What a run left: `html`, `pdf` or `notebook`."""
    name, id, what = call.path
    found = run(replace(call, path=(name, id)))
    if what not in found.artefacts:
        raise ObjectNotFound(
            f"the run has no '{what:.40}'", hint=f"it is {found.status} and has: {', '.join(found.artefacts) or 'none'}"
        )
    content = call.lake.storage.get(found.artefacts[what])
    headers = {"Content-Type": _TYPES[what], "Content-Length": str(len(content)), "Content-Security-Policy": _ALONE}
    return Answer(None, 200, headers, content=content)


def compare(call: Call) -> Comparison:
    """What differs from run `a` to run `b`."""
    return call.lake.reports.compare(call.query.a, call.query.b)


_UNFIT = (ReportInvalid, ReportNotFound)

ROUTES = (
    Route("GET", "/reports", "read", reports, refuses=(ReportInvalid,)),
    Route("GET", "/report-runs", "read", all_runs, query=Which, refuses=(ReportInvalid,)),
    Route("GET", "/reports/{report}", "read", report, refuses=_UNFIT),
    Route(
        "POST",
        "/reports/{report}/runs",
        "write",
        start,
        body=Start,
        statuses=(200, 202),
        refuses=(*_UNFIT, SnapshotNotFound),
        counts_once=True,
        waits=True,
    ),
    Route("GET", "/reports/{report}/runs", "read", runs, query=Limited, refuses=_UNFIT),
    Route("GET", "/reports/{report}/runs/{run}", "read", run, refuses=(RunNotFound,)),
    Route("POST", "/reports/{report}/runs/{run}/cancel", "write", cancel, refuses=(RunNotFound,)),
    Route(
        "GET",
        "/reports/{report}/runs/{run}/{artefact}",
        "read",
        artefact,
        media=tuple(kind.partition(";")[0] for kind in _TYPES.values()),
        refuses=(NotFound,),
    ),
    Route("GET", "/reports/{report}/compare", "read", compare, query=Pair, refuses=(RunNotFound, ReportInvalid)),
)
