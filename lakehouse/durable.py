"""Writes that are done or raise: files and folders that the disk knows of, errors that say what happened."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.errors import DiskFull, JournalError

_MODE = 0o644
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """An open file as its descriptor."""
    with explained(path):
        file = os.open(path, flags | os.O_CLOEXEC, _MODE)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of the system in our words.

    Raises:
        DiskFull: there is no space.
        JournalError: anything else.
    """
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in _FULL else JournalError
        raise kind(f"{path} cannot be used: {error.strerror}", hint="nothing was appended") from None


def write_all(file: int, block: bytes | bytearray, path: Path) -> None:
    """All of it in one write, or an error."""
    with explained(path):
        written = os.write(file, block)
    if written != len(block):
        raise DiskFull(f"{path} could be written only in part", hint="nothing was appended")


def make_folder(path: Path) -> None:
    """A folder with those above it, each known to the disk before anything is in it."""
    if not path.is_dir():
        make_folder(path.parent)
        with explained(path):
            path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Let the disk know which files are in a folder."""
    with opened(path, os.O_RDONLY) as folder, explained(path):
        os.fsync(folder)
