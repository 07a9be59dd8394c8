"""A body between the event loop and a thread: in order, a few pieces ahead, and never waiting for ever."""

import asyncio
import threading
import time

import pytest

from lakehouse.errors import RequestInvalid
from lakehouse.server.body import _AHEAD, Body


def run(work):
    return asyncio.run(asyncio.wait_for(work(), 30))


def test_pieces_come_in_order_and_the_sender_waits_for_the_reader():
    async def work():
        body, fed, go = Body(5), [], threading.Event()

        def read():
            go.wait(10)
            return list(body)

        reader = asyncio.get_running_loop().run_in_executor(None, read)

        async def feed():
            for n in range(50):
                await body.feed(b"%d" % n)
                fed.append(n)
            body.end()

        feeding = asyncio.ensure_future(feed())
        await asyncio.sleep(0.1)
        assert len(fed) == _AHEAD, "no more than a few wait in memory"
        go.set()
        await feeding
        assert await reader == [b"%d" % n for n in range(50)]
        assert body.size == sum(len(str(n)) for n in range(50))

    run(work)


def test_what_ends_the_sender_ends_the_reader():
    async def work():
        body = Body(5)
        await body.feed(b"a")
        body.end(RequestInvalid("the sender went away"))
        with pytest.raises(RequestInvalid, match="went away"):
            await asyncio.get_running_loop().run_in_executor(None, lambda: list(body))

    run(work)


def test_a_reader_that_stops_does_not_hold_the_sender():
    async def work():
        body = Body(5)
        sending = asyncio.ensure_future(feed(body))
        await asyncio.sleep(0.05)
        assert not sending.done()
        body.give_up()
        await sending

    async def feed(body):
        for _ in range(1000):
            await body.feed(b"x")

    run(work)


def test_a_sender_that_says_nothing_is_given_up():
    async def work():
        body, started = Body(0.2), time.monotonic()
        with pytest.raises(RequestInvalid, match=r"nothing came for 0.2 s"):
            await asyncio.get_running_loop().run_in_executor(None, lambda: list(body))
        assert time.monotonic() - started < 10

    run(work)
