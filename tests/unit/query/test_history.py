"""The query history: what it keeps, what it never keeps, and that no query suffers from it."""

import logging
import os
import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import lakehouse
from lakehouse.catalog.secrets import masked
from lakehouse.errors import ConfigError, LakehouseError, QueryCancelled, QueryError, QueryTimeout
from lakehouse.query import history

SLOW = "SELECT count(*) FROM range(100000) a, range(10000000) b WHERE a.range + b.range = 7"


def test_what_is_kept_of_a_query(lake):
    lake.sql("CREATE TABLE t AS SELECT range AS i FROM range(5)")
    begun = datetime.now(UTC)
    result = lake.sql("SELECT * FROM t WHERE i < $most AND i <> $not", {"most": 4, "not": 0})
    written = lake.sql("DELETE FROM t WHERE i = ?", [3])
    delete, read, create = lake.queries()
    assert (read.query_id, read.snapshot, read.rows, read.status, read.code) == (
        result.query_id, result.snapshot, 3, "ok", None
    )  # fmt: skip
    assert (read.parameters, read.sql) == (("most", "not"), "SELECT * FROM t WHERE i < $most AND i <> $not")
    assert (delete.rows, delete.snapshot, delete.parameters) == (1, written.snapshot, ("1",))
    assert create.sql.startswith("CREATE TABLE")
    assert create.id < read.id < delete.id
    assert abs(read.started - begun) < timedelta(seconds=60)
    assert 0 < read.elapsed < 60
    assert read.process == os.getpid()
    assert read.origin.startswith(("script", "Python"))
    assert read.to_dict()["started"].endswith("+00:00")


def test_how_queries_end(lake):
    for query, params, error in (
        ("SELEC 1", None, LakehouseError),
        ("FROM nowhere", None, LakehouseError),
        ("SELECT $x", None, LakehouseError),
        ("SELECT 1 / 'a'", None, LakehouseError),
    ):
        with pytest.raises(error):
            lake.sql(query, params)
    with pytest.raises(QueryTimeout):
        lake.sql(SLOW, timeout=0.05)
    stopper = threading.Thread(target=lambda: _cancel_first(lake))
    stopper.start()
    with pytest.raises(QueryCancelled):
        lake.sql(SLOW)
    stopper.join()
    assert [(query.status, query.code) for query in lake.queries()] == [
        ("cancelled", "query_cancelled"),
        ("timeout", "query_timeout"),
        ("failed", "query_failed"),
        ("failed", "sql_parameter"),
        ("failed", "table_not_found"),
        ("failed", "sql_syntax"),
    ]
    assert len(lake.queries(status="failed")) == 4
    assert lake.queries(status="ok") == []


@pytest.mark.parametrize(("query", "params"), [("SELECT 1", 5), ("SELECT 1", "x"), (None, None), (b"SELECT 1", None)])
def test_what_is_no_query_fails_as_it_would_without_history(lake, query, params):
    raised = []
    for keep in (lake._history._on, False):
        lake._history._on = keep
        with pytest.raises(Exception) as error:
            lake.sql(query, params)
        raised.append((type(error.value), str(error.value)))
    assert raised[0] == raised[1]


def _cancel_first(lake):
    while not (running := lake.running()):
        time.sleep(0.01)
    lake.cancel(running[0].query_id)


def test_an_older_snapshot_is_noted_by_the_lake_that_was_asked(lake):
    first = lake.sql("CREATE TABLE t AS SELECT 1 AS i").snapshot
    lake.sql("INSERT INTO t VALUES (2)")
    lake.sql("FROM t", at=first)
    newest = lake.queries(1)[0]
    assert (newest.snapshot, newest.rows) == (first, 1)
    assert len(lake.queries()) == 3


def test_asking(lake):
    for number in range(6):
        lake.sql(f"SELECT {number} AS Number_{number % 2}")
    assert [query.sql for query in lake.queries(2)] == ["SELECT 5 AS Number_1", "SELECT 4 AS Number_0"]
    assert len(lake.queries(text="NUMBER_1")) == 3
    assert lake.queries(text="%") == []
    assert lake.queries(0) == []
    assert len(lake.queries(None)) == 6
    with pytest.raises(QueryError, match="limit"):
        lake.queries(-1)
    with pytest.raises(QueryError, match="no status"):
        lake.queries(status="odd")


def test_it_is_kept_across_lakes_and_bounded(tmp_path):
    few = {"query": {"history_rows": 3}}
    for number in range(3):
        with lakehouse.open(tmp_path / "lake", settings=few) as lake:
            lake.sql(f"SELECT {number}")
            lake.sql(f"SELECT {number} + 1")
    with lakehouse.open(tmp_path / "lake", settings=few) as lake:
        assert [query.sql for query in lake.queries(None)] == ["SELECT 2 + 1", "SELECT 2", "SELECT 1 + 1"]


def test_a_lake_that_nobody_closed_leaves_its_notes(tmp_path, child):
    process = child(
        """
        import lakehouse
        lake = lakehouse.open(args[0])
        lake.sql("SELECT 'never closed'")
        say("sqlite3" in sys.modules)
        """,
        tmp_path / "lake",
    )
    assert process.end() == [False]  # nothing was loaded or written while it ran
    with lakehouse.open(tmp_path / "lake") as lake:
        (query,) = lake.queries()
    assert (query.sql, query.process, query.origin) == ("SELECT 'never closed'", process.pid, "Python")


def test_notes_are_written_soon_by_themselves(tmp_path, child):
    process = child(
        """
        import lakehouse
        lake = lakehouse.open(args[0])
        lake.sql("SELECT 'killed'")
        say(1)
        sys.stdin.readline()
        """,
        tmp_path / "lake",
    )
    process.hear()
    with lakehouse.open(tmp_path / "lake") as lake:
        patience = time.monotonic() + 60
        while not lake.queries() and time.monotonic() < patience:
            time.sleep(0.05)
        process.kill()
        assert [query.sql for query in lake.queries()] == ["SELECT 'killed'"]


def test_several_processes_lose_nothing(tmp_path, child):
    lakehouse.open(tmp_path / "lake").close()
    code = """
        import lakehouse
        with lakehouse.open(args[0]) as lake:
            for i in range(25):
                lake.sql(f"SELECT {i} AS process_{args[1]}")
    """
    processes = [child(code, tmp_path / "lake", number) for number in range(2)]
    for process in processes:
        process.end()
    with lakehouse.open(tmp_path / "lake") as lake:
        for number in range(2):
            found = [query.sql for query in lake.queries(None, text=f"process_{number}")]
            assert found == [f"SELECT {i} AS process_{number}" for i in reversed(range(25))]


def test_off_and_read_only_lakes_write_nothing(tmp_path):
    with lakehouse.open(tmp_path / "lake", settings={"query": {"history_rows": 0}}) as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS i")
        assert lake.queries() == []
    with lakehouse.open(tmp_path / "lake", read_only=True) as lake:
        lake.sql("FROM t")
        assert lake.queries() == []
    with lakehouse.open(tmp_path / "lake", at=1) as lake:
        lake.sql("FROM t")
    assert not (tmp_path / "lake" / history.FILE_NAME).exists()
    with pytest.raises(ConfigError, match="of at least 0"):
        lakehouse.open(tmp_path / "lake", settings={"query": {"history_rows": -1}})


@pytest.mark.parametrize("spoil", ["damaged", "folder", "full"])
def test_no_query_fails_because_of_it(lake, caplog, monkeypatch, spoil):
    file = lake.path / history.FILE_NAME
    if spoil == "damaged":
        file.write_bytes(b"no database at all, and long enough to be looked at" * 100)
    elif spoil == "folder":
        file.mkdir()
    else:

        class Full(sqlite3.Connection):
            def executemany(self, *_):
                raise sqlite3.OperationalError("database or disk is full")

        real = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **k, factory=Full))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert lake.sql("SELECT 41 + 1").fetchone() == (42,)
            lake._history._file.flush()
        lake.close()
    warnings = [record for record in caplog.records if "history" in record.message]
    assert len(warnings) == 1


def test_a_forked_process_writes_only_its_own(lake):
    lake.sql("SELECT 'parent'")
    notes = lake._history._file
    notes.add((None, "SELECT 'other'", 0, None, None, 0.1, "ok", None, 0.0, os.getpid() + 1))
    assert [query.sql for query in lake.queries()] == ["SELECT 'parent'"]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE SECRET s (TYPE s3, KEY_ID 'hidden1', SECRET 'hidden2')",
        "create or replace /* x */ persistent secret s (type s3, secret hidden)",
        "CREATE TEMPORARY SECRET (TYPE postgres, PASSWORD 'it''s hidden); SELECT 1",
        "ATTACH 'postgres://me:hidden@host/db' AS p",
        "ATTACH 'host=x password=hidden dbname=y' AS p",
        "SET s3_secret_access_key='hidden'",
        "SET s3_session_token TO 'hidden more hidden'",
        "SELECT * FROM f('x', password := $$hidden$$, token => 'hidden')",
        "SELECT {'api_key': 'hidden'}",
        'SET "password" = "hidden"',
    ],
)
def test_secrets_are_masked(lake, sql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # DuckDB may make a file of what it is to attach
    assert "hidden" not in masked(sql)
    assert "***" in masked(sql)
    try:
        lake.sql(sql)
    except LakehouseError:
        pass
    (query,) = lake.queries()
    assert "hidden" not in query.sql
    lake._history.close()
    assert b"hidden" not in (lake.path / history.FILE_NAME).read_bytes()


def test_values_and_ordinary_sql_are_as_they_are(lake):
    for sql in (
        "SELECT 'a=b' AS x, token FROM t WHERE i = 3",
        "SELECT * FROM t WHERE token = $token",
        "SELECT 1 -- secret",
    ):
        assert masked(sql) == sql
    lake.sql("SELECT $who", {"who": "hidden"})
    lake.queries()
    assert b"hidden" not in (lake.path / history.FILE_NAME).read_bytes()


def test_long_texts_are_cut(lake):
    lake.sql("SELECT 1 -- " + "x" * 50_000)
    assert len(lake.queries()[0].sql) == 20_000


def test_text_that_is_no_text_is_noted_as_far_as_it_can_be(lake):
    with pytest.raises(LakehouseError):
        lake.sql("SELECT '\ud800'")
    assert lake.queries()[0].sql == "SELECT '\\ud800'"
