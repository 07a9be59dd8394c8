"""The server behind nginx and Caddy, as the files of deploy/ set them up."""

import asyncio
import json
import os
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded
from proxying import CAP, NAME, Proxy, certificate
from serving import JUPYTER, PRIMARY, READER, SECOND, V1, Server, bearer, problem
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.netutil import DefaultLoopResolver, OverrideResolver
from tornado.websocket import websocket_connect

import lakehouse

NEW = "rotated-token-00000005"
INSIDE, OUTSIDE = "127.0.1.7", "127.0.2.9"
BUFFERS = 24_000_000
"""Bytes, more than either proxy and Tornado keep in memory."""
SETTINGS = """
[auth]
allowed_ips = ["127.0.0.1", "127.0.1.0/24"]
trusted_proxies = ["127.0.0.1"]
max_failures = 1000
[storage.put_caps]
"small/" = 1000000
"""


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls") / "files")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """As the unit starts it: tokens in files, so that they can be changed."""
    folder = tmp_path_factory.mktemp("behind")
    lakehouse.open(folder / "lake").close()
    (folder / "lake" / "lakehouse.toml").write_text(SETTINGS)
    environ = {}
    for name, token in (("", PRIMARY), ("_SECONDARY", SECOND), ("_READ", READER)):
        path = folder / f"token{name}"
        path.write_text(token)
        path.chmod(0o600)
        environ[f"AUTH_TOKEN{name}_FILE"] = str(path)
    running = Server(folder, ["lakehouse.cli", "serve", f"--hostname={NAME}"], environ)
    try:
        yield running.ready()
    finally:
        running.stop()


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def proxy(kind, tmp_path_factory, tls, server):
    running = Proxy(kind, tmp_path_factory.mktemp("proxy") / kind, tls, server.port)
    yield running
    running.stop()


class Backend(BaseHTTPRequestHandler):
    """A server that shows what a proxy does: it tells of each piece when it comes, and answers in two."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = self.headers["Content-Length"]  # nginx says it of a body that it has whole from the start
        total = len(self.rfile.read(int(length))) if length else self._pieces()
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = json.dumps({"total": total, "headers": headers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _pieces(self):
        total = 0
        while size := int(self.rfile.readline(), 16):
            total += len(self.rfile.read(size))
            self.rfile.readline()
            self.server.came.set()
        self.rfile.readline()
        return total

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"6\r\nfirst\n\r\n")
        if self.path == "/wait":
            self.connection.settimeout(30)
            if self.connection.recv(1) == b"":
                self.server.left.set()
            self.close_connection = True
            return
        self.server.go.wait(30)
        self.wfile.write(b"5\r\nlast\n\r\n0\r\n\r\n")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def backend():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    running.daemon_threads = True
    running.came, running.go, running.left = threading.Event(), threading.Event(), threading.Event()
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(scope="module")
def bare(kind, tmp_path_factory, tls, backend):
    """The same proxy in front of `backend`."""
    running = Proxy(kind, tmp_path_factory.mktemp("bare") / kind, tls, backend.server_port)
    yield running
    running.stop()


def test_reads(proxy):
    with proxy.client() as client:
        assert client.get("/health").json()["status"] == "ok"
        problem(client.get(f"{V1}/ready"), 401)
        answer = client.get(f"{V1}/ready", headers=bearer(PRIMARY))
        assert answer.status_code == 200
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        problem(client.get("/api/kernels", headers=bearer(PRIMARY)), 403)
        problem(client.get(f"{V1}/tables/nothing", headers=bearer(READER)), 404)
        assert client.get("/api/kernels", headers={"Authorization": f"token {JUPYTER}"}).json() == []


def test_http2(proxy):
    """Requests beside each other on one connection, uploads, and rows as they come."""
    many = "SELECT i, 'word ' || i AS word FROM range(300_000) r(i)"
    with proxy.client(http2=True) as client, ThreadPoolExecutor(4) as threads:

        def ask(sql, **headers):
            return client.post(f"{V1}/query", headers={**bearer(PRIMARY), **headers}, json={"sql": sql})

        answers = list(threads.map(ask, [f"SELECT {n} AS n" for n in range(8)]))
        assert {answer.http_version for answer in answers} == {"HTTP/2"}
        assert [answer.json()["rows"] for answer in answers] == [[[n]] for n in range(8)]
        rows = ask(many, Accept="application/vnd.apache.arrow.stream")
        assert pa.ipc.open_stream(rows.content).read_all().num_rows == 300_000
        content = os.urandom(3_000_000)
        put = client.put(f"{V1}/storage/by-http2", headers=bearer(PRIMARY), content=pieces(content))
        assert put.http_version == "HTTP/2"
        assert client.get(f"{V1}/storage/by-http2", headers=bearer(READER)).content == content
        problem(client.get(f"{V1}/ready"), 401)
        problem(client.put(f"{V1}/storage/small/y", headers=bearer(PRIMARY), content=pieces(b"x" * 3_000_000)), 413)
    with proxy.client(OUTSIDE, http2=True) as client:
        problem(client.get("/health", headers={"X-Forwarded-For": INSIDE}), 403, "forbidden")


def test_a_stream_of_http2_that_is_given_up_ends_its_query_alone(proxy):
    """With its own frames, since httpx never resets a stream."""
    context = ssl.create_default_context(cafile=proxy.tls / "fullchain.pem")
    context.set_alpn_protocols(["h2"])
    body = json.dumps({"sql": "SELECT i, 'word ' || i AS word FROM range(30_000_000) r(i)"}).encode()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname=NAME) as wire:
            assert wire.selected_alpn_protocol() == "h2"
            line = H2Connection()
            line.initiate_connection()
            common = [(":scheme", "https"), (":authority", f"{NAME}:{proxy.port}"), *bearer(PRIMARY).items()]
            sent = [("accept", "text/csv"), ("content-type", "application/json"), ("content-length", str(len(body)))]
            line.send_headers(1, [(":method", "POST"), (":path", f"{V1}/query"), *common, *sent])
            line.send_data(1, body, end_stream=True)
            head = {}
            for event in heard(wire, line, 1):
                if isinstance(event, ResponseReceived):
                    head.update(event.headers)
                if isinstance(event, DataReceived):
                    break
            assert head[b":status"] == b"200"
            line.reset_stream(1, ErrorCodes.CANCEL)
            asked, state, stream = f"{V1}/queries/{head[b'lakehouse-query-id'].decode()}", "running", 3
            end = time.monotonic() + 20
            while state == "running":  # the same connection goes on
                assert time.monotonic() < end
                line.send_headers(stream, [(":method", "GET"), (":path", asked), *common], end_stream=True)
                found = [event.data for event in heard(wire, line, stream) if isinstance(event, DataReceived)]
                state, stream = json.loads(b"".join(found))["state"], stream + 2
            assert state == "cancelled"


def heard(wire, line, stream):
    """What comes on one stream of a connection, to its end."""
    while True:
        wire.sendall(line.data_to_send())
        for event in line.receive_data(wire.recv(65_536)):
            if isinstance(event, DataReceived):
                line.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if getattr(event, "stream_id", None) == stream:
                yield event
                if isinstance(event, StreamEnded):
                    return


def test_without_tls_one_is_sent_to_it(proxy):
    answer = raw(proxy.plain, f"GET /health?x=1 HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 308", b"HTTP/1.1 301")), answer
    assert f"location: https://{NAME}" in answer.decode().lower()


def test_other_names_are_not_served(proxy):
    """Neither by TLS, nor by the header: nothing of the server is seen."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", proxy.port)) as plain:
        context.wrap_socket(plain, server_hostname="elsewhere.example")
    context = ssl.create_default_context(cafile=proxy.tls / "fullchain.pem")
    for host, served in ((NAME, True), ("elsewhere.example", False), ("127.0.0.1", False), ("localhost:8888", False)):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as plain:
            with context.wrap_socket(plain, server_hostname=NAME) as connection:
                connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                got = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert (b'"status": "ok"' in got) is served, (host, got)


def test_an_upload_goes_through_as_it_comes(proxy, server):
    content = os.urandom(1_000_000) * (BUFFERS // 1_000_000)
    with proxy.client() as client:
        put = client.put(f"{V1}/storage/large", headers=bearer(PRIMARY), content=pieces(content))
        assert put.status_code in (200, 201), put.text
        whole = client.get(f"{V1}/storage/large", headers=bearer(READER))
        assert whole.content == content
        part = client.get(f"{V1}/storage/large", headers={**bearer(READER), "Range": "bytes=999990-20000009"})
        assert part.status_code == 206
        assert part.headers["Content-Range"] == f"bytes 999990-20000009/{BUFFERS}"
        assert part.content == content[999_990:20_000_010]
        assert (
            client.get(
                f"{V1}/storage/large", headers={**bearer(READER), "If-None-Match": put.headers["ETag"]}
            ).status_code
            == 304
        )
        loaded = client.post(
            f"{V1}/ingest?table=numbers&mode=replace",
            headers={**bearer(PRIMARY), "Content-Type": "text/csv"},
            content=pieces(b"n\n" + b"".join(b"%d\n" % n for n in range(200_000))),
        )
        assert loaded.json()["rows"] == 200_000, loaded.text


def test_an_upload_past_the_cap_is_refused(proxy):
    """Past the lake's cap in the lake's words, past the proxy's in its own; both while it comes."""
    with proxy.client() as client:
        refused = client.put(f"{V1}/storage/small/x", headers=bearer(PRIMARY), content=pieces(b"x" * 3_000_000))
        problem(refused, 413)
        problem(client.get(f"{V1}/storage/small/x", headers=bearer(PRIMARY)), 404)
        sent = client.put(f"{V1}/storage/too-large", headers=bearer(PRIMARY), content=pieces(b"x" * (CAP + 5_000_000)))
        assert sent.status_code == 413, sent.text
        problem(client.get(f"{V1}/storage/too-large", headers=bearer(PRIMARY)), 404)


def test_nothing_is_kept_back_on_the_way(bare, backend):
    """The server hears the first piece before the second is sent, and the reader likewise; a reader who leaves is told."""
    backend.came.clear()
    heard = []

    def two():
        yield b"first"
        heard.append(backend.came.wait(20))
        yield b"last"

    with bare.client() as client:
        assert client.post("/", content=two()).json()["total"] == 9
        assert heard == [True]
        backend.go.clear()
        with client.stream("GET", "/") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "first"
            backend.go.set()
            assert list(lines) == ["last"]
        backend.left.clear()
        with client.stream("GET", "/wait") as answer:
            assert next(answer.iter_lines()) == "first"
        assert backend.left.wait(20), "the server does not hear that the reader has gone"


def test_what_a_client_says_of_its_address_is_dropped(bare):
    said = {"X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    said |= {"X-Forwarded-Host": "elsewhere.example", "X-Forwarded-Proto": "gopher"}
    with bare.client(INSIDE) as client:
        passed = client.post("/", content=iter([b"x"]), headers=said).json()["headers"]
    assert passed["x-forwarded-for"] == INSIDE
    assert passed["x-forwarded-proto"] == "https"
    assert passed["host"] == f"{NAME}:{bare.port}"
    assert passed.get("x-forwarded-host", passed["host"]) == passed["host"]
    assert not {"x-real-ip", "forwarded"} & set(passed)


def test_the_allowlist_holds_behind_the_proxy(proxy):
    spoofed = (
        {"X-Forwarded-For": INSIDE},
        {"X-Forwarded-For": f"{INSIDE}, 127.0.0.1"},
        {"X-Real-IP": INSIDE},
        {"Forwarded": f"for={INSIDE}"},
        {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost"},
    )
    with proxy.client(OUTSIDE) as client:
        for headers in ({}, *spoofed):
            for path in ("/health", f"{V1}/whoami", "/api/kernels", "/static/favicon.ico"):
                problem(client.get(path, headers={**headers, **bearer(PRIMARY)}), 403, "forbidden")
    with proxy.client(INSIDE) as client:
        for headers in ({}, {"X-Forwarded-For": OUTSIDE}, {"X-Real-IP": OUTSIDE}, {"Forwarded": f"for={OUTSIDE}"}):
            assert client.get(f"{V1}/whoami", headers={**headers, **bearer(PRIMARY)}).status_code == 200


def test_a_kernel_answers(proxy):
    """A browser's way: log in, start a kernel, its websocket, one line of code."""
    with proxy.client() as client:
        login = client.get(f"/api/kernels?token={JUPYTER}")
        assert login.status_code == 200
        cookie = "; ".join(f"{name}={value}" for name, value in login.cookies.items())
        forged = {"Cookie": cookie, "Origin": "https://elsewhere.example"}
        assert client.post("/api/kernels", json={}, headers=forged).status_code in (403, 404)
        made = client.post(
            "/api/kernels",
            json={},
            headers={"Authorization": f"token {JUPYTER}", "Origin": f"https://{NAME}:{proxy.port}"},
        )
        assert made.status_code == 201, made.text
        kernel = made.json()["id"]
        try:
            origin = {"Origin": f"https://{NAME}:{proxy.port}"}
            assert asyncio.run(asked(proxy, kernel, {"Cookie": cookie, **origin}, "1 + 1")) == "2"
            for headers in ({}, bearer(PRIMARY), {"Cookie": cookie, "Origin": "https://elsewhere.example"}):
                with pytest.raises(HTTPClientError, match="403"):
                    asyncio.run(asked(proxy, kernel, headers, "1 + 1"))
        finally:
            client.delete(f"/api/kernels/{kernel}", headers={"Authorization": f"token {JUPYTER}"})


async def asked(proxy, kernel, headers, code):
    """What a kernel says to a line of code, over its websocket."""
    context = ssl.create_default_context(cafile=proxy.tls / "fullchain.pem")
    resolver = OverrideResolver(resolver=DefaultLoopResolver(), mapping={NAME: "127.0.0.1"})
    url = f"wss://{NAME}:{proxy.port}/api/kernels/{kernel}/channels"
    channels = await websocket_connect(HTTPRequest(url, headers=headers, ssl_options=context), resolver=resolver)
    head = {"msg_id": "1", "msg_type": "execute_request", "session": "s", "username": "u", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"channel": "shell", "header": head, "parent_header": {}, "metadata": {}, "content": content}
    await channels.write_message(json.dumps(message))
    try:
        while True:
            told = json.loads(await asyncio.wait_for(channels.read_message(), 60))
            if told["msg_type"] == "execute_result":
                return told["content"]["data"]["text/plain"]
    finally:
        channels.close()


def test_tokens_are_rotated_under_traffic(proxy, server):
    """The playbook of docs/operations.md: nobody with a token in force is refused at any moment."""
    stop, seen = threading.Event(), {PRIMARY: [], NEW: [], READER: []}

    def ask(token):
        with proxy.client() as client:
            while not stop.is_set():
                started = time.monotonic()
                seen[token].append(
                    (started, client.get(f"{V1}/whoami", headers=bearer(token)).status_code, time.monotonic())
                )

    def wait(token, status):
        end = time.monotonic() + 60
        while (found := server.call("GET", "/whoami", token=token).status_code) != status and time.monotonic() < end:
            pass
        assert found == status
        return time.monotonic()

    def asked_since(moment):
        """Wait until every token has had an answer to something that it asked later."""
        end = time.monotonic() + 60
        while not all(asked and asked[-1][0] > moment for asked in seen.values()):
            assert time.monotonic() < end, "somebody asks no more"
            time.sleep(0.02)

    threads = [threading.Thread(target=ask, args=(token,)) for token in seen]
    for thread in threads:
        thread.start()
    try:
        (server.folder / "token_SECONDARY").write_text(f"{PRIMARY},{SECOND}")
        (server.folder / "token").write_text(NEW)
        server.hang_up()
        both = wait(NEW, 200)
        asked_since(both)
        ending = time.monotonic()
        (server.folder / "token_SECONDARY").write_text(SECOND)
        told = server.call("POST", "/admin/reload", token=NEW)
        assert told.json()["tokens"] == 3
        gone = time.monotonic()
        asked_since(gone)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        (server.folder / "token").write_text(PRIMARY)
        (server.folder / "token_SECONDARY").write_text(SECOND)
        server.hang_up()
        wait(PRIMARY, 200)
    assert {status for _, status, _ in seen[READER]} == {200}
    assert {status for _, status, end in seen[PRIMARY] if end < ending} == {200}
    assert {status for start, status, _ in seen[PRIMARY] if start > gone} == {401}
    assert {status for start, status, _ in seen[NEW] if start > both} == {200}


def test_the_logs_hold_no_token(proxy):
    """Asked last: of the proxy's own log as well."""
    with proxy.client() as client:
        client.get(
            f"{V1}/whoami?token={PRIMARY}", headers={**bearer(SECOND), "Referer": f"https://{NAME}/?token={PRIMARY}"}
        )
        end = time.monotonic() + 60
        while proxy.log.count(f"{V1}/whoami") < 3 and time.monotonic() < end:
            time.sleep(0.05)
    log = proxy.log
    assert f"{V1}/whoami" in log
    for token in (PRIMARY, SECOND, READER, NEW, JUPYTER):
        assert token not in log


def pieces(content):
    """An upload without a length."""
    return (content[at : at + 262_144] for at in range(0, len(content), 262_144))


def raw(port, text):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        plain.sendall(text.encode())
        return b"".join(iter(lambda: plain.recv(65_536), b""))
