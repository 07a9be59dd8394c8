"""`lakehouse.restore()`: a lake out of a backup, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lakehouse.catalog.attach import DATA_FOLDER, MARKER_FILE
from lakehouse.errors import BackupUnusable, LakeUnusable
from lakehouse.health import manifest
from lakehouse.health.manifest import Entry, Manifest
from lakehouse.storage.faults import translated
from lakehouse.storage.local import LocalStore

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored; every content was hashed on the way and is what was backed up."""

    path: str
    snapshot: int
    """The newest snapshot in it."""
    files: int
    bytes: int
    left_out: tuple[str, ...]
    """What of the lake the backup did not hold, and why."""
    elapsed: float
    """Seconds."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def restore(place: Path, target: Path, objects: str) -> RestoreReport:
    """Make the lake of a backup again; it appears in its place when everything is on the disk.

    Args:
        place: the folder of the backup.
        target: the folder of the lake; new or empty.
        objects: the name of the folder of its objects.

    Raises:
        BackupUnusable: the backup is unfinished or damaged; nothing is left of the lake.
        LakeUnusable: there is something at the target already.
        DiskFull: there is no space; nothing is left of the lake.
    """
    started = time.monotonic()
    found = manifest.require(place)
    _check_empty(target)
    with _beside(target) as folder:
        for entry in found.files:
            _copy(place, entry, _inside(folder, entry.name))
        store = LocalStore(folder / objects)
        for entry in found.objects:
            _put(place, entry, store)
        with translated("restoring a lake", target):
            (folder / DATA_FOLDER).mkdir(exist_ok=True)
            if not (folder / MARKER_FILE).is_file():
                raise BackupUnusable(f"the backup {place} names no {MARKER_FILE}", hint="use another backup")
            _sync_all(folder)
            _check_empty(target)
            folder.rename(target)  # also in the place of an empty folder
            _sync(target.parent)
    entries = (*found.files, *found.objects)
    size = sum(entry.size for entry in entries)
    return RestoreReport(str(target), found.snapshot, len(entries), size, found.left_out, time.monotonic() - started)


def verify(place: Path) -> Manifest:
    """Read every content of a backup and compare its hash.

    Raises:
        BackupUnusable: something is missing or damaged; says what.
    """
    found = manifest.require(place)
    if faults := manifest.check(place, found):
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise BackupUnusable(f"the backup {place} is damaged: {'; '.join(faults[:5])}{more}", hint="use another backup")
    return found


def _check_empty(target: Path) -> None:
    with translated("restoring a lake", target):
        if target.is_dir() and any(target.iterdir()):
            raise LakeUnusable(
                f"{target} is not empty", hint="restore into a new folder, then put it where you want it"
            )
        if target.exists() and not target.is_dir():
            raise LakeUnusable(f"{target} is a file", hint="give the path of a new folder")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder beside the target that nobody takes for a lake; gone afterwards unless it was renamed."""
    folder = target.with_name(f".{target.name}.restoring")
    with translated("restoring a lake", target):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LakeUnusable(f"another process is restoring to {target}", hint="wait for it") from None
        with translated("restoring a lake", target):
            for left in folder.iterdir():  # by a process that died
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _inside(folder: Path, name: str) -> Path:
    """Where a file of the manifest goes; never outside the folder, whatever the manifest says."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise BackupUnusable(f"the backup names a file outside the lake: {name!r}")
    return folder / pure


def _copy(place: Path, entry: Entry, target: Path) -> None:
    digest, size = hashlib.sha256(), 0
    source = manifest.where(place, entry.sha256)
    with translated(f"restoring {entry.name}", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            stream = source.open("rb")
        except FileNotFoundError:
            raise _damaged(place, entry, "missing") from None
        with stream, target.open("xb") as file:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                file.write(piece)
    if (digest.hexdigest(), size) != (entry.sha256, entry.size):
        raise _damaged(place, entry, "damaged")


def _put(place: Path, entry: Entry, store: LocalStore) -> None:
    try:
        with manifest.where(place, entry.sha256).open("rb") as stream:
            receipt = store.put(entry.name, stream)
    except FileNotFoundError:
        raise _damaged(place, entry, "missing") from None
    if receipt.sha256 != entry.sha256:
        raise _damaged(place, entry, "damaged")


def _damaged(place: Path, entry: Entry, how: str) -> BackupUnusable:
    return BackupUnusable(
        f"the backup {place} is damaged: {entry.name} is {how}; nothing was restored", hint="use another backup"
    )


def _sync_all(folder: Path) -> None:
    for here, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(here, name))
        _sync(Path(here))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
