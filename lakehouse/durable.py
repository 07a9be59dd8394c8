"""Writes that are done or raise: files and folders that the disk knows of, errors that say what happened."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lakehouse.errors import DiskFull, JournalError

_MODE = 0o644
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class opened:  # noqa: N801 - read as a verb; a class costs a third of a generator, and appends are many
    """`with opened(path, flags) as file`: an open file as its descriptor."""

    def __init__(self, path: Path, flags: int) -> None:
        try:
            self._file = os.open(path, flags | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise told(path, error) from None

    def __enter__(self) -> int:
        return self._file

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


class Held:
    """A file that stays open until nobody refers to this: closing it after each write costs more than the write."""

    def __init__(self, path: Path, flags: int) -> None:
        with explained(path):
            self.file = os.open(path, flags | os.O_CLOEXEC, _MODE)
            self._stat = os.fstat(self.file)

    def size_at(self, path: str) -> int | None:
        """The bytes of this file if a path still leads to it, which another one may have replaced.

        Its inode cannot be used again as long as it is open.
        """
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            return None
        same = stat.st_ino == self._stat.st_ino and stat.st_dev == self._stat.st_dev
        return stat.st_size if same else None

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class explained:  # noqa: N801 - as above
    """`with explained(path)`: errors of the system in our words.

    Raises:
        DiskFull: there is no space.
        JournalError: anything else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise told(self._path, error) from None


def told(path: Path, error: OSError) -> DiskFull | JournalError:
    """An error of the system in our words."""
    kind = DiskFull if error.errno in _FULL else JournalError
    return kind(f"{path} cannot be used: {error.strerror}", hint="nothing was appended")


def write_all(file: int, block: bytes | bytearray, path: Path) -> None:
    """All of it in one write, or an error."""
    try:
        written = os.write(file, block)
    except OSError as error:
        raise told(path, error) from None
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
