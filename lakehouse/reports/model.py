"""What a report, its parameters and its runs are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from lakehouse.errors import ReportInvalid

Kind = Literal["int", "float", "str", "bool", "date", "list", "secret"]
Format = Literal["html", "pdf"]
Status = Literal["queued", "running", "ok", "failed", "timeout", "cancelled", "interrupted"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""What a report may be called: never a path."""


class Parameter(msgspec.Struct, frozen=True, omit_defaults=False):
    """One value that a report may be given."""

    name: str
    kind: Kind
    default: Any
    help: str = ""
    choices: list[Any] | None = None
    minimum: Any = None
    maximum: Any = None


class Report(msgspec.Struct, frozen=True):
    """A notebook with parameters."""

    name: str
    title: str
    description: str
    parameters: list[Parameter]
    code: str
    """Hash of the notebook's cells, without what they gave."""


class Fault(msgspec.Struct, frozen=True):
    """Why a run is no success, and where."""

    type: str
    message: str
    cell: int | None = None
    """Number of the cell in the notebook as it was executed, counted from 1; None: not in a cell."""


class ReportRun(msgspec.Struct, frozen=True):
    """One execution of a report."""

    id: str
    report: str
    status: Status
    snapshot: int
    """The snapshot of the lake that it reads, and nothing newer."""
    parameters: dict[str, Any]
    code: str
    """Hash of the report's cells at the time."""
    started: datetime
    seconds: float = 0.0
    cell: int = 0
    """Cells done."""
    cells: int = 0
    error: Fault | None = None
    artefacts: dict[str, str] = {}
    """Keys of objects of the lake: `notebook`, `html`, `pdf`."""
    reused: bool = False
    """Whether this is a run from before, because report, parameters and snapshot were the same."""


def check_name(name: str, kind: str = "report") -> str:
    """The name itself, if a report can have it.

    Raises:
        ReportInvalid: it is a path, or no name.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ReportInvalid(f"{name!r:.80} cannot be the name of a {kind}", hint="letters, digits, - and _, no path")
    return name


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what no artefact can be made as.

    Raises:
        ReportInvalid: one of them is neither `html` nor `pdf`.
    """
    if strangers := [one for one in formats if one not in ("html", "pdf")]:
        raise ReportInvalid(f"{strangers[0]!r:.40} is no format of a report", hint="html or pdf")
