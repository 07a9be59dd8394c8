"""What HTTP costs: a request, a load, an object, and rows, each beside the same without it or beside a peer."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from _report import ROOT, Report, main, median, percentile, rounds, scratch, sync

sys.path.insert(0, str(ROOT / "tests" / "integration"))

from serving import PRIMARY, TOKENS, V1, Server, free_port

import lakehouse
from lakehouse.lake import Lakehouse

EMPTY = """
import asyncio, sys
from tornado.web import Application, RequestHandler
class Empty(RequestHandler):
    def get(self): self.finish({"principal": "primary", "scopes": ["read", "write"]})
async def serve():
    Application([("/.*", Empty)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()
asyncio.run(serve())
"""
ARROW = "application/vnd.apache.arrow.stream"


def measure(quick: bool) -> Report:
    """One server process; the other side of each line in a process of its own or in this one, in turns."""
    report = Report("The lake over HTTP", "named in each line")
    rows, stream = (100_000, 1_000_000) if quick else (1_000_000, 10_000_000)
    with scratch() as folder:
        settings = {"query": {"cache_size": "0B", "progress": False, "max_rows": stream + 1}}
        with lakehouse.open(folder / "lake", settings=settings) as lake:
            _fill(lake, stream)
            place = folder / "server"
            place.mkdir()
            environ = {**TOKENS, "LAKEHOUSE_QUERY_MAX_ROWS": str(stream + 1)}
            server = Server(place, ["lakehouse.cli", f"--lake={folder / 'lake'}", "serve"], environ).ready()
            try:
                _requests(report, server, 200 if quick else 2000)
                _loads(report, server, lake, folder, rows, 3)
                _objects(report, server, lake, 20_000_000 if quick else 100_000_000, 3)
                _stream(report, server, lake, 2 if quick else 3)
                _together(report, server, 3.0 if quick else 10.0)
                _datasette(report, server, lake, folder, 20_000 if quick else 100_000, 3)
            finally:
                server.stop()
    return report


def _fill(lake: Lakehouse, rows: int) -> None:
    lake.sql(
        "CREATE TABLE long AS SELECT range AS id, (range * 7919) % 10007 AS n, range / 3 AS x,"
        f" 'word ' || range % 1000 AS word FROM range({rows})"
    )
    lake.sql("CREATE TABLE short AS FROM long LIMIT 10000")


class Line:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        """Send; the answer is not read yet."""
        given = {"Authorization": f"Bearer {PRIMARY}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        self.connection.request(method, path, body, given)
        answer = self.connection.getresponse()
        if answer.status not in (200, 201):
            raise RuntimeError(f"{path}: {answer.status} {answer.read()[:500]!r}")
        return answer

    def whole(self, *asked: Any, **headers: str) -> bytes:
        """Send and read all."""
        return self.ask(*asked, **headers).read()


@contextmanager
def _process(command: list[str], port: int, path: str = "/") -> Iterator[None]:
    """Another server, until it answers and to its end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                Line(port).whole("GET", path)
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _requests(report: Report, server: Server, count: int) -> None:
    port = free_port()
    with _process([sys.executable, "-c", EMPTY, str(port)], port):
        empty, ours = Line(port), Line(server.port)
        found = rounds(
            count,
            empty=lambda: empty.whole("GET", "/"),
            health=lambda: ours.whole("GET", "/health"),
            whoami=lambda: ours.whole("GET", f"{V1}/whoami"),
        )
    less = {name: [second * 1000 for second in seconds[count // 10 :]] for name, seconds in found.items()}
    report.add(
        "GET /health (theirs: an empty Tornado handler), p50", median(less["health"]), "ms", median(less["empty"])
    )
    report.add("GET /whoami with a token, p50", median(less["whoami"]), "ms", median(less["empty"]))
    report.add("GET /whoami with a token, p99", percentile(less["whoami"], 99), "ms", percentile(less["empty"], 99))
    added = median([one - other for one, other in zip(less["whoami"], less["empty"], strict=True)])
    report.add("what guard, decoding, thread and JSON add to a request", added, "ms")


def _loads(report: Report, server: Server, lake: Lakehouse, folder: Path, rows: int, count: int) -> None:
    path = folder / "load.csv"
    lake.sql(f"COPY (SELECT * FROM long LIMIT {rows}) TO '{path}' (FORMAT csv, HEADER)")
    line, numbers = Line(server.port), iter(range(1_000_000))

    def over() -> None:
        table = f"over_{next(numbers)}"
        with path.open("rb") as file:
            line.whole("POST", f"{V1}/ingest?table={table}&force=true", file, Content_Type="text/csv")

    found = rounds(count, here=lambda: lake.ingest(path, f"here_{next(numbers)}", force=True), over=over)
    report.add(f"loading {rows:,} rows of CSV (theirs: lake.ingest)", median(found["over"]), "s", median(found["here"]))


def _objects(report: Report, server: Server, lake: Lakehouse, size: int, count: int) -> None:
    content, line = os.urandom(1_000_000) * (size // 1_000_000), Line(server.port)
    sync()
    put = rounds(
        count,
        here=lambda: lake.storage.put("here", content),
        over=lambda: line.whole("PUT", f"{V1}/storage/over", content),
    )
    got = rounds(count, here=lambda: lake.storage.get("here"), over=lambda: line.whole("GET", f"{V1}/storage/over"))
    megabytes = size // 1_000_000
    report.add(f"PUT of {megabytes} MB (theirs: lake.storage)", median(put["over"]), "s", median(put["here"]))
    report.add(f"GET of {megabytes} MB (theirs: lake.storage)", median(got["over"]), "s", median(got["here"]))


def _stream(report: Report, server: Server, lake: Lakehouse, count: int) -> None:
    import pyarrow as pa

    query = "SELECT id, n, x, word FROM long"
    line = Line(server.port)
    total = lake.sql("SELECT count(*) FROM long").arrow()[0][0].as_py()

    def over() -> None:
        answer = line.ask(
            "POST", f"{V1}/query", json.dumps({"sql": query}), Accept=ARROW, Content_Type="application/json"
        )
        with pa.ipc.open_stream(answer) as batches:
            found = sum(batch.num_rows for batch in batches)
        answer.read()
        assert found == total, (found, total)

    def here() -> None:
        assert sum(batch.num_rows for batch in lake.sql(query).reader()) == total

    over()
    before = _memory(server)
    found = rounds(count, here=here, over=over)
    report.add(
        f"{total / 1e6:g} M rows as an Arrow stream, a second (theirs: read in process)",
        total / median(found["over"]), "/s", total / median(found["here"]), at_least=0.8,
    )  # fmt: skip
    report.add("memory that the server grew by meanwhile", _memory(server) - before, "MB", at_most=100)


def _together(report: Report, server: Server, seconds: float) -> None:
    """Small queries of 1 and 16 clients at once."""
    body = json.dumps({"sql": "SELECT word, count(*), sum(x) FROM short GROUP BY word ORDER BY word LIMIT 10"})
    for clients in (1, 16):
        counts, waits, end = [0] * clients, [], time.monotonic() + seconds

        def work(number: int, counts: list[int] = counts, waits: list[float] = waits, end: float = end) -> None:
            line = Line(server.port)
            while (started := time.monotonic()) < end:
                line.whole("POST", f"{V1}/query", body, Content_Type="application/json")
                counts[number] += 1
                waits.append(time.monotonic() - started)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report.add(f"queries of {clients} client{'s' if clients > 1 else ''}", sum(counts) / seconds, "/s")
        report.add(f"waiting for one of {clients}, p99", percentile(waits, 99) * 1000, "ms")


def _datasette(report: Report, server: Server, lake: Lakehouse, folder: Path, rows: int, count: int) -> None:
    """The same rows as JSON, all at once and in small answers, beside Datasette on SQLite."""
    path = folder / "peer.db"
    with closing(sqlite3.connect(path)) as peer:
        peer.execute("CREATE TABLE long (id INTEGER, n INTEGER, x REAL, word TEXT)")
        frame = lake.sql(f"SELECT * FROM long ORDER BY id LIMIT {rows}").df()
        peer.executemany("INSERT INTO long VALUES (?, ?, ?, ?)", frame.itertuples(index=False))
        peer.commit()
    port, query = free_port(), f"select id, n, x, word from long where id < {rows}"
    command = [
        sys.executable,
        "-m",
        "datasette",
        str(path),
        "--port",
        str(port),
        "--setting",
        "max_returned_rows",
        str(rows),
    ]
    command += ["--setting", "sql_time_limit_ms", "60000"]
    with _process(command, port, "/-/versions.json"):
        theirs, ours = Line(port), Line(server.port)
        asked = "/peer.json?" + "&".join(["_shape=arrays", "sql=" + query.replace(" ", "+").replace("<", "%3C")])
        small = asked.replace(f"%3C+{rows}", "%3C+100")

        def over(limit: int) -> Callable[[], None]:
            body = json.dumps({"sql": query.replace(str(rows), str(limit))})

            def work() -> None:
                answer = json.loads(ours.whole("POST", f"{V1}/query", body, Content_Type="application/json"))
                assert len(answer["rows"]) == limit, len(answer["rows"])

            return work

        def datasette(path: str, limit: int) -> Callable[[], None]:
            def work() -> None:
                answer = json.loads(theirs.whole("GET", path))
                assert len(answer["rows"]) == limit, len(answer["rows"])

            return work

        many = rounds(count, ours=over(rows), theirs=datasette(asked, rows))
        few = rounds(count * 10, ours=over(100), theirs=datasette(small, 100))
    report.add(
        f"{rows:,} rows as JSON, a second (theirs: Datasette)",
        rows / median(many["ours"]),
        "/s",
        rows / median(many["theirs"]),
    )
    report.add(
        "100 rows as JSON, p50 (theirs: Datasette)", median(few["ours"]) * 1000, "ms", median(few["theirs"]) * 1000
    )
    report.notes.append(
        "Datasette reads SQLite in its own process; here each query runs in a process that can do no harm"
    )


def _memory(server: Server) -> float:
    """Megabytes of the server, without its workers."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1000


if __name__ == "__main__":
    main(measure)
