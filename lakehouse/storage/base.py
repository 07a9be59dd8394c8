"""What every object store promises, and the parts they share: keys, conditions, receipts, pieces.

The words are S3's. An object is a sequence of bytes under a key; `/` in a key means nothing to the
store, so `a` and `a/b` are two objects. Keys sort by their UTF-8 bytes. `put` is atomic: whoever
reads sees the old object or the new one.
"""

from __future__ import annotations

import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, runtime_checkable

from lakehouse.errors import (
    KeyInvalid,
    LakehouseError,
    NotFound,
    ObjectNotFound,
    PreconditionFailed,
)
from lakehouse.storage.faults import translated

MAX_KEY = 1024
"""Most bytes of a key in UTF-8."""
CHUNK = 1 << 20
"""Most bytes of an object that are in memory while it is streamed."""
_MAX_NAME = 255  # bytes of a file name
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes | None: ...


Data: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | Readable | Iterable[bytes]
"""What can be put: bytes, the path of a file (as a Path, never as text), a stream, or pieces one after another."""


@dataclass(frozen=True, slots=True)
class ObjectReceipt:
    """What a put wrote."""

    key: str
    size: int
    """Bytes."""
    sha256: str
    """Hash of the content, in hex."""
    etag: str
    """The version, for `if_match`; without HTTP's quotes."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """The version, for `if_match`; without HTTP's quotes."""
    modified: datetime
    """When its content was written, in UTC."""
    sha256: str | None
    """Hash of the content in hex; None where the store cannot know it without reading."""


Listing: TypeAlias = list[ObjectInfo]


class ObjectStore(ABC):
    """Objects under keys; see the implementations `LocalStore` and `MemoryStore`."""

    @abstractmethod
    def put(self, key: str, data: Data, *, if_absent: bool = False, if_match: str | None = None) -> ObjectReceipt:
        """Write an object, whole or not at all, in place of the one that is there.

        Args:
            key: its name, see `check_key`.
            data: bytes, a Path to read, a binary stream, or an iterable of bytes; streamed.
            if_absent: write only if there is no object under the key.
            if_match: write only if the object there has this etag.

        Raises:
            KeyInvalid: the key cannot be one.
            PreconditionFailed: `if_absent` or `if_match` does not hold.
            ObjectTooLarge: a cap was passed while streaming.
            DiskFull: there is no space.
        """

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """A handle for reading, which stays on this content whatever is put or deleted meanwhile.

        Raises:
            ObjectNotFound: no object under the key.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Size, etag and time, without reading the content.

        Raises:
            ObjectNotFound: no object under the key.
        """

    @abstractmethod
    def list(self, prefix: str = "", limit: int = 1000, after: str | None = None) -> Listing:
        """The objects whose keys start with `prefix`, in the order of the keys' bytes.

        Args:
            prefix: any text, also half a name.
            limit: most objects of one answer.
            after: only keys behind this one, such as the last of the answer before.
        """

    @abstractmethod
    def delete(self, key: str, *, if_match: str | None = None) -> bool:
        """Remove an object for good; as in S3 it is no error if there is none.

        Args:
            key: its name.
            if_match: remove it only if it has this etag.

        Returns:
            whether there was one.

        Raises:
            PreconditionFailed: `if_match` does not hold; also when there is no object.
        """

    def get(self, key: str) -> bytes:
        """The content of an object; `open` is for large ones.

        Raises:
            ObjectNotFound: no object under the key.
        """
        with self.open(key) as file:
            return file.read()

    def fetch(self, key: str, folder: Path) -> Path:
        """The object as a file in `folder`, named as the key ends, for readers that want a path.

        The file is for reading: it may be the stored one itself.

        Raises:
            ObjectNotFound: no object under the key.
            DiskFull: it has to be copied and there is no space.
            LakeUnusable: the folder cannot be written, or holds a file of that name.
        """
        target = folder / file_name(key)
        with self.open(key) as file:
            with translated(f"copying '{key}'", folder), target.open("xb") as copy:
                shutil.copyfileobj(file, copy, CHUNK)
        return target


def check_key(key: str) -> str:
    """The key itself, if it can be one.

    1 to 1,024 bytes of UTF-8, taken exactly (case counts, nothing is normalised); parts between `/`
    that are not empty, `.` or `..`; no control characters and no backslash.

    Raises:
        KeyInvalid: it cannot; says why.
    """
    if reason := _unfit(key):
        shown = ascii(key) if len(repr(key)) <= 100 else f"{ascii(key)[:80]}…"
        raise KeyInvalid(f"{shown} cannot be a key: {reason}", hint="keys look like landing/2026/flights.csv")
    return key


def _unfit(key: object) -> str | None:
    if not isinstance(key, str):
        return "it is not text"
    if not key:
        return "it is empty"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if size > MAX_KEY:
        return f"it has {size:,} bytes, more than {MAX_KEY:,}"
    if found := _CONTROL.search(key):
        return f"it holds the control character {found[0]!a}"
    if "\\" in key:
        return "it holds a backslash"
    if key.startswith("/"):
        return "it starts with /"
    for part in key.split("/"):
        if not part:
            return "it ends with /" if key.endswith("/") and "//" not in key else "it holds //"
        if part in (".", ".."):
            return f"it holds the part {part}"
    return None


def missing(key: str) -> ObjectNotFound:
    """The error for a key without an object."""
    return ObjectNotFound(f"there is no object '{key}'", hint="list the keys that there are; case counts")


def check_conditions(*, if_absent: bool, if_match: str | None) -> None:
    """Refuse conditions that can never hold together."""
    if if_absent and if_match is not None:
        raise LakehouseError("if_absent and if_match exclude each other", hint="give one of them")


def require(key: str, etag: str | None, *, if_absent: bool = False, if_match: str | None) -> None:
    """Refuse a put or delete whose condition does not hold; `etag` is that of the object there, None when there is none.

    Raises:
        PreconditionFailed: it does not hold.
    """
    if if_absent and etag is not None:
        raise PreconditionFailed(f"there is an object '{key}' already", hint="put it without if_absent to replace it")
    if if_match is not None and etag != if_match:
        now = "it is gone" if etag is None else f"its etag is {etag}"
        raise PreconditionFailed(
            f"'{key}' is not the object that if_match names: {now}", hint="read it again, then try with the new etag"
        )


def bounds(prefix: str, limit: int, after: str | None) -> tuple[bytes, bytes]:
    """Prefix and start of a listing as bytes; keys are listed that are greater than the start.

    Raises:
        KeyInvalid: they are no text, or not valid Unicode.
        LakehouseError: the limit is not a count.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise LakehouseError(
            f"the limit is {limit!r}, not a count", hint="give the most objects that one answer may hold"
        )
    if not isinstance(prefix, str) or not (after is None or isinstance(after, str)):
        raise KeyInvalid("the prefix or the key to start after is not text")
    try:
        return prefix.encode(), (after or "").encode()
    except UnicodeEncodeError:
        raise KeyInvalid("the prefix or the key to start after is not valid Unicode") from None


def file_name(key: str) -> str:
    """The last part of a key, cut in front where it is too long for a file name."""
    name = check_key(key).rsplit("/", 1)[-1]
    return name.encode()[-_MAX_NAME:].decode(errors="ignore")


def pieces(data: Data) -> Iterator[bytes]:
    """What `put` was given as pieces of at most 1 MiB, read only as they are asked for.

    Every piece is a copy, so what is hashed is what is written even if the caller's buffer changes.

    Raises:
        NotFound: there is no file at the path.
        LakehouseError: it is nothing that has bytes, or the file cannot be read.
    """
    if isinstance(data, str):
        raise LakehouseError("text is neither bytes nor a path", hint="put text.encode(), or Path(text) to put a file")
    if isinstance(data, os.PathLike):
        yield from _file(Path(data))
    elif isinstance(data, bytes | bytearray | memoryview):
        yield from _cut(data)
    elif isinstance(data, Readable):
        yield from _stream(data)
    elif isinstance(data, Iterable):
        for chunk in data:
            yield from _cut(chunk)
    else:
        raise LakehouseError(
            f"a {type(data).__name__} cannot be put", hint="give bytes, a Path, a binary stream or an iterable of bytes"
        )


def _cut(chunk: object) -> Iterator[bytes]:
    if not isinstance(chunk, bytes | bytearray | memoryview):
        hint = "open the file in binary mode" if isinstance(chunk, str) else "every piece must be bytes"
        raise LakehouseError(f"the data holds a {type(chunk).__name__}, not bytes", hint=hint)
    view = memoryview(chunk)
    if view.format != "B" or view.ndim != 1:
        view = memoryview(view.tobytes())  # numbers or strides: their bytes one after another
    for start in range(0, len(view), CHUNK):
        yield bytes(view[start : start + CHUNK])


def _stream(stream: Readable) -> Iterator[bytes]:
    while True:
        chunk = stream.read(CHUNK)
        if chunk is None:
            raise LakehouseError("the stream does not wait for its data", hint="open it in blocking mode")
        yield from _cut(chunk)
        if not chunk:
            return


def _file(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint=f"looked from {Path.cwd()}") from None
    except OSError as error:
        raise LakehouseError(f"{path} cannot be read: {error.strerror}", hint="give the path of a file") from None
    with file:
        while chunk := _read(file, path):
            yield chunk


def _read(file: BinaryIO, path: Path) -> bytes:
    try:
        return file.read(CHUNK)
    except OSError as error:
        raise LakehouseError(f"{path} cannot be read: {error.strerror}") from None
