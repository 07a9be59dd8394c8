"""What was committed is seen, whatever the times of the catalog's files tell."""

import threading

import lakehouse


def test_a_read_that_began_while_somebody_wrote_is_not_believed(lake, monkeypatch):
    lake.sql("CREATE TABLE t (id INTEGER)")
    metadata = lake.catalog.metadata
    monkeypatch.setattr(metadata, "_token", lambda: ((0, 0, 0),))  # as when the log was written before the commit shows
    with lakehouse.open(lake.path) as other:
        with other.transaction():
            other.sql("INSERT INTO t VALUES (1)")
            metadata._renew()
            assert not metadata._reading.settled
        assert metadata.current() == other.catalog.metadata.current()
    assert metadata._reading.settled


def test_who_writes_believes_its_own_reads(lake, monkeypatch):
    monkeypatch.setattr(lake.catalog.metadata, "_token", lambda: ((0, 0, 0),))
    with lake.transaction():
        lake.catalog.metadata._renew()
        assert lake.catalog.metadata._reading.settled
        seen = []
        reader = threading.Thread(target=lambda: seen.append(lake.catalog.metadata.lock.busy()))
        reader.start()
        reader.join()
    assert seen == [True]
    assert not lake.catalog.metadata.lock.busy()


def test_a_commit_tells_its_own_snapshot(lake, monkeypatch):
    lake.sql("CREATE TABLE t (id INTEGER)")
    monkeypatch.setattr(lake.catalog.metadata, "_token", lambda: ((0, 0, 0),))
    assert [lake.sql(f"INSERT INTO t VALUES ({i})").snapshot for i in range(3)] == [2, 3, 4]
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(3,)]
