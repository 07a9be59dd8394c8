"""Running the steps of a recorded analysis again."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from lakehouse.catalog.names import quote
from lakehouse.errors import LakehouseError, ParameterFault
from lakehouse.pathway import steps
from lakehouse.pathway.model import Trace
from lakehouse.pathway.steps import Compared
from lakehouse.pathway.values import decoded

RECORDED = "recorded"
_CUT = 70  # characters of SQL in the overview


@dataclass(frozen=True, slots=True)
class Replay:
    """How an analysis went this time, against when it was recorded."""

    trace: Trace
    """With this replay counted."""
    at: Any
    """What it was run on: None for the lake as it is now, `recorded`, or a version."""
    steps: tuple[Compared, ...]

    @property
    def verdict(self) -> Literal["same", "changed", "failed"]:
        """`same` when all steps are; `failed` when one did not run."""
        verdicts = {step.verdict for step in self.steps}
        return "failed" if "failed" in verdicts else "changed" if "changed" in verdicts else "same"

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON has."""
        steps = [step.to_dict() for step in self.steps]
        return {"uid": self.trace.uid, "at": self.at, "verdict": self.verdict, "steps": steps}

    def __repr__(self) -> str:
        lines = [f"{self.verdict}: {len(self.steps)} steps of {self.trace.uid}"]
        for step in self.steps:
            lines.append(f"  {step.step}. {step.verdict:<8}{_line(step.sql)}")
            lines += [f"       {step.detail}"] if step.detail else []
            lines += [f"       - {row}" for row in step.removed] + [f"       + {row}" for row in step.added]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        body = ""
        for step in self.steps:
            differs = [f"− {row}" for row in step.removed] + [f"+ {row}" for row in step.added]
            told = "<br>".join(html.escape(str(line)) for line in ([step.detail] if step.detail else []) + differs)
            cells = (str(step.step), f"<code>{html.escape(_line(step.sql))}</code>", f"<b>{step.verdict}</b>", told)
            body += "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"
        head = "".join(f'<th style="text-align:left">{name}</th>' for name in ("step", "SQL", "now", "what differs"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def replayed(
    kept: Sequence[Mapping[str, Any]], run: Callable[..., Any], at: Any, tables: Mapping[str, Any]
) -> list[Compared]:
    """Run steps in their order and compare each with what was kept of it.

    Args:
        kept: the steps of the trace.
        run: `lake.sql`.
        at: as of `Recorder.replay`.
        tables: frames by name, given for this replay.
    """
    compared: list[Compared] = []
    answers: list[Any] = []
    for number, step in enumerate(kept, 1):
        begun = time.perf_counter()
        now: dict[str, Any]
        answer = None
        try:
            answer = run(step["sql"], **_arguments(step, at, tables, answers))
            now = {"elapsed": round(answer.elapsed, 6), **steps.facts(answer)}
        except LakehouseError as error:
            now = {"elapsed": round(time.perf_counter() - begun, 6), "error": steps.fault(error)}
        answers.append(answer)
        compared.append(steps.compare(number, step, now))
    return compared


def forget(lake: Any, kept: Sequence[Mapping[str, Any]]) -> None:
    """Drop what the steps will make again, if it is there: the replay is of making it, not of finding it."""
    for step in kept:
        for kind, schema, name in step.get("makes", ()):
            full = quote(schema, name) if schema else quote(name)
            with suppress(LakehouseError):  # by now it is something else, or another needs it
                lake.sql(f"DROP {kind.upper()} IF EXISTS {full}")


def _arguments(step: Mapping[str, Any], at: Any, tables: Mapping[str, Any], answers: Sequence[Any]) -> dict[str, Any]:
    """What the step was given, as far as it could be kept.

    Raises:
        ParameterFault: some of it could not.
    """
    if "lost" in step:
        raise ParameterFault(f"the SQL {step['lost']} and was not kept as it was", hint="run it by hand")
    arguments: dict[str, Any] = {}
    try:
        if "params" in step:
            arguments["params"] = decoded(step["params"])
        when = decoded(step["at"]) if "at" in step else None
    except ValueError as error:
        raise ParameterFault(f"a parameter was not kept: {error}", hint="run it by hand") from None
    if at == RECORDED:
        when = step.get("snapshot") if when is None else when
    elif at is not None:
        when = at
    if when is not None:
        arguments["at"] = when
    if "limit" in step:
        arguments["limit"] = step["limit"]
    if frames := step.get("tables"):
        arguments["tables"] = {name: _frame(name, place, tables, answers) for name, place in frames.items()}
    return arguments


def _frame(name: str, place: int | None, tables: Mapping[str, Any], answers: Sequence[Any]) -> Any:
    if name in tables:
        return tables[name]
    if place is None:
        raise ParameterFault(f"the frame {name} was not kept", hint=f"give it: replay(…, tables={{'{name}': …}})")
    if answers[place - 1] is None:
        raise ParameterFault(f"step {place}, whose result this one reads as {name}, failed")
    return answers[place - 1]


def _line(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= _CUT else f"{line[: _CUT - 1]}…"
