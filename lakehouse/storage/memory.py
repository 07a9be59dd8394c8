"""An object store in memory: the double for tests, with the promises of the real one but for durability."""

from __future__ import annotations

import hashlib
import io
import threading
from datetime import UTC, datetime
from typing import BinaryIO

from lakehouse.storage.base import (
    Data,
    Listing,
    ObjectInfo,
    ObjectReceipt,
    ObjectStore,
    bounds,
    check_conditions,
    check_key,
    missing,
    pieces,
    require,
)


class MemoryStore(ObjectStore):
    """Objects in a dictionary, safe for threads."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._lock = threading.Lock()

    def put(self, key: str, data: Data, *, if_absent: bool = False, if_match: str | None = None) -> ObjectReceipt:
        """See `ObjectStore.put`."""
        check_key(key)
        check_conditions(if_absent=if_absent, if_match=if_match)
        require(key, self._etag(key), if_absent=if_absent, if_match=if_match)
        content = b"".join(pieces(data))
        sha256 = hashlib.sha256(content).hexdigest()
        with self._lock:
            require(key, self._etag(key), if_absent=if_absent, if_match=if_match)
            self._objects[key] = ObjectInfo(key, len(content), sha256, datetime.now(UTC), sha256), content
        return ObjectReceipt(key, len(content), sha256, sha256)

    def open(self, key: str) -> BinaryIO:
        """See `ObjectStore.open`."""
        return io.BytesIO(self._find(key)[1])

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""
        return self._find(key)[0]

    def list(self, prefix: str = "", limit: int = 1000, after: str | None = None) -> Listing:
        """See `ObjectStore.list`."""
        start, behind = bounds(prefix, limit, after)
        with self._lock:
            keyed = {key.encode(): info for key, (info, _) in self._objects.items()}
        found = sorted(key for key in keyed if key.startswith(start) and key > behind)
        return [keyed[key] for key in found[:limit]]

    def delete(self, key: str, *, if_match: str | None = None) -> bool:
        """See `ObjectStore.delete`."""
        with self._lock:
            require(check_key(key), self._etag(key), if_match=if_match)
            return self._objects.pop(key, None) is not None

    def _find(self, key: str) -> tuple[ObjectInfo, bytes]:
        try:
            return self._objects[check_key(key)]
        except KeyError:
            raise missing(key) from None

    def _etag(self, key: str) -> str | None:
        found = self._objects.get(key)
        return found[0].etag if found else None
