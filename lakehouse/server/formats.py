"""The rows of a query as bytes: Arrow, JSON, NDJSON, CSV, Parquet, each piece by piece as the rows come.

None of them holds more than a few batches. An answer that breaks off is not whole in any of them: Arrow without its
end of stream, JSON without its last bracket, Parquet without its footer; and the connection is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from lakehouse.errors import NotAcceptable
from lakehouse.server.routing import encoded

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.query.sandbox.frames import Frame

ARROW, JSON, NDJSON = "application/vnd.apache.arrow.stream", "application/json", "application/x-ndjson"
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
TYPES = b"lakehouse.types"
"""Where the schema of an Arrow stream has the DuckDB types of its columns, as a JSON list."""
MEDIA = (JSON, ARROW, NDJSON, CSV, PARQUET)
"""The first is the one that who does not ask gets."""
_ALIASES = {"application/ndjson": NDJSON, "application/jsonl": NDJSON, "application/x-parquet": PARQUET}
_ROWS = 20_000  # rows that are made into JSON or CSV at once
_GROUP = 16 << 20  # bytes of rows in a row group of Parquet
END = b"\xff\xff\xff\xff\0\0\0\0"
"""The end of an Arrow stream."""
Batches = Iterator["pa.RecordBatch"]


class Own(NamedTuple):
    """Rows that this process made itself, in the place of a `Frame`."""

    batches: list[pa.RecordBatch]
    raw: None = None


Frames = Iterator["Frame | Own"]


def chosen(accept: str | None) -> str:
    """The format that an `Accept` header likes best (RFC 9110, 12.5.1).

    Raises:
        NotAcceptable: it names none that there is.
    """
    found: list[tuple[float, str]] = []
    for part in (accept or "*/*").split(","):
        name, *options = (piece.strip().lower() for piece in part.split(";"))
        kind = _ALIASES.get(name, name)
        if kind in ("*/*", "application/*"):
            kind = JSON
        if kind == "text/*":
            kind = CSV
        if kind in MEDIA and (weight := _weight(options)) > 0:
            found.append((weight, kind))
    if not found:
        raise NotAcceptable(f"there is no {accept!r:.100} of rows", hint=f"Accept: one of {', '.join(MEDIA)}")
    return max(found, key=lambda one: one[0])[1]


def written(kind: str, schema: pa.Schema, frames: Frames, facts: dict[str, Any]) -> Iterator[bytes | memoryview]:
    """Rows in a format.

    Args:
        kind: one of `MEDIA`.
        schema: names and Arrow types of the columns.
        frames: the rows.
        facts: what JSON says before them.

    Raises:
        NotAcceptable: a column has a type that the format has not; before the first piece.
    """
    writers: dict[str, Callable[[pa.Schema, Batches], Iterator[bytes]]] = {
        NDJSON: _ndjson, CSV: _csv, PARQUET: _parquet
    }  # fmt: skip
    if kind == ARROW:
        return _arrow(schema, frames, [column["type"] for column in facts.get("columns", ())])
    batches = (batch for frame in frames for batch in frame.batches)
    return _json(batches, facts) if kind == JSON else writers[kind](schema, batches)


def _weight(options: list[str]) -> float:
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


class _Sink:
    """A file that is only written, and emptied meanwhile."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        """What was written since."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _arrow(schema: pa.Schema, frames: Frames, types: list[str]) -> Iterator[bytes | memoryview]:
    import pyarrow as pa

    if types:  # Arrow has not all of DuckDB's types: what they are called stands beside the columns
        schema = schema.with_metadata({**(schema.metadata or {}), TYPES: encoded(types)})
    if "dictionary<" not in str(schema):  # each batch stands for itself, and can go on as it came
        yield schema.serialize().to_pybytes()
        for frame in frames:
            if frame.raw is not None:
                yield frame.raw
            else:
                yield b"".join([one.serialize() for one in frame.batches])
        yield END
        return
    sink = _Sink()
    writer = pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema)
    yield sink.taken()
    for frame in frames:
        for batch in frame.batches:
            writer.write_batch(batch)
        yield sink.taken()
    writer.close()
    yield sink.taken()


def _json(batches: Batches, facts: dict[str, Any]) -> Iterator[bytes]:
    yield encoded(facts)[:-1] + b',"rows":['
    count = 0
    for rows in _rows(batches):
        yield (b"," if count else b"") + encoded(rows)[1:-1]
        count += len(rows)
    yield b'],"row_count":%d}' % count


def _ndjson(schema: pa.Schema, batches: Batches) -> Iterator[bytes]:
    names = unique(schema.names)
    for rows in _rows(batches):
        yield b"".join(encoded(dict(zip(names, row, strict=True))) + b"\n" for row in rows)


def _rows(batches: Batches) -> Iterator[list[tuple[Any, ...]]]:
    """Rows as values that JSON has: times are texts, and so are decimals, of which no digit may go."""
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            part = batch.slice(start, _ROWS)
            columns = [_values(column) for column in part.columns]
            yield list(zip(*columns, strict=True)) if columns else [()] * part.num_rows


def _values(column: pa.Array) -> list[Any]:
    """The values of a column; times as texts (ISO 8601), as Python's own reach less far than Arrow's."""
    import pyarrow.types as types

    if types.is_nested(column.type):
        try:
            return list(column.to_pylist())
        except (ValueError, OverflowError):
            return list(column.cast(_textual(column.type)).to_pylist())
    return list(_told(column).to_pylist())


def _told(column: pa.Array) -> pa.Array:
    """A column of times as texts; any other as it is."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_timestamp(column.type):
        moment = pa.timestamp(column.type.unit)
        local = column if column.type.tz is None else column.cast(pa.timestamp(column.type.unit, "UTC")).cast(moment)
        text = pc.replace_substring(local.cast(pa.string()), " ", "T", max_replacements=1)
        return text if column.type.tz is None else pc.binary_join_element_wise(text, "Z", "")
    return column.cast(pa.string()) if types.is_date(column.type) or types.is_time(column.type) else column


def _textual(kind: pa.DataType) -> pa.DataType | None:
    """The type with texts in the place of times; None when there are none in it, or they must stay."""
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return pa.string()
    if types.is_list(kind) or types.is_large_list(kind):
        inner = _textual(kind.value_type)
        make = pa.list_ if types.is_list(kind) else pa.large_list
        return None if inner is None else make(kind.value_field.with_type(inner))
    if types.is_struct(kind):
        fields = [(field, _textual(field.type)) for field in kind]
        if any(inner is not None for _, inner in fields):
            return pa.struct([field if inner is None else field.with_type(inner) for field, inner in fields])
    return None


def _csv(schema: pa.Schema, batches: Batches) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.csv

    sink = _Sink()
    texts = pa.schema([pa.field(field.name, _flat(field.type) or field.type) for field in schema])
    writer = pyarrow.csv.CSVWriter(pa.PythonFile(sink, "w"), texts)
    yield sink.taken()
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            part = batch.slice(start, _ROWS)
            columns = [
                column if _flat(column.type) is None else pa.array(map(_text, _values(column)), pa.string())
                for column in part.columns
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=texts))
            yield sink.taken()
    writer.close()


def _flat(kind: pa.DataType) -> pa.DataType | None:
    """Text, for a type that a field of CSV cannot hold as it is."""
    import pyarrow as pa
    import pyarrow.types as types

    plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_string)
    more = (types.is_large_string, types.is_date, types.is_time, types.is_null)
    fits = any(test(kind) for test in (*plain, *more)) or (types.is_timestamp(kind) and kind.tz is None)
    return None if fits else pa.string()


def _text(value: Any) -> str | None:
    """Nested values, bytes and intervals as JSON has them."""
    if value is None or isinstance(value, str):
        return value
    return encoded(value).decode().strip('"')


def _parquet(schema: pa.Schema, batches: Batches) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = _Sink()
    schema = pa.schema([field.with_name(name) for field, name in zip(schema, unique(schema.names), strict=True)])
    try:
        writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), schema)
    except pa.ArrowNotImplementedError as error:
        raise NotAcceptable(f"Parquet has no such type: {error}", hint="cast the column, or ask for Arrow") from None
    waiting: list[pa.RecordBatch] = []

    def flushed() -> bytes:
        writer.write_table(pa.Table.from_batches([one.rename_columns(schema.names) for one in waiting], schema=schema))
        waiting.clear()
        return sink.taken()

    for batch in batches:
        waiting.append(batch)
        if sum(one.nbytes for one in waiting) >= _GROUP:
            yield flushed()
    if waiting:
        yield flushed()
    writer.close()
    yield sink.taken()


def unique(names: list[str]) -> list[str]:
    """Names of columns, those that are there before with a number behind them."""
    found: dict[str, None] = {}
    for name in names:
        number, free = 0, name
        while free in found:
            number += 1
            free = f"{name}_{number}"
        found[free] = None
    return list(found)
