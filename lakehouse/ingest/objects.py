"""Objects of the lake as sources: `"object:KEY"`, or what `lake.storage` gave for one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakehouse.errors import DiskFull
from lakehouse.storage.base import ObjectInfo, ObjectReceipt, ObjectStore

PREFIX = "object:"
"""What a text begins with that means an object; a file of such a name is `./object:…`."""


def is_object(source: Any) -> bool:
    """Whether a source is an object rather than a path or a frame."""
    return isinstance(source, ObjectInfo | ObjectReceipt) or (isinstance(source, str) and source.startswith(PREFIX))


@contextmanager
def fetched(store: ObjectStore, source: str | ObjectInfo | ObjectReceipt, temp: Path) -> Iterator[tuple[str, Path]]:
    """How an object is called in receipts, and a file with its content for the length of the block.

    Raises:
        KeyInvalid: the text behind `object:` cannot be a key.
        ObjectNotFound: no object under the key.
        DiskFull: it has to be copied and there is no space.
    """
    key = source.removeprefix(PREFIX) if isinstance(source, str) else source.key
    try:
        temp.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=temp, prefix="object-")
    except OSError as error:
        raise DiskFull(f"no folder can be made in {temp}: {error.strerror}", hint="nothing was written") from None
    with folder as place:
        yield PREFIX + key, store.fetch(key, Path(place))
