"""Waiting for a process that works: as long as the machine keeps it from working, and no longer than it may take.

A fixed time on the clock says nothing on a busy machine: a process that waits for a processor or for the disk has not
hung. So what counts is the time in which it could have got on: in which it ran, or slept although nothing held it up.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

STEP = 0.2  # seconds between two looks
LIMIT = 60.0  # seconds of its own that a process may take for one piece of work
_STACKS = "stacks.txt"


def explain_on_signal(folder: str | Path) -> None:
    """In the process: write what all its threads do to a file of the folder when it is asked by SIGUSR1."""
    file = (Path(folder) / _STACKS).open("w")  # open for as long as the process lives
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)


def receive(here: Connection, processes: Sequence[BaseProcess], what: str, folder: str | Path | None = None) -> Any:
    """The next message that arrives at our end of a pipe.

    Args:
        here: our end.
        processes: that of the other end, and those it may have to wait for.
        what: what it is doing, for the error.
        folder: where the first process called `explain_on_signal`; None: it did not.

    Raises:
        AssertionError: it says nothing although it had `LIMIT` seconds for it; tells what its threads do.
        EOFError: it ended.
    """
    pids = [process.pid for process in processes if process.pid is not None]
    own, started = 0.0, time.monotonic()
    then, waited = started, _waited(pids)
    while not here.poll(STEP):
        now, found = time.monotonic(), _waited(pids)
        held = max((_more(waited.get(task, 0.0), seconds) for task, seconds in found.items()), default=0.0)
        own += max(min(now - then, 2 * STEP) - held, 0.0)  # no more: this process waits for a processor, too
        then, waited = now, found
        if own >= LIMIT:
            raise AssertionError(
                f"{what} does not get on: {own:.0f} of {now - started:.0f} s{_stacks(pids[0], folder)}"
            )
    return here.recv()


def _waited(pids: Iterable[int]) -> dict[int, float]:
    """Seconds that each thread of processes and of their children has waited so far for a processor.

    One that waits for the disk at this moment counts as one that has waited all the time since the last look.
    """
    found = {}
    for task in (task for pid in pids for task in _tasks(pid)):
        with suppress(OSError):  # it has ended meanwhile
            in_disk = Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[0] == "D"
            waited = int(Path(f"/proc/{task}/schedstat").read_text().split()[1]) / 1e9
            found[task] = math.inf if in_disk else waited
    return found


def _more(before: float, now: float) -> float:
    return math.inf if math.inf in (before, now) else now - before


def _tasks(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/task").iterdir():
            yield int(entry.name)
            for child in (entry / "children").read_text().split():
                yield from _tasks(int(child))


def _stacks(pid: int, folder: str | Path | None) -> str:
    if folder is None:
        return ""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    time.sleep(STEP)
    return "\n" + (Path(folder) / _STACKS).read_text()
