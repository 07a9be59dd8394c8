"""One runner for each workflow, and nobody who begins before the last node of the one before has ended.

A lock file has two bytes that count. A runner locks the first as long as it lives. Each process locks the second,
together with others, while it works on a node; a new runner waits until nobody does. The kernel frees the locks of
whoever dies, and they belong to the open file, so threads of one process keep each other out as well.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lakehouse.durable import explained, make_folder, opened
from lakehouse.errors import NodeFailed, WorkflowBusy

_FLOCK = "hhqqi"  # struct flock of 64-bit Linux, fcntl_locking(2)
_RUNNER, _NODES = 0, 1
_PATIENCE = 20.0  # seconds for processes to end whose runner was killed
_LONGEST = 200


@contextmanager
def running(path: Path, named: Callable[[], str]) -> Iterator[str]:
    """Be the one runner of a workflow.

    Args:
        path: the lock file.
        named: gives the id of the run, asked when nobody else can begin one; it is what the lock gives.

    Raises:
        WorkflowBusy: another one is; names its run.
    """
    make_folder(path.parent)
    with opened(path, os.O_RDWR | os.O_CREAT) as file:
        if not _lock(file, fcntl.F_WRLCK, _RUNNER):
            raise WorkflowBusy(f"the workflow runs already: {_named(file)}", hint="lakehouse workflow cancel RUN")
        with explained(path):
            os.ftruncate(file, 0)
            run = named()
            os.pwrite(file, run.encode(), 0)
        end = time.monotonic() + _PATIENCE
        while not _lock(file, fcntl.F_WRLCK, _NODES):
            if time.monotonic() > end:
                raise WorkflowBusy("nodes of the run before are still ending", hint="try again")
            time.sleep(0.005)
        _lock(file, fcntl.F_UNLCK, _NODES)
        yield run


@contextmanager
def working(path: Path, run: str) -> Iterator[None]:
    """Work on a node, as long as its runner lives.

    Raises:
        NodeFailed: it does not.
    """
    with opened(path, os.O_RDWR) as file:
        if not _lock(file, fcntl.F_RDLCK, _NODES) or not alive(path, run):
            raise NodeFailed("whoever ran it is gone")
        yield


def disown(path: Path) -> None:
    """Let the run that holds the lock be no run's runner, so that processes elsewhere end its nodes: it takes no space."""
    with suppress(OSError):
        os.truncate(path, 0)


def alive(path: Path, run: str) -> bool:
    """Whether a run has its runner."""
    return runner(path) == run


def runner(path: Path) -> str | None:
    """The run that holds the lock; None: nobody does. It is only looked at, so nobody is in the way of anybody."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _RUNNER, 1, 0)
        held = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK
        return _named(file) if held else None
    finally:
        os.close(file)


def _named(file: int) -> str:
    return os.pread(file, _LONGEST, 0).decode("utf-8", "replace")


def _lock(file: int, kind: int, byte: int) -> bool:
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
