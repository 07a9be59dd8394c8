"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.errors import DiskFull, LakehouseError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is there at the end of the block is flushed and takes its place.

    Raises:
        LakehouseError: the folder is missing or cannot be written; `path` is as before.
    """
    if not path.name or path.is_dir():
        raise LakehouseError(f"'{path}' is not the name of a file", hint="give the path of the file to write")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    if not path.parent.is_dir():
        raise LakehouseError(f"the folder {path.parent} does not exist", hint="create it first")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise DiskFull(f"{path} could not be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
