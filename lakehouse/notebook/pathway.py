"""What `%pathway` and `%%pathway` say and do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakehouseError
from lakehouse.notebook.cells import check_name
from lakehouse.notebook.displays import Text

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse
    from lakehouse.pathway.recorder import Recording

_OPTION = re.compile(r"(?<!\S)(--?[A-Za-z][\w-]*)(?:(?:=|\s+)(?!-)(\S+))?")  # in a sentence, so quotes mean nothing
_OPTIONS = {"--tag": "TAG", "--output": "NAME", "-o": "NAME"}
WORDS = ("conclude", "similar", "replay")


@dataclass(frozen=True, slots=True)
class Title:
    """What `%%pathway` was asked to record."""

    question: str
    tags: tuple[str, ...]
    output: str | None


def title(line: str) -> Title:
    """Read the line of `%%pathway`.

    Raises:
        LakehouseError: an option is unknown, or no question stands there.
    """
    tags, output = [], None
    for name, value in _OPTION.findall(line):
        if name not in _OPTIONS:
            raise LakehouseError(f"%%pathway has no option {name}", hint=f"it has {', '.join(_OPTIONS)}")
        if not value:
            raise LakehouseError(f"{name} needs a value", hint=f"{name} {_OPTIONS[name]}")
        if name == "--tag":
            tags.append(value)
        else:
            check_name(value)
            output = value
    question = " ".join(_OPTION.sub(" ", line).split())
    if not question:
        raise LakehouseError(
            "%%pathway needs the question", hint="such as %%pathway why are evening flights late --tag delays"
        )
    return Title(question, tuple(tags), output)


def record(shell: Any, lake: Lakehouse, wanted: Title, body: str) -> Recording:
    """Run a cell and keep what it asked the lake; what goes wrong in it is shown once, kept, and fails the cell."""
    with lake.pathway.record(wanted.question, tags=wanted.tags) as recording:
        if wanted.output is not None:
            shell.user_ns[wanted.output] = recording
        ran = shell.run_cell(body, store_history=False)
        if ran.error_before_exec:
            raise LakehouseError(f"the cell was not run: {type(ran.error_before_exec).__name__}")
        if error := ran.error_in_exec:
            error._render_traceback_ = list  # IPython has shown it already
            raise error
    return recording


def errand(line: str, lake: Lakehouse, last: Recording | None) -> Any:
    """Do what `%pathway` says.

    Raises:
        LakehouseError: it is not understood, or there is nothing to conclude.
    """
    word, _, rest = line.strip().partition(" ")
    text = rest.strip()
    if word not in WORDS or not text:
        raise LakehouseError(
            f"%pathway {line.strip()} is not understood",
            hint="%pathway conclude TEXT, similar QUESTION or replay UID; %%pathway QUESTION records a cell",
        )
    if word == "conclude":
        if last is None:
            raise LakehouseError("nothing was recorded here yet", hint="%%pathway QUESTION records a cell")
        last.conclude(text)
        return last
    if word == "replay":
        uid, *at = text.split()
        return lake.pathway.replay(uid, at=at[0] if at else None)
    found = lake.pathway.similar(text)
    lines = [
        f"{one.trace.uid}  {one.trace.content['question']}\n    {one.trace.content.get('conclusion', 'no conclusion')}"
        for one in found
    ]
    return Text("\n".join(lines) or "nothing like it was recorded")
