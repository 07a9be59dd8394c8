"""Copies of the catalog: whole, or a clear refusal that leaves the lake as it was."""

import resource

import pytest

import lakehouse
from lakehouse.catalog.copying import copy
from lakehouse.errors import DiskFull, LakeUnusable, LockTimeout


@pytest.fixture
def small_files():
    """Processes that begin now write files of 4,096 bytes at most."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_copy_is_a_catalog(lake):
    lake.sql("CREATE TABLE t AS SELECT 1 AS x")
    again = lake.path.parent / "again ü? 100%"
    again.mkdir()
    (again / "data").mkdir()
    (again / "lake.json").write_bytes((lake.path / "lake.json").read_bytes())
    copy((lake.path / "catalog.sqlite", again / "catalog.sqlite"))
    with lakehouse.open(again) as other:
        assert [(table.name, table.row_count) for table in other.catalog.tables()] == [("t", 1)]
        copy((again / "catalog.sqlite", lake.path.parent / "from a strange place"))


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(LakeUnusable, match=r"there could not be copied to .*: unable to open database file"):
        copy((tmp_path / "missing", tmp_path / "there"))
    assert not (tmp_path / "missing").exists()


def test_what_is_no_catalog(lake, tmp_path):
    (tmp_path / "broken").write_bytes(b"no database " * 1000)
    with pytest.raises(LakeUnusable, match=r"second could not be copied to .*: file is not a database"):
        copy((lake.path / "catalog.sqlite", tmp_path / "first"), (tmp_path / "broken", tmp_path / "second"))


def test_no_room(lake, tmp_path, small_files):
    with pytest.raises(DiskFull, match="the disk is full: there could not be copied to"):
        copy((lake.path / "catalog.sqlite", tmp_path / "there"))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("/bin/false", "its process ended with 1"),
        ("/nowhere", "no process can be started"),
        (None, "no process can be"),
    ],
)
def test_a_process_that_cannot_start(lake, tmp_path, monkeypatch, program, reason):
    monkeypatch.setattr("sys.executable", program)
    with pytest.raises(LakeUnusable, match=f"could not be copied: {reason}"):
        copy((lake.path / "catalog.sqlite", tmp_path / "there"))


def test_who_keeps_the_file_to_himself_is_not_waited_for_without_end(lake, tmp_path, child, monkeypatch):
    monkeypatch.setattr("lakehouse.catalog.copying._PATIENCE", 0.2)
    lake.catalog.tag_snapshot("a")
    holder = child(
        "import sqlite3\nsqlite3.connect(args[0]).execute('BEGIN EXCLUSIVE')\nsay(1)\ninput()",
        lake.path / "state.sqlite",
    )
    holder.hear()
    with pytest.raises(LockTimeout, match=r"there was busy for 0\.2 s"):
        copy((lake.path / "state.sqlite", tmp_path / "there"))
    with pytest.raises(LockTimeout), lake.branch("work"):
        pass
    holder.kill()
    with lake.branch("work") as branch:
        assert branch.catalog.snapshot_tags() == {"a": 0}
