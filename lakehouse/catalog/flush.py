"""Data files on the disk: DuckDB does not flush what it writes, and the catalog will point at it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lakehouse.errors import DiskFull

_PERIOD = 0.1  # seconds between two looks at a growing file
_PORTION = 32 << 20  # bytes that are worth a flush of their own


class Flusher:
    """Flushes what was written below a folder; a file that it flushed and that has not changed is not flushed again.

    Args:
        folder: where data files are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._flushed: dict[str, tuple[int, int]] = {}

    def flush(self, since: float) -> None:
        """Flush every file and folder that changed since a moment (seconds, Unix time), deepest first.

        Raises:
            DiskFull: the disk did not take it.
        """
        seen: dict[str, tuple[int, int]] = {}
        try:
            self._flush(self._folder, since, seen)
        except OSError as error:
            raise _failed(self._folder, error) from None
        self._flushed = seen  # of older files nobody asks again

    def _flush(self, folder: Path, since: float, seen: dict[str, tuple[int, int]]) -> None:
        try:
            entries = list(os.scandir(folder))
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self._flush(Path(entry.path), since, seen)
            if os.stat(folder).st_mtime < since:
                return
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and (stat := entry.stat()).st_mtime >= since:
                    seen[entry.path] = (stat.st_mtime_ns, stat.st_size)
                    if self._flushed.get(entry.path) != seen[entry.path]:
                        sync(entry.path)
            sync(folder)
        except FileNotFoundError:
            return  # nothing was ever written there


@contextmanager
def flushing(file: Path) -> Iterator[None]:
    """Flush a file while it is being written, so that little is left to wait for at the end.

    Raises:
        DiskFull: a flush failed. The system tells an error only once, so the last flush would not see it again.
    """
    written = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="lakehouse-flush") as pool:
        following = pool.submit(_follow, file, written)
        try:
            yield
        finally:
            written.set()
        try:
            following.result()
        except OSError as error:
            raise _failed(file, error) from None


def _follow(file: Path, written: threading.Event) -> None:
    flushed = 0
    while not written.wait(_PERIOD):
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            continue  # not begun yet
        if size - flushed >= _PORTION:
            sync(file)
            flushed = size


def sync(path: str | Path) -> None:
    """Flush one file or folder; OSError when the disk does not take it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError) -> DiskFull:
    return DiskFull(f"{path} could not be flushed to the disk: {error.strerror}; nothing was committed")
