"""Bodies that go straight to the socket: whole for who reads, given back for who does not, an error for who has gone."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from tornado.iostream import IOStream, StreamClosedError

from lakehouse.server.straight import straight

CHUNKED = {"Transfer-Encoding": "chunked"}
PIECES = [b"a" * 3_000_000, b"", memoryview(b"b" * 2_000_000), b"c"]
FRAMED = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in PIECES if piece)


class Connection:
    """One connection as a request has it."""

    def __init__(self, end):
        self.stream = IOStream(end)


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def read(end):
    found = bytearray()
    while len(found) < len(FRAMED):
        found += end.recv(1 << 20)
    return bytes(found)


def test_a_body_comes_whole_also_to_who_is_slow(ends):
    """Nothing is made ahead of a reader who does not read, and no thread waits for it."""
    made = []

    def pieces():
        for piece in PIECES:
            made.append(len(piece))
            yield piece

    async def write():
        way, body = straight(Connection(ends[0]), CHUNKED), pieces()
        rest, more = way.carried(body)
        assert more
        assert 0 < len(rest) < 3_000_000
        assert made == [3_000_000]
        reader = threads.submit(read, ends[1])
        await way._stream.write(rest)
        await way.all(body, lambda work: asyncio.get_running_loop().run_in_executor(threads, work))
        assert way.sent == sum(map(len, PIECES))
        way.close()
        return await asyncio.wrap_future(reader)

    with ThreadPoolExecutor(2) as threads:
        assert asyncio.run(write()) == FRAMED


def test_who_has_gone_ends_it(ends):
    async def write():
        way = straight(Connection(ends[0]), CHUNKED)
        ends[1].close()
        with pytest.raises(StreamClosedError):
            way.carried(iter(PIECES))
        way.close()

    asyncio.run(write())


@pytest.mark.parametrize("headers", [{"Content-Length": "3"}, {**CHUNKED, "Content-Encoding": "gzip"}])
def test_what_tornado_keeps_count_of_goes_through_it(ends, headers):
    async def look():
        assert straight(Connection(ends[0]), headers) is None

    asyncio.run(look())
