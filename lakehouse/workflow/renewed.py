"""A run that goes on after its definition was changed: what differs, and what of it has to be done again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lakehouse.errors import WorkflowError, WorkflowInvalid
from lakehouse.workflow.model import Node, Workflow, described, digest, read
from lakehouse.workflow.plan import Plan
from lakehouse.workflow.runs import Again, Run

_MOST = 10  # names that are told


def file_of(definition: Mapping[str, Any]) -> Path | None:
    """The file that a definition was read from, if it is still there."""
    path = Path(definition.get("folder") or "", Path(definition.get("file") or "").name)
    return path if definition.get("file") and path.is_file() else None


def differing(run: Run, workflow: Workflow) -> list[str]:
    """The nodes of a definition that are not what they were when a run began: changed, or new."""
    before = run.definition["nodes"]
    return [name for name, node in workflow.nodes.items() if digest(described(node)) != digest(before.get(name))]


def outdated(run: Run, modes: Mapping[str, type[Node]]) -> str | None:
    """What to say of a run that goes on as it began although its file says something else now; None: it does not."""
    path = file_of(run.definition)
    if path is None:
        return None
    again = f"this run goes on as it began; resume it with --updated (workflow={str(path)!r}) to take the new one"
    try:
        now = read(path, modes)
    except WorkflowInvalid:
        return f"{path} has changed since and cannot be run as it is now; this run goes on as it began"
    gone = [name for name in run.nodes if name not in now.nodes]
    told = [
        f"{what}: {', '.join(names[:_MOST])}{', …' if len(names) > _MOST else ''}"
        for what, names in (
            ("changed", [name for name in differing(run, now) if name in run.nodes]),
            ("new", [name for name in now.nodes if name not in run.nodes]),
            ("gone", gone),
        )
        if names
    ]
    if now.params != run.definition.get("params", {}):
        told.append("its parameters")
    return f"{path} has changed since ({'; '.join(told)}): {again}" if told else None


def renewal(run: Run, workflow: Workflow, order: Plan, principal: str | None, snapshot: int, now: datetime) -> Again:
    """The record with which a run goes on by another definition.

    Nodes that are not what they were are done again, and with them all that come after them; parameters keep the
    values that the run was given.

    Raises:
        WorkflowError: it is the definition of another workflow.
    """
    if workflow.name != run.workflow:
        raise WorkflowError(f"run {run.id} is one of '{run.workflow}', not of '{workflow.name}'", hint="run that anew")
    again: dict[str, None] = {}
    for name in differing(run, workflow):
        again |= dict.fromkeys((name, *order.downstream(name)))
    params = workflow.bound({name: value for name, value in run.params.items() if name in workflow.params})
    return Again(
        principal=principal,
        time=now,
        workflow=workflow.to_dict(),
        params=params,
        renewed=tuple(again),
        snapshot=snapshot,
    )
