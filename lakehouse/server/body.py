"""The body of a request on its way from the event loop to the thread that works on it, a few pieces ahead."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator

from lakehouse.errors import RequestInvalid

_AHEAD = 8
"""Pieces (of 64 kB) that may wait; the sender waits when there are more."""


class Body:
    """Pieces of bytes: fed on the event loop, read in a thread.

    Args:
        patience: seconds to wait for the next piece before the sender is given up.
    """

    def __init__(self, patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(_AHEAD)
        self._pieces: queue.SimpleQueue[bytes | RequestInvalid | None] = queue.SimpleQueue()
        self._patience = patience
        self._given_up = False
        self.size = 0
        """Bytes that were fed."""

    async def feed(self, piece: bytes) -> None:
        """Hand on a piece, as soon as there is room."""
        self.size += len(piece)
        if not self._given_up:
            await self._room.acquire()
            self._pieces.put(piece)

    def end(self, error: RequestInvalid | None = None) -> None:
        """There is no more, or there will be no more because of an error, which the reader gets."""
        self._pieces.put(error)

    def give_up(self) -> None:
        """Nobody reads any more; what still comes is dropped."""
        self._given_up = True
        self._room.release()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                piece = self._pieces.get(timeout=self._patience)
            except queue.Empty:
                raise RequestInvalid(f"nothing came for {self._patience:g} s", hint="send the body in one go") from None
            if piece is None:
                return
            if isinstance(piece, RequestInvalid):
                raise piece
            self._loop.call_soon_threadsafe(self._room.release)
            yield piece
