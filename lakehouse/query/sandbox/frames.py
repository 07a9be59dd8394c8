"""The frames of rows that come out of a worker, which may have been taken over: looked at before anybody believes them.

Each is an Arrow IPC stream with one batch (https://arrow.apache.org/docs/format/Columnar.html): a schema, perhaps
dictionaries, the batch, an end. Its bytes may go on as they are, since what has been decoded and validated is what they
say.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lakehouse.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH, _DICTIONARY = 3, 2  # Message.fbs, union MessageHeader
_TYPE, _HEADER, _DATA, _COMPRESSION = 1, 2, 1, 3  # numbers of fields in their tables
_END = 8
"""Bytes of the end of a stream."""


class Frame:
    """Rows that were looked at.

    Args:
        content: an IPC stream of one schema and at most one batch.

    Raises:
        QueryError: it is none, or its rows are packed, which would let a few bytes become any number of them.
    """

    def __init__(self, content: memoryview) -> None:
        import pyarrow as pa

        self._content = content
        try:
            self._begin = self._looked_through()
            reader = pa.ipc.open_stream(content)
            self.schema: pa.Schema = reader.schema
            _read_through(self.schema)
            self.batches: list[pa.RecordBatch] = list(reader)
            for batch in self.batches:
                batch.validate(full=True)  # a worker is believed nothing that could lead this process astray
        except (pa.ArrowException, OSError, EOFError, ValueError, struct.error, LookupError) as error:
            raise QueryError(f"the worker sent rows that cannot be read: {error}") from None

    @property
    def raw(self) -> memoryview | None:
        """The batch as it stands in the stream, behind its schema; None when dictionaries come with it."""
        return None if self._begin is None else self._content[self._begin : -_END]

    def _looked_through(self) -> int | None:
        """Refuse what is packed; returns where the only batch begins, None when there is more, or none."""
        import pyarrow as pa

        source, begin, others = pa.BufferReader(self._content), None, False
        pa.ipc.read_message(source)
        while (at := source.tell()) < len(self._content) - _END:
            message = pa.ipc.read_message(source)
            kind, packed = _header(memoryview(message.metadata))
            if packed:
                raise QueryError("the worker sent rows that are packed")
            others |= kind != _BATCH or begin is not None
            begin = at
        return None if others or source.tell() != len(self._content) - _END else begin


def _read_through(schema: pa.Schema) -> None:
    """Decode all of a schema that pyarrow decodes only when somebody asks: names, and the zones of times.

    Raises:
        ValueError: a name is no text.
        LookupError: there is no such zone.
    """
    import pyarrow as pa

    schema.to_string(truncate_metadata=True)  # all names, at any depth
    fields = list(schema)
    for field in fields:
        kind = field.type
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            pa.lib.string_to_tzinfo(kind.tz)
        if pa.types.is_dictionary(kind):
            fields.append(pa.field("", kind.value_type))
        else:
            fields += [kind.field(number) for number in range(kind.num_fields)]


def _header(metadata: memoryview) -> tuple[int, bool]:
    """The type of a message, and whether its buffers are compressed, from its flatbuffer (Message.fbs)."""
    message = _at(metadata, 0)
    where = _field(metadata, message, _TYPE)
    kind = 0 if where is None else metadata[where]
    table = _field(metadata, message, _HEADER)
    if table is None or kind not in (_BATCH, _DICTIONARY):
        return kind, False
    table = _at(metadata, table)
    if kind == _DICTIONARY:
        data = _field(metadata, table, _DATA)
        if data is None:
            return kind, False
        table = _at(metadata, data)
    return kind, _field(metadata, table, _COMPRESSION) is not None


def _at(metadata: memoryview, place: int) -> int:
    """Where a table is that is pointed to."""
    return int(place + struct.unpack_from("<I", metadata, place)[0])


def _field(metadata: memoryview, table: int, number: int) -> int | None:
    """Where the field of a number is in a table; None when it has its default."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, vtable)
    slot = 4 + 2 * number
    if slot + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", metadata, vtable + slot)
    return None if offset == 0 else int(table + offset)
