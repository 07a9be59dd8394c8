"""Write transactions: what joins them, and that Ctrl-C anywhere in one leaves the thread able to write."""

import json
import sys

import pytest

from lakehouse import errors
from lakehouse.catalog import writer
from lakehouse.catalog.lock import WriterLock


def interrupted_at(number, work):
    """Run `work` with a KeyboardInterrupt at the n-th line that `Writer.transaction` runs; whether there was one."""
    code = writer.Writer.transaction.__wrapped__.__code__
    seen = 0

    def in_transaction(frame, event, _argument):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == number:
                raise KeyboardInterrupt
        return in_transaction

    sys.settrace(lambda frame, _event, _argument: in_transaction if frame.f_code is code else None)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_ctrl_c_at_any_line_of_a_transaction_leaves_the_thread_clean(lake):
    lake.sql("CREATE TABLE t (i INTEGER)")
    lock = WriterLock(lake.path / "write.lock")
    number = 1
    while interrupted_at(number, lambda: lake.sql("INSERT INTO t VALUES (1)")):
        assert lake._writer.active is None
        with lock.hold(5):  # it is free
            assert lake.sql("SELECT count(*) FROM t", tables={"one": lake.sql("SELECT 1").df()}).fetchall()
        before = lake.catalog.table("t").row_count
        lake.sql("INSERT INTO t VALUES (2)")
        newest = lake.catalog.current_snapshot()
        assert json.loads(newest.note)["sql"] == "INSERT INTO t VALUES (2)"
        assert lake.catalog.table("t").row_count == before + 1
        with lake.transaction():
            assert not free(lock)  # a write takes it
        number += 1
    assert number > 15


def free(lock):
    try:
        with lock.hold(0.02):
            return True
    except errors.LockTimeout:
        return False


def test_what_the_catalog_does_in_a_transaction_is_part_of_it(lake):
    lake.sql("CREATE TABLE t (i INTEGER); CREATE TABLE old (i INTEGER)")
    before = lake.catalog.current_snapshot().id
    with lake.transaction("all at once") as transaction:
        assert lake.catalog.create_schema("s") == before
        lake.sql("CREATE TABLE s.u AS SELECT 1 AS i")
        assert lake.catalog.table("t").add_column("j", "INTEGER") == before
        lake.catalog.table("t").set_comment("both")
        lake.catalog.drop("old")
    assert transaction.snapshot == before + 1 == lake.catalog.current_snapshot().id
    assert [part["operation"] for part in json.loads(lake.catalog.current_snapshot().note)["parts"]] == ["ddl"] * 4
    assert [c.name for c in lake.catalog.table("t").schema] == ["i", "j"]
    assert [table.full_name for table in lake.catalog.tables()] == ["t", "s.u"]
    with pytest.raises(ZeroDivisionError), lake.transaction():
        lake.catalog.create_schema("never")
        raise ZeroDivisionError
    assert lake.catalog.schemas() == ["main", "s"]


def test_what_a_transaction_refuses(lake, tmp_path):
    (tmp_path / "a.csv").write_text("i\n1\n")
    lake.sql("CREATE TABLE t (i INTEGER)")
    table = lake.catalog.table("t")
    with lake.transaction():
        table.add_column("j", "INTEGER")
        with pytest.raises(errors.QueryError, match="changed in this transaction already"):
            table.rename_column("i", "k")
        with pytest.raises(errors.IngestError, match=r"cannot be part of lake.transaction"):
            lake.ingest(tmp_path / "a.csv", "t")
        with pytest.raises(errors.QueryError, match="only after a commit"):
            lake.catalog.create_view("v", "SELECT 1 AS x")
        with pytest.raises(errors.QueryError, match="open in this thread already"):
            lake.sql("BEGIN; INSERT INTO t VALUES (1); ROLLBACK")
    assert [c.name for c in table.schema] == ["i", "j"]
    assert lake.catalog.views() == []
    table.rename_column("i", "k")
    assert [c.name for c in table.schema] == ["k", "j"]
