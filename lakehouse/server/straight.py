"""A body on its way from the thread that makes it straight to the socket.

Tornado would have every piece joined, copied into a chunk, put into a buffer and sent by the event loop, which takes
longer than making the rows. Here the thread that made a piece sends it, as long as the reader keeps up; what a slow
reader leaves is given back, to wait on the event loop, where waiting costs no thread.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from tornado.iostream import IOStream, StreamClosedError

from lakehouse.query.sandbox.wire import unsent

Piece = bytes | memoryview
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
_TURN = 0.25  # seconds that one body may have a thread, while others may wait for one
_WAIT = 0.05  # seconds of these that may pass with waiting for the reader


class Straight:
    """The way to the reader of one answer whose head has been sent, in chunks (RFC 9112, 7.1).

    Args:
        stream: the connection; nothing may wait in it.
    """

    def __init__(self, stream: IOStream) -> None:
        # Of its own: were the event loop to close the connection, the number could soon be another one's.
        self._socket: socket.socket = stream.socket.dup()
        self._stream = stream
        self._socket.setblocking(False)
        self.sent = 0
        """Bytes of the body, those that were given back as well."""

    async def all(self, pieces: Iterator[Piece], run: Run) -> None:
        """Send all pieces; `run` has work done in a thread.

        Raises:
            StreamClosedError: the reader has gone.
        """
        more = True
        while more:
            rest, more = await run(partial(self.carried, pieces))
            if rest is not None:
                await self._stream.write(rest)

    def carried(self, pieces: Iterator[Piece]) -> tuple[memoryview | None, bool]:
        """Send pieces for a while, in a thread; returns what the reader has not taken, and whether there may be more.

        Raises:
            StreamClosedError: the reader has gone.
        """
        end, patience = time.monotonic() + _TURN, _WAIT
        while time.monotonic() < end:
            piece = next(pieces, None)
            if piece is None:
                return None, False
            if not (size := len(piece)):
                continue  # an empty chunk would be the end
            self.sent += size
            rest = [memoryview(b"%x\r\n" % size), memoryview(piece), memoryview(b"\r\n")]
            try:
                while rest := self._sent(rest):
                    began = time.monotonic()
                    if patience <= 0 or not self._ready(patience):
                        return memoryview(b"".join(rest)), True
                    patience -= time.monotonic() - began
            except OSError as error:
                raise StreamClosedError(error) from None
        return None, True

    def close(self) -> None:
        """Let go of the socket; the connection stays the stream's."""
        self._socket.close()

    def _sent(self, parts: list[memoryview]) -> list[memoryview]:
        """What is left of some parts after as much as goes at once was sent."""
        try:
            count = self._socket.sendmsg(parts)
        except BlockingIOError:
            return parts
        return unsent(parts, count)

    def _ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))


def straight(connection: Any, headers: Mapping[str, str]) -> Straight | None:
    """The straight way for an answer whose head has been sent; None when it must go through Tornado.

    That is: with TLS of our own, with a length that Tornado keeps count of, and when it packs what is sent.

    Args:
        connection: of the request.
        headers: of the answer, as they went out.
    """
    stream = getattr(connection, "stream", None)
    if type(stream) is not IOStream or stream.closed() or stream.writing():
        return None
    if headers.get("Transfer-Encoding") != "chunked" or "Content-Encoding" in headers:
        return None
    return Straight(stream)
