"""Several processes on one lake at once: nothing lost, nobody starved, readers never waiting."""

import threading

import pytest

import lakehouse
from lakehouse.errors import LockTimeout

OPEN = "import lakehouse\nlake = lakehouse.open(args[0])\nsay('ready')\nsys.stdin.readline()\n"


def started(child, count, code, *args):
    """Children that are all ready, then let go at once."""
    children = [child(code, *args, number) for number in range(count)]
    for one in children:
        assert one.hear() == "ready"
    for one in children:
        one.go()
    return children


def test_four_processes_insert_250_rows_each(lake, child):
    lake.sql("CREATE TABLE t (who INTEGER, number INTEGER)")
    code = OPEN + (
        "for number in range(250):\n"
        "    lake.sql('INSERT INTO t VALUES ($w, $n)', {'w': int(args[1]), 'n': number})\n"
        "say('done')"
    )
    for one in started(child, 4, code, lake.path):
        assert one.end() == ["done"]
    assert lake.sql("SELECT who, count(*), count(DISTINCT number) FROM t GROUP BY who ORDER BY who").fetchall() == [
        (who, 250, 250) for who in range(4)
    ]
    assert lake.catalog.table("t").row_count == 1000
    assert len(lake.catalog.table("t").snapshots()) == 1001


def test_four_processes_create_the_same_lake(tmp_path, child):
    code = (
        "import lakehouse\nsay('ready')\nsys.stdin.readline()\n"
        "with lakehouse.open(args[0]) as lake:\n"
        "    lake.sql(f'CREATE TABLE t{args[1]} AS SELECT {args[1]} AS x')\n"
        "say('done')"
    )
    for one in started(child, 4, code, tmp_path / "new" / "lake"):
        assert one.end() == ["done"]
    with lakehouse.open(tmp_path / "new" / "lake") as lake:
        assert [table.name for table in lake.catalog.tables()] == ["t0", "t1", "t2", "t3"]
        assert [snapshot.id for snapshot in lake.catalog.snapshots()] == [4, 3, 2, 1, 0]


def test_two_processes_create_the_same_table(lake, child):
    code = OPEN + (
        "try:\n"
        "    lake.sql(f'CREATE TABLE t AS SELECT {args[1]} AS x')\n"
        "    say('made')\n"
        "except lakehouse.LakehouseError as error:\n"
        "    say([type(error).__name__, error.message])\n"
    )
    said = [one.end()[0] for one in started(child, 2, code, lake.path)]
    assert said.count("made") == 1
    refused = next(value for value in said if value != "made")
    assert refused[0] == "AlreadyExists"
    assert "t" in refused[1]
    assert lake.sql("SELECT x FROM t").fetchall() == [(said.index("made"),)]
    assert len(lake.catalog.snapshots()) == 2


def test_four_processes_load_the_same_file(lake, child, tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n" + "".join(f"{i},{i * 2}\n" for i in range(5000)))
    code = OPEN + "r = lake.ingest(args[1], 't')\nsay([r.duplicate, r.rows, r.snapshot, r.sha256])"
    said = [one.end()[0] for one in started(child, 4, code, lake.path, tmp_path / "a.csv")]
    assert sorted(value[0] for value in said) == [False, True, True, True]
    assert len({tuple(value[1:]) for value in said}) == 1
    assert lake.sql("SELECT count(*), sum(x) FROM t").fetchall() == [(5000, 5000 * 4999)]
    # Those who came second had written the rows already: nothing of that is left.
    assert len(list((lake.path / "data").rglob("*.parquet"))) == 1


def test_readers_do_not_wait_for_a_writer(lake, child):
    lake.sql("CREATE TABLE t AS SELECT range AS x FROM range(1000)")
    writer = child(
        OPEN + "with lake.transaction('long') as t:\n"
        "    t.execute('INSERT INTO t SELECT range FROM range(5000)')\n"
        "    t.execute('CREATE TABLE u (x INTEGER)')\n"
        "    say('inside')\n"
        "    sys.stdin.readline()\n"
        "say('committed')",
        lake.path,
    )
    assert writer.hear() == "ready"
    writer.go()
    assert writer.hear() == "inside"
    # The writer stays inside until it is told: whatever answers here has not waited for it.
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(1000,)]
    assert lake.catalog.table("t").row_count == 1000
    assert [table.name for table in lake.catalog.tables()] == ["t"]
    with lakehouse.open(lake.path, read_only=True) as reader:
        assert reader.sql("SELECT sum(x) FROM t").fetchall() == [(499500,)]
    with lakehouse.open(lake.path) as other:
        assert len(other.catalog.snapshots()) == 2
    with lakehouse.open(lake.path, settings={"catalog": {"lock_timeout": 0.3}}) as impatient:
        with pytest.raises(LockTimeout, match=f"process {writer.pid}"):
            impatient.sql("INSERT INTO t VALUES (1)")
    writer.go()
    assert writer.end() == ["committed"]
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(6000,)]
    assert [table.name for table in lake.catalog.tables()] == ["t", "u"]


def test_a_writer_killed_inside_its_transaction_leaves_nothing(lake, child):
    lake.sql("CREATE TABLE t AS SELECT 1 AS x")
    writer = child(
        OPEN + "with lake.transaction('long') as t:\n"
        "    t.execute('INSERT INTO t SELECT range FROM range(5000)')\n"
        "    say('inside')\n"
        "    sys.stdin.readline()\n",
        lake.path,
    )
    assert writer.hear() == "ready"
    writer.go()
    assert writer.hear() == "inside"
    writer.kill()
    assert lake.sql("INSERT INTO t VALUES (2)").kind == "write"
    assert lake.sql("SELECT x FROM t ORDER BY x").fetchall() == [(1,), (2,)]


def test_threads_of_one_process(lake):
    lake.sql("CREATE TABLE t (who INTEGER, number INTEGER)")
    faults = []

    def work(who):
        try:
            for number in range(20):
                lake.sql("INSERT INTO t VALUES ($w, $n)", {"w": who, "n": number})
                assert lake.sql("SELECT count(*) FROM t WHERE who = $w", {"w": who}).fetchall() == [(number + 1,)]
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert faults == []
    assert lake.sql("SELECT count(*), count(DISTINCT (who, number)) FROM t").fetchall() == [(80, 80)]


def test_a_transaction_of_one_thread_is_not_seen_by_another(lake):
    lake.sql("CREATE TABLE t (x INTEGER)")
    seen = []
    with lake.transaction("two steps") as transaction:
        transaction.execute("INSERT INTO t VALUES (1)")
        lake.sql("INSERT INTO t VALUES (2)")
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
        thread = threading.Thread(target=lambda: seen.append(lake.sql("SELECT count(*) FROM t").fetchall()))
        thread.start()
        thread.join(60)
    assert seen == [[(0,)]]
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(2,)]
    assert lake.catalog.current_snapshot().message == "two steps"
    assert len(lake.catalog.snapshots()) == 3


def test_what_another_process_commits_is_seen_at_once(lake, child):
    lake.sql("CREATE TABLE t (x INTEGER)")
    writer = child(
        OPEN + "for number in range(20):\n"
        "    lake.sql('INSERT INTO t VALUES ($n)', {'n': number})\n"
        "    say(number)\n"
        "    sys.stdin.readline()\n",
        lake.path,
    )
    assert writer.hear() == "ready"
    writer.go()
    for number in range(20):
        assert writer.hear() == number
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(number + 1,)]
        assert lake.catalog.table("t").row_count == number + 1
        writer.go()
    writer.end()
