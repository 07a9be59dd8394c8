"""The client against servers that misbehave: what it sends, what it tries again, what it makes of odd answers."""

import base64
import contextlib
import datetime as dt
import hashlib
import inspect
import json
import logging
import pickle
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

import lakehouse
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.table import Table
from lakehouse.client import address
from lakehouse.client.catalog import RemoteCatalog
from lakehouse.client.ingest import RemoteIngest
from lakehouse.client.lake import Client
from lakehouse.client.maintenance import RemoteMaintenance
from lakehouse.client.observer import RemoteObserver
from lakehouse.client.pathway import RemotePathway
from lakehouse.client.reports import RemoteReports
from lakehouse.client.saved import RemoteSaved
from lakehouse.client.storage import RemoteStore
from lakehouse.client.table import RemoteTable
from lakehouse.client.wire import Wire
from lakehouse.client.workflows import RemoteHandle, RemoteWorkflows
from lakehouse.errors import (
    AnswerBroken,
    ConfigError,
    Forbidden,
    LakeClosed,
    LakehouseError,
    NotFound,
    NotRemote,
    ParameterFault,
    PreconditionFailed,
    RemoteError,
    ServerUnreachable,
    TableNotFound,
    Unauthenticated,
)
from lakehouse.health.maintenance import Maintenance
from lakehouse.ingest.load import Ingest
from lakehouse.lake import Lakehouse
from lakehouse.observer.observer import Observer
from lakehouse.pathway.recorder import Recorder
from lakehouse.query.saved import Saved
from lakehouse.reports.reports import Reports
from lakehouse.storage.base import ObjectStore
from lakehouse.workflow.workflows import Handle, Workflows

TOKEN = "a-token-that-nobody-may-see-0001"
WHO = (200, {}, b'{"principal": "primary", "scopes": ["read", "write"]}')
PROBLEM = {"Content-Type": "application/problem+json"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream", "Lakehouse-Snapshot": "7", "Lakehouse-Query-Id": "q"}


class Fake:
    """A server that gives the answers it was told, one after the other, and remembers what it was asked."""

    def __init__(self):
        self.answers = []
        self.asked = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def body(self):
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                content = b""
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        content += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                return content

            def answer(self):
                if self.path.endswith("/whoami"):
                    fake.whoami = dict(self.headers)
                    status, headers, content = WHO
                else:
                    fake.asked.append((self.command, self.path, dict(self.headers), self.body()))
                    given = fake.answers.pop(0)
                    if callable(given):
                        given(self)
                        self.close_connection = True
                        return
                    status, headers, content = given
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"):
            setattr(Handler, f"do_{method}", Handler.answer)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def connect(self, **given):
        return lakehouse.connect(self.url, TOKEN, **given)


@pytest.fixture
def fake():
    started = Fake()
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.fixture
def client(fake, monkeypatch):
    monkeypatch.setattr("lakehouse.client.wire._FIRST", 0.01)
    with fake.connect() as connected:
        yield connected


def problem(status, code, **more):
    shape = {"type": "t", "title": "t", "status": status, "detail": "what was wrong", "code": code, "request_id": "r1"}
    return (status, PROBLEM | more.pop("headers", {}), json.dumps(shape | more).encode())


def cut(handler):
    """Break the connection before any answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def half(content, headers, *, close_delimited=False):
    """Answer with a part of what was announced."""

    def answer(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for name, value in headers.items():
            handler.wfile.write(f"{name}: {value}\r\n".encode())
        if not close_delimited:
            handler.wfile.write(b"Content-Length: %d\r\n" % (len(content) + 1000))
        handler.wfile.write(b"Connection: close\r\n\r\n" + content)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    return answer


def stream_of(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


# where and who


def test_addresses():
    base = address.base_of
    assert base("https://lake.example.org") == "https://lake.example.org/lakehouse/v1"
    assert base("http://localhost:8888/jupyter/") == "http://localhost:8888/jupyter/lakehouse/v1"
    assert base("https://[::1]:9/lakehouse/v1") == "https://[::1]:9/lakehouse/v1"
    for wrong in (
        "",
        "lake.example.org",
        "ftp://x",
        "https://",
        "http://h:port",
        "https://u:secret@h",
        "https://h/?token=s",
    ):
        with pytest.raises(ConfigError) as caught:
            base(wrong)
        assert "secret" not in str(caught.value)
        assert caught.value.hint


def test_tokens(monkeypatch):
    monkeypatch.delenv("AUTH_TOKEN", raising=False)
    assert address.token_of(None) is None
    monkeypatch.setenv("AUTH_TOKEN", f" {TOKEN}\n")
    assert address.token_of(None).reveal() == TOKEN
    assert address.token_of("other-token-0123456789").reveal() == "other-token-0123456789"
    for wrong in ("", "  ", "with space-01234567", "line\nbreak-0123456", "ümlaut-0123456789"):
        with pytest.raises(ConfigError) as caught:
            address.token_of(wrong)
        assert not wrong.strip() or wrong not in str(caught.value)


def test_a_token_never_goes_over_plain_http_to_another_machine():
    for url in ("http://lake.example.org", "http://10.0.0.1", "http://127.0.0.1.example.org", "http://0.0.0.0"):
        with pytest.raises(Forbidden, match="plain http"):
            lakehouse.connect(url, TOKEN)
        address.check_plain(url, address.token_of(TOKEN), allowed=True)
        address.check_plain(url, None, allowed=False)
    for url in ("http://127.0.0.1", "http://localhost:1", "http://[::1]", "https://lake.example.org"):
        address.check_plain(url, address.token_of(TOKEN), allowed=False)


def test_the_token_is_sent_and_shown_nowhere(fake, caplog):
    caplog.set_level(logging.DEBUG)
    with fake.connect() as client:
        assert fake.whoami["Authorization"] == f"Bearer {TOKEN}"
        assert (client.principal, client.scopes, client.read_only) == ("primary", {"read", "write"}, False)
        fake.answers = [problem(401, "unauthenticated")]
        with pytest.raises(Unauthenticated) as caught:
            client.catalog.schemas()
        texts = [
            repr(client),
            repr(client._wire),
            str(caught.value),
            caplog.text,
            str(vars(client)),
            str(vars(client._wire)),
        ]
        frames = caught.tb
        while frames is not None:
            texts.append(str({k: repr(v) for k, v in frames.tb_frame.f_locals.items() if k not in ("texts", "fake")}))
            frames = frames.tb_next
        assert not [text for text in texts if TOKEN in text]
        with pytest.raises(TypeError):
            pickle.dumps(client)


def test_cookies_are_not_kept(client, fake):
    fake.answers = [(200, {"Set-Cookie": "session=1; Path=/"}, b'{"schemas": []}'), (200, {}, b'{"schemas": []}')]
    assert client.catalog.schemas() == client.catalog.schemas() == []
    assert "Cookie" not in fake.asked[1][2]


# what is tried again


def test_reading_is_tried_again(client, fake):
    fake.answers = [cut, problem(503, "lock_timeout"), (502, {}, b"proxy"), (200, {}, b'{"schemas": ["main"]}')]
    assert client.catalog.schemas() == ["main"]
    assert len(fake.asked) == 4
    fake.answers = [problem(503, "lock_timeout")] * 4
    with pytest.raises(LakehouseError) as caught:
        client.catalog.schemas()
    assert (caught.value.code, caught.value.request_id, len(fake.answers)) == ("lock_timeout", "r1", 0)


def test_what_may_not_be_done_twice_is_sent_once(client, fake):
    for act in (
        lambda: client.catalog.create_schema("s"),
        lambda: client.catalog.drop("t"),
        lambda: client.storage.put("k", b"x"),
        lambda: client.storage.delete("k"),
        lambda: client.pathway.add({}),
        client.maintenance.compact,
        lambda: client.rollback(1),
        lambda: client.ingest(iter([b"a\n1\n"]), "t", format="csv"),
    ):
        for answer, error in ((cut, ServerUnreachable), (problem(503, "lock_timeout"), LakehouseError)):
            fake.asked.clear()
            fake.answers = [answer]
            with pytest.raises(error):
                act()
            assert len(fake.asked) == 1


def test_a_load_and_a_statement_are_sent_again_under_their_key(client, fake, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")
    receipt = b'{"table": "t", "rows": 1, "snapshot": 3, "sha256": "", "duplicate": false}'
    waiting = problem(409, "request_in_flight", headers={"Retry-After": "0"})
    fake.answers = [cut, waiting, (200, {}, receipt)]
    assert client.ingest(path, "t").rows == 1
    done = b'{"query_id": "q", "snapshot": 4, "rows": 2, "kind": "write", "elapsed": 0.1}'
    fake.answers = [cut, (200, {}, done)]
    assert client.sql("DELETE FROM t").changed == 2
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in fake.asked]
    assert (len(keys), len(set(keys[:3])), len(set(keys))) == (5, 1, 2)
    assert {body for _, path, _, body in fake.asked if "/ingest" in path} == {b"a\n1\n"}


def test_a_put_whose_answer_was_lost_is_known_again(client, fake):
    content = b"content"
    sha256 = hashlib.sha256(content)
    digest = base64.b64encode(sha256.digest()).decode()
    head = {"ETag": '"e"', "Lakehouse-Modified": "2026-01-01T00:00:00+00:00", "Repr-Digest": f"sha-256=:{digest}:"}
    there, absent = (200, head | {"Content-Length": "7"}, b""), (404, PROBLEM, b"")
    refused = problem(412, "precondition_failed")
    fake.answers = [absent, cut, refused, there, there]
    receipt = client.storage.put("k", content, if_absent=True)
    assert (receipt.sha256, receipt.etag, receipt.size) == (sha256.hexdigest(), "e", 7)
    fake.answers = [absent, refused]
    with pytest.raises(PreconditionFailed):
        client.storage.put("k", content, if_absent=True)
    fake.answers = [absent, cut, refused, there]
    with pytest.raises(PreconditionFailed):
        client.storage.put("k", b"mine", if_absent=True)


def test_retry_after_is_honoured(client, fake):
    fake.answers = [problem(503, "lock_timeout", headers={"Retry-After": "1"}), (200, {}, b'{"schemas": []}')]
    begun = time.monotonic()
    client.catalog.schemas()
    assert time.monotonic() - begun >= 1
    when = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    for late in ("3600", when):
        fake.answers = [problem(503, "lock_timeout", headers={"Retry-After": late})]
        with pytest.raises(LakehouseError, match="what was wrong"):
            client.catalog.schemas()
    assert fake.answers == []


# what goes wrong


def test_errors_come_back_as_what_they_are(client, fake):
    fake.answers = [problem(404, "table_not_found", hint="did you mean t?")]
    with pytest.raises(TableNotFound) as caught:
        client.catalog.table("x")
    assert (caught.value.message, caught.value.hint, caught.value.request_id) == (
        "what was wrong",
        "did you mean t?",
        "r1",
    )
    fake.answers = [problem(500, "internal_error")]
    with pytest.raises(RemoteError, match="what was wrong") as caught:
        client.catalog.schemas()
    assert "r1" in caught.value.hint
    for answer, error in (
        ((302, {"Location": "https://elsewhere.example.org/"}, b""), RemoteError),
        ((404, {"Content-Type": "text/html"}, b"<h1>no</h1>"), NotFound),
        ((403, {"Content-Type": "text/html"}, b"<h1>no</h1>"), RemoteError),
        ((400, PROBLEM, b"not json"), RemoteError),
        ((400, PROBLEM, b'{"detail": 7}'), RemoteError),
        ((200, {}, b"<h1>hello</h1>"), AnswerBroken),
        ((200, {}, b'{"schemas": 7}'), AnswerBroken),
        ((200, {}, b"\xff"), AnswerBroken),
    ):
        fake.asked.clear()
        fake.answers = [answer]
        with pytest.raises(error) as caught:
            client.catalog.schemas()
        assert type(caught.value) is error
        assert caught.value.hint
        assert len(fake.asked) == 1


def test_no_server(monkeypatch):
    monkeypatch.setattr("lakehouse.client.wire._FIRST", 0.01)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(ServerUnreachable) as caught:
            lakehouse.connect(f"http://127.0.0.1:{port}", TOKEN)
        assert "running" in caught.value.hint
        assert caught.value.__cause__ is None
        probe.listen()
        with pytest.raises(ServerUnreachable, match="no answer in time"):
            lakehouse.connect(f"http://127.0.0.1:{port}", TOKEN, timeout=0.2)


def test_a_closed_client(fake):
    client = fake.connect()
    client.close()
    with pytest.raises(LakeClosed):
        client.catalog.schemas()


def test_certificates(tmp_path, monkeypatch):
    monkeypatch.setattr("lakehouse.client.wire._FIRST", 0.01)
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    fake = Fake()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    fake.server.socket = context.wrap_socket(fake.server.socket, server_side=True)
    url = fake.url.replace("http:", "https:")
    try:
        with pytest.raises(ServerUnreachable) as caught:
            lakehouse.connect(url, TOKEN)
        assert "ca_file" in caught.value.hint
        with lakehouse.connect(url, TOKEN, ca_file=cert) as client:
            assert client.principal == "primary"
        with pytest.raises(ConfigError, match="no certificates"):
            lakehouse.connect(url, TOKEN, ca_file=tmp_path / "missing.pem")
        with pytest.raises(ConfigError, match="no certificates"):
            lakehouse.connect(url, TOKEN, ca_file=key)
    finally:
        fake.server.shutdown()
        fake.server.server_close()


# rows


def test_a_stream_that_is_not_whole_is_an_error(client, fake):
    table = pa.table({"n": list(range(1000))})
    whole = stream_of(table)
    gone = problem(404, "not_found")
    fake.answers = [(200, ARROW, whole)]
    assert client.sql("SELECT n FROM t").arrow().equals(table)
    for size in (len(whole) - 1, len(whole) - 8, len(whole) - 9, len(whole) // 2, 100, 3, 0):
        for close_delimited in (False, True):
            fake.answers = [half(whole[:size], ARROW, close_delimited=close_delimited), gone]
            with pytest.raises(AnswerBroken) as caught:
                client.sql("SELECT n FROM t")
            assert caught.value.hint
    fake.answers = [(200, {"Content-Type": "text/html"}, b"<h1>hello</h1>"), gone]
    with pytest.raises(AnswerBroken):
        client.sql("SELECT n FROM t")


def test_why_a_stream_broke_is_asked(client, fake):
    whole = stream_of(pa.table({"n": list(range(1000))}))
    ended = b'{"query_id": "q", "principal": "p", "sql": "", "state": "failed", "progress": null, "rows": 5, "elapsed": 1.0,'
    ended += b'"started": "2026-01-01T00:00:00Z", "code": "query_timeout"}'
    fake.answers = [half(whole[:-8], ARROW), (200, {}, ended)]
    with pytest.raises(lakehouse.LakehouseError) as caught:
        client.sql("SELECT n FROM t")
    assert caught.value.code == "query_timeout"


def test_a_stream_is_read_as_it_comes_and_only_once(client, fake):
    table = pa.table({"n": list(range(1000))})
    whole = stream_of(table)
    fake.answers = [(200, ARROW, whole)]
    with client.stream("SELECT n FROM t") as reader:
        assert reader.read_all().equals(table)
    fake.answers = [half(whole[:-8], ARROW), problem(404, "not_found")]
    with pytest.raises(AnswerBroken), client.stream("SELECT n FROM t") as reader:
        reader.read_all()


def test_rows_that_are_not_of_the_types_they_are_said_to_be(client, fake):
    told = pa.table({"b": ["101"]}).replace_schema_metadata({"lakehouse.types": '["BIT"]'})
    fake.answers = [(200, ARROW, stream_of(told))]
    assert client.sql("SELECT b FROM t").types == ["BIT"]
    wrong = pa.table({"b": ["x"]}).replace_schema_metadata({"lakehouse.types": '["BIT"]'})
    fake.answers = [(200, ARROW, stream_of(wrong)), problem(404, "not_found")]
    with pytest.raises(AnswerBroken, match="not of the types"):
        client.sql("SELECT b FROM t")


def test_values_that_cannot_be_sent(client, fake):
    for value in (object(), [object()], {"a": object()}, "\ud800"):
        with pytest.raises(ParameterFault):
            client.sql("SELECT $v", {"v": value})
    assert fake.asked == []


def test_what_only_a_lake_can(client, fake, tmp_path):
    for name in (
        "transaction",
        "branch",
        "backup",
        "doctor",
        "path",
        "sandbox",
    ):
        with pytest.raises(NotRemote) as caught:
            getattr(client, name)
        assert caught.value.hint
    with pytest.raises(AttributeError):
        client.nothing  # noqa: B018
    with pytest.raises(NotRemote):
        client.sql("FROM frame", tables={"frame": pa.table({"a": [1]})})
    with pytest.raises(NotRemote):
        client.sql("BEGIN; DELETE FROM t; COMMIT")
    with pytest.raises(NotRemote):
        client.pathway.record("why?")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a\n1\n")
    with pytest.raises(NotRemote):
        client.ingest(tmp_path, "t")


ABSENT = {
    Lakehouse: {"at", "transaction", "branch", "backup", "doctor", "sandbox"},
    Catalog: {"changes", "check_present", "check_type", "counts", "describe", "find", "find_by_id", "history", "known_as", "marked", "notes",
              "rollback", "suggest", "table_snapshots"},
    Table: {"relation"},
    Observer: {"ring", "page", "cursor", "signature", "tell", "tidy", "close", "closed", "places"},
    Reports: {"close"},
    Workflows: {"store", "load", "stored", "close"},
    Recorder: {"bring", "close", "pages", "position", "recording", "noted", "lake_snapshot"},
}  # fmt: skip
"""What a client does not have: what only a lake can, and what is the inside of one."""


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (Lakehouse, Client),
        (Catalog, RemoteCatalog),
        (Table, RemoteTable),
        (Ingest, RemoteIngest),
        (Maintenance, RemoteMaintenance),
        (Recorder, RemotePathway),
        (ObjectStore, RemoteStore),
        (Observer, RemoteObserver),
        (Reports, RemoteReports),
        (Workflows, RemoteWorkflows),
        (Handle, RemoteHandle),
        (Saved, RemoteSaved),
    ],
)
def test_the_operations_are_called_alike(here, there):
    for name, operation in inspect.getmembers(here):
        if name.startswith("_") and name != "__call__":
            continue
        if name in ABSENT.get(here, ()):
            assert name not in vars(there), name
            continue
        other = inspect.getattr_static(there, name)
        assert isinstance(operation, property) == isinstance(other, property), name
        if name in ("record", "replay") or not inspect.isfunction(operation):
            continue
        wanted, found = inspect.signature(operation).parameters, inspect.signature(other).parameters
        assert [(p.name, p.kind, p.default) for p in found.values()] == [
            (p.name, p.kind, p.default)
            for p in wanted.values()
            if p.name != "once" and (here, p.name) != (Ingest, "name")  # the server's own words
        ], name


# objects


def test_a_reading_that_breaks_is_taken_up(client, fake):
    content = bytes(range(256)) * 100
    head = {"ETag": '"e"'}
    rest = (206, head | {"Content-Range": f"bytes 1000-{len(content) - 1}/{len(content)}"}, content[1000:])
    fake.answers = [half(content[:1000], head), rest]
    assert client.storage.get("k") == content
    assert fake.asked[1][2]["Range"] == "bytes=1000-"
    assert fake.asked[1][2]["If-Match"] == '"e"'
    fake.answers = [half(content[:1000], head), problem(412, "precondition_failed")]
    with pytest.raises(PreconditionFailed):
        client.storage.get("k")
    wrong = {"Repr-Digest": "sha-256=:AAAA:"}
    fake.answers = [(200, head | wrong, content)]
    with pytest.raises(AnswerBroken, match="another hash"):
        client.storage.get("k")


def test_wire_arguments():
    with pytest.raises(ConfigError):
        Wire("http://127.0.0.1/", None, timeout=0, retries=1, ca_file=None, proxy=None)
    with pytest.raises(ConfigError):
        Wire("http://127.0.0.1/", None, timeout=1, retries=1, ca_file=None, proxy="nonsense://x")


def test_many_threads_use_one_client(client, fake):
    fake.answers = [(200, {}, b'{"schemas": []}')] * 64
    wrong = []

    def ask():
        with contextlib.suppress(IndexError):
            wrong.extend(one for _ in range(8) for one in client.catalog.schemas())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, len(fake.asked)) == ([], 64)
