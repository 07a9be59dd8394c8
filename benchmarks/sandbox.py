"""SQL from strangers: what it costs to run in a worker that can do no harm, against the same in this process."""

from __future__ import annotations

import re
import statistics
import threading
import time
from pathlib import Path

import _tpch
from _report import Report, main, median, percentile, rounds, scratch, timed

import lakehouse
from lakehouse.lake import Lakehouse
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.sandbox import Sandbox

_SMALL = "SELECT count(*), sum(n)::BIGINT FROM small WHERE n < $most"
_STREAM = "SELECT id, n, x FROM large"
_GROUPED = "SELECT n % 100 AS g, sum(x) FROM medium GROUP BY g ORDER BY g"
_TARGET_OVERHEAD = 5.0  # milliseconds, from the issue


def measure(quick: bool) -> Report:
    """Interleaved with the same call of `lake.sql`, its result cache off."""
    rows = 1_000_000 if quick else 10_000_000
    report = Report("SQL from strangers in a worker", "the same query through lake.sql in this process, cache off")
    with scratch() as folder:
        settings = {"query": {"cache_size": "0B", "progress": False, "sandbox_workers": 32, "max_rows": rows + 1}}
        with lakehouse.open(folder / "lake", settings=settings) as lake:
            _fill(lake, rows)
            report.notes.append(f"protection: {lake.sandbox().protection} ({lake.sandbox().reason})")
            _cold(report, lake, 3 if quick else 7)
            _warm(report, lake, 50 if quick else 400)
            _throughput(report, lake, 2.0 if quick else 5.0)
            _stream(report, lake, rows, 2 if quick else 5)
            _memory(report, lake)
        _gate(report, folder)
    return report


def _fill(lake: Lakehouse, rows: int) -> None:
    for name, count in (("small", 10_000), ("medium", 200_000), ("large", rows)):
        lake.sql(
            f"CREATE TABLE {name} AS SELECT range AS id, (range * 7919) % 10007 AS n, range / 3 AS x FROM range({count})"
        )


def _cold(report: Report, lake: Lakehouse, count: int) -> None:
    """A pool that has no worker yet, until the first answer is whole."""
    seconds = []
    for _ in range(count):
        pool = _pool(lake)
        sandbox = Sandbox(pool, "cold", lake.settings, lake.catalog)
        seconds.append(timed(lambda sandbox=sandbox: sandbox.sql(_SMALL, {"most": 5}).arrow()))
        pool.close()
    report.add("first answer of a cold worker", median(seconds) * 1000, "ms")


def _warm(report: Report, lake: Lakehouse, count: int) -> None:
    sandbox = lake.sandbox()
    for name, query, values in (("small", _SMALL, {"most": 5000}), ("grouped", _GROUPED, None)):
        works = {
            "here": lambda query=query, values=values: lake.sql(query, values).arrow(),
            "there": lambda query=query, values=values: sandbox.sql(query, values).arrow(),
        }
        rounds(5, **works)
        found = rounds(count if name == "small" else count // 4, **works)
        here, there = ([second * 1000 for second in found[side]] for side in ("here", "there"))
        added = [t - h for h, t in zip(here, there, strict=True)]
        report.add(f"warm query ({name}), p50", median(there), "ms", median(here))
        report.add(f"warm query ({name}), p99", percentile(there, 99), "ms", percentile(here, 99))
        report.add(f"warm query ({name}), added to a call, p50", median(added), "ms", at_most=_TARGET_OVERHEAD)
        report.add(f"warm query ({name}), added to a call, p99", percentile(added, 99), "ms")


def _throughput(report: Report, lake: Lakehouse, seconds: float) -> None:
    for clients in (1, 4, 16):
        rates = {}
        for side in ("here", "there"):
            rates[side] = _rate(lake, clients, seconds, there=side == "there")
        report.add(f"{clients} clients, queries a second", rates["there"], "/s", rates["here"])


def _rate(lake: Lakehouse, clients: int, seconds: float, *, there: bool) -> float:
    """Queries a second of some clients, each a principal of its own."""
    counts = [0] * clients

    def client(number: int) -> None:
        sandbox = lake.sandbox(f"client {number}")
        ask = (lambda: sandbox.sql(_SMALL, {"most": number}).arrow()) if there else _here(lake, number)
        ask()  # its worker is there
        barrier.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            ask()
            counts[number] += 1

    barrier = threading.Barrier(clients)
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _here(lake: Lakehouse, number: int):
    return lambda: lake.sql(_SMALL, {"most": number}).arrow()


def _stream(report: Report, lake: Lakehouse, rows: int, count: int) -> None:
    """All rows of a large table, batch by batch, on either side."""
    sandbox = lake.sandbox()
    peaks: list[int] = []

    def there() -> None:
        with sandbox.sql(_STREAM) as answer:
            taken = sum(batch.num_rows for batch in answer.batches())
            peaks.append(_peak(answer._worker.pid))
        assert taken == rows

    def here() -> None:
        assert sum(batch.num_rows for batch in lake.sql(_STREAM).reader(65_536)) == rows

    works = {"here": here, "there": there}
    rounds(1, **works)
    before = _peak(None)
    found = rounds(count, **works)
    report.add(
        f"{rows:,} rows, rows a second", rows / median(found["there"]), "/s", rows / median(found["here"]), at_least=0.8
    )
    report.add("… peak memory of the worker", max(peaks), "MB")
    report.add("… peak memory of this process grew by", _peak(None) - before, "MB")


def _memory(report: Report, lake: Lakehouse) -> None:
    """Private memory of warm workers, which is what one more of them costs."""
    pool = _pool(lake)
    found = []
    for number in range(4):
        Sandbox(pool, str(number), lake.settings, lake.catalog).sql(_GROUPED).arrow()
    for worker in pool._workers:
        text = Path(f"/proc/{worker.pid}/smaps_rollup").read_text("utf-8")
        found.append(sum(int(kb) for kb in re.findall(r"Private_\w+:\s+(\d+)", text)) / 1000)
    pool.close()
    report.add("private memory of a warm worker", statistics.mean(found), "MB")


def _gate(report: Report, folder: Path) -> None:
    """How long the gate looks at the 22 queries of TPC-H, and the 99 of TPC-DS where their wheel is there."""
    import duckdb

    from lakehouse.query.gate import Gate, names

    for title, extension, scale in (("TPC-H", "tpch", "dbgen"), ("TPC-DS", "tpcds", "dsdgen")):
        texts = _texts(extension)
        if texts is None:
            report.notes.append(f"{title}: the wheel duckdb-extension-{extension} is not installed")
            continue
        with lakehouse.open(folder / extension) as lake:
            for statement in _tables(extension, scale):
                lake.sql(statement)
            with duckdb.connect(config={"threads": 1}) as parsing:
                gate = Gate(parsing, names(lake.catalog.metadata, lake.catalog.metadata.current()))
                seconds = [min(timed(lambda text=text, gate=gate: gate.read(text)) for _ in range(3)) for text in texts]
        report.add(f"gate, one of the {len(texts)} queries of {title}, median", median(seconds) * 1000, "ms")
        report.add(f"gate, one of the {len(texts)} queries of {title}, longest", max(seconds) * 1000, "ms")


def _texts(extension: str) -> list[str] | None:
    from lakehouse.catalog.extensions import wheel

    if extension == "tpch":
        return list(_tpch.queries().values())
    import duckdb

    if wheel(extension, duckdb.__version__) is None:
        return None
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{wheel(extension, duckdb.__version__)}'")
        return [row[0] for row in connection.execute("SELECT query FROM tpcds_queries()").fetchall()]


def _tables(extension: str, call: str) -> list[str]:
    """Statements that make the empty tables of a benchmark."""
    import duckdb

    from lakehouse.catalog import extensions

    with duckdb.connect() as connection:
        extensions.load(connection, extension)
        connection.execute(f"CALL {call}(sf = 0)")
        rows = connection.execute("SELECT sql FROM duckdb_tables()").fetchall()
    return [re.sub(r",?\s*PRIMARY KEY\([^)]*\)| NOT NULL| PRIMARY KEY", "", row[0]) for row in rows]


def _pool(lake: Lakehouse) -> Pool:
    return Pool(lake.path, lake.settings, read_only=False)


def _peak(process: int | None) -> int:
    status = Path(f"/proc/{process or 'self'}/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1000


if __name__ == "__main__":
    main(measure)
