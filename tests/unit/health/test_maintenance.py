"""`lake.maintenance`: what is merged, what expires, what is deleted, and what never is."""

import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import lakehouse
from lakehouse.errors import ConfigError, LakeReadOnly, LockTimeout, QueryError, SnapshotNotFound, TableNotFound
from lakehouse.health import inventory
from lakehouse.health.guard import guarded
from lakehouse.observer.model import Event
from lakehouse.state import FILE_NAME


def data_files(lake):
    return sorted(path.name for path, _ in inventory.on_disk(lake.path / "data"))


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A table of twelve files and a few rows in the catalog."""
    folder = tmp_path_factory.mktemp("grown") / "lake"
    with lakehouse.open(folder) as lake:
        lake.sql("CREATE TABLE t (x BIGINT)")
        for n in range(12):
            lake.sql(f"INSERT INTO t SELECT {n * 100} + range FROM range(20)")
        lake.sql("INSERT INTO t VALUES (5000)")
    return folder


@pytest.fixture
def grown(once, tmp_path):
    """A copy of it for each test."""
    with lakehouse.open(shutil.copytree(once, tmp_path / "grown")) as lake:
        yield lake


def test_compact_merges_files_and_changes_no_row_of_any_snapshot(grown):
    before = {
        s.id: grown.sql(f"SELECT x FROM t AT (VERSION => {s.id})").fetchall() for s in grown.catalog.snapshots()[:-1]
    }
    present = grown.sql("SELECT x FROM t").fetchall()
    report = grown.maintenance.compact()
    assert (report.before.files, report.after.files) == (12, 1)
    assert report.snapshots == (grown.catalog.current_snapshot().id,)
    assert report.done == ("t: 12 files merged",)
    assert "12 files" in repr(report)
    assert grown.sql("SELECT x FROM t").fetchall() == present  # in the same order
    for version, rows in before.items():
        assert grown.sql(f"SELECT x FROM t AT (VERSION => {version})").fetchall() == rows
    snapshot = grown.catalog.current_snapshot()
    assert (snapshot.message, '"operation":"compact"' in snapshot.note) == ("compact t", True)
    again = grown.maintenance.compact()
    assert (again.done, again.snapshots) == ((), ())
    assert grown.catalog.current_snapshot().id == snapshot.id  # no empty commit


def test_compact_of_one_table_moves_its_last_rows_out_of_the_catalog(grown):
    grown.maintenance.compact("t")
    grown.sql("INSERT INTO t VALUES (6000)")
    assert "rows and deletes moved from the catalog" in grown.maintenance.compact("t").done[0]
    assert grown.catalog.metadata.inlined_totals(grown.catalog.current_snapshot().id, [1]) in ({}, {1: 0})
    assert grown.catalog.table("t").row_count == 242
    with pytest.raises(TableNotFound):
        grown.maintenance.compact("nowhere")


def test_many_rows_in_the_catalog_become_a_file(lake):
    lake.sql("CREATE TABLE t (x BIGINT)")
    for n in range(25):
        lake.sql(f"INSERT INTO t SELECT {n} FROM range(5)")
    assert data_files(lake) == []
    assert lake.maintenance.compact().done == ("t: 125 rows and deletes moved from the catalog into files",)
    assert len(data_files(lake)) == 1
    assert lake.sql("SELECT count(*), count(DISTINCT x) FROM t").fetchall() == [(125, 25)]


def test_deleted_rows_stay_deleted_and_the_past_keeps_them(grown):
    grown.sql("DELETE FROM t WHERE x < 300")
    grown.maintenance.compact("t")
    assert grown.sql("SELECT min(x), count(*) FROM t").fetchall() == [(300, 181)]
    # What DuckLake's own rewriting of files with deletes gets wrong: filters and sorting of the past.
    assert grown.sql("SELECT count(*) FROM t AT (VERSION => 13) WHERE x = 0").fetchall() == [(1,)]
    assert grown.sql("SELECT x FROM t AT (VERSION => 13) ORDER BY x LIMIT 2").fetchall() == [(0,), (1,)]


def test_a_load_is_known_again_after_compacting_and_expiry(lake, tmp_path):
    files = []
    for n in range(4):
        files.append(tmp_path / f"{n}.csv")
        files[-1].write_text("x\n" + "".join(f"{n * 100 + i}\n" for i in range(5 + n * 10)))
        first = lake.ingest(files[-1], "t")
    lake.maintenance.compact("t")
    assert lake.ingest(files[0], "t").duplicate
    lake.maintenance.expire("0s", dry_run=False)
    lake.maintenance.clean("0s", dry_run=False)
    assert len(lake.catalog.snapshots()) == 1
    for file in files:
        assert lake.ingest(file, "t").duplicate
    assert lake.ingest(files[-1], "t").snapshot == first.snapshot
    assert lake.catalog.table("t").row_count == 80
    messages = [s.message for s in lake.catalog.notes(lake.catalog.find("t"))]
    assert messages == [f"ingest {n}.csv into t" for n in (3, 2, 1, 0)]
    assert lake.catalog.table("t").snapshots() == [
        s for s in lake.catalog.table("t").snapshots() if s.id > first.snapshot
    ]


def test_expire_is_a_dry_run_unless_told_and_spares_tags_and_the_last_before_the_limit(grown):
    grown.catalog.tag_snapshot("kept", 4)
    ids = [s.id for s in grown.catalog.snapshots()]
    limit = grown.catalog.snapshots()[3].time  # of snapshot 11
    planned = grown.maintenance.expire(limit)
    assert (planned.dry_run, [s.id for s in grown.catalog.snapshots()]) == (True, ids)
    done = grown.maintenance.expire(limit, dry_run=False)
    assert done.snapshots == planned.snapshots == (0, 1, 2, 3, 5, 6, 7, 8, 9)
    assert [s.id for s in grown.catalog.snapshots()] == [14, 13, 12, 11, 10, 4]
    assert (
        grown.catalog.resolve(limit - timedelta(microseconds=1)) == 10
    )  # any moment from the limit on, and just before
    assert grown.sql("SELECT count(*) FROM t", at="kept").fetchall() == [(60,)]
    with pytest.raises(SnapshotNotFound):
        grown.sql("SELECT 1", at=5)
    assert len(data_files(grown)) == 12  # cleaning is another step


def test_the_notes_of_expired_snapshots_are_kept_once(grown):
    grown.maintenance.expire("0s", dry_run=False)
    notes = grown.catalog.notes(grown.catalog.find("t"))
    assert len(notes) == 13
    assert [s.id for s in notes] == sorted({s.id for s in notes}, reverse=True)
    assert notes[3].message.startswith("INSERT INTO t SELECT")


def test_clean_deletes_what_was_merged_and_what_was_never_committed(grown):
    grown.maintenance.compact()
    (grown.path / "data" / "main" / "t" / "lakehouse-lost.parquet").write_bytes(b"x" * 100)
    assert grown.maintenance.clean(dry_run=False).done == ()  # too young
    planned = grown.maintenance.clean("0s")
    assert planned.done == (
        "files that no snapshot reads: " + str(planned_size(grown)),
        "files of writes that did not end: 1 file, 100 bytes",
    )
    assert len(data_files(grown)) == 14
    done = grown.maintenance.clean("0s", dry_run=False)
    assert (done.before, done.after, done.done) == (planned.before, planned.after, planned.done)
    assert len(data_files(grown)) == 1
    assert grown.sql("SELECT count(*) FROM t AT (VERSION => 3)").fetchall() == [(40,)]


def planned_size(lake):
    scheduled = inventory.take(lake.catalog.metadata, lake.path / "data").scheduled
    return inventory.footprint(path.stat().st_size for path in scheduled)


def test_a_file_that_is_gone_already_does_not_stop_cleaning(grown):
    grown.maintenance.compact()
    inventory.take(grown.catalog.metadata, grown.path / "data").scheduled[0].unlink()
    grown.maintenance.clean("0s", dry_run=False)
    assert len(data_files(grown)) == 1


def test_temporary_files_go_only_when_old_and_of_nobody(lake):
    folder = lake.path / "tmp"
    folder.mkdir(exist_ok=True)
    day = time.time() - 90_000
    for name in ("old.arrow", "open.arrow", "young.arrow", "somebody-elses.txt"):
        (folder / name).write_bytes(b"12345")
        if name != "young.arrow":
            os.utime(folder / name, (day, day))
    for name in ("unzip-x", "object-x"):  # of a load that was killed
        (folder / name).mkdir()
        (folder / name / "a.csv").write_bytes(b"1")
        os.utime(folder / name / "a.csv", (day, day))
        os.utime(folder / name, (day, day))
    with (folder / "open.arrow").open("rb"):
        report = lake.maintenance.clean(dry_run=False)
    assert report.done == ("temporary files: 3 files, 7 bytes",)
    assert sorted(p.name for p in folder.iterdir()) == ["open.arrow", "somebody-elses.txt", "young.arrow"]


def test_cleaning_waits_for_a_backup(grown):
    grown.maintenance.compact()
    with lakehouse.open(grown.path, settings={"catalog": {"lock_timeout": 0.2}}) as other:
        with guarded(grown.path / "data", 1.0, alone=False), pytest.raises(LockTimeout, match="backup"):
            other.maintenance.clean("0s", dry_run=False)
        assert len(data_files(grown)) == 13
        other.maintenance.clean("0s", dry_run=False)
    assert len(data_files(grown)) == 1


def test_a_tag_set_while_snapshots_expire_is_kept(grown):
    """The tag is set between choosing the snapshots and taking the lock."""
    with grown._writer.lock.hold(5):
        worker = threading.Thread(target=lambda: grown.maintenance.expire("0s", dry_run=False))
        worker.start()
        time.sleep(0.3)  # it has chosen, and waits
        with grown._state.write() as state:
            state.execute("INSERT INTO snapshot_tag VALUES ('late', 5, '2026-01-01')")
    worker.join()
    assert grown.sql("SELECT count(*) FROM t", at="late").fetchall() == [(80,)]


def test_run_follows_the_settings(tmp_path):
    settings = {"maintenance": {"keep_snapshots": "0s", "keep_files": "0s"}}
    with lakehouse.open(tmp_path / "lake", settings=settings) as lake:
        lake.sql("CREATE TABLE t (x BIGINT)")
        for n in range(4):
            lake.sql(f"INSERT INTO t SELECT {n} FROM range(20)")
        reports = lake.maintenance.run()
        assert [r.operation for r in reports] == ["compact", "expire", "clean"]
        assert len(lake.catalog.snapshots()) == 1
        assert len(data_files(lake)) == 1
        assert lake.catalog.table("t").row_count == 80
        assert reports[1].to_dict()["before"].keys() == {"files", "bytes"}


def test_run_leaves_out_events_older_than_the_setting(tmp_path):
    with lakehouse.open(tmp_path / "lake", settings={"observer": {"keep": "0s"}}) as lake:
        assert [report.operation for report in lake.maintenance.run()] == ["compact", "expire", "clean"]
        lake.observer.record_many([Event(run="r", status="done"), Event(run="s", status="done")])
        told = lake.maintenance.run()[-1]
        assert (told.operation, told.done) == ("events", ("2 events older than 0s left out of the journal",))
        assert told.after.bytes < told.before.bytes
        assert lake.observer.events() == []
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.observer.record(Event(run="t", status="done"))
        before = lake.observer.journal.path.stat()
        assert len(lake.maintenance.run()) == 3
        assert lake.observer.journal.path.stat().st_ino == before.st_ino  # it is not written anew for nothing


def test_an_open_reader_of_another_process_hinders_nothing(grown, child):
    code = """
        import lakehouse
        with lakehouse.open(args[0], at=5) as lake:
            say(lake.sql("SELECT count(*), sum(x) FROM t").fetchall()[0])
            sys.stdin.readline()
            say(lake.sql("SELECT count(*), sum(x + 0) FROM t").fetchall()[0])
    """
    reader = child(code, grown.path)
    first = reader.hear()
    grown.maintenance.compact()
    grown.maintenance.clean("0s", dry_run=False)  # the files it has read are gone: the merged one has the same rows
    reader.go()
    assert reader.end() == [first]


@pytest.mark.parametrize("age", ["soon", "3 fortnights", "-1d", ""])
def test_odd_ages(lake, age):
    with pytest.raises(ConfigError, match="is not an age"):
        lake.maintenance.expire(age)


@pytest.mark.parametrize("age", ["30d", "2 weeks", "90 min", timedelta(days=1), datetime(2020, 1, 1, tzinfo=UTC)])
def test_ages(lake, age):
    assert lake.maintenance.expire(age).snapshots == ()


def test_a_read_only_lake_can_only_be_looked_at(grown):
    with lakehouse.open(grown.path, read_only=True) as lake:
        assert lake.maintenance.expire("0s").snapshots != ()
        assert lake.maintenance.clean("0s").dry_run
        for work in (
            lake.maintenance.compact,
            lambda: lake.maintenance.expire("0s", dry_run=False),
            lambda: lake.maintenance.clean("0s", dry_run=False),
        ):
            with pytest.raises(LakeReadOnly):
                work()


def test_not_inside_a_transaction(grown):
    with grown.transaction(), pytest.raises(QueryError, match="transaction"):
        grown.maintenance.compact()


def test_a_view_has_no_files(grown):
    grown.sql("CREATE VIEW v AS SELECT * FROM t")
    with pytest.raises(QueryError, match="is a view"):
        grown.maintenance.compact("v")
    assert grown.maintenance.compact().done == ("t: 12 files merged",)


def test_the_hash_of_a_deleted_file_is_forgotten(grown):
    grown.doctor(checksums=True)
    grown.maintenance.compact()
    grown.maintenance.clean("0s", dry_run=False)
    assert grown._state.read("SELECT count(*) FROM checksum") == [(0,)]
    grown.doctor(checksums=True)
    assert grown._state.read("SELECT count(*) FROM checksum") == [(1,)]


def test_a_branch_of_a_dead_process_is_cleared_away(grown, child):
    code = "import lakehouse\nlake = lakehouse.open(args[0])\nwith lake.branch(args[1]):\n    say({'open': 1}); sys.stdin.readline()"
    dead, living = child(code, grown.path, "dead"), child(code, grown.path, "living")
    assert dead.hear() == living.hear() == {"open": 1}
    dead.kill()
    assert grown.maintenance.clean().done == ("branches of processes that died: dead",)
    assert (grown.path / "branches" / "dead").exists()
    assert "dead" in grown.doctor().notes[0].what
    grown.maintenance.clean(dry_run=False)
    assert sorted(path.name for path in (grown.path / "branches").iterdir()) == ["living"]
    living.go()
    living.end()


def test_nothing_was_ever_written_to_the_state_file(grown):
    assert not (grown.path / FILE_NAME).exists()
    grown.maintenance.expire("30d", dry_run=False)
    assert not (grown.path / FILE_NAME).exists()
