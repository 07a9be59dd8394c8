"""What the doctor found: one line for each thing that was looked at or is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["ok", "note", "fault"]
_SHOWN = 20  # of the same kind, one by one


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """`ok`: as it should be; `note`: worth knowing, nothing is lost; `fault`: something promised does not hold."""
    what: str
    where: str
    advice: str = ""
    """What to do; empty when there is nothing to do."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found."""

    lake: str
    findings: tuple[Finding, ...]
    repaired: tuple[str, ...] = ()
    """What `repair` did, one line each."""

    @property
    def healthy(self) -> bool:
        """Whether there is no fault; notes do not count."""
        return not self.faults

    @property
    def faults(self) -> list[Finding]:
        """Where something promised does not hold."""
        return [finding for finding in self.findings if finding.level == "fault"]

    @property
    def notes(self) -> list[Finding]:
        """What is worth knowing."""
        return [finding for finding in self.findings if finding.level == "note"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "healthy": self.healthy}

    def __repr__(self) -> str:
        lines = [f"{f.level:5}  {f.where}: {f.what}" + (f" → {f.advice}" if f.advice else "") for f in self.findings]
        lines += [f"repaired: {line}" for line in self.repaired]
        faults, notes = len(self.faults), len(self.notes)
        return "\n".join([*lines, f"{self.lake}: {'healthy' if self.healthy else f'{faults} faults'}, {notes} notes"])

    __str__ = __repr__


@dataclass
class Book:
    """Findings while they are made."""

    findings: list[Finding] = field(default_factory=list)

    def ok(self, what: str, where: str) -> None:
        """It is as it should be."""
        self.findings.append(Finding("ok", what, where))

    def note(self, what: str, where: str, advice: str = "") -> None:
        """It is worth knowing."""
        self.findings.append(Finding("note", what, where, advice))

    def fault(self, what: str, where: str, advice: str) -> None:
        """It is wrong."""
        self.findings.append(Finding("fault", what, where, advice))

    def faults(self, found: Iterable[tuple[str, str]], advice: str) -> int:
        """Several of one kind, (what, where) each; the number of them."""
        listed = list(found)
        for what, where in listed[:_SHOWN]:
            self.fault(what, where, advice)
        if len(listed) > _SHOWN:
            self.fault(f"{len(listed) - _SHOWN:,} more of this kind", listed[-1][1], advice)
        return len(listed)
