"""The folders of a local store: opened one below the other, locked, walked in the order of their keys."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lakehouse.errors import LockTimeout
from lakehouse.storage import names

FOLDER = os.O_RDONLY | os.O_DIRECTORY
"""How a folder is opened; with O_NOFOLLOW wherever it is one that the store has made."""
_VERSION = re.compile(r"[0-9a-f]{16}\.[0-9a-f]{64}")
_POLL = 0.001


class Tree:
    """The folders below `folder/keys`; a path is their names as `names.folders` gives them.

    Args:
        folder: the folder of the store.
        lock_timeout: seconds to wait for another process that changes the same object.
    """

    def __init__(self, folder: Path, lock_timeout: float) -> None:
        self._folder = folder
        self._lock_timeout = lock_timeout

    def descend(self, path: tuple[str, ...], *, create: bool = False, sync: bool = False) -> int:
        """The open folder at a path, going down one by one; with `sync` each is flushed to the disk."""
        here = os.open(self._folder, FOLDER)
        try:
            for name in ("keys", *path):
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=here)
                if sync:
                    os.fsync(here)
                above, here = here, os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=here)
                os.close(above)
            if sync:
                os.fsync(here)
        except BaseException:
            os.close(here)
            raise
        return here

    @contextmanager
    def changing(self, path: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """The object's folder, open, with nobody else changing the object; removed afterwards when it is empty."""
        deadline = time.monotonic() + self._lock_timeout
        folder = None
        while folder is None:
            try:
                folder = self._locked(path, deadline, create=create)
            except FileNotFoundError:  # a delete has removed a folder that was made for us
                if not create or time.monotonic() > deadline:
                    raise
        try:
            yield folder
        finally:
            self.prune(path, folder)
            # Closing frees the lock only when nobody else has the descriptor: a child forked meanwhile may.
            fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)

    def _locked(self, path: tuple[str, ...], deadline: float, *, create: bool) -> int | None:
        """The object's folder, open and locked; None when it was removed while we waited."""
        folder = self.descend(path, create=create)
        try:
            while not try_lock(folder):
                if time.monotonic() > deadline:
                    raise LockTimeout(
                        f"another process has been changing the object for {self._lock_timeout:g} s",
                        hint="try again, or end that process",
                    )
                time.sleep(_POLL)
            again = self.descend(path)
            try:
                if os.path.samestat(os.fstat(folder), os.fstat(again)):
                    return folder
            finally:
                os.close(again)
        except BaseException:
            os.close(folder)
            raise
        os.close(folder)
        return None

    def prune(self, path: tuple[str, ...], folder: int) -> None:
        """Remove a folder that is empty, then those above it that are empty without it."""
        with suppress(OSError):
            empty = not os.listdir(folder)
            while empty and path:
                above = self.descend(path[:-1])
                try:
                    os.rmdir(path[-1], dir_fd=above)
                finally:
                    os.close(above)
                path = path[:-1]

    def walk(self, start: bytes = b"", behind: bytes = b"") -> Iterator[tuple[tuple[str, ...], bytes]]:
        """The folders of objects whose keys start with `start` and come after `behind`, in order, with their keys.

        Among them other folders that are empty.
        """
        stack: list[tuple[tuple[str, ...], bytes]] = [((), b"")]
        while stack:
            path, raw = stack.pop()
            inner = [] if path and path[-1].endswith(names.OBJECT) else self._inside(path)
            if path and not inner:
                yield path, raw
            for added, name in sorted(inner, reverse=True):
                key = raw + added
                if name.endswith(names.OBJECT):
                    wanted = key > behind and key.startswith(start)
                else:
                    wanted = (key.startswith(start) or start.startswith(key)) and (
                        key > behind or behind.startswith(key)
                    )
                if wanted:
                    stack.append(((*path, name), key))

    def _inside(self, path: tuple[str, ...]) -> list[tuple[bytes, str]]:
        """The folders in a folder with what they add to the key; none when it is gone."""
        try:
            folder = self.descend(path)
        except FileNotFoundError:
            return []
        try:
            return [(known[0], name) for name in os.listdir(folder) if (known := names.read(name))]
        finally:
            os.close(folder)


def versions(folder: int) -> list[str]:
    """The files of an object's open folder, the one that counts last."""
    return sorted(filter(_VERSION.fullmatch, os.listdir(folder)))


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder against all who do the same; False when somebody has. It ends with the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
