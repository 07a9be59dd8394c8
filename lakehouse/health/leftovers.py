"""What processes that died have left in the folder for temporary files."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from datetime import datetime
from pathlib import Path

from lakehouse.health import inventory
from lakehouse.health.inventory import Footprint, footprint

_OURS = re.compile(
    r"(unzip-|object-|grid-|duckdb_temp_|\.?tmp).*|.*\.(arrow|tmp)"
)  # the folder may be shared with others
_BRANCH_LOCK = "branch.lock"  # held by the process whose branch it is
_LEAST = 3600.0  # seconds: a file of a running load may be closed for a moment


def find(temp: Path, limit: datetime) -> list[Path]:
    """The files and folders that nobody has touched since the limit, or the last hour, and that no process holds."""
    latest = min(limit.timestamp(), time.time() - _LEAST)
    try:
        entries = sorted(path for path in temp.iterdir() if _OURS.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    old = [path for path in entries if _touched(path) < latest and not _locked(path)]
    held = _held() if old else set()
    return [path for path in old if not any(file == str(path) or file.startswith(f"{path}/") for file in held)]


def remove(temp: Path, limit: datetime, *, dry_run: bool) -> Footprint:
    """Remove them and say how many files there were."""
    sizes: list[int] = []
    for path in find(temp, limit):
        sizes += [stat.st_size for _, stat in _files(path)]
        if not dry_run:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return footprint(sizes)


def branches(lake: Path, *, dry_run: bool) -> list[str]:
    """Remove the branches whose process has died, and give their names; each is locked while it is removed."""
    gone = []
    for path in sorted(lake.glob("branches/*/")):
        try:
            descriptor = os.open(path / _BRANCH_LOCK, os.O_RDWR)
        except OSError:
            continue  # it is just being made, or cleared away
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone.append(path.name)
            if not dry_run:
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
    return gone


def _files(path: Path) -> list[tuple[Path, os.stat_result]]:
    if path.is_dir() and not path.is_symlink():
        return list(inventory.on_disk(path))
    try:
        return [(path, path.lstat())]
    except FileNotFoundError:
        return []


def _touched(path: Path) -> float:
    try:
        return max([path.lstat().st_mtime, *(stat.st_mtime for _, stat in _files(path))])
    except FileNotFoundError:
        return time.time()


def _locked(path: Path) -> bool:
    """Whether a living process keeps it to itself by a lock (flock)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _held() -> set[str]:
    """The files that processes have open, as far as we may look."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*/fd"):
        try:
            for link in os.scandir(process):
                try:
                    found.add(os.readlink(link.path))
                except OSError:
                    continue
        except OSError:
            continue  # ended meanwhile, or another user's
    return found
