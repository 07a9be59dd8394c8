"""A backup on the disk: every file once, under its hash, and a manifest that says what was where.

    DEST/
      backup.json             what the backup holds: paths, sizes, hashes; takes its place last and whole
      files/ab/ab12…          the contents, named by their SHA-256
      incoming/<random>       being written; left behind only by a process that died

A second backup to the same place writes only what is not there yet, and the one before stays whole until the new
manifest takes the place of the old.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from lakehouse.errors import BackupUnusable
from lakehouse.storage.faults import translated

MANIFEST = "backup.json"
FORMAT = 1
FILES, INCOMING = "files", "incoming"
_PIECE = 1 << 20


class Entry(msgspec.Struct, frozen=True):
    """One file or object."""

    name: str
    """The path in the lake folder, or the key of an object."""
    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True):
    """What a finished backup holds."""

    format: int
    lakehouse: str
    """The version that wrote it."""
    lake: str
    """The lake's own mark, so that no other one is written over it."""
    time: str
    snapshot: int
    """The newest snapshot in it."""
    files: tuple[Entry, ...]
    objects: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()
    """What of the lake is not in it, and why."""

    def hashes(self) -> dict[str, int]:
        """The sizes of all contents by hash."""
        return {entry.sha256: entry.size for entry in (*self.files, *self.objects)}


class _Signed(msgspec.Struct, frozen=True):
    sha256: str
    """Of the manifest's own bytes: half a manifest is none."""
    manifest: msgspec.Raw


def read(place: Path) -> Manifest | None:
    """The manifest of a backup; None when no backup was ever finished there.

    Raises:
        BackupUnusable: it is damaged, or a newer version wrote it.
    """
    file = place / MANIFEST
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BackupUnusable(f"{file} cannot be read: {error.strerror}") from None
    try:
        signed = msgspec.json.decode(content, type=_Signed)
        body = bytes(signed.manifest)
        if hashlib.sha256(body).hexdigest() != signed.sha256:
            raise BackupUnusable(f"{file} is damaged: it does not fit its own hash", hint="use another backup")
        if (found := msgspec.json.decode(body)["format"]) > FORMAT:
            raise BackupUnusable(f"{file} has format {found}; this version reads up to {FORMAT}", hint="upgrade")
        return msgspec.json.decode(body, type=Manifest)
    except (msgspec.MsgspecError, KeyError, TypeError):
        raise BackupUnusable(f"{file} is damaged: it is not the list of a backup", hint="use another backup") from None


class Place:
    """The folder of a backup that is being written; nobody else writes there meanwhile.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[str] = set()
        self._folders: set[Path] = set()

    @contextmanager
    def opened(self) -> Iterator[Manifest | None]:
        """Make the folder and hold it; gives the manifest of the backup that is there.

        Raises:
            BackupUnusable: it holds other things, or another backup is being written there.
            DiskFull: it cannot be made.
        """
        with translated("making a backup", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            ours = {MANIFEST, FILES, INCOMING}
            strangers = sorted(p.name for p in self.folder.iterdir() if p.name not in ours)
            strangers = [name for name in strangers if not name.startswith(f".{MANIFEST}.")]
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if strangers:
                raise BackupUnusable(
                    f"{self.folder} is no backup: it holds other things ({', '.join(strangers[:3])})",
                    hint="give an empty or a new folder",
                )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupUnusable(f"another process is writing to {self.folder}", hint="wait for it") from None
            before = read(self.folder)
            with translated("making a backup", self.folder):
                shutil.rmtree(self.folder / INCOMING, ignore_errors=True)  # of processes that died
                (self.folder / INCOMING).mkdir()
                (self.folder / FILES).mkdir(exist_ok=True)
            yield before
        finally:
            shutil.rmtree(self.folder / INCOMING, ignore_errors=True)
            os.close(descriptor)

    def has(self, sha256: str, size: int) -> bool:
        """Whether a content is there already."""
        if sha256 not in self._seen:
            try:
                if os.stat(where(self.folder, sha256)).st_size != size:
                    return False
            except OSError:
                return False
            self._seen.add(sha256)
        return True

    def add(self, stream: BinaryIO) -> tuple[str, int]:
        """Write a content down, and give its hash and size; it is there under its hash when it is whole."""
        digest, size = hashlib.sha256(), 0
        part = self.folder / INCOMING / uuid.uuid4().hex
        with translated("writing a backup", self.folder):
            try:
                with part.open("xb") as file:
                    while piece := stream.read(_PIECE):
                        digest.update(piece)
                        size += len(piece)
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                sha256 = digest.hexdigest()
                target = where(self.folder, sha256)
                target.parent.mkdir(exist_ok=True)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        self._folders.add(target.parent)
        self._seen.add(sha256)
        return sha256, size

    def finish(self, manifest: Manifest) -> int:
        """Put the manifest in its place when everything it names is on the disk; the bytes that became superfluous."""
        body = msgspec.json.encode(manifest)
        signed = msgspec.json.encode(_Signed(hashlib.sha256(body).hexdigest(), msgspec.Raw(body)))
        part = self.folder / INCOMING / MANIFEST
        with translated("writing a backup", self.folder):
            for folder in (*self._folders, self.folder / FILES):
                _sync(folder)
            with part.open("xb") as file:
                file.write(signed)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.folder / MANIFEST)
            _sync(self.folder)
        return self._prune(manifest.hashes())

    def _prune(self, kept: dict[str, int]) -> int:
        gone = 0
        for folder in (self.folder / FILES).iterdir():
            for file in folder.iterdir():
                if file.name not in kept:
                    gone += file.stat().st_size
                    file.unlink()
        return gone


def where(folder: Path, sha256: str) -> Path:
    """The file of a content in a backup."""
    return folder / FILES / sha256[:2] / sha256


def check(folder: Path, manifest: Manifest) -> list[str]:
    """What is missing or damaged, one line each; every content is read and hashed."""
    faults = []
    names = {entry.sha256: entry.name for entry in (*manifest.files, *manifest.objects)}
    for sha256, size in sorted(manifest.hashes().items()):
        file = where(folder, sha256)
        try:
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != sha256 or file.stat().st_size != size:
                faults.append(f"{names[sha256]} is damaged ({file})")
        except FileNotFoundError:
            faults.append(f"{names[sha256]} is missing ({file})")
        except OSError as error:
            faults.append(f"{names[sha256]} cannot be read ({file}): {error.strerror}")
    return faults


def hash_of(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require(place: Path) -> Manifest:
    """The manifest of a finished backup.

    Raises:
        BackupUnusable: there is none, or it is damaged.
    """
    found = read(place)
    if found is None:
        raise BackupUnusable(
            f"there is no finished backup in {place}", hint="lakehouse backup makes one; a broken-off one goes on there"
        )
    return found


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
