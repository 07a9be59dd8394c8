"""Objects over HTTP: bytes under keys, with conditions and ranges."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from email.utils import format_datetime
from typing import Annotated, BinaryIO

import msgspec

from lakehouse.errors import (
    KeyInvalid,
    ObjectNotFound,
    ObjectTooLarge,
    PreconditionFailed,
    RangeInvalid,
    RequestInvalid,
)
from lakehouse.server.answers import Objects
from lakehouse.server.routing import Answer, Call, Route
from lakehouse.storage.base import CHUNK, ObjectInfo, ObjectReceipt

_TRIES = 5
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Listed(msgspec.Struct, forbid_unknown_fields=True):
    """Which objects."""

    prefix: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    after: str | None = None


def put(call: Call) -> Answer[ObjectReceipt]:
    """Write an object whole or not at all, as it comes: 201 when there was none, 200 when it took another's place."""
    assert call.stream is not None
    (key,) = call.path
    match, none = _etags(call.headers.get("If-Match")), _etags(call.headers.get("If-None-Match"))
    if (none and none != ["*"]) or match == ["*"] or len(match) > 1:
        raise RequestInvalid("a put takes If-Match with one ETag, or If-None-Match: *")
    if call.headers.get("Content-Range"):
        raise RequestInvalid("an object is written whole: Content-Range is not taken")
    new = _head(call, key) is None
    receipt = call.lake.storage.put(key, iter(call.stream), if_absent=bool(none), if_match=match[0] if match else None)
    return Answer(receipt, 201 if new else 200, {"ETag": f'"{receipt.etag}"'})


def get(call: Call) -> Answer[None]:
    """The content of an object, or one range of it."""
    (key,) = call.path
    file, info = _opened(call, key)
    headers = _headers(info)
    try:
        match, none = _etags(call.headers.get("If-Match")), _etags(call.headers.get("If-None-Match"))
        if match and info.etag not in match and match != ["*"]:
            raise PreconditionFailed(f"'{key}' is another object now", hint="read it without If-Match")
        if none and (info.etag in none or none == ["*"]):
            file.close()
            return Answer(None, 304, {"ETag": headers["ETag"]})
        part = _range(call, info)
        if part is None:
            return Answer(None, 200, {**headers, "Content-Length": str(info.size)}, _pieces(file, 0, info.size))
        start, end = part
        if start >= end:
            raise RangeInvalid(f"'{key}' has {info.size:,} bytes")
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{info.size}", "Content-Length": str(end - start)}
        return Answer(None, 206, headers, _pieces(file, start, end))
    except BaseException:
        file.close()
        raise


def head(call: Call) -> Answer[None]:
    """Size, ETag and time of an object."""
    info = call.lake.storage.head(call.path[0])
    return Answer(None, 200, {**_headers(info), "Content-Length": str(info.size)}, iter(()))


def delete(call: Call) -> Answer[None]:
    """Remove an object for good, with `If-Match` only while it is that one; without, it is no error when there is none."""
    (key,) = call.path
    match = _etags(call.headers.get("If-Match"))
    if call.headers.get("If-None-Match") or len(match) > 1:
        raise RequestInvalid("a delete takes If-Match with one ETag or *, and no other condition")
    if match == ["*"]:
        there = call.lake.storage.delete(key)
        if not there:
            raise PreconditionFailed(f"there is no object '{key}'", hint="nothing was deleted")
    else:
        there = call.lake.storage.delete(key, if_match=match[0] if match else None)
    return Answer(None, 204, {"Lakehouse-Existed": "true" if there else "false"})


def listed(call: Call) -> Objects:
    """The objects whose keys begin with a prefix, in the order of their bytes."""
    query: Listed = call.query
    found = call.lake.storage.list(query.prefix, query.limit, query.after)
    return Objects(found, found[-1].key if len(found) == query.limit else None)


def _head(call: Call, key: str) -> ObjectInfo | None:
    try:
        return call.lake.storage.head(key)
    except ObjectNotFound:
        return None


def _opened(call: Call, key: str) -> tuple[BinaryIO, ObjectInfo]:
    """A handle and what is known of the very content that it reads."""
    store = call.lake.storage
    for _ in range(_TRIES):
        info = store.head(key)
        file = store.open(key)
        if store.head(key).etag == info.etag:
            return file, info
        file.close()
    raise PreconditionFailed(f"'{key}' changes faster than it can be read", hint="try again")


def _headers(info: ObjectInfo) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",  # never shown as a page of this server
        "ETag": f'"{info.etag}"',
        "Last-Modified": format_datetime(info.modified, usegmt=True),
        "Lakehouse-Modified": info.modified.isoformat(),  # HTTP's own has whole seconds only
        **_digest(info),
        "Accept-Ranges": "bytes",
    }


def _digest(info: ObjectInfo) -> dict[str, str]:
    """The hash of the whole object, whichever part is sent (RFC 9530)."""
    if info.sha256 is None:
        return {}
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(info.sha256)).decode()}:"}


def _etags(header: str | None) -> list[str]:
    return [part.strip().removeprefix("W/").strip('"') for part in (header or "").split(",") if part.strip()]


def _range(call: Call, info: ObjectInfo) -> tuple[int, int] | None:
    """The asked bytes, end excluded; None for all, also when the range is one of an older object or not understood."""
    found = _RANGE.fullmatch(call.headers.get("Range", "").strip())
    condition = call.headers.get("If-Range")
    if found is None or found[0] == "bytes=-" or (condition is not None and _etags(condition) != [info.etag]):
        return None
    first, last = (part[:18] for part in found.groups())
    if not first:
        return max(0, info.size - int(last)) if int(last) else info.size, info.size
    if last and int(last) < int(first):
        return None
    return int(first), min(info.size, int(last) + 1) if last else info.size


def _pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = end - start
        while left and (piece := file.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece


_MATCH = ("If-Match", "If-None-Match")

ROUTES = (
    Route("GET", "/storage", "read", listed, query=Listed, refuses=(KeyInvalid,)),
    Route(
        "GET",
        "/storage/{key...}",
        "read",
        get,
        statuses=(200, 206, 304),
        media=("application/octet-stream",),
        refuses=(KeyInvalid, ObjectNotFound, PreconditionFailed, RangeInvalid),
        reads=(*_MATCH, "Range", "If-Range"),
    ),
    Route("HEAD", "/storage/{key...}", "read", head, media=(), refuses=(KeyInvalid, ObjectNotFound)),
    Route(
        "PUT",
        "/storage/{key...}",
        "write",
        put,
        streams=True,
        statuses=(200, 201),
        refuses=(KeyInvalid, PreconditionFailed, ObjectTooLarge),
        reads=_MATCH,
    ),
    Route(
        "DELETE",
        "/storage/{key...}",
        "write",
        delete,
        statuses=(204,),
        refuses=(KeyInvalid, PreconditionFailed),
        reads=("If-Match",),
    ),
)
