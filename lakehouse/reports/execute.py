"""Executes one notebook: `execute`, for a process that does nothing else, such as `python -m lakehouse.reports.execute`.

It stands in the folder of the run, reads `input.ipynb`, and leaves `executed.ipynb`, also when a cell fails or the
process is ended from outside. As a program it says how far it is, one JSON object per line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import papermill
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets.config import Config

from lakehouse.reports.model import Fault

INPUT, EXECUTED = "input.ipynb", "executed.ipynb"


def say(**what: Any) -> None:
    """One line to whoever started this process."""
    sys.__stdout__.write(json.dumps(what) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """Papermill's client, which keeps no more than so many bytes of what a cell gives."""

    most: int

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str, cell_index: int) -> Any:
        size = self._sizes.get(cell_index, 0) + len(json.dumps(msg["content"], default=str))
        said = self._sizes.get(cell_index, 0) > self.most
        self._sizes[cell_index] = size
        if size <= self.most:
            return super().output(outs, msg, display_id, cell_index)
        if not said:
            text = f"What this cell gives is cut here: it is more than {self.most:,} bytes.\n"
            outs.append(papermill_output(text))
        return None

    def execute(self, **kwargs: Any) -> Any:
        self._sizes: dict[int, int] = {}
        return super().execute(**kwargs)


def papermill_output(text: str) -> Any:
    """A line on stderr as a cell would give it."""
    from nbformat.v4 import new_output

    return new_output("stream", name="stderr", text=text)


class Engine(NBClientEngine):  # type: ignore[misc]
    """Papermill's engine, which says when a cell is done."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        done, total = nb_man.cell_complete, len(nb_man.nb.cells)
        told, kernel = options["told"] or (lambda *_: None), {"transport": "ipc"}  # no port is opened for the kernel
        if options["sockets"] is not None:
            kernel["ip"] = f"{options['sockets']}/k"

        def complete(cell: Any, cell_index: int | None = None, **more: Any) -> Any:
            result = done(cell, cell_index, **more)
            told((cell_index or 0) + 1, total)
            return result

        nb_man.cell_complete = complete
        told(0, total)
        client = Client(
            nb_man,
            timeout=-1,
            startup_timeout=options["start_timeout"],
            kernel_name=kernel_name,
            resources={"metadata": {"path": options["stands"]}} if options["stands"] else {},
            config=Config({"KernelManager": kernel}),
        )
        client.most = options["most"]
        return client.execute()


def execute(
    *,
    most: int,
    told: Callable[[int, int], None] | None = None,
    stands: Path | None = None,
    sockets: str | None = None,
    patience: int = 60,
) -> Fault | None:
    """Execute the notebook of the folder in which this process stands; nothing else may run in it meanwhile.

    Args:
        most: the most bytes of one cell's output.
        told: called with the cells done and the number of cells; None: nobody wants to know.
        stands: the folder in which the kernel stands; None: the same.
        sockets: a folder for the kernel's sockets; None: the same. Their paths may not be long.
        patience: seconds in which the kernel has to be there.

    Returns:
        why it was not executed to its end; None: it was.
    """
    papermill_engines.register("lakehouse", Engine)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            done = papermill.execute_notebook(
                INPUT,
                EXECUTED,
                engine_name="lakehouse",
                progress_bar=False,
                autosave_cell_every=0,
                start_timeout=patience,
                most=most,
                told=told,
                stands=None if stands is None else str(stands),
                sockets=sockets,
            )
        except papermill.PapermillExecutionError as error:
            return Fault(error.ename, error.evalue[:4000], error.cell_index + 1)
        except Exception as error:  # the kernel died, or never came
            return Fault(type(error).__name__, (str(error) or repr(error))[:4000])
    for number, cell in enumerate(done.cells, 1):
        if cell.metadata.papermill.exception:  # `sys.exit(0)`: papermill takes it for an end, but the rest did not run
            return Fault("SystemExit", "the notebook left before its end", number)
    return None


def main(most: int) -> int:
    """Execute the notebook of this folder; `most` is the most bytes of one cell's output."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    fault = execute(most=most, told=lambda cell, cells: say(cell=cell, cells=cells))
    if fault is not None:
        say(error={"type": fault.type, "message": fault.message, "cell": fault.cell})
        return 1
    say(done=True)
    return 0


def _follow(parent: int) -> None:
    """End with whoever started this process: nobody would read what comes of it. The kernel looks after itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
