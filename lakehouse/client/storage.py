"""`client.storage`: the objects of a lake behind a server."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

import httpx
import msgspec

from lakehouse.client.problems import translated
from lakehouse.client.wire import LONG, Wire, path
from lakehouse.errors import (
    AnswerBroken,
    LakehouseError,
    NotFound,
    ObjectNotFound,
    PreconditionFailed,
    ServerUnreachable,
)
from lakehouse.storage.base import (
    CHUNK,
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
from lakehouse.storage.faults import translated as disk_translated

_PAGE = 10_000
_TRIES = 5
"""How often a reading goes on that broke off, or that met an object which was just being replaced."""


class _Page(msgspec.Struct):
    objects: Listing


class RemoteStore(ObjectStore):
    """Objects over HTTP, streamed both ways; what arrives is compared with its hash.

    Args:
        wire: the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def put(self, key: str, data: Data, *, if_absent: bool = False, if_match: str | None = None) -> ObjectReceipt:
        where = _at(key)
        check_conditions(if_absent=if_absent, if_match=if_match)
        headers = {"Content-Type": "application/octet-stream"}
        conditional = if_absent or if_match is not None
        if conditional:  # looked at here first, so that nothing is read and sent that would be refused
            require(key, self._etag(key), if_absent=if_absent, if_match=if_match)
            headers |= {"If-None-Match": "*"} if if_absent else {"If-Match": f'"{if_match}"'}
        sending = _Sending(data)
        again = conditional and isinstance(data, bytes | bytearray | memoryview | PathLike)
        try:
            answer = self._wire.send("PUT", where, content=sending, headers=headers, again=again, wait=LONG)
        except PreconditionFailed:
            if sending.times > 1 and self._is(key, sending.sha256):  # the first attempt had come through after all
                return ObjectReceipt(key, sending.size, sending.sha256, self.head(key).etag)
            raise
        receipt: ObjectReceipt = msgspec.json.decode(answer.content, type=ObjectReceipt)
        if receipt.sha256 != sending.sha256:
            raise AnswerBroken(f"'{key}' was changed on its way to the server", hint="put it again")
        return receipt

    def open(self, key: str) -> BinaryIO:
        file = tempfile.SpooledTemporaryFile(max_size=4 * CHUNK)  # noqa: SIM115 - closed by whoever reads it
        try:
            for piece in self.stream(key):
                file.write(piece)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return cast("BinaryIO", file)

    def get(self, key: str) -> bytes:
        return b"".join(self.stream(key))

    def read(self, key: str, start: int = 0, stop: int | None = None, *, if_match: str | None = None) -> bytes:
        """Some bytes of an object, without the rest being sent.

        Args:
            key: the object.
            start: the first byte, from 0.
            stop: the byte to stop before; None: the end.
            if_match: only if the object has this etag, so that several readings are of one content.

        Raises:
            RangeInvalid: it begins behind the end.
            PreconditionFailed: the object is another one now.
        """
        return b"".join(self.stream(key, start, stop, if_match=if_match))

    def stream(
        self, key: str, start: int = 0, stop: int | None = None, *, if_match: str | None = None
    ) -> Iterator[bytes]:
        """The content of an object, or some bytes of it (see `read`), piece by piece.

        A connection that breaks is taken up where it broke, as long as the object is the same. Of a whole object the
        hash is compared at the end.

        Raises:
            ObjectNotFound: no object under the key.
            AnswerBroken: what came is not what the server has.
        """
        where = _at(key)
        if start < 0 or (stop is not None and stop < start):
            raise LakehouseError(f"bytes {start} to {stop} are no range", hint="0 <= start <= stop")
        if stop == start:
            self.head(key)
            return
        at, etag, digest = start, if_match, hashlib.sha256()
        for tried in range(_TRIES):
            headers = {} if etag is None else {"If-Match": f'"{etag}"'}
            if at or stop is not None:
                headers["Range"] = f"bytes={at}-{'' if stop is None else stop - 1}"
            try:
                with self._wire.stream("GET", where, headers=headers, wait=LONG) as answer:
                    if "Range" in headers and answer.status_code != 206:
                        raise AnswerBroken(f"the server gives no part of '{key}'", hint="is a proxy in between?")
                    etag = answer.headers.get("ETag", "").strip('"') or None
                    expected = _hash(answer.headers) if (start, stop) == (0, None) else None
                    with translated(self._wire.base, answering=True):
                        for piece in answer.iter_raw():
                            at += len(piece)
                            digest.update(piece)
                            yield piece
            except (AnswerBroken, ServerUnreachable):
                if tried == _TRIES - 1 or etag is None:
                    raise
            except PreconditionFailed:
                if tried == _TRIES - 1 or etag is not None:  # without one of ours: it was replaced meanwhile
                    raise
            else:
                if expected is not None and digest.hexdigest() != expected:
                    raise AnswerBroken(f"what came of '{key}' has another hash than the object", hint="read it again")
                return

    def head(self, key: str) -> ObjectInfo:
        try:
            headers = self._wire.send("HEAD", _at(key)).headers
        except NotFound:
            raise missing(key) from None
        try:
            modified = datetime.fromisoformat(headers["Lakehouse-Modified"])
            return ObjectInfo(key, int(headers["Content-Length"]), headers["ETag"].strip('"'), modified, _hash(headers))
        except (KeyError, ValueError):
            raise AnswerBroken(f"the server does not say what '{key}' is", hint="is a proxy in between?") from None

    def list(self, prefix: str = "", limit: int = 1000, after: str | None = None) -> Listing:
        bounds(prefix, limit, after)  # refuses what cannot be
        found: Listing = []
        while len(found) < limit:
            asked = min(limit - len(found), _PAGE)
            query = {"prefix": prefix, "limit": asked, "after": found[-1].key if found else after}
            page = self._wire.json("GET", "/storage", _Page, query=query).objects
            found += page
            if len(page) < asked:
                break
        return found

    def delete(self, key: str, *, if_match: str | None = None) -> bool:
        where, headers = _at(key), {}
        if if_match is not None:
            require(key, self._etag(key), if_absent=False, if_match=if_match)
            headers["If-Match"] = f'"{if_match}"'
        answer = self._wire.send("DELETE", where, headers=headers)
        return bool(answer.headers.get("Lakehouse-Existed") == "true")

    def fetch(self, key: str, folder: Path) -> Path:
        target = folder / file_name(key)
        stream = self.stream(key)
        first = next(stream, b"")  # what is missing leaves no file behind
        with disk_translated(f"copying '{key}'", folder):
            file = target.open("xb")
        try:
            with file, disk_translated(f"copying '{key}'", folder):
                for piece in chain((first,), stream):
                    file.write(piece)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return target

    def __repr__(self) -> str:
        return f"<objects of {self._wire.base}>"

    def _etag(self, key: str) -> str | None:
        try:
            return self.head(key).etag
        except ObjectNotFound:
            return None

    def _is(self, key: str, sha256: str) -> bool:
        try:
            return self.head(key).sha256 == sha256
        except ObjectNotFound:
            return False


class _Sending:
    """What is put, piece by piece, anew each time it is asked for; its hash and size are those of the last time."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._digest = hashlib.sha256()
        self.size = 0
        self.times = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __call__(self) -> Iterator[bytes]:
        self._digest, self.size, self.times = hashlib.sha256(), 0, self.times + 1
        source = pieces(self._data)
        first = next(source, b"")  # what cannot be put at all is said before anything is sent
        return self._counted(chain((first,), source))

    def _counted(self, source: Iterator[bytes]) -> Iterator[bytes]:
        for piece in source:
            self._digest.update(piece)
            self.size += len(piece)
            if piece:
                yield piece


def _hash(headers: httpx.Headers) -> str | None:
    """The SHA-256 in the header `Repr-Digest` (RFC 9530), in hex."""
    for part in headers.get("Repr-Digest", "").split(","):
        name, _, text = part.strip().partition("=")
        if name == "sha-256":
            return base64.b64decode(text.strip(":")).hex()
    return None


def _at(key: str) -> str:
    return path("/storage/{}", check_key(key)).replace("%2F", "/")
