"""Nobody deletes data files while they are being copied: a lock (flock) on the data folder.

A backup shares it with other backups, cleaning holds it alone; writers and readers never ask for it. The kernel
frees it when the process dies.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.errors import LakeUnusable, LockTimeout

_POLL = 0.05


@contextmanager
def guarded(data: Path, timeout: float, *, alone: bool) -> Iterator[None]:
    """Hold the lock on the data folder.

    Args:
        data: the folder.
        timeout: seconds to wait.
        alone: to delete; else to copy, as others may at the same time.

    Raises:
        LockTimeout: a backup, or a cleaning, took longer than that.
    """
    deadline = time.monotonic() + timeout
    try:
        descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise LakeUnusable(f"the folder {data} cannot be opened: {error.strerror}") from None
    try:
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    who = "a backup copies" if alone else "another process deletes"
                    raise LockTimeout(
                        f"{who} files of {data}; waited {timeout:g} s (catalog.lock_timeout)", hint="try again later"
                    ) from None
                time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)
