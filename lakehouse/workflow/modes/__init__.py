"""The modes: what a node can do. Further ones come by entry points `lakehouse.workflow_modes`."""

from __future__ import annotations

from importlib.metadata import entry_points

from lakehouse.errors import WorkflowError
from lakehouse.workflow.model import Node
from lakehouse.workflow.modes.http import Http
from lakehouse.workflow.modes.ingest import Ingest
from lakehouse.workflow.modes.notebook import Notebook
from lakehouse.workflow.modes.pathway import Pathway
from lakehouse.workflow.modes.python import Python
from lakehouse.workflow.modes.sql import Sql

__all__ = ["GROUP", "OURS", "Http", "Ingest", "Notebook", "Pathway", "Python", "Sql", "known"]

GROUP = "lakehouse.workflow_modes"
OURS: tuple[type[Node], ...] = (Http, Ingest, Notebook, Pathway, Python, Sql)


def known() -> dict[str, type[Node]]:
    """The class of each mode.

    Raises:
        WorkflowError: one that was installed cannot be loaded, is no mode, or has the name of another.
    """
    modes = {one.mode: one for one in OURS}
    for point in entry_points(group=GROUP):
        try:
            kind = point.load()
        except Exception as error:  # of any kind: it is not our code
            raise WorkflowError(f"the mode '{point.name}' of {point.value} cannot be loaded: {error}") from error
        if not (isinstance(kind, type) and issubclass(kind, Node) and kind.mode == point.name):
            raise WorkflowError(f"{point.value} is no mode '{point.name}'", hint="a subclass of workflow.model.Node")
        if point.name in modes:
            raise WorkflowError(f"there are two modes '{point.name}'", hint=f"one is {point.value}")
        modes[point.name] = kind
    return modes
