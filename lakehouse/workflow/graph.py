"""The nodes of a workflow as a picture (that of the lineage draws it) and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.lineage import picture
from lakehouse.catalog.lineage.graph import Edge, Lineage
from lakehouse.catalog.lineage.graph import Node as Box

if TYPE_CHECKING:
    from lakehouse.workflow.plan import Plan
    from lakehouse.workflow.runs import Run


class Graph:
    """Which node comes after which, and what came of each in a run.

    Args:
        workflow: its name.
        modes: of its nodes.
        plan: their order.
        run: whose events are shown; None: none.
    """

    def __init__(self, workflow: str, modes: Mapping[str, str], plan: Plan, run: Run | None = None) -> None:
        self.workflow = workflow
        self.modes = modes
        self.plan = plan
        self.run = run

    def svg(self) -> str:
        """As an SVG picture."""
        boxes = tuple(Box(name, self._kind(name), name) for name in self.plan.order)
        edges = tuple(Edge(source, name, "then", (0,)) for name in self.plan.order for source in self.plan.before[name])
        whole = Lineage(Box("", "", self.workflow), boxes, edges, "both", None, 0)
        return picture.svg(whole, f"Workflow {self.workflow}")

    def text(self) -> str:
        """As lines: each node behind those that it comes after, and further in."""
        depth: dict[str, int] = {}
        lines = [self.workflow]
        for name in self.plan.order:
            before = self.plan.before[name]
            depth[name] = 1 + max((depth[one] for one in before), default=0)
        for name in sorted(self.plan.order, key=lambda one: depth[one]):
            before = self.plan.before[name]
            told = f"  after {', '.join(before)}" if before else ""
            lines.append(f"{'  ' * depth[name]}{name} ({self._kind(name)}){told}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        nodes = [
            {
                "node": name,
                "mode": self.modes[name],
                "after": list(self.plan.before[name]),
                "reads": None if (reads := self.plan.reads[name]) is None else list(reads),
                "writes": list(self.plan.writes[name]),
                "status": self._status(name),
            }
            for name in self.plan.order
        ]
        return {"workflow": self.workflow, "run": self.run.id if self.run else None, "nodes": nodes}

    def _status(self, name: str) -> str | None:
        if self.run is None:
            return None
        return self.run.events[name].status if name in self.run.events else "waiting"

    def _kind(self, name: str) -> str:
        status, mode = self._status(name), self.modes[name]
        return mode if status is None else f"{status.replace('_', ' ')}, {mode}"

    def _repr_svg_(self) -> str:
        return self.svg()

    def __repr__(self) -> str:
        return self.text()
