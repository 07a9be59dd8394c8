"""Each noun over HTTP, beside the same lake opened here: what one says, the other says too."""

import base64
import hashlib
import io
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import PRIMARY, READER, TOKENS, V1, Server, bearer, problem

import lakehouse
from lakehouse.server.openapi import described
from lakehouse.server.routes.all import ROUTES


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routes")
    with lakehouse.open(folder / "lake") as lake:
        lake.sql("CREATE TABLE flights (id BIGINT, origin VARCHAR, late DOUBLE)")
        lake.sql("INSERT INTO flights SELECT i, 'A' || i % 3, i / 2 FROM range(100) t(i)")
        lake.sql("CREATE VIEW busy AS SELECT origin, count(*) AS n FROM flights GROUP BY origin")
    caps = "[storage]\nmax_put_bytes = 40000000\n[storage.put_caps]\n'small/' = 1000\n[query]\nthreads = 1\n"
    (folder / "lake" / "lakehouse.toml").write_text(caps)
    running = Server(folder, ["lakehouse.cli", "serve"], TOKENS)
    try:
        yield running.ready()
        assert "Traceback" not in running.log, running.log
    finally:
        running.stop()


@pytest.fixture(scope="module")
def here(server):
    with lakehouse.open(server.folder / "lake") as lake:
        yield lake


@pytest.fixture
def ask(server):
    def asked(method, path, status=200, **given):
        answer = server.call(method, path, **given)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else answer

    return asked


# catalog


def test_catalog(ask, here):
    assert ask("GET", "/schemas") == {"schemas": here.catalog.schemas()}
    listed = ask("GET", "/tables")
    assert [(one["name"], one["rows"]) for one in listed["tables"]] == [("flights", 100)]
    assert [one["name"] for one in listed["views"]] == ["busy"]
    one, same = ask("GET", "/tables/flights"), here.catalog.table("flights")
    assert (one["rows"], one["bytes"], one["snapshot"]) == (same.row_count, same.bytes, same.version)
    assert [(c["name"], c["type"], c["nullable"]) for c in one["columns"]] == [
        (c.name, c.type, c.nullable) for c in same.schema
    ]
    assert ask("GET", "/tables/flights?at=1")["rows"] == 0
    assert ask("GET", "/tables/busy/columns")["columns"][1]["name"] == "n"
    assert [hit["name"] for hit in ask("GET", "/search?q=origin")["hits"]] == [
        hit.name for hit in here.catalog.search("origin")
    ]
    assert ask("GET", "/tables/flights/profile")["rows"] == 100
    assert ask("GET", "/tables/flights/lineage?direction=down")["edges"]
    files = ask("GET", "/tables/flights/files")["files"]
    assert [str(here.path / one["path"]) for one in files] == [one.path for one in same.files()]
    assert all(one["path"].startswith("data/") for one in files)
    found = ask("GET", "/snapshots?limit=2")["snapshots"]
    assert [one["id"] for one in found] == [one.id for one in here.catalog.snapshots(2)]
    assert isinstance(found[0]["note"], dict)
    changes = ask("GET", "/tables/flights/changes?start=2&limit=10")
    assert (changes["rows"], len(changes["changes"]), changes["complete"]) == (100, 10, False)


def test_the_catalog_is_changed_by_commits(ask, here):
    ask("PUT", "/tables/flights/comment", json={"text": "who flew", "column": "id"})
    assert here.catalog.table("flights").schema[0].comment == "who flew"
    assert ask("PUT", "/tables/flights/tags/owner", json={"value": "ann"}) == {"tags": {"owner": "ann"}}
    before = here.catalog.current_snapshot().id
    assert ask("PUT", "/snapshots/tags/good", json={}) == {"snapshot": before}
    here.sql("DELETE FROM flights WHERE id < 50")
    ask("POST", "/tables/flights/rollback", json={"to": "good"})
    assert here.catalog.table("flights").row_count == 100
    assert ask("DELETE", "/snapshots/tags/good") == {"snapshot": before}
    ask("POST", "/schemas", 201, json={"name": "mart"})
    problem_of = ask("POST", "/schemas", 409, json={"name": "mart"})
    assert problem_of["code"] == "already_exists"
    here.sql("CREATE TABLE mart.gone (i INTEGER)")
    ask("DELETE", "/tables/mart.gone")
    assert ask("GET", "/tables/mart.gone", 404)["code"] == "table_not_found"
    ask("POST", "/rollback", json={"to": str(before)})
    assert "mart" not in here.catalog.schemas()


def test_maintenance_does_nothing_unless_told(ask, here):
    count = len(here.catalog.snapshots())
    assert ask("POST", "/maintenance/expire", json={"older_than": "1s"})["dry_run"] is True
    assert ask("POST", "/maintenance/clean")["dry_run"] is True
    assert len(here.catalog.snapshots()) == count
    assert ask("POST", "/maintenance/compact", json={"table": "flights"})["operation"] == "compact"
    assert ask("POST", "/maintenance/expire", 400, json={"older_than": "soon"})["code"] == "config_invalid"


# objects


def test_objects(ask, server, here):
    first = server.call("PUT", "/storage/a/b%20c/é.bin", content=b"hello")
    assert first.status_code == 201
    assert (first.json()["sha256"], first.headers["ETag"]) == (
        hashlib.sha256(b"hello").hexdigest(),
        f'"{first.json()["etag"]}"',
    )
    assert here.storage.get("a/b c/é.bin") == b"hello"
    assert server.call("PUT", "/storage/a/b%20c/é.bin", content=b"world!").status_code == 200
    got = server.call("GET", "/storage/a/b%20c/é.bin")
    assert (got.content, got.headers["Content-Length"]) == (b"world!", "6")
    assert got.headers["Content-Disposition"] == "attachment"
    assert "sandbox" in got.headers["Content-Security-Policy"]
    head = server.call("HEAD", "/storage/a/b%20c/é.bin")
    assert (head.content, head.headers["Content-Length"], head.headers["ETag"]) == (b"", "6", got.headers["ETag"])
    assert server.call("HEAD", "/storage/none").status_code == 404
    ask("PUT", "/storage/a/d", 201, content=b"")
    listed = ask("GET", "/storage?prefix=a/&limit=1")
    assert (listed["objects"][0]["key"], listed["next"]) == ("a/b c/é.bin", "a/b c/é.bin")
    assert [
        one["key"] for one in ask("GET", "/storage", params={"prefix": "a/", "after": listed["next"]})["objects"]
    ] == ["a/d"]
    assert server.call("DELETE", "/storage/a/d").status_code == 204
    assert server.call("DELETE", "/storage/a/d").status_code == 204
    assert ask("GET", "/storage/a/d", 404)["code"] == "object_not_found"


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-3", 206, b"0123"), ("bytes=4-", 206, b"456789"), ("bytes=-2", 206, b"89"), ("bytes=8-99", 206, b"89"),
        ("bytes=-99", 206, b"0123456789"), ("bytes=10-", 416, None), ("bytes=-0", 416, None), ("bytes=5-2", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"), ("bytes=0-1,4-5", 200, b"0123456789"), ("lines=1-2", 200, b"0123456789"),
        ("bytes=" + "9" * 5000 + "-", 416, None),
    ],
)  # fmt: skip
def test_ranges(server, asked, status, content):
    server.call("PUT", "/storage/ranged", content=b"0123456789")
    got = server.call("GET", "/storage/ranged", headers={"Range": asked})
    assert got.status_code == status
    if content is None:
        problem(got, 416, "range_invalid")
    else:
        assert got.content == content
        assert got.headers["Content-Length"] == str(len(content))
        assert ("Content-Range" in got.headers) == (status == 206)


def test_conditions(ask, server):
    put = server.call("PUT", "/storage/cond", content=b"1", headers={"If-None-Match": "*"})
    etag = put.headers["ETag"]
    assert (
        ask("PUT", "/storage/cond", 412, content=b"2", headers={"If-None-Match": "*"})["code"] == "precondition_failed"
    )
    assert (
        ask("PUT", "/storage/cond", 412, content=b"2", headers={"If-Match": '"other"'})["code"] == "precondition_failed"
    )
    second = server.call("PUT", "/storage/cond", content=b"2", headers={"If-Match": etag})
    assert second.status_code == 200
    newer = second.headers["ETag"]
    for headers, status in [
        ({"If-None-Match": newer}, 304), ({"If-None-Match": f'"x", {newer}'}, 304), ({"If-None-Match": etag}, 200),
        ({"If-Match": newer}, 200), ({"If-Match": etag}, 412), ({"If-Range": etag, "Range": "bytes=0-0"}, 200),
        ({"If-Range": newer, "Range": "bytes=0-0"}, 206),
    ]:  # fmt: skip
        assert server.call("GET", "/storage/cond", headers=headers).status_code == status, headers
    assert (
        ask("PUT", "/storage/cond", 400, content=b"3", headers={"If-Match": f"{etag}, {newer}"})["code"]
        == "request_invalid"
    )
    assert server.call("GET", "/storage/cond").content == b"2"
    for headers, status in [
        ({"If-Match": etag}, 412), ({"If-Match": f"{etag}, {newer}"}, 400), ({"If-None-Match": "*"}, 400),
        ({"If-Match": newer}, 204), ({"If-Match": newer}, 412), ({"If-Match": "*"}, 412), ({}, 204),
    ]:  # fmt: skip
        assert server.call("DELETE", "/storage/cond", headers=headers).status_code == status, headers
    ask("PUT", "/storage/cond", 201, content=b"3")
    assert server.call("DELETE", "/storage/cond", headers={"If-Match": "*"}).status_code == 204


def test_a_put_past_its_cap_ends_while_it_streams(ask, server, here):
    assert ask("PUT", "/storage/small/x", 413, content=b"x" * 1001)["code"] == "object_too_large"
    sent = 0

    def endless():
        nonlocal sent
        while sent < 1 << 30:
            sent += 65536
            yield b"x" * 65536

    try:
        problem(server.call("PUT", "/storage/small/y", content=endless()), 413, "object_too_large")
    except httpx.TransportError:
        pass  # it was cut while it was sending: it goes on sending whatever it is told
    assert sent < 100 << 20
    assert here.storage.list("small/") == []
    ask("PUT", "/storage/small/z", 201, content=b"x" * 1000)


def test_large_objects_go_through_whole_and_in_little_memory(server):
    before = peak(server)
    content = bytes(range(256)) * 4096 * 30  # 30 MiB
    pieces = (content[at : at + 100_000] for at in range(0, len(content), 100_000))
    receipt = server.call("PUT", "/storage/large", content=pieces).json()
    assert receipt["sha256"] == hashlib.sha256(content).hexdigest()
    with server.client.stream("GET", f"{V1}/storage/large", headers=bearer(PRIMARY)) as got:
        digest = hashlib.sha256()
        for piece in got.iter_bytes():
            digest.update(piece)
    assert digest.hexdigest() == receipt["sha256"]
    assert peak(server) - before < 25 << 20


def peak(server):
    with open(f"/proc/{server.process.pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def test_a_body_that_breaks_off_leaves_nothing(server, here):
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = f"PUT {V1}/storage/broken HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PRIMARY}\r\n"
        raw.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + b"x" * 1000)
    time.sleep(0.3)
    problem(server.call("GET", "/storage/broken"), 404, "object_not_found")
    assert here.storage.list("broken") == []


@pytest.mark.parametrize("key", ["%2e%2e/%2e%2e/etc/passwd", "a//b", "a%5cb", "%00", "a/", "x" * 2000, "%ff"])
def test_keys_that_cannot_be(ask, key):
    assert ask("PUT", f"/storage/{key}", 400, content=b"x")["code"] in ("key_invalid", "request_invalid")


# loads


def test_loads(ask, here):
    rows = "id,name\n1,ann\n2,bob\n"
    receipt = ask("POST", "/ingest?table=people", content=rows, headers={"Content-Type": "text/csv"})
    assert (receipt["rows"], receipt["duplicate"], receipt["source"]) == (2, False, "upload")
    again = ask("POST", "/ingest?table=people&format=csv", content=rows)
    assert (again["duplicate"], again["source"]) == (True, "upload")
    for told in ("/snapshots", "/tables/people/history", "/tables/people/lineage"):
        assert str(here.path) not in json.dumps(ask("GET", told)), told
    assert here.catalog.table("people").row_count == 2
    more = json.dumps({"id": 2, "name": "bea"}) + "\n" + json.dumps({"id": 3, "name": "cy"})
    upsert = ask("POST", "/ingest?table=people&mode=upsert&key=id&format=ndjson", content=more)
    assert (upsert["inserted"], upsert["updated"]) == (1, 1)
    assert here.sql("SELECT name FROM people ORDER BY id").fetchall() == [("ann",), ("bea",), ("cy",)]
    ask("PUT", "/storage/in/rows.csv", 201, content=rows)
    loaded = ask("POST", "/ingest?table=copied&object=in/rows.csv")
    assert (loaded["rows"], loaded["source"]) == (2, "object:in/rows.csv")
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"i": range(1000)}), file)
    headers = {"Content-Type": "application/vnd.apache.parquet"}
    assert ask("POST", "/ingest?table=numbers", content=file.getvalue(), headers=headers)["rows"] == 1000
    import gzip

    packed = {"Content-Type": "text/csv", "Content-Encoding": "gzip"}
    assert ask("POST", "/ingest?table=packed", content=gzip.compress(rows.encode()), headers=packed)["rows"] == 2


@pytest.mark.parametrize(
    ("query", "content", "headers", "status", "code"),
    [
        ("table=t", b"a,b\n1,2\n", {}, 415, "media_type_unsupported"),
        ("table=t&format=exe", b"x", {}, 415, "media_type_unsupported"),
        ("table=t&format=csv", b"", {}, 400, "source_empty"),
        ("table=t&format=csv", b"a,b\n1\n2,3,4\n", {}, 400, "source_unreadable"),
        ("table=t&format=parquet", b"nonsense", {}, 400, "source_unreadable"),
        ("table=t&format=csv", b"x", {"Content-Encoding": "br"}, 415, "media_type_unsupported"),
        ("table=t&mode=sideways&format=csv", b"a\n1\n", {}, 400, "request_invalid"),
        ("format=csv", b"a\n1\n", {}, 400, "request_invalid"),
        ("table=t&format=csv&path=/etc/passwd", b"", {}, 400, "request_invalid"),
        ("table=t&object=../../etc/passwd", b"", {}, 400, "key_invalid"),
        ("table=t&object=none.csv", b"", {}, 404, "object_not_found"),
        ("table=t&object=a.csv", b"body as well", {}, 400, "request_invalid"),
        ("table=t&mode=upsert&format=csv", b"a\n1\n", {}, 400, "ingest_failed"),
    ],
)
def test_loads_that_are_refused(ask, here, query, content, headers, status, code):
    found = ask("POST", f"/ingest?{query}", status, content=content, headers=headers)
    assert found["code"] == code, found
    assert "upload-" not in found["detail"], "no path of the server is told"
    assert "t" not in {one.name for one in here.catalog.tables()}


# pathway


def test_traces(ask, server, here):
    new = server.call(
        "POST", "/pathway/traces", json={"content": {"q": "who flew late"}, "uid": "one", "tags": ["sql"]}
    )
    assert (new.status_code, new.headers["ETag"]) == (201, '"1"')
    again = server.call("POST", "/pathway/traces", json={"content": {"q": "who flew late"}, "uid": "one"})
    assert (again.status_code, again.json()["replay_count"]) == (200, 1)
    assert ask("POST", "/pathway/traces", 409, json={"content": "another", "uid": "one"})["code"] == "conflict"
    assert ask("POST", "/pathway/traces", 201, json={"content": "no uid"})["uid"]
    assert ask("POST", "/pathway/traces", 200, json={"content": "no uid"})["replay_count"] == 1
    assert (
        ask("PATCH", "/pathway/traces/one", 412, json={"content": 1}, headers={"If-Match": '"2"'})["code"]
        == "precondition_failed"
    )
    changed = server.call(
        "PATCH", "/pathway/traces/one", json={"content": {"q": "who flies"}}, headers={"If-Match": '"1"'}
    )
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert [one["version"] for one in ask("GET", "/pathway/traces/one/versions")["versions"]] == [1, 2]
    ask("POST", "/pathway/traces/one/revisions", 201, json={"content": "better", "new_uid": "two"})
    assert [one["uid"] for one in ask("GET", "/pathway/traces/two/history")["items"]] == ["two", "one"]
    assert ask("POST", "/pathway/traces/one/feedback", json={"score": 0.5})["score"] == 0.5
    assert ask("POST", "/pathway/traces/one/retire", json={"reason": "old"})["retired"] is True
    words = {"query": "flies", "mode": "lexical"}
    found = ask("POST", "/pathway/search", json=words)
    assert (found["results"], found["ranking"]) == ([], "lexical")
    assert ask("POST", "/pathway/traces/one/restore")["retired"] is False
    found = ask("POST", "/pathway/search", json={**words, "explain": True})
    assert [one["uid"] for one in found["results"]] == ["one"]
    assert found["results"][0]["why"]
    assert ask("POST", "/pathway/search", 400, json={"query": "x", "mode": "odd"})["code"] == "request_invalid"
    nearest = [one["uid"] for one in ask("POST", "/pathway/search", json={"query": "flies"})["results"]]
    assert nearest == [found.trace.uid for found in here.pathway.search("flies")]
    assert here.pathway.get("one").version == ask("GET", "/pathway/traces/one")["version"] == 2
    assert ask("GET", "/pathway/traces/one", params={"as_of": "1"})["content"] == {"q": "who flew late"}
    assert ask("GET", "/pathway/traces/none", 404)["code"] == "trace_not_found"
    assert ask("POST", "/pathway/search", 400, json={"filters": {"nothing": 1}})["code"] == "filter_invalid"


def test_traces_in_and_out(ask, server, here):
    uids = ask("POST", "/pathway/batch", 201, json={"traces": [{"content": n} for n in range(50)]})["uids"]
    assert len(set(uids)) == 50
    exported = server.call("GET", "/pathway/export")
    assert exported.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert {one["uid"] for one in lines} >= set(uids)
    assert len(lines) == ask("GET", "/pathway/stats")["traces"] == here.pathway.stats().traces
    assert ask("POST", "/pathway/import", content=exported.content)["skipped"] == len(lines)
    foreign = json.dumps({"memory": "likes tea", "user_id": "ann"})
    assert ask("POST", "/pathway/import", content=foreign)["added"] == 1
    assert ask("POST", "/pathway/import", 400, content=b"{\n{")["code"] == "source_unreadable"
    assert ask("GET", "/pathway/verify")["sound"] is True
    assert ask("POST", "/pathway/compact")["bytes_after"] > 0
    assert ask("GET", "/pathway/stats")["traces"] == len(lines) + 1


# what cannot be


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "says"),
    [
        ("GET", "/nowhere", None, 404, "not_found", "no such route"),
        ("PUT", "/tables", None, 405, "method_not_allowed", ""),
        ("OPTIONS", "/tables", None, 405, "method_not_allowed", ""),
        ("TRACE", "/tables", None, 405, "method_not_allowed", ""),
        ("GET", "/tables?schma=x", None, 400, "request_invalid", "schma"),
        ("GET", "/snapshots?limit=x", None, 400, "request_invalid", "$.limit"),
        ("GET", "/snapshots?limit=0", None, 400, "request_invalid", "$.limit"),
        ("GET", "/snapshots?limit=1&limit=2", None, 400, "request_invalid", "2 times"),
        ("GET", "/search?q=%ff", None, 400, "request_invalid", "UTF-8"),
        ("GET", "/tables/flights?at=99999", None, 404, "snapshot_not_found", ""),
        ("GET", "/tables/flights?at=99999999999999999999999", None, 404, "snapshot_not_found", ""),
        ("POST", "/pathway/traces", b"{", 400, "request_invalid", "no JSON"),
        ("POST", "/pathway/traces", b"", 400, "request_invalid", ""),
        ("POST", "/pathway/traces", b"[]", 400, "request_invalid", "object"),
        ("POST", "/pathway/traces", b'{"content": 1, "kindd": 2}', 400, "request_invalid", "kindd"),
        ("POST", "/pathway/traces", b'{"content": 1, "scope": {"a": 1}}', 400, "request_invalid", "$.scope"),
        ("POST", "/pathway/traces", b'{"content": "\xff"}', 400, "request_invalid", ""),
        ("POST", "/pathway/traces", b'{"content": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, None, ""),
        ("POST", "/pathway/traces", b'{"content": 1e999}', 400, None, ""),
        ("POST", "/pathway/traces/x/restore", b'{"a": 1}', 400, "request_invalid", "no body"),
        ("GET", "/tables/" + "x" * 5000, None, 404, "table_not_found", ""),
        ("GET", "/tables/%22%3B%20DROP%20TABLE%20flights", None, None, None, ""),
        ("GET", "/tables/a.b.c.d", None, None, None, ""),
    ],
)
def test_no_input_is_an_error_of_the_server(server, method, path, body, status, code, says):
    answer = server.call(method, path, content=body)
    assert 400 <= answer.status_code < 500, answer.text
    shape = problem(answer, status or answer.status_code, code)
    assert says in shape["detail"] + shape.get("hint", "")
    assert shape["request_id"] == answer.headers["X-Request-Id"]
    assert server.call("GET", "/tables/flights").status_code == 200


def test_bodies_of_another_type_or_too_large(server):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    problem(
        server.call("POST", "/pathway/traces", content=b"content=1", headers=headers), 415, "media_type_unsupported"
    )
    large = b'{"content": "' + b"x" * (17 << 20) + b'"}'
    for content in (large, iter([large])):
        try:
            problem(server.call("POST", "/pathway/traces", content=content), 413, "body_too_large")
        except httpx.TransportError:
            pass  # the connection was closed while the rest was being sent
    assert server.call("GET", "/whoami").status_code == 200


def test_ready_says_what_answers(ask):
    found = ask("GET", "/ready")
    assert found["status"] == "ready"
    assert all(part["ok"] for part in found["checks"].values())


def test_writes_are_written_down_with_what_came_of_them(ask, server, here):
    ask("PUT", "/storage/noted", 201, content=b"secret content")
    ask("DELETE", "/tables/none", 404)
    ask("GET", "/storage/noted")
    server.call("PUT", "/storage/refused", token="wrong-token-0000000", content=b"x")
    newest = ask("GET", "/admin/writes?limit=2")["writes"]
    assert [(one["method"], one["path"], one["outcome"]) for one in newest] == [
        ("DELETE", f"{V1}/tables/none", "table_not_found"),
        ("PUT", f"{V1}/storage/noted", "done"),
    ]
    assert all(one["who"] == "primary" and one["from"] == "127.0.0.1" and one["time"] for one in newest)
    journal = (server.folder / "lake" / "server" / "writes.jsonl").read_text()
    assert PRIMARY not in journal
    assert "secret content" not in journal
    assert [one.where for one in here.doctor().findings if one.where == "server/writes.jsonl" and one.level == "ok"]


def test_the_description_is_that_of_what_is_served(ask):
    found = ask("GET", "/openapi.json")
    assert found["openapi"] == "3.1.0"
    served = {(route.method.lower(), route.path.replace("...}", "}")) for route in ROUTES}
    assert {(method, path) for path, methods in found["paths"].items() for method in methods} == served
    operations = [one for methods in found["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    schemas = found["components"]["schemas"]
    text = json.dumps(found)
    assert {name.split('"')[0] for name in text.split("#/components/schemas/")[1:]} <= set(schemas)
    assert schemas["New"]["required"] == ["content"]
    assert found["servers"] == [{"url": V1}]
    assert described(ROUTES, "/behind/it")["servers"] == [{"url": f"/behind/it{V1}"}]
    assert schemas["New"]["additionalProperties"] is False
    limit = next(one for one in found["paths"]["/snapshots"]["get"]["parameters"] if one["name"] == "limit")
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 10_000}


def test_the_description_as_a_page_needs_nothing_from_elsewhere(server):
    page = server.call("GET", "/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    style = page.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert not re.search(r"<script|<link|<img|https?://|url\(", page.text)
    for route in ROUTES:
        assert f"<code>{route.path.replace('...}', '}')}</code>" in page.text
    anchors = set(re.findall(r'id="([^"]+)"', page.text))
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= anchors


def test_metrics_count_what_was_asked(server):
    def figures():
        text = server.call("GET", "/metrics", token=READER)
        assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = {one.name: one for one in text_string_to_metric_families(text.text)}
        return {(s.name, *sorted(s.labels.items())): s.value for one in families.values() for s in one.samples}

    def of(found, name, **labels):
        return found.get((name, *sorted(labels.items())), 0)

    put = {"method": "PUT", "route": "/storage/{key...}"}
    before = figures()
    server.call("PUT", "/storage/counted", content=b"x" * 1000)
    server.call("GET", "/storage/counted")
    server.call("GET", "/no/such/route", token="wrong-token-0000000")
    after = figures()
    assert of(after, "lakehouse_http_requests_total", **put, status="201") == 1 + of(
        before, "lakehouse_http_requests_total", **put, status="201"
    )
    got = {"method": "GET", "route": "/storage/{key...}"}
    for name, labels, more in [
        ("lakehouse_http_received_bytes_total", put, 1000), ("lakehouse_http_sent_bytes_total", got, 1000),
        ("lakehouse_http_request_seconds_count", put, 1), ("lakehouse_auth_failures_total", {}, 1),
    ]:  # fmt: skip
        assert of(after, name, **labels) == of(before, name, **labels) + more, name
    assert of(after, "lakehouse_http_requests_in_flight") == 1, "this very one"
    assert of(after, "lakehouse_up") == 1
    assert of(after, "lakehouse_snapshot_id") > 0
    assert of(after, "lakehouse_journal_bytes", journal="server/writes.jsonl") > 0


def test_an_idempotency_key_over_http(ask, server, here):
    """The answer is given again, another request refused, one that is under way told to wait."""
    headers = {"Idempotency-Key": "over-http-1", "Content-Type": "text/csv"}
    path = "/ingest?table=keyed&force=true"
    first = server.call("POST", path, content="id\n1\n", headers=headers)
    again = server.call("POST", path, content="id\n1\n", headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
    assert ask("POST", path, 422, content="id\n2\n", headers=headers)["code"] == "idempotency_key_reused"
    assert here.catalog.table("keyed").row_count == 1
    newest = ask("GET", "/admin/writes?limit=3")["writes"]
    assert [one["outcome"] for one in newest] == ["idempotency_key_reused", "replayed", "done"]
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        head = f"POST {V1}{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PRIMARY}\r\n"
        head += "Idempotency-Key: over-http-2\r\nContent-Type: text/csv\r\nContent-Length: 5\r\n\r\n"
        slow.sendall(head.encode() + b"id\n")
        headers["Idempotency-Key"] = "over-http-2"
        end = time.monotonic() + 30
        while not list((server.folder / "lake" / "tmp").glob("tmp-upload-*")):  # now it is being worked on
            assert time.monotonic() < end
            time.sleep(0.01)
        found = server.call("POST", path, content=b"id\n3\n", headers=headers)
        problem(found, 409, "request_in_flight")
        assert found.headers["Retry-After"] == "1"
        slow.sendall(b"3\n")
        assert b"200 OK" in slow.recv(4096)
    assert ask("POST", path, content="id\n3\n", headers=headers)["rows"] == 1
    assert here.catalog.table("keyed").row_count == 2


def test_the_history_of_queries(ask, here):
    here.sql("SELECT 42 AS answer")
    assert here.queries(1)[0].sql == "SELECT 42 AS answer"
    assert ask("GET", "/queries?limit=1")["queries"][0]["sql"] == "SELECT 42 AS answer"


# many at once


def test_many_at_once_lose_nothing_and_health_never_waits(server, here):
    """Sixteen clients that load, put, remember and read; meanwhile `/health` is asked all the time."""
    done, waits = threading.Event(), []

    def watch():
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not done.is_set():
                started = time.monotonic()
                assert client.get(f"{server.url}/health").status_code == 200
                waits.append(time.monotonic() - started)
                time.sleep(0.02)

    def work(n):
        with httpx.Client(base_url=server.url + V1, headers=bearer(PRIMARY), trust_env=False, timeout=120) as client:
            told = []
            for k in range(4):
                name = f"{n}-{k}"
                told.append(client.put(f"/storage/many/{name}", content=name.encode()))
                told.append(client.post("/pathway/traces", json={"content": name, "uid": f"many-{name}"}))
                told.append(client.get("/tables/flights"))
            told.append(client.post("/ingest?table=many&format=csv", content=f"name\nrow-{n}\n"))
            return [answer.text for answer in told if answer.status_code not in (200, 201)]

    server_call(server, "POST", "/ingest?table=many&format=csv", content="name\nfirst\n")
    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(16) as pool:
        refused = [text for told in pool.map(work, range(16)) for text in told]
    done.set()
    watcher.join()
    assert refused == []
    names = {f"{n}-{k}" for n in range(16) for k in range(4)}
    assert {one.key.removeprefix("many/") for one in here.storage.list("many/")} == names
    assert {uid for uid in names if here.pathway.has(f"many-{uid}")} == names
    assert here.sql("SELECT count(*), count(DISTINCT name) FROM many").fetchall() == [(17, 17)]
    assert waits


def test_health_is_answered_while_every_thread_waits(server, here):
    """The writer lock is held here, so loads wait; what needs no lock, and `/health`, do not."""
    answers = []

    def load(n):
        answers.append(server_call(server, "POST", "/ingest?table=waiting&format=csv", content=f"i\n{n}\n"))

    with here.transaction():
        here.catalog.create_schema("held")
        threads = [threading.Thread(target=load, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        assert server.client.get("/health").status_code == 200
        assert server.call("GET", "/tables/flights").status_code == 200
        assert answers == []
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 8
    assert here.catalog.table("waiting").row_count == 8


def server_call(server, method, path, **given):
    with httpx.Client(base_url=server.url + V1, headers=bearer(PRIMARY), trust_env=False, timeout=120) as client:
        return client.request(method, path, **given)


def test_odd_clients_do_not_stop_health(server):
    """Half a request, half a body, a header without end: each connection waits for itself."""
    address = ("127.0.0.1", server.port)
    odd = [socket.create_connection(address) for _ in range(30)]
    for n, one in enumerate(odd):
        if n % 3 == 0:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        elif n % 3 == 1:
            head = f"PUT {V1}/storage/slow HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PRIMARY}\r\n"
            one.sendall(f"{head}Content-Length: 100\r\n\r\nx".encode())
    huge = server.client.get("/health", headers={"X-Huge": "x" * 30_000})
    assert huge.status_code == 200
    with socket.create_connection(address) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nX-Huge: ")
        try:
            for _ in range(200):
                one.sendall(b"x" * 10_000)
            ended = one.recv(1) == b""
        except OSError:
            ended = True
        assert ended, "a header without end is not read to its end"
    assert server.client.get("/health").status_code == 200
    assert server.call("GET", "/tables/flights").status_code == 200
    for one in odd:
        one.close()
