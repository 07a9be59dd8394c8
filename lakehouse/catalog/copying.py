"""Copies of SQLite files that others are writing to.

A process of its own makes them, by SQLite's own means. In this process only DuckDB's SQLite may open the catalog
(ADR-008). And the bytes of file and log are not enough: a writer that is killed in its commit can leave it in the log,
and not in the index that says how far the log counts. Nobody sees that commit, but whoever opens a copy of both files
recovers it, and has a snapshot that the lake never had.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lakehouse.errors import DiskFull, LakeUnusable, LockTimeout

# The copies are made first: a folder that somebody clears away is not written to any more. The read waits for others
# at most so long, while backup() alone would wait for ever.
_COPY = """
import sqlite3, sys
target = sys.argv[3]
try:
    places = [(source, target, sqlite3.connect(target)) for source, target in zip(sys.argv[2::2], sys.argv[3::2])]
    for source, target, copy in places:
        source = sqlite3.connect(source, uri=True, timeout=float(sys.argv[1]), isolation_level=None)
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        copy.execute("PRAGMA synchronous = OFF")
        copy.execute("PRAGMA journal_mode = OFF")
        source.backup(copy)
        copy.close()
        source.close()
except sqlite3.Error as error:
    print(getattr(error, "sqlite_errorname", ""), target, error, sep="\\n")
    sys.exit(1)
"""
_PATIENCE = 30.0  # seconds
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE")  # the last two: a quota, a limit on file sizes
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")


def marks(file: Path) -> tuple[tuple[int, int, int], ...]:
    """Times (ns), sizes (bytes) and inodes of a SQLite file and its log, as far as they are there."""
    found = []
    for name in (str(file), f"{file}-wal"):
        try:
            stat = os.stat(name)
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            continue
    return tuple(found)


def copy(*files: tuple[Path, Path]) -> None:
    """Copy SQLite files as they are to whoever reads them now; the copies are not flushed.

    Args:
        files: pairs of the file and the place of its copy, where there is none.

    Raises:
        DiskFull: there is no room for them.
        LockTimeout: another process keeps one to itself for too long.
        LakeUnusable: one is missing or damaged, or cannot be read.
    """
    # mode=rw: a file that is missing is not made.
    arguments = [text for source, target in files for text in (f"{source.as_uri()}?mode=rw", str(target))]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _COPY, str(_PATIENCE), *arguments],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    except (OSError, TypeError, ValueError) as error:  # an interpreter that is embedded does not know its own file
        raise LakeUnusable(f"{files[0][0]} could not be copied: no process can be started for it: {error}") from None
    if done.returncode == 0:
        return
    said = done.stdout.splitlines()
    if done.returncode != 1 or len(said) < 3:
        reason = done.stderr.strip() or f"its process ended with {done.returncode}"
        raise LakeUnusable(f"{files[0][0]} could not be copied: {reason}", hint="try it again")
    name, target, reason = said[0], Path(said[1]), said[2]
    if name.startswith(_FULL):
        raise DiskFull(
            f"the disk is full: {target.name} could not be copied to {target.parent}: {reason}", hint="free some space"
        )
    if name.startswith(_BUSY):
        raise LockTimeout(
            f"{target.name} was busy for {_PATIENCE:g} s and could not be copied",
            hint="another process is writing to it",
        )
    raise LakeUnusable(
        f"{target.name} could not be copied to {target.parent}: {reason}", hint="lakehouse doctor looks at it"
    )
