"""Folders that are no lake, or no longer, or not ours to write: a clear error each, and nothing touched."""

import json
import os

import pytest

import lakehouse
from lakehouse import errors


def content(folder):
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*"))}


@pytest.fixture
def closed(tmp_path):
    """A lake with one table that nobody has open."""
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS x")
    return tmp_path / "lake"


def test_a_file(tmp_path):
    (tmp_path / "lake").write_text("hello")
    with pytest.raises(errors.LakeUnusable, match="is a file, not a lake folder"):
        lakehouse.open(tmp_path / "lake")
    with pytest.raises(errors.LakehouseError, match="lake"):
        lakehouse.open(tmp_path / "lake" / "below")
    assert (tmp_path / "lake").read_text() == "hello"


def test_a_folder_of_other_things(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(errors.LakeUnusable, match=r"holds other things \(photo.jpg\)"):
        lakehouse.open(tmp_path)
    assert content(tmp_path) == {"photo.jpg": 1}


def test_a_settings_file_may_be_there_first(tmp_path):
    (tmp_path / "lakehouse.toml").write_text("[catalog]\nauthor = 'ann'\n")
    with lakehouse.open(tmp_path) as lake:
        assert lake.settings.catalog.author == "ann"


def test_no_lake_to_read(tmp_path):
    for how in ({"read_only": True}, {"at": 3}):
        with pytest.raises(errors.LakeUnusable, match="there is no lake at"):
            lakehouse.open(tmp_path / "lake", **how)
    assert not (tmp_path / "lake").exists()


def test_a_newer_format(closed):
    (closed / "lake.json").write_text(json.dumps({"format": 99}))
    before = content(closed)
    with pytest.raises(errors.LakeTooNew, match=r"has format 99; this version reads up to 1\n.*upgrade"):
        lakehouse.open(closed)
    assert content(closed) == before


def test_a_newer_ducklake(closed, child):
    # Another process edits the catalog: a second SQLite in this one would break the first one's locks.
    child(
        "import sqlite3\nwith sqlite3.connect(args[0]) as c:\n"
        "    c.execute(\"UPDATE ducklake_metadata SET value = '99.0' WHERE key = 'version'\")\n",
        closed / "catalog.sqlite",
    ).end()
    with pytest.raises(errors.LakeTooNew, match="newer DuckLake"):
        lakehouse.open(closed)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x"}', "{}"])
def test_a_damaged_marker(closed, text):
    (closed / "lake.json").write_text(text)
    with pytest.raises(errors.LakeUnusable, match="is damaged"):
        lakehouse.open(closed)


def test_a_lost_catalog(closed):
    (closed / "catalog.sqlite").unlink()
    before = content(closed)
    for how in ({}, {"read_only": True}):
        with pytest.raises(errors.LakeUnusable, match="lost its catalog"):
            lakehouse.open(closed, **how)
    assert content(closed) == before


@pytest.mark.parametrize("data", [b"", b"not a database at all, just text" * 100])
def test_a_damaged_catalog(closed, data):
    (closed / "catalog.sqlite").write_bytes(data)
    with pytest.raises(errors.LakeUnusable, match="catalog"):
        lakehouse.open(closed, read_only=True)
    with pytest.raises(errors.LakeUnusable, match="catalog"):
        lakehouse.open(closed)
    assert (closed / "catalog.sqlite").read_bytes() == data


def test_a_lost_data_file(closed):
    with lakehouse.open(closed) as lake:
        lake.sql("CREATE TABLE u AS SELECT range AS x FROM range(1000)")
    for path in (closed / "data").rglob("*.parquet"):
        path.unlink()
    with lakehouse.open(closed) as lake:
        with pytest.raises(errors.LakehouseError, match="parquet"):
            lake.sql("SELECT sum(x) FROM u").fetchall()
        assert lake.sql("FROM t").fetchall() == [(1,)]


NOBODY = """
import os
os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""
TRY = """
import lakehouse
def attempt(work):
    try:
        say(['done', str(work())])
    except lakehouse.LakehouseError as error:
        say([type(error).__name__, str(error)])
"""


def as_other_user():
    """As root, what makes the child another user; otherwise modes alone keep this one out."""
    return NOBODY if os.geteuid() == 0 else ""


@pytest.fixture
def reachable(tmp_path):
    """The folders above the lake may be passed by everybody."""
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == os.geteuid() and len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


def test_a_folder_that_may_not_be_written(reachable, child):
    (reachable / "locked").mkdir()
    (reachable / "locked").chmod(0o555)
    code = "import lakehouse, lakehouse.lake, duckdb, pyarrow\n" + as_other_user() + TRY
    code += "attempt(lambda: lakehouse.open(args[0] + '/locked/lake'))\nattempt(lambda: lakehouse.open(args[0] + '/locked'))"
    for kind, text in child(code, reachable).end():
        assert kind == "LakeUnusable"
        assert "ermission denied" in text
    assert list((reachable / "locked").iterdir()) == []


def test_a_system_folder_that_nobody_can_write():
    with pytest.raises(errors.LakeUnusable, match="cannot be made"):
        lakehouse.open("/proc/lake")


def lock(folder, *, locked=True):
    """Others may read what is in a folder, and not write."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o555 if path.is_dir() else 0o444) if locked else (0o755 if path.is_dir() else 0o644))


@pytest.fixture
def foreign(closed):
    """A lake with everything that a lake has, which others may read and not write."""
    with lakehouse.open(closed) as lake:
        lake.sql("INSERT INTO t SELECT range FROM range(2, 1000)")
        lake.catalog.tag_snapshot("first", 1)
        lake.pathway.add("how many are there? 999", uid="asked")
        lake.storage.put("a/b", b"bytes")
    lock(closed)
    yield closed
    lock(closed, locked=False)


BOUND = """
import ctypes, os, sys
bounding = ctypes.CDLL(None).prctl
if os.geteuid() == 0 and bounding(23, 1, 0, 0, 0) == 1:  # PR_CAPBSET_READ, CAP_DAC_OVERRIDE
    assert bounding(24, 1, 0, 0, 0) == 0  # PR_CAPBSET_DROP: from the next program on modes hold for root as well
    os.execv(sys.executable, sys.orig_argv)
"""


def test_a_lake_of_somebody_else_can_be_read(foreign, child):
    before = content(foreign)
    code = """
        lake = lakehouse.open(args[0])
        say([lake.read_only, lake.sql("SELECT count(*), sum(x) FROM t").fetchall()])
        say([[t.name for t in lake.catalog.tables()], [s.id for s in lake.catalog.snapshots()]])
        say([lake.sql("SELECT count(*) FROM t AT (VERSION => 1)").fetchall(), lake.catalog.resolve("first")])
        say([hit.trace.uid for hit in lake.pathway.search("many")])
        say([lake.storage.get("a/b").decode(), lake.catalog.table("t").profile().rows, len(lake.queries())])
        say([lake.diff(1, 2).changed[0].inserted, len(lake.catalog.table("t").changes(2, 2))])
        say([fault.where for fault in lake.doctor(checksums=True).faults])
        with lake.sandbox() as box:
            say(box.sql("SELECT count(*) AS n FROM t").arrow().to_pylist())
        lake.close()
        with lakehouse.open(args[0], at="first") as then:
            say(then.sql("FROM t").fetchall())
    """
    said = child(BOUND + "import lakehouse" + code.replace("\n        ", "\n"), foreign).end()
    assert said == [
        [True, [[999, sum(range(1000))]]],
        [["t"], [2, 1, 0]],
        [[[1]], 1],
        ["asked"],
        ["bytes", 999, 2],
        [998, 998],
        [],
        [{"n": 999}],
        [[1]],
    ]
    assert content(foreign) == before


def test_a_lake_of_somebody_else_cannot_be_written(foreign, child):
    before = content(foreign)
    code = """
import pandas
lake = lakehouse.open(args[0])
for work in (
    lambda: lake.sql("INSERT INTO t VALUES (2)"),
    lambda: lake.ingest(pandas.DataFrame({"x": [1]}), "u"),
    lambda: lake.catalog.tag_snapshot("mine"),
    lambda: lake.storage.put("a/b", b""),
    lambda: lake.pathway.add("mine"),
    lambda: lake.branch("mine").__enter__(),
    lambda: lake.maintenance.run(),
    lambda: lake.doctor(repair=True),
    lambda: lake.backup(args[0] + "-backup"),
):
    attempt(work)
"""
    said = child(BOUND + TRY + code, foreign).end()
    assert [kind for kind, _ in said] == ["LakeReadOnly"] * 8 + ["LakeUnusable"]
    assert all("where its folder may be written" in text for _, text in said[:8])
    assert "writer lock" in said[8][1]
    assert content(foreign) == before


def test_the_log_of_a_killed_process_is_read_by_who_may_not_write(closed, child):
    writer = child(
        "import lakehouse\nlake = lakehouse.open(args[0])\nlake.sql('INSERT INTO t VALUES (2)')\nsay([])\ninput()",
        closed,
    )
    writer.hear()
    writer.kill()
    read = BOUND + "import lakehouse\nsay(lakehouse.open(args[0]).sql('FROM t ORDER BY x').fetchall())"
    assert (closed / "catalog.sqlite-wal").stat().st_size > 0
    for _ in range(2):
        lock(closed)
        said = child(read, closed).end()
        lock(closed, locked=False)
        assert said == [[[1], [2]]]
        (closed / "catalog.sqlite-shm").unlink(missing_ok=True)


def test_who_may_not_write_sees_what_the_owner_commits(closed, child):
    """As long as the owner has the lake open; a lake that nobody has open is read as it was."""
    with lakehouse.open(closed) as lake:
        lock(closed)
        read = "import lakehouse\nlake = lakehouse.open(args[0])\nwhile sys.stdin.readline():\n    say(lake.sql('FROM t ORDER BY x').fetchall())"
        reader = child(BOUND + read, closed)
        reader.go()
        assert reader.hear() == [[1]]
        lock(closed, locked=False)
        lake.sql("INSERT INTO t VALUES (2)")
        lock(closed)
        reader.go()
        assert reader.hear() == [[1], [2]]
        lock(closed, locked=False)
    reader.go()
    assert reader.end() == [[[1], [2]]]


def test_a_lake_that_nobody_has_open_is_of_one_moment(closed, child):
    """Its older snapshots and its sandbox are read where it is read, whatever the owner does meanwhile."""
    lock(closed)
    code = """
        lake = lakehouse.open(args[0])
        while sys.stdin.readline():
            with lake.sandbox() as box:
                strange = box.sql("SELECT count(*) AS n FROM t").arrow()["n"].to_pylist()
            then = lake.sql("FROM t", at=lake.catalog.current_snapshot().id).fetchall()
            say([lake.sql("FROM t").fetchall(), then, strange])
    """
    reader = child(BOUND + "import lakehouse" + code.replace("\n        ", "\n"), closed)
    reader.go()
    assert reader.hear() == [[[1]], [[1]], [1]]
    lock(closed, locked=False)
    with lakehouse.open(closed) as lake:
        lake.sql("INSERT INTO t VALUES (2)")
        reader.go()
        assert reader.end() == [[[[1]], [[1]], [1]]]


def test_the_owner_closes_the_lake_while_it_is_opened_by_who_may_not_write(closed, child):
    lake = lakehouse.open(closed)
    lake.sql("INSERT INTO t VALUES (2)")
    lock(closed)
    code = """
        from lakehouse.catalog.metadata import Metadata
        begin = Metadata.__init__
        def wait(self, database):
            say([])
            sys.stdin.readline()
            begin(self, database)
        Metadata.__init__ = wait
        say(lakehouse.open(args[0]).sql("FROM t ORDER BY x").fetchall())
    """
    reader = child(BOUND + "import lakehouse" + code.replace("\n        ", "\n"), closed)
    reader.hear()
    lock(closed, locked=False)
    lake.close()
    lock(closed)
    reader.go()
    assert reader.end() == [[[1], [2]]]
    lock(closed, locked=False)


def test_the_owners_folder_for_temporary_files_is_not_ours(foreign, child):
    (foreign.parent / "spill").mkdir()
    (foreign / "lakehouse.toml").write_text(f'[storage]\ntemp_directory = "{foreign.parent / "spill"}"\n')
    (foreign.parent / "spill").chmod(0o555)
    code = "import lakehouse\nsay(lakehouse.open(args[0]).sql('SELECT count(*) FROM t').fetchall())"
    assert child(BOUND + code, foreign).end() == [[[999]]]


def test_rights_that_its_user_has_not_count_as_well(closed, child):
    """As a service may have them: another user with the right to pass over modes."""
    lock(closed)
    code = """
        import ctypes, os, struct
        from pathlib import Path
        from lakehouse.catalog.foreign import writable
        libc = ctypes.CDLL(None)
        more = os.geteuid() == 0 and libc.prctl(23, 1, 0, 0, 0) == 1  # PR_CAPBSET_READ, CAP_DAC_OVERRIDE
        if more:
            assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
            os.setresuid(65534, 65534, 65534)
            header, kept = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", 6, 6, 0, 0, 0, 0)
            assert libc.capset(header, kept) == 0
        say([more, os.access(args[0], os.W_OK), writable(Path(args[0]))])
    """
    [[more, by_user, counted]] = child(code, closed).end()
    lock(closed, locked=False)
    assert (by_user, counted) == (False, more)


def test_a_forked_process_leaves_the_temporary_folder_and_its_maker_removes_it(child):
    code = """
        from pathlib import Path
        from lakehouse.catalog.foreign import Place
        import os
        place = Place(None)
        if not (forked := os.fork()):
            sys.exit()
        os.waitpid(forked, 0)
        say([str(place.path), place.path.is_dir()])
    """
    [[path, there]] = child(code).end()
    assert there
    assert not os.path.exists(path)


def test_a_source_that_may_not_be_read(reachable, child):
    (reachable / "secret.csv").write_text("id\n1\n")
    (reachable / "secret.csv").chmod(0)
    (reachable / "open").mkdir()
    (reachable / "open").chmod(0o777)
    code = "import lakehouse, lakehouse.lake, duckdb, pyarrow\n" + as_other_user() + TRY
    code += "lake = lakehouse.open(args[0] + '/open/lake')\nattempt(lambda: lake.ingest(args[0] + '/secret.csv', 't'))"
    code += "\nsay([len(lake.catalog.snapshots())])"
    refused, snapshots = child(code, reachable).end()
    assert refused[0] == "SourceUnreadable"
    assert "ermission denied" in refused[1]
    assert snapshots == [1]


def test_the_default_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with lakehouse.open() as lake:
        assert lake.path == tmp_path / "lake"
    monkeypatch.setenv("LAKEHOUSE_PATH", str(tmp_path / "other"))
    with lakehouse.open() as lake:
        assert lake.path == tmp_path / "other"


def test_a_closed_lake(closed):
    lake = lakehouse.open(closed)
    lake.close()
    lake.close()
    for work in (
        lambda: lake.sql("FROM t"),
        lake.catalog.tables,
        lambda: lake.sql("INSERT INTO t VALUES (1)"),
    ):
        with pytest.raises(errors.LakeClosed, match="is closed"):
            work()


@pytest.mark.parametrize("path", ["~nosuch/lake", "n" * 300, "a\0b", "a\udcff", 7])
def test_paths_that_cannot_be(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for how in ({}, {"read_only": True}):
        with pytest.raises(errors.LakeUnusable, match="cannot be a lake folder"):
            lakehouse.open(path, **how)
    assert content(tmp_path) == {}
