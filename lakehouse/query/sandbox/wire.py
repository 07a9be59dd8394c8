"""What the process of the lake and its workers say to each other, over a pair of sockets.

A frame is one byte for its kind, eight for its length, and that many bytes. Requests, heads, ends and faults are
MessagePack; rows are Arrow IPC streams, a few megabytes each. Nothing is pickled. A sender waits while the other side
does not read: that is all there is of backpressure.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from lakehouse import errors
from lakehouse.errors import LakehouseError, ParameterFault, QueryError
from lakehouse.query.sandbox.confine import Policy

SETUP, READY, REQUEST, HEAD, ROWS, END, FAULT = b"SYQHREF"
"""The kinds of frames."""

MOST = 256 << 20
"""Bytes of a frame; one row may not take more."""
_HEADER = struct.Struct("<BQ")
_TIMES = {"datetime": datetime.fromisoformat, "date": date.fromisoformat, "time": time.fromisoformat}


class Setup(msgspec.Struct, frozen=True):
    """What a worker is to be: sent once."""

    policy: Policy
    folder: str
    """The lake folder."""
    catalog: str
    """The file of its catalog."""
    write: bool
    """Whether it runs what changes the lake; else it only reads."""
    settings: dict[str, dict[str, Any]]
    """The settings of its lake, by section and key."""


class Request(msgspec.Struct, frozen=True):
    """One statement to run."""

    sql: str
    params: Any = None
    """Values, as `packed` makes them."""
    version: int | None = None
    """The snapshot to read; None: the newest."""
    limit: int | None = None
    """Most rows to give."""
    traces: tuple[str, ...] = ()
    """Statements of ours that make `pathway.traces`, where the SQL names it."""
    asked: dict[str, str] = {}
    """Who asks, for the note of a commit."""


class Head(msgspec.Struct, frozen=True):
    """What comes before the rows."""

    snapshot: int
    """The snapshot read, or made."""
    types: tuple[str, ...]
    """DuckDB types of the columns."""
    kind: str = "read"


class End(msgspec.Struct, frozen=True):
    """What comes after the last row."""

    rows: int
    seconds: float


class Fault(msgspec.Struct, frozen=True):
    """An error of ours on its way."""

    code: str
    message: str
    hint: str | None = None
    clean: bool = False
    """Whether nothing had been run, so that the worker is as it was before."""


class Channel:
    """One end of the pair; frames go out from one thread and come in to one."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._head = bytearray(_HEADER.size)

    def send(self, kind: int, *parts: Any) -> None:
        """Send one frame, waiting while the other side does not read.

        Args:
            kind: its kind.
            parts: its content, in pieces.

        Raises:
            OSError: the other side is gone.
        """
        views = [memoryview(part).cast("B") for part in parts]
        left = [memoryview(_HEADER.pack(kind, sum(map(len, views)))), *views]
        while left:  # together: each call of its own may wake who reads
            count = self._socket.sendmsg(left)
            left = unsent(left, count)

    def say(self, kind: int, message: msgspec.Struct) -> None:
        """Send a message as a frame."""
        self.send(kind, msgspec.msgpack.encode(message))

    def receive(self) -> tuple[int, memoryview]:
        """The next frame.

        Raises:
            EOFError: the other side is gone.
            QueryError: it is longer than any that may come.
        """
        self._fill(memoryview(self._head))
        kind, length = _HEADER.unpack(self._head)
        if length > MOST:
            raise QueryError(f"a row takes more than {MOST:,} bytes", hint="select less of it")
        content = _room(length) if kind == ROWS else memoryview(bytearray(length))
        self._fill(content)
        return kind, content

    def close(self) -> None:
        """Let go of the socket; who waits on it in another thread is woken."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side went first
        self._socket.close()

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view)
            except OSError:
                count = 0
            if count == 0:
                raise EOFError
            view = view[count:]


def _room(length: int) -> memoryview:
    """Memory for rows, from Arrow's pool: not cleared, and warm from the rows before. Only who reads rows loads it."""
    import pyarrow as pa

    return memoryview(pa.allocate_buffer(length))


def unsent(parts: list[memoryview], count: int) -> list[memoryview]:
    """What is left of some parts when so many bytes of them have gone."""
    left = []
    for part in parts:
        if count < len(part):
            left.append(part[count:])
        count = max(0, count - len(part))
    return left


def packed(params: Any) -> Any:
    """Values of parameters as MessagePack has them: what it has no type for becomes a pair of type and text.

    Raises:
        ParameterFault: a value of a type that cannot be sent.
    """
    if params is None or isinstance(params, bool | float | str | bytes):
        return params
    if isinstance(params, int):
        return params if -(1 << 63) <= params < 1 << 64 else {"int": str(params)}
    if isinstance(params, datetime | date | time):
        return {type(params).__name__: params.isoformat()}
    if isinstance(params, timedelta):
        return {"timedelta": [params.days, params.seconds, params.microseconds]}
    if isinstance(params, Decimal | UUID):
        return {type(params).__name__: str(params)}
    if isinstance(params, Mapping):
        return {"dict": [[packed(key), packed(value)] for key, value in params.items()]}
    if isinstance(params, Sequence):
        return [packed(value) for value in params]
    if hasattr(params, "dtype") and getattr(params, "ndim", None) == 0:
        return packed(params.item())
    raise ParameterFault(
        f"a value of type {type(params).__name__} cannot be sent",
        hint="numbers, texts, bytes, dates, times, UUIDs, and lists and mappings of them can",
    )


def unpacked(value: Any) -> Any:
    """The values again."""
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {unpacked(key): unpacked(one) for key, one in content}
    if kind == "timedelta":
        return timedelta(*content)
    if kind in ("datetime", "date", "time"):
        return _TIMES[kind](content)
    return {"int": int, "Decimal": Decimal, "UUID": UUID}[kind](content)


def raised(fault: Fault) -> LakehouseError:
    """The error again, of the class that has its code."""
    kinds: list[type[LakehouseError]] = [LakehouseError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    kind = next((kind for kind in kinds if kind.code == fault.code and kind.__module__ == errors.__name__), QueryError)
    return kind(fault.message, hint=fault.hint)
