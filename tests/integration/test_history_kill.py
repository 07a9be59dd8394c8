"""`kill -9` in the middle of a rollback or of publishing a branch: all of it or nothing; branches of several processes."""

import os
import random
import subprocess
import sys
import time

import pytest

import lakehouse
from lakehouse import errors
from lakehouse.health import leftovers

OPEN = "import lakehouse\nlake = lakehouse.open(args[0])\nsay({'ready': 1})\nsys.stdin.readline()\n"
ROUNDS = 4
STATE = "SELECT (SELECT count(*) FROM a), (SELECT sum(i) FROM a), (SELECT count(*) FROM b), (SELECT sum(i) FROM b)"


@pytest.fixture
def states(lake):
    """Two tables in two states: a lake-wide old one and the newest, with the snapshots."""
    lake.sql("CREATE TABLE a AS SELECT range AS i FROM range(20000)")
    first = lake.sql("CREATE TABLE b AS SELECT range AS i FROM range(20000)").snapshot
    old = lake.sql(STATE).fetchall()
    lake.sql("DELETE FROM a WHERE i % 3 = 0")
    lake.sql("INSERT INTO b SELECT range FROM range(5000)")
    last = lake.sql("UPDATE b SET i = i + 1 WHERE i < 100").snapshot
    return {"old": (first, old), "new": (last, lake.sql(STATE).fetchall())}


def test_kill_in_a_rollback(lake, child, states):
    chance = random.Random(1)
    there_and_back = (
        f"while True:\n    for v in ({states['old'][0]}, {states['new'][0]}):\n"
        "        say({'v': v, 'snapshot': lake.rollback(v)})\n"
    )
    for _ in range(ROUNDS):
        writer = child(OPEN + there_and_back, lake.path)
        assert writer.hear() == {"ready": 1}
        writer.go()
        said = [writer.hear()]
        time.sleep(chance.uniform(0, 0.5))
        said += writer.kill()
        with lakehouse.open(lake.path) as after:
            found = after.sql(STATE).fetchall()
            newest = after.catalog.current_snapshot().id
            assert newest - said[-1]["snapshot"] in (0, 1), "what was said is there, and at most one more"
            version = said[-1]["v"]
            acknowledged, other = (
                states[k][1] for k in (("old", "new") if version == states["old"][0] else ("new", "old"))
            )
            assert found == (acknowledged if newest == said[-1]["snapshot"] else other)


def test_kill_while_publishing(lake, child, states):
    chance = random.Random(2)
    work = """
    n = 0
    while True:
        with lake.branch("work") as b:
            b.sql("INSERT INTO a SELECT 1 FROM range(1000)")
            b.sql("INSERT INTO b SELECT 1 FROM range(1000)")
            b.sql("CREATE TABLE made_" + str(b.base) + " AS SELECT 1 AS x")
            n += 1
            say({"n": n, "snapshot": 0})
            say({"n": n, "snapshot": b.publish()})
    """.replace("\n    ", "\n")
    for _ in range(ROUNDS):
        before = lake.catalog.current_snapshot().id
        rows = lake.sql(STATE).fetchall()[0]
        tables = len(lake.catalog.tables())
        writer = child(OPEN + work, lake.path)
        assert writer.hear() == {"ready": 1}
        writer.go()
        said = [writer.hear()]
        time.sleep(chance.uniform(0, 0.4))
        said += writer.kill()
        published = [one for one in said if one["snapshot"]]
        with lakehouse.open(lake.path) as after:
            done = after.catalog.current_snapshot().id - before
            assert done in (len(published), len(published) + 1)
            found = after.sql(STATE).fetchall()[0]
            assert (found[0] - rows[0], found[2] - rows[2]) == (1000 * done, 1000 * done), "both tables or none"
            assert len(after.catalog.tables()) == tables + done
            left = leftovers.branches(lake.path, dry_run=True)
            assert left in ([], ["work"])
            with after.branch("work") as again:  # the leftover is no hindrance, and is gone afterwards
                assert again.sql(STATE).fetchall()[0] == found
            assert leftovers.branches(lake.path, dry_run=True) == []


# SQLite makes a commit visible by two equal copies of 48 bytes at the head of the log's index (sqlite.org/walformat,
# 2.1). A process of its own reads and writes them: closing the file here would drop the locks on it.
HEAD = 96
READ = f"import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read({HEAD}))"
WRITE = "import sys; open(sys.argv[1], 'r+b').write(sys.stdin.buffer.read())"


@pytest.fixture
def unseen(lake, child):
    """A writer was killed when its commit was in the write-ahead log, and not yet in the index of that log."""
    lake.sql("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
    index = str(lake.path / "catalog.sqlite-shm")
    head = subprocess.run([sys.executable, "-c", READ, index], check=True, capture_output=True).stdout
    assert len(head) == HEAD
    assert head[:48] == head[48:]
    writer = child(
        OPEN + "say({'done': lake.sql('INSERT INTO t VALUES (1)').snapshot})\nsys.stdin.readline()", lake.path
    )
    assert writer.hear() == {"ready": 1}
    writer.go()
    made = writer.hear()["done"]
    writer.kill()
    assert lake.catalog.current_snapshot().id == made
    subprocess.run([sys.executable, "-c", WRITE, index], input=head, check=True)
    os.utime(lake.path / "catalog.sqlite-wal")  # this process has seen the commit, and looks again
    assert lake.catalog.current_snapshot().id == made - 1
    return lake


def test_a_branch_begins_from_what_the_lake_shows(unseen):
    shown = unseen.catalog.current_snapshot().id
    with unseen.branch("work") as branch:
        assert branch.base == shown
        assert branch.sql("SELECT count(*) FROM t").fetchall() == [(1000,)]
        branch.sql("INSERT INTO t VALUES (2)")
        assert branch.publish() == shown + 1
    assert unseen.sql("SELECT count(*), count_if(i = 1), count_if(i = 2) FROM t").fetchall() == [(1001, 1, 2)]
    assert unseen.doctor().healthy


def test_a_backup_has_what_the_lake_shows(unseen, tmp_path):
    report = unseen.backup(tmp_path / "backup")
    assert report.snapshot == unseen.catalog.current_snapshot().id
    lakehouse.restore(tmp_path / "backup", tmp_path / "again")
    with lakehouse.open(tmp_path / "again") as again:
        assert again.catalog.current_snapshot().id == report.snapshot
        assert again.sql("SELECT count(*) FROM t").fetchall() == [(1000,)]


def test_branches_of_several_processes(lake, child, states):
    writers = [
        child(
            OPEN
            + f"with lake.branch('b{n}') as b:\n    b.sql('CREATE TABLE own{n} AS SELECT {n} AS x')\n"
            + "    say({'open': 1})\n    sys.stdin.readline()\n    say({'snapshot': b.publish()})\n",
            lake.path,
        )
        for n in range(2)
    ]
    for writer in writers:
        assert writer.hear() == {"ready": 1}
        writer.go()
        assert writer.hear() == {"open": 1}
    with pytest.raises(errors.AlreadyExists), lake.branch("b1"):
        pass
    assert [t.name for t in lake.catalog.tables()] == ["a", "b"]
    for writer in writers:
        writer.go()
    snapshots = {writer.end()[-1]["snapshot"] for writer in writers}
    assert snapshots == {states["new"][0] + 1, states["new"][0] + 2}
    assert [t.name for t in lake.catalog.tables()] == ["a", "b", "own0", "own1"]
    assert not list((lake.path / "branches").iterdir())
