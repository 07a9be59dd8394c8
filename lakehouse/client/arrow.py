"""Arrow streams over HTTP: read as they come, and believed only when they came whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow as pa

from lakehouse.client.problems import translated
from lakehouse.errors import AnswerBroken

ARROW = "application/vnd.apache.arrow.stream"
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How a stream ends (Arrow columnar format, IPC streaming format); a reader also takes a bare end of file for one."""


class _Body(io.RawIOBase):
    """The body of an answer as a file, which remembers its last bytes."""

    def __init__(self, answer: httpx.Response, url: str) -> None:
        self._pieces: Iterator[bytes] = answer.iter_raw()
        self._url = url
        self._rest = memoryview(b"")
        self.tail = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            with translated(self._url, answering=True):
                piece = next(self._pieces, b"")
            self._rest = memoryview(piece)
            self.tail = (self.tail + piece)[-len(_END) :] if len(piece) < len(_END) else piece[-len(_END) :]
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def opened(answer: httpx.Response, url: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the batches of an answer; the batches end with an error where the stream is not whole.

    Raises:
        AnswerBroken: it is no Arrow stream, or it ends early.
    """
    if answer.headers.get("Content-Type", "").partition(";")[0].strip() != ARROW:
        raise AnswerBroken(f"{url} gives no Arrow stream", hint="is the server of another version?")
    body = _Body(answer, url)
    try:
        reader = pa.ipc.open_stream(io.BufferedReader(body, 1 << 20))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise AnswerBroken(
            f"the Arrow stream of {url} cannot be read: {error}", hint="nothing of it was used; ask again"
        ) from None
    return reader.schema, _batches(reader, body, url)


def read_table(answer: httpx.Response, url: str) -> pa.Table:
    """All rows of an answer."""
    schema, batches = opened(answer, url)
    return pa.Table.from_batches(batches, schema=schema)


def _batches(reader: Any, body: _Body, url: str) -> Iterator[pa.RecordBatch]:
    try:
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                break
            yield batch
        while body.readinto(bytearray(1 << 16)):
            pass  # HTTP itself has to say that this is the end
    except (pa.ArrowException, OSError, EOFError) as error:
        raise AnswerBroken(
            f"the Arrow stream of {url} broke off: {error}", hint="nothing of it was used; ask again"
        ) from None
    if body.tail != _END:
        raise AnswerBroken(
            f"the Arrow stream of {url} ended before it was whole", hint="nothing of it was used; ask again"
        )
