"""When a workflow runs: units for systemd, or a line for cron. They are only written, never installed."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from lakehouse.errors import WorkflowError

_CRON = re.compile(r"@(reboot|yearly|annually|monthly|weekly|daily|midnight|hourly)|\S+(\s+\S+){4}")
_FIELD = re.compile(
    r"(\*|\d+|[A-Za-z]{3})(-(\d+|[A-Za-z]{3}))?(/\d+)?(,(\*|\d+|[A-Za-z]{3})(-(\d+|[A-Za-z]{3}))?(/\d+)?)*"
)


@dataclass(frozen=True)
class Schedule:
    """A workflow of a lake and the command that runs it.

    Attributes:
        workflow: its name, or the path of its file.
        lake: the lake folder.
        command: how `lakehouse` is called here, as words.
        folder: where it runs.
    """

    workflow: str
    lake: Path
    command: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        """The name of the units, without what they end with."""
        return f"lakehouse-{Path(self.workflow).stem}"

    @property
    def words(self) -> tuple[str, ...]:
        """The whole command."""
        return (*self.command, "--lake", str(self.lake), "workflow", "run", self.workflow, "--quiet")

    def units(self, calendar: str) -> dict[str, str]:
        """A service and a timer for systemd (systemd.service(5), systemd.timer(5)), by file name.

        Args:
            calendar: as of systemd.time(7), such as `daily` or `Mon..Fri 06:30`.
        """
        if not calendar.strip() or not calendar.isprintable():
            raise WorkflowError(f"{calendar!r:.80} is no calendar", hint="such as daily, or Mon..Fri 06:30")
        service = (
            f"[Unit]\nDescription=Lakehouse workflow {Path(self.workflow).stem}\n\n"
            "[Service]\nType=oneshot\n"
            f"WorkingDirectory={_escaped(str(self.folder))}\n"
            f"ExecStart={' '.join(map(_quoted, self.words))}\n"
            "# The runner ends its nodes itself; whatever is left is killed with it.\n"
            "KillMode=mixed\nTimeoutStopSec=60\n"
        )
        timer = (
            f"[Unit]\nDescription=When the lakehouse workflow {Path(self.workflow).stem} runs\n\n"
            f"[Timer]\nOnCalendar={_escaped(calendar.strip())}\n"
            "# A time that passed while the machine was off is made up for.\n"
            "Persistent=true\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
        return {f"{self.name}.service": service, f"{self.name}.timer": timer}

    def cron(self, when: str) -> str:
        """A line for crontab(5).

        Args:
            when: five fields, or a word such as `@daily`.
        """
        text = " ".join(when.split())
        if not _CRON.fullmatch(text) or (text[0] != "@" and not all(_FIELD.fullmatch(one) for one in text.split())):
            raise WorkflowError(f"{when!r:.80} is no time for cron", hint="such as '30 6 * * 1-5' or @daily")
        command = f"cd {shlex.quote(str(self.folder))} && {shlex.join(self.words)}"
        if "\n" in command:
            raise WorkflowError("a line of cron cannot hold a path with a line break")
        return f"{text} {command.replace('%', chr(92) + '%')}"  # cron takes a bare % for the end of the line


def _escaped(text: str) -> str:
    if any(not char.isprintable() for char in text):
        raise WorkflowError(f"{text!r:.80} cannot stand in a unit")
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    text = _escaped(word).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
