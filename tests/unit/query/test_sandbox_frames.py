"""What comes out of a worker that may have been taken over."""

import pyarrow as pa
import pytest

from lakehouse.errors import QueryError
from lakehouse.query.sandbox.frames import Frame

PLAIN = pa.record_batch({"a": [1, 2, None], "t": ["x", None, "yz"], "l": [[1], [], None]})
NAMED = pa.record_batch({"e": pa.array(["x", "y", "x"]).dictionary_encode()})


def written(*batches, packed=None):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(compression=packed)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return memoryview(sink.getvalue())


@pytest.mark.parametrize("batch", [PLAIN, NAMED, PLAIN.slice(0, 0)])
def test_rows_come_as_they_were(batch):
    assert Frame(written(batch)).batches == [batch]


def test_the_bytes_of_a_batch_can_go_on_as_they_are():
    """One schema, the bytes of several frames and an end are a stream."""
    frames = [Frame(written(one)) for one in (PLAIN, PLAIN.slice(1, 1), PLAIN.slice(0, 0))]
    whole = written(PLAIN)
    schema = whole[: len(whole) - 8 - len(frames[0].raw)]
    stream = b"".join([schema, *(one.raw for one in frames), whole[-8:]])
    assert pa.ipc.open_stream(stream).read_all() == pa.Table.from_batches([one.batches[0] for one in frames])
    assert Frame(written(NAMED)).raw is None
    assert Frame(written(PLAIN, PLAIN)).raw is None


@pytest.mark.parametrize("packed", ["lz4", "zstd"])
@pytest.mark.parametrize("batch", [PLAIN, NAMED])
def test_packed_rows_are_refused_before_they_are_unpacked(batch, packed):
    with pytest.raises(QueryError, match="packed"):
        Frame(written(batch, packed=packed))


def test_bytes_that_are_no_rows_are_refused():
    """Cut anywhere, or with any byte changed: rows or QueryError, and no other end."""
    whole = bytes(written(PLAIN))
    changed = [bytearray(whole) for _ in range(0, len(whole), 3)]
    for at, one in enumerate(changed):
        one[3 * at] ^= 0xFF
    refused = 0
    for one in [*(whole[:end] for end in range(0, len(whole) - 8, 16)), *changed]:
        try:
            Frame(memoryview(one))
        except QueryError:
            refused += 1
    assert refused > len(changed) / 4


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["name", "zone"])
def test_names_that_are_no_text_and_zones_that_are_not_there_are_refused(kind, nested):
    """Else whoever asks for the names, or for values, would meet them."""
    field = pa.field(*{"name": ("odd_one", pa.int64()), "zone": ("a", pa.timestamp("us", "odd_one"))}[kind])
    whole = pa.struct([field]) if nested else field.type
    raw = bytes(written(pa.record_batch([pa.nulls(2, whole)], schema=pa.schema([field.with_type(whole)]))))
    if kind == "name":
        raw = raw.replace(b"odd_one", b"\x80\x81\xffd_one")
    with pytest.raises(QueryError, match="cannot be read"):
        Frame(memoryview(raw))
