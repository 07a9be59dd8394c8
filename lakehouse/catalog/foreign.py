"""A lake in a folder that may not be written: a place for what would be written there, and a copy of its catalog.

SQLite reads a catalog with a write-ahead log only where it may make the index of that log, or where somebody has it
open, so that log and index are there (ADR-091).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from lakehouse.catalog.copying import marks
from lakehouse.errors import LakeUnusable


def writable(folder: Path) -> bool:
    """Whether this process may write in a folder, with the rights that count: not always its user's."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


class Place:
    """A temporary folder, removed when it is told to, with this object, or with the process that made it.

    Args:
        wanted: where to make it; elsewhere when that may not be written either, or is None.

    Raises:
        LakeUnusable: there is no place for it.
    """

    def __init__(self, wanted: str | None) -> None:
        self.path = _made(wanted)
        self.remove = weakref.finalize(self, _remove, self.path, os.getpid())
        """Remove it, once."""


def _made(wanted: str | None) -> Path:
    if wanted is not None:
        try:
            Path(wanted).mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="lakehouse-", dir=wanted))
        except OSError:
            pass  # it is the owner's, perhaps
    try:
        return Path(tempfile.mkdtemp(prefix="lakehouse-"))
    except OSError as error:
        raise LakeUnusable(
            f"no temporary folder can be made for a lake that may not be written: {error.strerror}",
            hint="TMPDIR names a folder for them",
        ) from None


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a process that was forked from it
        shutil.rmtree(path, ignore_errors=True)


def copied(catalog: Path, place: Place) -> Path | None:
    """A copy of a catalog that no process has open, with the log that a killed one left; None when one has it open.

    Only for who may not write there. Closing the file would drop this process's locks on it: it must not have it open.

    Raises:
        LakeUnusable: there is no room for it.
    """
    log, index = (Path(f"{catalog}{suffix}") for suffix in ("-wal", "-shm"))
    target = place.path / catalog.name
    if index.exists():
        return None
    before = marks(catalog)
    try:
        shutil.copyfile(catalog, target)
        if log.exists():
            shutil.copyfile(log, f"{target}-wal")
    except (FileNotFoundError, PermissionError):
        return None
    except OSError as error:
        raise LakeUnusable(f"{catalog} could not be copied to {place.path}: {error.strerror}") from None
    return None if index.exists() or marks(catalog) != before else target
