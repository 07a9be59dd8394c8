"""Connections that wait: for how long, how many, and who is closed first."""

import asyncio

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from lakehouse.server import lobby as module
from lakehouse.server.lobby import Lobby

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Slow(RequestHandler):
    lobby: Lobby
    came: asyncio.Event
    go: asyncio.Event

    async def get(self):
        self.lobby.leave(self.request.connection.stream)
        self.came.set()
        await self.go.wait()
        self.finish("done")


@pytest.fixture
def ask(monkeypatch):
    """Runs `work(open, lobby)` beside a server with room for three; `open` connects and sends some bytes."""

    def run(work, patience=60.0):
        async def inside():
            monkeypatch.setattr(module, "HEADER_PATIENCE", patience)
            server = HTTPServer(Application([("/", Slow)]))
            Slow.lobby, Slow.came, Slow.go = Lobby(most=3), asyncio.Event(), asyncio.Event()
            Slow.lobby.watch(server)
            listening, port = bind_unused_port()
            server.add_socket(listening)
            opened = []

            async def open(sent=b""):
                count = len(Slow.lobby) + Slow.lobby.turned_away
                pair = await asyncio.open_connection("127.0.0.1", port)
                pair[1].write(sent)
                opened.append(pair[1])
                while sent == b"" and len(Slow.lobby) + Slow.lobby.turned_away == count:
                    await asyncio.sleep(0)
                return pair

            try:
                await asyncio.wait_for(work(open, Slow.lobby), 30)
            finally:
                Slow.go.set()
                for writer in opened:
                    writer.close()
                server.stop()
                await server.close_all_connections()

        asyncio.run(inside())

    return run


def test_who_has_waited_longest_goes_first(ask):
    async def work(open, lobby):
        first, second, *_ = [await open() for _ in range(3)]
        assert (len(lobby), lobby.turned_away) == (3, 0)
        last = await open()
        assert await first[0].read() == b""
        await open()
        assert await second[0].read() == b""
        assert (len(lobby), lobby.turned_away) == (3, 2)
        Slow.go.set()
        last[1].write(ASK)
        assert (await last[0].readline()).startswith(b"HTTP/1.1 200")

    ask(work)


def test_who_is_admitted_is_left_alone_and_waits_again_afterwards(ask):
    async def work(open, lobby):
        admitted = await open(ASK)
        await Slow.came.wait()
        assert len(lobby) == 0
        for _ in range(10):
            await open()
        assert (len(lobby), lobby.turned_away) == (3, 7)
        Slow.go.set()
        assert (await admitted[0].readuntil(b"done")).startswith(b"HTTP/1.1 200")
        while lobby.turned_away < 8:  # it keeps its connection, and so is the newest of four
            await asyncio.sleep(0)
        admitted[1].write(ASK)
        assert (await admitted[0].readuntil(b"done")).startswith(b"HTTP/1.1 200")

    ask(work)


def test_who_says_nothing_or_only_half_is_closed(ask):
    async def work(open, lobby):
        for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            reader, _ = await open(sent)
            assert await reader.read() == b""
        while len(lobby):
            await asyncio.sleep(0)
        assert lobby.turned_away == 0

    ask(work, patience=0.05)
