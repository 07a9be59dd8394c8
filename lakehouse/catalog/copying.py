"""Copies of SQLite files that others are writing to.

A process of its own makes them, by SQLite's own means. In this process only DuckDB's SQLite may open the catalog
(ADR-008). And the bytes of file and log are not enough: a writer that is killed in its commit can leave it in the log,
and not in the index that says how far the log counts. Nobody sees that commit, but whoever opens a copy of both files
recovers it, and has a snapshot that the lake never had.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from lakehouse.errors import DiskFull, LakeUnusable

_COPY = """
import sqlite3, sys
for source, target in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        here = sqlite3.connect(source, uri=True, timeout=30)
        there = sqlite3.connect(target)
        there.execute("PRAGMA synchronous = OFF")
        here.backup(there)
        there.close()
        here.close()
    except sqlite3.Error as error:
        print(getattr(error, "sqlite_errorname", ""), target, error, sep="\\n")
        sys.exit(1)
"""
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE")  # the last two: a quota, a limit on file sizes


def copy_closed(source: Path, target: Path) -> Path | None:
    """Copy a SQLite file that no process has open, with the log that a killed one left; None when one has it open.

    For who may not write in its folder: SQLite's own means need to. Others' files only: closing one that this process
    has open would drop SQLite's locks on it.
    """
    log, index = (Path(f"{source}{suffix}") for suffix in ("-wal", "-shm"))
    before = _stats(source, log)
    try:
        shutil.copyfile(source, target)
        if log.exists():
            shutil.copyfile(log, f"{target}-wal")
    except (FileNotFoundError, PermissionError):
        return None
    except OSError as error:
        raise LakeUnusable(f"{source} could not be copied to {target.parent}: {error.strerror}") from None
    return None if index.exists() or _stats(source, log) != before else target


def _stats(*files: Path) -> list[tuple[int, int, int]]:
    found = [file.stat() for file in files if file.exists()]
    return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found]


def copy(*files: tuple[Path, Path]) -> None:
    """Copy SQLite files as they are to whoever reads them now; the copies are not flushed.

    Args:
        files: pairs of the file and the place of its copy, where there is none.

    Raises:
        DiskFull: there is no room for them.
        LakeUnusable: one is missing or damaged, or cannot be read.
    """
    # mode=rw: a file that is missing is not made.
    arguments = [text for source, target in files for text in (f"{source.as_uri()}?mode=rw", str(target))]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _COPY, *arguments],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    if done.returncode == 0:
        return
    said = done.stdout.splitlines()
    if done.returncode != 1 or len(said) < 3:
        reason = done.stderr.strip() or f"its process ended with {done.returncode}"
        raise LakeUnusable(f"{files[0][0]} could not be copied: {reason}", hint="try it again")
    name, target, reason = said[0], Path(said[1]), said[2]
    if name in _FULL:
        raise DiskFull(
            f"the disk is full: {target.name} could not be copied to {target.parent}: {reason}", hint="free some space"
        )
    raise LakeUnusable(
        f"{target.name} could not be copied to {target.parent}: {reason}", hint="lakehouse doctor looks at it"
    )
