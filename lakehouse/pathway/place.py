"""Where the index is when its folder cannot be written: there, as it is, or in the temporary folder."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

from lakehouse.errors import LakeUnusable

_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_ROOM = 4
"""An index, with what is written while it is made, takes less than so many times the bytes of its journal."""


def writable(path: Path) -> bool:
    """Whether a file can be made beside this one.

    Raises:
        OSError: for another reason than permissions.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        if error.errno in _REFUSED:
            return False
        raise
    return True


def as_it_is(path: Path) -> str | None:
    """How SQLite can read a file without writing anything beside it, as the end of a URI; None: it cannot.

    A file in WAL mode is read with the help of two others. If another process has it open they are there; if not,
    nobody changes the file, unless what was left in its log has not come into it yet.
    """
    import sqlite3  # which who has no traces never needs

    if not path.exists():
        return None
    log = path.with_name(path.name + "-wal")
    for how in ("mode=ro", "mode=ro&immutable=1"):
        if "immutable" in how and log.exists() and log.stat().st_size:
            return None
        try:
            connection = sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True)
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            finally:
                connection.close()
        except sqlite3.DatabaseError:
            continue
        return how
    return None


def temporary(journal: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for an index of a journal; it goes with the object or the process.

    Raises:
        LakeUnusable: there is no room for it.
    """
    folder = tempfile.TemporaryDirectory(prefix="lakehouse-pathway-", ignore_cleanup_errors=True)
    needed = _ROOM * (journal.stat().st_size if journal.exists() else 0)
    free = shutil.disk_usage(folder.name).free
    if free < needed:
        folder.cleanup()
        raise LakeUnusable(
            f"{journal.parent} is read-only, and an index of it needs up to {needed:,} bytes in the temporary folder,"
            f" which has {free:,}",
            hint="set TMPDIR to a folder with more room, or search once where the lake can be written",
        )
    return folder
