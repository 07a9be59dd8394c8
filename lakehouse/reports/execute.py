"""Executes one notebook in a process of its own, `python -m lakehouse.reports.execute`, and says how far it is.

It stands in the folder of the run, reads `input.ipynb`, and leaves `executed.ipynb`, also when a cell fails or the
process is ended from outside. What it says is one JSON object per line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from typing import Any

import papermill
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets.config import Config

INPUT, EXECUTED = "input.ipynb", "executed.ipynb"
_IPC = Config({"KernelManager": {"transport": "ipc"}})  # no port is opened for the kernel


def say(**what: Any) -> None:
    """One line to whoever started this process."""
    sys.__stdout__.write(json.dumps(what) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """Papermill's client, which keeps no more than so many bytes of what a cell gives."""

    most = 0

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

        def complete(cell: Any, cell_index: int | None = None, **more: Any) -> Any:
            result = done(cell, cell_index, **more)
            say(cell=(cell_index or 0) + 1, cells=total)
            return result

        nb_man.cell_complete = complete
        say(cell=0, cells=total)
        client = Client(
            nb_man,
            timeout=-1,
            startup_timeout=options["start_timeout"],
            kernel_name=kernel_name,
            config=_IPC,
            store_widget_state=False,  # no kernel stands behind a page that is kept: it shows what is beside a widget
        )
        return client.execute()


def main(most: int) -> int:
    """Execute the notebook of this folder; `most` is the most bytes of one cell's output."""
    Client.most = most
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    papermill_engines.register("lakehouse", Engine)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            done = papermill.execute_notebook(
                INPUT, EXECUTED, engine_name="lakehouse", progress_bar=False, autosave_cell_every=0
            )
        except papermill.PapermillExecutionError as error:
            say(error={"type": error.ename, "message": error.evalue[:4000], "cell": error.cell_index + 1})
            return 1
        except Exception as error:  # the kernel died, or never came
            say(error={"type": type(error).__name__, "message": (str(error) or repr(error))[:4000], "cell": None})
            return 1
    for number, cell in enumerate(done.cells, 1):
        if cell.metadata.papermill.exception:  # `sys.exit(0)`: papermill takes it for an end, but the rest did not run
            say(error={"type": "SystemExit", "message": "the notebook left before its end", "cell": number})
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
