"""Taking in the rows of a running query: the first ones into memory, all of them to disk if they are many."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa

from lakehouse.errors import QueryMemory


def first(reader: pa.RecordBatchReader, size: int) -> tuple[pa.Table, bool]:
    """The rows until they take `size` bytes, and whether those are all."""
    batches: list[pa.RecordBatch] = []
    held = 0
    for batch in reader:
        batches.append(batch)
        held += batch.nbytes
        if held > size:
            return pa.Table.from_batches(batches, reader.schema), False
    return pa.Table.from_batches(batches, reader.schema), True


def whole(reader: pa.RecordBatchReader, size: int, folder: Path, limit: int) -> pa.Table:
    """All rows: in memory up to `size` bytes, beyond that mapped from an unnamed file in `folder`.

    Raises:
        QueryMemory: they take more than `limit` bytes.
    """
    table, complete = first(reader, size)
    if complete:
        return table
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".arrow") as file:
        with pa.ipc.new_file(file.name, reader.schema) as writer:
            writer.write_table(table)
            del table
            for batch in reader:
                writer.write_batch(batch)
                if Path(file.name).stat().st_size > limit:
                    raise QueryMemory(
                        f"the result takes more than {limit:,} bytes (storage.max_temp_size)",
                        hint="select fewer rows or columns, or raise storage.max_temp_size",
                    )
        # The mapping keeps the data after the name is gone; the file goes with the last reference.
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()
