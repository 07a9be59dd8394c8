"""`kill -9` at any moment of a write: the table as before or complete, and everything acknowledged is there."""

import random
import time

import pytest

import lakehouse

ROWS = 3000
OPEN = "import lakehouse\nlake = lakehouse.open(args[0])\nsay({'ready': 1})\nsys.stdin.readline()\n"
WORK = {
    "insert": "lake.sql(f'INSERT INTO t SELECT {{n}}, range FROM range({rows})'); say({{'n': n}})",
    "append": "r = lake.ingest(frame(n), 't'); say({{'n': n, 'snapshot': r.snapshot, 'sha': r.sha256}})",
    "replace": "r = lake.ingest(frame(n), 't', mode='replace'); say({{'n': n, 'snapshot': r.snapshot, 'sha': r.sha256}})",
    "create": "lake.sql(f'CREATE OR REPLACE TABLE t AS SELECT {{n}} AS n, range AS i FROM range({rows})'); say({{'n': n}})",
}
FRAME = """
import pyarrow as pa
def frame(n): return pa.table({{"n": pa.array([n] * {rows}, pa.int64()), "i": pa.array(range({rows}), pa.int64())}})
"""


@pytest.mark.parametrize("kind", WORK)
def test_kill_at_random_moments(lake, child, kind):
    lake.sql("CREATE TABLE t (n BIGINT, i BIGINT)")
    chance = random.Random(kind)
    number = 0
    for _ in range(5):
        loop = f"for n in range({number}, {number} + 1000):\n    {WORK[kind].format(rows=ROWS)}\n"
        writer = child(OPEN + FRAME.format(rows=ROWS) + loop, lake.path)
        assert writer.hear() == {"ready": 1}
        writer.go()
        said = [writer.hear()]  # it is really writing
        time.sleep(chance.uniform(0, 0.25))
        said += writer.kill()
        acknowledged = [one["n"] for one in said]
        assert acknowledged == list(range(number, number + len(acknowledged)))
        with lakehouse.open(lake.path) as after:
            whole = after.sql("SELECT n, count(*), sum(i), count(DISTINCT i) FROM t GROUP BY n ORDER BY n").fetchall()
            assert all(row[1:] == (ROWS, ROWS * (ROWS - 1) // 2, ROWS) for row in whole)
            there = [row[0] for row in whole]
            last = acknowledged[-1]
            if kind in ("insert", "append"):  # the one under way may have been committed and not yet said
                assert there in (list(range(last + 1)), list(range(last + 2)))
            else:
                assert there in ([last], [last + 1])
            assert after.catalog.table("t").row_count == ROWS * len(there)
            if "snapshot" in said[-1]:
                assert after.sql(
                    "SELECT count(*) FROM t WHERE n = $n", {"n": last}, at=said[-1]["snapshot"]
                ).fetchall() == [(ROWS,)]
            number = there[-1] + 1
            after.sql(f"INSERT INTO t SELECT {number}, range FROM range({ROWS})")
            number += 1
        assert (
            lake.sql("SELECT count(DISTINCT n), max(n) FROM t WHERE n >= $n", {"n": last}).fetchall()[0][1]
            == number - 1
        )


def test_a_load_that_was_killed_is_recognised_if_it_was_committed(lake, child, tmp_path):
    """Run the same load again and again, killing it: in the end the rows are there once."""
    (tmp_path / "a.csv").write_text("id,x\n" + "".join(f"{i},{i}\n" for i in range(ROWS)))
    chance = random.Random(8)
    for _ in range(5):
        writer = child(OPEN + "r = lake.ingest(args[1], 't')\nsay({'rows': r.rows})", lake.path, tmp_path / "a.csv")
        assert writer.hear() == {"ready": 1}
        writer.go()
        time.sleep(chance.uniform(0, 0.2))
        writer.kill()
    assert lake.ingest(tmp_path / "a.csv", "t").rows == ROWS
    assert lake.sql("SELECT count(*), count(DISTINCT id) FROM t").fetchall() == [(ROWS, ROWS)]
    assert lake.ingest(tmp_path / "a.csv", "t").duplicate is True


def test_kill_while_the_lake_is_made(tmp_path, child):
    chance = random.Random(9)
    folder = tmp_path / "lake"
    for _ in range(4):
        maker = child(
            "import lakehouse.lake\nsay({'ready': 1})\nlakehouse.open(args[0])\nsay({'made': 1})\nsys.stdin.readline()",
            folder,
        )
        assert maker.hear() == {"ready": 1}
        time.sleep(chance.uniform(0, 0.4))
        maker.kill()
        with lakehouse.open(folder) as lake:
            lake.sql("CREATE OR REPLACE TABLE t AS SELECT 1 AS x")
            assert lake.sql("SELECT x FROM t").fetchall() == [(1,)]
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
