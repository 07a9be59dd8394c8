"""What the operating system says, in the product's words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.errors import DiskFull, LakehouseError, LakeUnusable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STRANGE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR})


@contextmanager
def translated(what: str, folder: Path) -> Iterator[None]:
    """Turn an OSError raised inside into one of ours that says what could not be done, and where."""
    try:
        yield
    except OSError as error:
        raise _translate(error, what, folder) from error


def _translate(error: OSError, what: str, folder: Path) -> LakehouseError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFull(
            f"the disk is full: {what} failed in {folder}: {reason}",
            hint="free some space; nothing of this write was kept",
        )
    if error.errno in _STRANGE:
        return LakeUnusable(
            f"{what} failed: {folder} holds something that the store did not make ({reason}); links are not followed",
            hint="remove the link or file that stands where a folder of the store belongs",
        )
    return LakeUnusable(f"{what} failed in {folder}: {reason}", hint="check the folder, its permissions and its disk")
