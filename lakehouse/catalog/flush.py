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


def flush_folder(folder: Path, since: float) -> None:
    """Flush every file and folder below `folder` that changed since a moment (seconds, Unix time), deepest first.

    Raises:
        DiskFull: the disk did not take it.
    """
    try:
        entries = list(os.scandir(folder))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                flush_folder(Path(entry.path), since)
        if os.stat(folder).st_mtime < since:
            return
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime >= since:
                _flush(entry.path)
        _flush(folder)
    except FileNotFoundError:
        return  # nothing was ever written there
    except OSError as error:
        raise _failed(folder, error) from None


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
            _flush(file)
            flushed = size


def _flush(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError) -> DiskFull:
    return DiskFull(f"{path} could not be flushed to the disk: {error.strerror}; nothing was committed")
