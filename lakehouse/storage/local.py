"""An object store in one folder of a local file system.

    objects/
      keys/landing+/flights.csv@/0000000000000003.<sha256>    the object `landing/flights.csv`
      incoming/<random>                                       being streamed

An object has a folder of its own (`names.py` spells it) and its content is the one file in it. The
file's name carries how many there were before it and the hash of what is in it, so content and
hash cannot disagree and nothing is ever hashed twice: the size and the time are the file's own.

A put streams into `incoming`, flushes, and renames into the object's folder under the next number;
then it flushes the folders and removes the file before. The highest number counts, so a reader
sees the old object or the new one at every moment, and after a crash too. Whoever changes an
object holds a lock (flock) on its folder, from looking at the conditions to removing the old file;
the kernel frees it when the process dies. Readers lock nothing and wait for nobody: when the file
they found is gone they look again.

A process that dies leaves at most a file in `incoming`, an old file behind a newer one (which the
next put or delete of the key removes) or an empty folder. None can be seen through the store;
`clean()` removes them, telling the dead from the living by a lock that every put holds on its file.

Folders are opened one below the other and links are never followed, so nothing placed in the store
leads out of it, and a key's length is no matter of the system's longest path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from lakehouse.errors import KeyInvalid, LakehouseError, ObjectNotFound
from lakehouse.storage import names
from lakehouse.storage.base import (
    Data,
    Listing,
    ObjectInfo,
    ObjectReceipt,
    ObjectStore,
    bounds,
    check_conditions,
    check_key,
    file_name,
    missing,
    pieces,
    require,
)
from lakehouse.storage.faults import translated
from lakehouse.storage.tree import FOLDER, Tree, try_lock, versions

_INCOMING = "incoming"
_PART = re.compile(r"[0-9a-f]{32}")
_FILE = os.O_RDONLY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_MODE = 0o444  # objects are replaced, never written to

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What dead processes had left behind."""

    files: int
    bytes: int


class LocalStore(ObjectStore):
    """Objects as files below a folder, for any number of processes and threads at once.

    Args:
        folder: where they are; made by the first put.
        lock_timeout: seconds to wait for another process that changes the same object.
    """

    def __init__(self, folder: Path, *, lock_timeout: float = 60.0) -> None:
        self.folder = folder
        self._tree = Tree(folder, lock_timeout)
        self._durable = False  # whether the folder itself is known to be on the disk

    def put(self, key: str, data: Data, *, if_absent: bool = False, if_match: str | None = None) -> ObjectReceipt:
        """See `ObjectStore.put`; the receipt is given when the disk has the content and its place.

        Raises:
            LockTimeout: another process was changing the same object for too long.
        """
        path = names.folders(check_key(key))
        check_conditions(if_absent=if_absent, if_match=if_match)
        if if_absent or if_match is not None:  # not worth streaming when it fails already
            require(key, self._etag(key), if_absent=if_absent, if_match=if_match)
        doing = f"putting '{key}'"
        digest, size = hashlib.sha256(), 0
        with self._incoming(doing) as (incoming, part, file):
            for piece in pieces(data):
                digest.update(piece)
                size += len(piece)
                with translated(doing, self.folder):
                    _write(file, piece)
            sha256 = digest.hexdigest()
            with translated(doing, self.folder):
                os.fsync(file)
                with self._tree.changing(path, create=True) as folder:
                    before = versions(folder)
                    require(key, _hash(before[-1]) if before else None, if_absent=if_absent, if_match=if_match)
                    name = f"{_number(before[-1]) + 1 if before else 1:016x}.{sha256}"
                    os.rename(part, name, src_dir_fd=incoming, dst_dir_fd=folder)
                    try:
                        os.close(self._tree.descend(path, sync=True))
                    except BaseException:
                        os.unlink(name, dir_fd=folder)  # not known to be durable, so it must not be there
                        raise
                    for old in before:
                        with suppress(OSError):  # it is hidden behind the new one
                            os.unlink(old, dir_fd=folder)
        return ObjectReceipt(key, size, sha256, sha256)

    def open(self, key: str) -> BinaryIO:
        """See `ObjectStore.open`."""
        with translated(f"reading '{key}'", self.folder):
            return os.fdopen(self._newest(key, lambda folder, name: os.open(name, _FILE, dir_fd=folder)), "rb")

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        with translated(f"reading '{key}'", self.folder):
            return self._newest(key, lambda folder, name: _info(key, folder, name))

    def list(self, prefix: str = "", limit: int = 1000, after: str | None = None) -> Listing:
        """See `ObjectStore.list`; what is put or deleted while it runs may be in it or not."""
        start, behind = bounds(prefix, limit, after)
        found: Listing = []
        with translated("listing objects", self.folder):
            for path, raw in self._tree.walk(start, behind):
                if len(found) == limit:
                    break
                if path[-1].endswith(names.OBJECT):
                    try:
                        found.append(self.head(raw.decode()))
                    except (ObjectNotFound, KeyInvalid, UnicodeDecodeError):
                        continue  # deleted since its folder was seen, or nothing that a put has made
        return found

    def delete(self, key: str, *, if_match: str | None = None) -> bool:
        """See `ObjectStore.delete`.

        Raises:
            LockTimeout: another process was changing the same object for too long.
        """
        path = names.folders(check_key(key))
        with translated(f"deleting '{key}'", self.folder):
            try:
                with self._tree.changing(path) as folder:
                    there = versions(folder)
                    require(key, _hash(there[-1]) if there else None, if_match=if_match)
                    for name in there:  # the oldest first: none may come to light again
                        os.unlink(name, dir_fd=folder)
                        os.fsync(folder)
                    return bool(there)
            except FileNotFoundError:
                require(key, None, if_match=if_match)
                return False

    def fetch(self, key: str, folder: Path) -> Path:
        """See `ObjectStore.fetch`; a second name for the stored file, where the file system can give one."""
        target = folder / file_name(key)
        try:
            self._newest(key, lambda found, name: _link(found, name, target))
        except OSError:  # another file system, or not allowed: copied, or it is said why not
            return super().fetch(key, folder)
        return target

    def clean(self, *, dry_run: bool = False) -> Cleaned:
        """Remove what puts and deletes that died have left; those under way are not touched.

        Args:
            dry_run: only count.
        """
        with translated("cleaning", self.folder):
            sizes = [*self._dead(dry_run=dry_run), *self._hidden(dry_run=dry_run)]
        return Cleaned(len(sizes), sum(sizes))

    def check(self, *, content: bool = False) -> Iterator[tuple[str, str]]:
        """What is wrong with the objects, as (what, key).

        Args:
            content: also read each one and compare its hash.
        """
        with translated("checking objects", self.folder):
            for path, raw in self._tree.walk():
                if not path[-1].endswith(names.OBJECT):
                    continue
                try:
                    key = check_key(raw.decode())
                except (KeyInvalid, UnicodeDecodeError):
                    yield "a folder that is no object's", "/".join(path)
                    continue
                try:
                    with self.open(key) as stream:
                        stream.read(1)
                        found = _hash_of(stream) if content else None
                    if found is not None and found != self.head(key).sha256:
                        yield f"its content is not what was put (SHA-256 {found[:12]}…)", key
                except ObjectNotFound:
                    continue  # deleted meanwhile, or an empty folder
                except (LakehouseError, OSError) as error:
                    yield f"it cannot be read: {str(error).splitlines()[0]}", key

    def _etag(self, key: str) -> str | None:
        try:
            return self.head(key).etag
        except ObjectNotFound:
            return None

    def _newest(self, key: str, use: Callable[[int, str], T]) -> T:
        """What `use(folder, name)` gives for the object's file; again when a put took that away in between."""
        path = names.folders(check_key(key))
        tried = None
        while True:
            try:
                folder = self._tree.descend(path)
            except FileNotFoundError:
                raise missing(key) from None
            try:
                there = versions(folder)
                if not there:
                    raise missing(key)
                try:
                    return use(folder, there[-1])
                except FileNotFoundError:
                    if there[-1] == tried:
                        raise
                    tried = there[-1]
            finally:
                os.close(folder)

    @contextmanager
    def _incoming(self, doing: str) -> Iterator[tuple[int, str, int]]:
        """A new file to stream into: the open folder it is in, its name, and itself. Gone afterwards unless renamed."""
        with translated(doing, self.folder):
            os.makedirs(self.folder, exist_ok=True)
            if not self._durable:
                _sync(self.folder.parent)
                self._durable = True
            root = os.open(self.folder, FOLDER)
            try:
                with suppress(FileExistsError):
                    os.mkdir(_INCOMING, dir_fd=root)
                incoming = os.open(_INCOMING, FOLDER | os.O_NOFOLLOW, dir_fd=root)
            finally:
                os.close(root)
        try:
            with translated(doing, self.folder):
                part, file = _begin(incoming)
            try:
                yield incoming, part, file
            finally:
                with suppress(OSError):  # renamed; or left for clean()
                    os.unlink(part, dir_fd=incoming)
                os.close(file)
        finally:
            os.close(incoming)

    def _dead(self, *, dry_run: bool) -> Iterator[int]:
        """Remove the streams of dead processes; their sizes."""
        try:
            incoming = os.open(self.folder / _INCOMING, FOLDER | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            for name in filter(_PART.fullmatch, os.listdir(incoming)):
                with suppress(FileNotFoundError):  # put in its place meanwhile
                    file = os.open(name, _FILE, dir_fd=incoming)
                    try:
                        if try_lock(file):
                            if not dry_run:
                                os.unlink(name, dir_fd=incoming)
                            yield os.fstat(file).st_size
                    finally:
                        os.close(file)
        finally:
            os.close(incoming)

    def _hidden(self, *, dry_run: bool) -> Iterator[int]:
        """Remove old files behind newer ones, and empty folders; the sizes of the files."""
        for path, _ in self._tree.walk():
            with suppress(FileNotFoundError):  # deleted meanwhile
                folder = self._tree.descend(path)
                try:
                    if not path[-1].endswith(names.OBJECT):
                        if not dry_run:
                            self._tree.prune(path, folder)
                        continue
                    there = versions(folder)
                    if dry_run:
                        yield from (_size(folder, name) for name in there[:-1])
                        continue
                finally:
                    os.close(folder)
                if len(there) != 1:
                    with self._tree.changing(path) as folder:
                        for name in versions(folder)[:-1]:
                            size = _size(folder, name)
                            os.unlink(name, dir_fd=folder)
                            yield size


def _number(name: str) -> int:
    return int(name[:16], 16)


def _hash(name: str) -> str:
    return name[17:]


def _size(folder: int, name: str) -> int:
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size


def _info(key: str, folder: int, name: str) -> ObjectInfo:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    _check_regular(found)
    modified = datetime.fromtimestamp(found.st_mtime, UTC)
    return ObjectInfo(key, found.st_size, _hash(name), modified, _hash(name))


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _link(folder: int, name: str, target: Path) -> None:
    """Give an object's file a second name; never that of a link, which would be followed there."""
    os.link(name, target, src_dir_fd=folder, follow_symlinks=False)
    try:
        _check_regular(os.lstat(target))
    except OSError:
        os.unlink(target)
        raise


def _begin(incoming: int) -> tuple[str, int]:
    """A new file, locked for as long as it is open: that is how `clean` knows that its process lives."""
    while True:
        part = os.urandom(16).hex()
        file = os.open(part, _NEW, _MODE, dir_fd=incoming)
        if try_lock(file) and os.fstat(file).st_nlink:
            return part, file
        os.close(file)  # a cleaner came between the two lines above
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=incoming)


def _write(file: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(file, left) :]


def _hash_of(stream: BinaryIO) -> str:
    """The SHA-256 of all of an open file."""
    stream.seek(0)
    digest = hashlib.sha256()
    while piece := stream.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
