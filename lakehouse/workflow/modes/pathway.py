"""Mode `pathway`: a recorded analysis run again and compared with what it gave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from lakehouse.errors import LakehouseError, NodeFailed
from lakehouse.workflow.model import Node

if TYPE_CHECKING:
    from lakehouse.workflow.site import Site
    from lakehouse.workflow.work import Work


class Pathway(Node, frozen=True, kw_only=True):
    """`lake.pathway.replay` of a trace; a step that does not run is a failure."""

    mode: ClassVar[str] = "pathway"
    reusable: ClassVar[bool] = True
    trace: str
    """The uid of the recorded analysis."""
    at: Literal["now", "recorded"] = "now"
    """The lake as it is (or as it is pinned for this run), or as the analysis saw it."""
    expect: Literal["runs", "same"] = "runs"
    """`same`: also a step that gives something else is a failure."""

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        try:
            site.lake.pathway.get(self.trace)
        except LakehouseError as error:
            yield "trace", error.message

    def run(self, work: Work) -> None:
        work.stage("middle")
        replay = work.lake.pathway.replay(self.trace, "recorded" if self.at == "recorded" else work.task.pin)
        work.stage("write")
        work.fields["verdict"] = replay.verdict
        if replay.verdict == "failed" or (self.expect == "same" and replay.verdict != "same"):
            steps = [step for step in replay.steps if step.verdict != "same"]
            told = "; ".join(f"step {step.step} {step.verdict}: {step.detail or ''}" for step in steps[:3])
            raise NodeFailed(f"the replay of {self.trace} is not as expected: {told}")
