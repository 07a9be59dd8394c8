"""A full disk at every write of maintenance and backup: a clear error, and the lake and the last backup as they were."""

import errno
import shutil

import pytest
from test_disk_full import disk, says_full  # noqa: F401  # the fixture: a small disk of our own

import lakehouse
from lakehouse.errors import DiskFull, LakehouseError
from lakehouse.health import manifest, restore
from lakehouse.lake import verify_backup


def content(lake):
    return (
        [s.id for s in lake.catalog.snapshots()],
        lake.sql("SELECT count(*), sum(x) FROM t").fetchall(),
        lake.sql("SELECT count(*), sum(x) FROM t AT (VERSION => 2)").fetchall(),
    )


def fill(lake):
    lake.sql("CREATE TABLE t (x BIGINT, s VARCHAR)")
    for n in range(3):
        lake.sql(f"INSERT INTO t SELECT {n} * 10000 + range, md5(({n} * 10000 + range)::VARCHAR) FROM range(4000)")
    for n in range(12):
        lake.sql(f"INSERT INTO t SELECT {n}, 'few' FROM range(9)")


def failed(work):
    """The error it raises, if any."""
    try:
        work()
    except LakehouseError as error:
        return error
    return None


def broken(lake):
    """What the doctor finds, but for the little space that there is on the small disk."""
    return [finding for finding in lake.doctor().faults if finding.where != "disk"]


@pytest.mark.parametrize("how", ["nearly_full", "full"])
def test_maintenance_on_a_full_disk(disk, how):  # noqa: F811
    with lakehouse.open(disk.folder / "lake") as lake:
        fill(lake)
        before = content(lake)
        with getattr(disk, how)():
            for work in (lake.maintenance.compact, lambda: lake.maintenance.expire("0s", dry_run=False)):
                error = failed(work)
                assert says_full(error) if error else how == "nearly_full"  # there was room enough for this one
        now = content(lake) if how == "full" else None
        assert now in (None, before)
        assert lake.sql("SELECT count(*), sum(x) FROM t").fetchall() == before[1]
        assert broken(lake) == []
        lake.maintenance.compact()
        lake.maintenance.clean("0s", dry_run=False)
        assert lake.sql("SELECT count(*), sum(x) FROM t").fetchall() == before[1]
        assert lake.doctor().notes == []


def test_cleaning_makes_room_on_a_full_disk(disk):  # noqa: F811
    with lakehouse.open(disk.folder / "lake") as lake:
        fill(lake)
        rows = content(lake)[1]
        lost = disk.folder / "lake" / "data" / "main" / "t" / "ducklake-lost.parquet"
        lost.write_bytes(b"x" * 100_000)
        with disk.nearly_full():
            lake.maintenance.clean("0s", dry_run=False)
        assert not lost.exists()
        assert lake.sql("SELECT count(*), sum(x) FROM t").fetchall() == rows


@pytest.mark.parametrize("how", ["nearly_full", "full"])
def test_a_backup_to_a_full_disk(disk, tmp_path, how):  # noqa: F811
    place = disk.folder / "backup"
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS x, 'a' AS s")
        lake.backup(place)
        snapshot = lake.catalog.current_snapshot().id
        lake.sql("INSERT INTO t SELECT range, md5(range::VARCHAR) || md5((range + 1)::VARCHAR) FROM range(50000)")
        with getattr(disk, how)(), pytest.raises(LakehouseError) as caught:
            lake.backup(place)
        assert says_full(caught.value), str(caught.value)
        assert verify_backup(place).snapshot == snapshot  # the one before is whole
        assert sorted(path.name for path in place.iterdir()) == ["backup.json", "files"]
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(50_001,)]
        if how == "full":
            return  # the small disk has no room for all of it
        shutil.rmtree(place)
        with disk.nearly_full(), pytest.raises(LakehouseError):
            lake.backup(place)
        assert not (place / "backup.json").exists()


def test_a_branch_of_a_full_lake(disk):  # noqa: F811
    with lakehouse.open(disk.folder / "lake") as lake:
        fill(lake)
        before = content(lake)
        with disk.full():
            error = failed(lambda: lake.branch("work").__enter__())
            assert isinstance(error, DiskFull), error
        assert content(lake) == before
        with lake.branch("work") as branch:
            branch.sql("DELETE FROM t")
            branch.publish()
        assert lake.catalog.table("t").row_count == 0
        assert broken(lake) == []


def test_restoring_to_a_full_disk_leaves_nothing(disk, tmp_path):  # noqa: F811
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.sql(
            "CREATE TABLE t AS SELECT range AS x, md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS s FROM range(50000)"
        )
        lake.backup(tmp_path / "backup")
    with disk.nearly_full():
        with pytest.raises(LakehouseError) as caught:
            lakehouse.restore(tmp_path / "backup", disk.folder / "again")
        assert says_full(caught.value)
        assert [path.name for path in disk.folder.iterdir() if "again" in path.name] == []


class Broken:
    """The n-th call fails as on a full disk; counts the calls."""

    def __init__(self, monkeypatch, at):
        self.calls, self.at = 0, at
        for name in ("fsync", "replace", "rename"):
            monkeypatch.setattr(f"os.{name}", self._counted(getattr(__import__("os"), name)))

    def _counted(self, real):
        def call(*args, **kwargs):
            self.calls += 1
            if self.calls == self.at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return call


def test_every_flush_and_every_rename_of_a_backup_may_fail(tmp_path, monkeypatch):
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS x FROM range(100)")
        lake.storage.put("a", b"b")
        lake.backup(tmp_path / "backup")
        old = manifest.read(tmp_path / "backup")
        lake.sql("INSERT INTO t SELECT range FROM range(100)")
        at, failed = 0, 0
        while True:
            at += 1
            with monkeypatch.context() as patched:
                broken = Broken(patched, at)
                try:
                    lake.backup(tmp_path / "backup")
                except DiskFull:
                    failed += 1
            if broken.calls < at:
                break
            found = verify_backup(tmp_path / "backup")  # the old one or the new one: whole
            assert found.snapshot in (old.snapshot, lake.catalog.current_snapshot().id)
        assert failed >= 5
        restored, at = False, 0
        while not restored:
            at += 1
            with monkeypatch.context() as patched:
                Broken(patched, at)
                try:
                    restore.restore(tmp_path / "backup", tmp_path / "again", "objects")
                    restored = True
                except DiskFull:
                    # The last flush comes when the lake stands: it is then whole, or it is not there.
                    if (tmp_path / "again").exists():
                        break
                    assert [path.name for path in tmp_path.iterdir() if "again" in path.name] == []
        with lakehouse.open(tmp_path / "again") as again:
            assert again.sql("SELECT count(*) FROM t").fetchall() == [(200,)]
            assert again.doctor().healthy
