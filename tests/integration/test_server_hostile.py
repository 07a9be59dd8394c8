"""Clients that mean harm, or are broken: whatever they do, `/health` answers, and whoever has a token is served."""

import contextlib
import os
import re
import resource
import socket
import threading
from pathlib import Path

import pytest
from serving import PRIMARY, V1, Server, problem

import lakehouse
from lakehouse.server.lobby import MOST

FILES, CROWD = MOST + 500, MOST + 1000
"""How many files the server may have open, and how many connections come."""
AUTH = f"Authorization: Bearer {PRIMARY}\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With fewer open files than Jupyter asks for (4,096), so that a smaller crowd will do."""
    folder = tmp_path_factory.mktemp("hostile")
    lakehouse.open(folder / "lake").close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    try:
        command = ["lakehouse.cli", "serve", "--", f"--ServerApp.min_open_files_limit={FILES}"]
        running = Server(folder, command, {"AUTH_TOKEN": PRIMARY})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        running.ready()
        assert running.call("PUT", "/storage/large", content=b"x" * 20_000_000).status_code == 201
        yield running
        assert "Traceback" not in running.log
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _still_serves(server):
    """After each of them, by new connections."""
    yield
    serves(server)


def serves(server):
    for _ in range(3):
        for path in ("/health", f"{V1}/ready"):
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{AUTH}Connection: close\r\n\r\n"
            got = answer_to(connected(server, head.encode()))
            assert got.startswith(b"HTTP/1.1 200"), got


def connected(server, sent=b"", address="127.0.0.1", room=None):
    """A connection from an address of this machine, on which something was sent."""
    found = socket.socket()
    if room is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    found.bind((address, 0))
    found.settimeout(30)
    found.connect(("127.0.0.1", server.port))
    with contextlib.suppress(ConnectionError):
        found.sendall(sent)
    return found


def answer_to(connection):
    """All that comes until the server closes; a connection that it cuts while we send counts as closed."""
    got = b""
    with connection, contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            got += piece
    return got


def memory(server):
    """Megabytes that the process has had at most so far."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000


@pytest.fixture
def many():
    """Room for a crowd in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 500
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"the tests need {wanted} open files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with contextlib.ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_and_slow_connections_do_not_keep_others_out(server, many):
    """More of them than the server may have files, from several addresses, silent or in the middle of their headers."""
    upload = many.enter_context(
        connected(server, f"PUT {V1}/storage/slow HTTP/1.1\r\nHost: localhost\r\n{AUTH}".encode())
    )
    upload.sendall(b"Content-Length: 4\r\nConnection: close\r\n\r\nab")
    serves(server)  # and so it has been admitted
    begun = (b"", b"G", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1\r\n")
    crowd = []
    for n in range(CROWD):
        crowd.append(many.enter_context(connected(server, begun[n % 3], f"127.0.3.{n % 5 + 1}")))
        if n % 500 == 499:
            serves(server)
    assert len(os.listdir(f"/proc/{server.process.pid}/fd")) < MOST + 200
    for slow in crowd[2::3]:  # those still there go on, a line at a time
        with contextlib.suppress(ConnectionError):
            slow.sendall(b"X-Slower: 2\r\n")
    serves(server)
    assert answer_to(crowd[0]) == b"", "who has waited longest is closed"
    last = crowd[2::3][-1]
    last.sendall(b"\r\n")
    assert last.recv(100).startswith(b"HTTP/1.1 200"), "who came last is heard"
    upload.sendall(b"cd")
    assert answer_to(upload).startswith(b"HTTP/1.1 201"), "who was admitted before is left alone"
    assert "connections wait; the oldest are closed" in server.log
    told = server.call("GET", "/metrics").text
    assert float(re.search(r"^lakehouse_connections_turned_away_total (\S+)$", told, re.MULTILINE)[1]) >= CROWD - MOST


HUGE = 2_000_000
NONSENSE = {
    "a huge request line": b"GET /" + b"x" * HUGE + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a huge header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * HUGE + b"\r\n\r\n",
    "many headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "headers without end": b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 300_000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 3 + b"\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "a length below zero": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "a length that is no number": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e9\r\n\r\n",
    "two lengths": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
    "a huge chunk": b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    "a folded header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tb\x00\r\n\r\n",
    "a body of terabytes": b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999999\r\n\r\n" + b"x" * HUGE,
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_answered_with_a_refusal_or_not_at_all(server, name):
    before = memory(server)
    for _ in range(3):
        got = answer_to(connected(server, NONSENSE[name]))
        assert got == b"" or got.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 431")), got[:200]
        assert b"Traceback" not in got
    assert memory(server) < before + 60


def test_bodies_of_strangers_do_not_fill_the_memory(server, many):
    """Sent to routes of Jupyter and of the lake, all but their end."""
    before, size = memory(server), 8_000_000
    paths = ("/login", "/api/contents/x", f"{V1}/pathway/batch", f"{V1}/storage/x", "/no/such")
    rest = b"x" * 1_000_000

    def send(path):
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
        stranger = connected(server, head.encode())
        with contextlib.suppress(OSError):
            for _ in range(size // len(rest) - 1):
                stranger.sendall(rest)
        return stranger

    for _ in range(6):
        for path in paths:
            many.enter_context(send(path))
    assert memory(server) < before + 60


def test_who_does_not_read_keeps_nobody_waiting(server, many):
    """More of them than there are threads, each with a large answer that it does not take."""
    ask = f"GET {V1}/storage/large HTTP/1.1\r\nHost: localhost\r\n{AUTH}\r\n".encode()
    before = memory(server)
    readers = [many.enter_context(connected(server, ask, room=4096)) for _ in range(80)]
    for reader in readers:
        assert reader.recv(12) == b"HTTP/1.1 200"
    serves(server)
    assert memory(server) < before + 80 * 3


def test_who_sends_slowly_keeps_nobody_waiting(server, many):
    """More uploads than there are threads, all of them waiting for their senders; also some that vanish half way."""
    head = f"PUT {V1}/storage/slow-{{}} HTTP/1.1\r\nHost: localhost\r\n{AUTH}Content-Length: 1000\r\n\r\nx"
    uploads = [many.enter_context(connected(server, head.format(n).encode())) for n in range(80)]
    serves(server)
    for upload in uploads[:60]:
        upload.close()
    serves(server)
    for upload in uploads[60:]:
        upload.sendall(b"x" * 999)
        assert upload.recv(12) == b"HTTP/1.1 201"
    problem(server.call("GET", "/storage/slow-0"), 404)


def test_many_requests_at_once_on_one_connection(server):
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server) as connection:
        sender = threading.Thread(
            target=connection.sendall, args=(one * 1999 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),)
        )
        sender.start()
        got = answer_to(connection)
        sender.join()
    assert got.count(b"HTTP/1.1 200") == 2000
