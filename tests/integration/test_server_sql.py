"""SQL over HTTP: every format beside the same query here, what ends a query, and who may see whose."""

import io
import json
import socket
import threading
import time
import uuid

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from serving import PRIMARY, READER, SECOND, TOKENS, V1, Server, bearer, problem

import lakehouse

ARROW, NDJSON = "application/vnd.apache.arrow.stream", "application/x-ndjson"
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
LONG = "SELECT sum(a.i * b.i) FROM big a, big b WHERE a.i + b.i > 17"
ODD = """
    SELECT i::BIGINT AS n, (i / 3)::DECIMAL(9, 2) AS d, 9223372036854775807 - i AS large, 'é"' || i AS text,
        TIMESTAMPTZ '2024-02-29 12:00:00.123456+00' + i * INTERVAL 1 DAY AS z, TIMESTAMP '2024-01-01' AS t,
        DATE '2024-01-31' AS day, [i, NULL] AS list, {'a': i, 'b': DATE '2024-01-01'} AS struct, i % 2 = 0 AS flag,
        'x'::BLOB AS bytes, CASE WHEN i = 1 THEN NULL ELSE i / 2 END AS half, TIMESTAMP '20000-01-01' AS far
    FROM range(3) r(i) ORDER BY i
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sql")
    with lakehouse.open(folder / "lake") as lake:
        lake.sql(f"CREATE TABLE odd AS {ODD}")
        lake.sql("CREATE TABLE big AS SELECT i, i::VARCHAR AS text FROM range(3_000_000) t(i)")
        lake.sql("CREATE TABLE people (id BIGINT, name VARCHAR)")
    (folder / "lake" / "lakehouse.toml").write_text("[query]\nsandbox_threads = 1\nsandbox_workers = 4\n")
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


def ask(server, sql, accept=None, token=PRIMARY, headers=None, **more):
    headers = {**({"Accept": accept} if accept else {}), **(headers or {})}
    return server.call("POST", "/query", token=token, headers=headers, json={"sql": sql, **more})


def told(server, query_id, token=PRIMARY):
    return server.call("GET", f"/queries/{query_id}", token=token)


def wait(check):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def state(server, query_id):
    found = told(server, query_id)
    return found.json()["state"] if found.status_code == 200 else None


def test_arrow_and_parquet_have_the_rows_and_types_of_the_lake(server, here):
    here_too = here.sql("SELECT * FROM odd ORDER BY n").arrow()
    answer = ask(server, "SELECT * FROM odd ORDER BY n", ARROW)
    assert answer.headers["Content-Type"] == ARROW
    assert answer.headers["Lakehouse-Snapshot"] == str(here.catalog.current_snapshot().id)
    assert answer.headers["Lakehouse-Rows"] == "3"
    assert state(server, answer.headers["Lakehouse-Query-Id"]) == "done"
    found = pa.ipc.open_stream(answer.content).read_all()
    assert found.drop(["far"]).to_pylist() == here_too.drop(["far"]).to_pylist()
    assert found.schema.names == here_too.schema.names
    parquet = pq.read_table(io.BytesIO(ask(server, "SELECT * FROM odd ORDER BY n", PARQUET).content))
    assert parquet.drop(["far"]).to_pylist() == found.drop(["far"]).to_pylist()
    problem(ask(server, "SELECT INTERVAL 1 DAY AS i", PARQUET), 406, "not_acceptable")
    assert ask(server, "SELECT INTERVAL 1 DAY AS i").status_code == 200


def test_json_ndjson_and_csv_lose_no_digit(server):
    page = ask(server, "SELECT * FROM odd ORDER BY n").json()
    assert [column["type"] for column in page["columns"]][:3] == ["BIGINT", "DECIMAL(9,2)", "BIGINT"]
    first = [
        0, "0.00", 9223372036854775807, 'é"0', "2024-02-29T12:00:00.123456Z", "2024-01-01T00:00:00.000000", "2024-01-31",
        [0, None], {"a": 0, "b": "2024-01-01"}, True, "eA==", 0.0, "20000-01-01T00:00:00.000000",
    ]  # fmt: skip
    assert page["rows"][0] == first
    assert page["rows"][1][11] is None
    assert page["row_count"] == len(page["rows"]) == 3
    lines = ask(server, "SELECT * FROM odd ORDER BY n", NDJSON).text.splitlines()
    names = [column["name"] for column in page["columns"]]
    assert [json.loads(line) for line in lines] == [dict(zip(names, row, strict=True)) for row in page["rows"]]
    text = ask(server, "SELECT * FROM odd ORDER BY n", CSV)
    table = pyarrow.csv.read_csv(io.BytesIO(text.content))
    assert table.column("large").to_pylist() == [9223372036854775807 - i for i in range(3)]
    assert table.column("text").to_pylist() == ['é"0', 'é"1', 'é"2']
    assert table.column("struct")[1].as_py() == '{"a":1,"b":"2024-01-01"}'
    twice = ask(server, "SELECT 1 AS a, 2 AS a, 3 AS a_1", NDJSON).json()
    assert sorted(twice.values()) == [1, 2, 3]
    nothing = ask(server, "SELECT * FROM people")
    assert (nothing.json()["rows"], nothing.headers["Lakehouse-Rows"]) == ([], "0")
    for accept in (ARROW, PARQUET, CSV, NDJSON):
        assert ask(server, "SELECT * FROM people", accept).status_code == 200


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        (None, "application/json"), ("*/*", "application/json"), ("application/*", "application/json"), ("text/*", CSV),
        (f"{CSV};q=0.5, {NDJSON};q=0.9", NDJSON), ("text/html, application/ndjson", NDJSON), (f"{ARROW};q=0", None),
        ("image/png", None), (f"{PARQUET}, {CSV}", PARQUET),
    ],
)  # fmt: skip
def test_the_format_is_the_one_that_is_liked_best(server, accept, given):
    answer = ask(server, "SELECT 1 AS one", headers={"Accept": accept or ""})
    if given is None:
        problem(answer, 406, "not_acceptable")
    else:
        assert answer.headers["Content-Type"] == given


def test_values_limits_and_the_past(server, here):
    assert ask(server, "SELECT $a + $b AS c", params={"a": 1, "b": 2}).json()["rows"] == [[3]]
    assert ask(server, "SELECT ? || ?", params=["x'; DROP TABLE odd; --", "y"]).json()["rows"] == [
        ["x'; DROP TABLE odd; --y"]
    ]
    assert len(ask(server, "SELECT * FROM big", limit=5).json()["rows"]) == 5
    before = here.catalog.current_snapshot().id
    here.sql("INSERT INTO people VALUES (1, 'ann')")
    now, then = ask(server, "SELECT count(*) FROM people"), ask(server, "SELECT count(*) FROM people", at=before)
    assert (now.json()["rows"], then.json()["rows"]) == ([[1]], [[0]])
    assert (now.json()["snapshot"], then.json()["snapshot"]) == (before + 1, before)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"sql": "SELECT"}, 400, "sql_syntax"),
        ({"sql": ""}, 400, "sql_syntax"),
        ({"sql": "SELECT * FROM nowhere"}, 404, "table_not_found"),
        ({"sql": "SELECT nothing FROM odd"}, 404, "column_not_found"),
        ({"sql": "SELECT 1", "at": 99999}, 404, "snapshot_not_found"),
        ({"sql": "SELECT ?"}, 400, "sql_parameter"),
        ({"sql": "SELECT 1; SELECT 2"}, 403, "sql_refused"),
        ({"sql": "DROP TABLE odd"}, 403, "sql_refused"),
        ({"sql": "SELECT * FROM read_text('/etc/passwd')"}, 403, "sql_refused"),
        ({"sql": "COPY odd TO '/tmp/x.csv'"}, 403, "sql_refused"),
        ({"sql": "ATTACH '/tmp/x.db'"}, 403, "sql_refused"),
        ({"sql": LONG, "timeout": 0.3}, 408, "query_timeout"),
        ({"sql": "SELECT 1", "timeout": 0}, 400, "request_invalid"),
        ({"sql": "SELECT 1", "limit": -1}, 400, "request_invalid"),
        ({"sql": "SELECT 1", "more": 1}, 400, "request_invalid"),
        ({"sql": "SELECT 1\x00"}, None, None),
        ({"sql": "SELECT '\ud83d'"}, 400, None),
    ],
)
def test_queries_that_are_refused(server, body, status, code):
    answer = server.call("POST", "/query", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    if status is not None:
        problem(answer, status, code)
        assert str(server.folder) not in answer.text


def test_statements_change_the_lake_once(server, here):
    key = {"Idempotency-Key": uuid.uuid4().hex}
    insert = {"sql": "INSERT INTO people VALUES (?, ?), (8, 'bo')", "params": [7, "cy"]}
    done = server.call("POST", "/statements", json=insert, headers=key)
    assert (done.status_code, done.json()["rows"], done.json()["kind"]) == (200, 2, "write")
    again = server.call("POST", "/statements", json=insert, headers=key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (done.json(), "true")
    assert here.sql("SELECT count(*) FROM people WHERE id > 6").fetchall() == [(2,)]
    assert here.catalog.current_snapshot().id == done.json()["snapshot"]
    problem(
        server.call("POST", "/statements", json={"sql": "DROP TABLE people"}, headers=key),
        422,
        "idempotency_key_reused",
    )
    problem(server.call("POST", "/statements", json=insert, token=READER), 403, "forbidden")
    problem(server.call("POST", "/statements", json={"sql": "ATTACH '/tmp/x.db'"}), 403, "sql_refused")
    problem(server.call("POST", "/statements", json={"sql": "DROP TABLE nowhere"}), 404)
    problem(server.call("POST", "/statements", json={"sql": " -- nothing"}), 400, "sql_syntax")
    made = server.call("POST", "/statements", json={"sql": "CREATE TABLE made AS SELECT * FROM odd"})
    assert made.json()["kind"] == "ddl", made.text
    assert server.call("POST", "/statements", json={"sql": "DROP TABLE made"}).status_code == 200


def test_a_query_is_watched_and_cancelled_by_who_may(server):
    """The reader's own; whoever may write sees it too, another reader's id is nobody's."""
    mine, answers = f"mine-{uuid.uuid4().hex}", []

    def run():
        with httpx.Client(trust_env=False, timeout=60) as client:
            headers = {**bearer(READER), "Lakehouse-Query-Id": mine}
            answers.append(client.post(server.url + V1 + "/query", json={"sql": LONG}, headers=headers))

    thread = threading.Thread(target=run)
    thread.start()
    wait(lambda: state(server, mine) == "running")
    found = wait(lambda: (one := told(server, mine, READER).json())["progress"] is not None and one)
    assert (found["principal"], found["sql"], found["state"]) == ("read 1", LONG, "running")
    problem(ask(server, "SELECT 1", headers={"Lakehouse-Query-Id": mine}), 409, "conflict")
    assert mine in [one["query_id"] for one in server.call("GET", "/queries?limit=1", token=SECOND).json()["running"]]
    assert "lakehouse_queries_running 1.0" in server.call("GET", "/metrics", token=READER).text
    assert server.call("DELETE", f"/queries/{mine}", token=READER).status_code == 200
    thread.join()
    problem(answers[0], 409, "query_cancelled")
    assert told(server, mine).json()["state"] == "cancelled"
    assert server.call("DELETE", f"/queries/{mine}").json()["state"] == "cancelled"
    own = ask(server, "SELECT 1 AS one").headers["Lakehouse-Query-Id"]
    assert told(server, own, SECOND).status_code == 200
    problem(told(server, own, READER), 404, "not_found")
    problem(server.call("DELETE", f"/queries/{own}", token=READER), 404)
    problem(ask(server, "SELECT 1", headers={"Lakehouse-Query-Id": "a b"}), 400, "request_invalid")


def raw(server, body, query_id):
    """A query whose answer is read, or not, by hand."""
    one = socket.create_connection(("127.0.0.1", server.port))
    content = json.dumps(body).encode()
    head = f"POST {V1}/query HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PRIMARY}\r\nAccept: {ARROW}\r\n"
    head += (
        f"Lakehouse-Query-Id: {query_id}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    one.sendall(head.encode() + content)
    return one


@pytest.mark.parametrize("sql", [LONG, "SELECT * FROM big"])
def test_who_goes_away_cancels(server, sql):
    """Before the first row, and in the middle of them."""
    query_id = uuid.uuid4().hex
    with raw(server, {"sql": sql}, query_id) as one:
        wait(lambda: state(server, query_id) == "running")
        if sql != LONG:
            one.recv(1000)
    wait(lambda: state(server, query_id) == "cancelled")
    assert ask(server, "SELECT 1 AS one").status_code == 200


def test_a_large_answer_goes_through_in_little_memory_and_waits_for_its_reader(server):
    query_id = uuid.uuid4().hex
    ask(server, "SELECT 1", ARROW)  # what is loaded once
    before = resident(server)
    with raw(server, {"sql": "SELECT * FROM big"}, query_id):
        wait(lambda: told(server, query_id).json().get("rows", 0) > 0)
        seen = []
        while len(seen) < 3 or seen[-1] != seen[-3]:  # nobody reads: it stands still
            time.sleep(0.3)
            seen.append(told(server, query_id).json()["rows"])
        assert seen[-1] < 3_000_000
        assert resident(server) - before < 120 << 20
        assert server.client.get("/health").status_code == 200
    wait(lambda: state(server, query_id) == "cancelled")
    count = 0
    with server.client.stream(
        "POST", f"{V1}/query", json={"sql": "SELECT * FROM big"}, headers={**bearer(PRIMARY), "Accept": ARROW}
    ) as got:
        assert "Lakehouse-Rows" not in got.headers
        with pa.ipc.open_stream(pa.PythonFile(Reader(got.iter_bytes()), "r")) as stream:
            for batch in stream:
                count += batch.num_rows
    assert count == 3_000_000
    assert resident(server) - before < 120 << 20


class Reader(io.RawIOBase):
    """A file over the pieces of an answer."""

    def __init__(self, pieces):
        self.pieces, self.rest = pieces, b""

    def read(self, size=-1):
        while len(self.rest) < size and (piece := next(self.pieces, b"")):
            self.rest += piece
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def readable(self):
        return True


def resident(server):
    with open(f"/proc/{server.process.pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS"))


@pytest.mark.parametrize("accept", [ARROW, "application/json", NDJSON, CSV, PARQUET])
def test_an_error_behind_the_first_rows_is_no_short_answer(server, accept):
    """The connection is cut before the end of the answer: every client sees that it is not whole."""
    sql = "SELECT CASE WHEN i = 2_900_000 THEN 'no' ELSE text END::BIGINT AS n FROM big"
    with pytest.raises(httpx.RemoteProtocolError):
        ask(server, sql, accept)
    assert ask(server, "SELECT 1 AS one").status_code == 200


def test_ready_says_what_protects_the_lake(server):
    sql = server.call("GET", "/ready").json()["sql"]
    assert (sql["ok"], sql["protection"]) == (True, "full"), sql
    assert "Landlock" in sql["why"]
    assert "SQL over HTTP: protection full" in server.log
