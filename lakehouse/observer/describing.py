"""What a table that ran through a workflow looks like, for those who read of it elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lakehouse.errors import LakehouseError
from lakehouse.observer.model import Data

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog


def described(catalog: Catalog, data: Data, output: bool) -> Data:
    """A table by the name that lineage has for it, with its columns and, when it was written, the columns that each was made of; else what was given.

    Args:
        catalog: where it is looked up.
        data: what was read or written.
        output: whether it was written.
    """
    if data.kind != "table" or data.columns is not None:
        return data
    try:
        table = catalog.table(data.name)
        table = table if data.snapshot is None else table.at(data.snapshot)
        columns = {column.name: column.type for column in table.schema}
        known = table.lineage("up", 1).columns if output else {}
    except LakehouseError:  # it is gone, or was read at a snapshot that has expired
        return data
    sources = {name: list(pairs) for name, pairs in known.items() if pairs}
    return msgspec.structs.replace(data, name=table.full_name, columns=columns, sources=sources or None)
