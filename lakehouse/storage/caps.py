"""Stores that stand in front of another: one caps the size of what is put, one refuses every write."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NoReturn

from lakehouse.arguments import arguments_told
from lakehouse.errors import LakeReadOnly, ObjectTooLarge
from lakehouse.storage.base import (
    Data,
    Listing,
    ObjectInfo,
    ObjectReceipt,
    ObjectStore,
    check_key,
    pieces,
)


@arguments_told
class _Front(ObjectStore):
    """Hands everything on to another store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def put(self, key: str, data: Data, *, if_absent: bool = False, if_match: str | None = None) -> ObjectReceipt:
        return self.store.put(key, data, if_absent=if_absent, if_match=if_match)

    def get(self, key: str) -> bytes:
        return self.store.get(key)

    def open(self, key: str) -> BinaryIO:
        return self.store.open(key)

    def head(self, key: str) -> ObjectInfo:
        return self.store.head(key)

    def list(self, prefix: str = "", limit: int = 1000, after: str | None = None) -> Listing:
        return self.store.list(prefix, limit, after)

    def delete(self, key: str, *, if_match: str | None = None) -> bool:
        return self.store.delete(key, if_match=if_match)

    def fetch(self, key: str, folder: Path) -> Path:
        return self.store.fetch(key, folder)


@arguments_told
class CappedStore(_Front):
    """A store that takes objects up to a size that depends on how their keys start.

    Args:
        store: where the objects are.
        caps: most bytes of an object by prefix of its key; the longest prefix wins.
        default: most bytes of any other object; None: no limit.
    """

    def __init__(self, store: ObjectStore, caps: Mapping[str, int], default: int | None = None) -> None:
        super().__init__(store)
        self.default = default
        self._caps = sorted(caps.items(), key=lambda cap: len(cap[0]), reverse=True)

    def put(self, key: str, data: Data, *, if_absent: bool = False, if_match: str | None = None) -> ObjectReceipt:
        """See `ObjectStore.put`; the cap is applied to what is really streamed."""
        check_key(key)
        with closing(self._measured(key, data)) as measured:
            return self.store.put(key, measured, if_absent=if_absent, if_match=if_match)

    def cap(self, key: str) -> tuple[int | None, str | None]:
        """Most bytes of an object under this key and the prefix that says so; None: the default says so."""
        for prefix, most in self._caps:
            if key.startswith(prefix):
                return most, prefix
        return self.default, None

    def _measured(self, key: str, data: Data) -> Generator[bytes, None, None]:
        most, prefix = self.cap(key)
        size = 0
        for piece in pieces(data):
            size += len(piece)
            if most is not None and size > most:
                where = "storage.max_put_bytes" if prefix is None else f"storage.put_caps for keys from '{prefix}'"
                raise ObjectTooLarge(
                    f"'{key}' is larger than {most:,} bytes ({where})",
                    hint="nothing of it was kept; raise the cap or put it in parts",
                )
            yield piece


class ReadOnlyStore(_Front):
    """A store that can only be read: that of a lake opened read-only or pinned to a snapshot."""

    def put(self, key: str, data: Data, *, if_absent: bool = False, if_match: str | None = None) -> ObjectReceipt:
        """Refused with LakeReadOnly."""
        self._refuse()

    def delete(self, key: str, *, if_match: str | None = None) -> bool:
        """Refused with LakeReadOnly."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise LakeReadOnly
