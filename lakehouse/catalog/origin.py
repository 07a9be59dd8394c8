"""Where what this process does comes from: a node of a workflow, a notebook, a script, the command line."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NODE_VARIABLE = "LAKE_WORKFLOW_NODE"
"""In the environment of a node of a workflow, and of all that it starts: `workflow/run/node`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What runs in this process, as far as the process knows."""

    kind: Literal["workflow", "notebook", "script", "command line", "Python"]
    name: str | None = None
    """The node; the path of the notebook or script; None when it is not known, or when there is none."""

    def __str__(self) -> str:
        return self.kind if self.name is None else f"{self.kind} {self.name}"


def origin() -> Origin:
    """The origin of this process; JupyterLab tells its kernels the path of their notebook."""
    if node := os.environ.get(NODE_VARIABLE):
        return Origin("workflow", node)
    if notebook := os.environ.get("JPY_SESSION_NAME"):
        return Origin("notebook", notebook)
    program = sys.argv[0] if sys.argv else ""
    if Path(program).name == "ipykernel_launcher.py":
        return Origin("notebook")
    if Path(program).name == "lakehouse" or program.endswith("lakehouse/cli/__main__.py"):
        return Origin("command line")
    return Origin("Python") if program in ("", "-", "-c") else Origin("script", program)
