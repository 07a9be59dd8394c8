"""Acknowledged means durable: what a commit points at is on the disk before the commit."""

import os

import pytest

import lakehouse
from lakehouse.catalog.writer import Transaction
from lakehouse.errors import DiskFull


@pytest.fixture
def log(monkeypatch):
    """Paths that were flushed and statements that were run, in their order."""
    entries = []
    fsync, execute = os.fsync, Transaction.execute

    def flushed(descriptor):
        entries.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def executed(self, sql, *args):
        entries.append(sql)
        return execute(self, sql, *args)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Transaction, "execute", executed)
    return entries


def files(lake):
    return {str(path) for path in (lake.path / "data").rglob("*.parquet")}


def writes(tmp_path):
    (tmp_path / "a.csv").write_text("id\n" + "".join(f"{i}\n" for i in range(500)))
    return {
        "insert": lambda lake: lake.sql("INSERT INTO s.t SELECT range FROM range(1000)"),
        "create": lambda lake: lake.sql("CREATE TABLE s.u AS SELECT range AS id FROM range(1000)"),
        "delete": lambda lake: lake.sql("DELETE FROM s.t WHERE id % 2 = 0"),
        "update": lambda lake: lake.sql("UPDATE s.t SET id = id + 1"),
        "append": lambda lake: lake.ingest(tmp_path / "a.csv", "s.t"),
        "new table": lambda lake: lake.ingest(tmp_path / "a.csv", "s.n"),
        "replace": lambda lake: lake.ingest(tmp_path / "a.csv", "s.t", mode="replace"),
        "script": lambda lake: lake.sql(
            "BEGIN; INSERT INTO s.t SELECT range FROM range(1000); DELETE FROM s.t; COMMIT"
        ),
    }


@pytest.mark.parametrize("kind", ["insert", "create", "delete", "update", "append", "new table", "replace", "script"])
def test_every_new_file_and_its_folders_are_flushed_before_the_commit(lake, tmp_path, log, kind):
    lake.sql("CREATE SCHEMA s; CREATE TABLE s.t (id BIGINT); INSERT INTO s.t SELECT range FROM range(5000)")
    before = files(lake)
    log.clear()
    writes(tmp_path)[kind](lake)
    new = files(lake) - before
    assert new or kind in ("delete", "script")
    flushed = log[: log.index("COMMIT")]
    assert new <= set(flushed)
    for path in new:
        folder = os.path.dirname(path)
        assert flushed.index(path) < len(flushed) - flushed[::-1].index(folder) - 1


def test_the_folders_of_a_first_table_are_flushed_up_to_the_data_folder(lake, log):
    lake.sql("CREATE TABLE t AS SELECT range AS id FROM range(1000)")
    flushed = log[: log.index("COMMIT")]
    for folder in (lake.path / "data", lake.path / "data" / "main", lake.path / "data" / "main" / "t"):
        assert str(folder) in flushed


def test_sync_can_be_turned_off(tmp_path, log):
    with lakehouse.open(tmp_path / "lake", settings={"catalog": {"sync": False}}) as lake:
        log.clear()
        lake.sql("CREATE TABLE t AS SELECT range AS id FROM range(1000)")
    assert not [entry for entry in log if entry.endswith(".parquet")]
    assert "COMMIT" in log


def test_a_flush_that_fails_fails_the_commit(lake, monkeypatch):
    lake.sql("CREATE TABLE t (id BIGINT)")

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(DiskFull, match="nothing was committed"):
            lake.sql("INSERT INTO t SELECT range FROM range(1000)")
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(0,)]
    lake.sql("INSERT INTO t SELECT range FROM range(1000)")
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(1000,)]
