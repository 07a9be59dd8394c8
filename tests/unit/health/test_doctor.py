"""`lake.doctor()`: a whole lake is healthy; every kind of damage is named, with what to do."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner

import lakehouse
from lakehouse import errors
from lakehouse.cli import main
from lakehouse.health import inventory
from lakehouse.lake import diagnose


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A lake with files, deletes, rows in the catalog, objects, a tag and settings."""
    folder = tmp_path_factory.mktemp("full") / "lake"
    with lakehouse.open(folder) as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS x FROM range(1000)")
        lake.sql("INSERT INTO t SELECT 5000 + range FROM range(50)")
        lake.sql("DELETE FROM t WHERE x < 20")
        lake.sql("INSERT INTO t VALUES (1)")
        lake.maintenance.compact("t")
        lake.storage.put("a/b.txt", b"content")
        lake.catalog.tag_snapshot("first", 1)
    (folder / "lakehouse.toml").write_text("[query]\nmax_rows = 1000\n")
    return folder


@pytest.fixture
def full(once, tmp_path):
    """A copy of it for each test."""
    with lakehouse.open(shutil.copytree(once, tmp_path / "full")) as lake:
        yield lake


def data_file(lake):
    return max((f for f in inventory.take(lake.catalog.metadata, lake.path / "data").known), key=lambda f: f.bytes).path


def faults(lake, **how):
    return [(finding.what, finding.where) for finding in diagnose(lake.path, **how).faults]


def test_a_whole_lake_is_healthy(full):
    found = full.doctor(checksums=True)
    assert (found.healthy, found.faults, found.notes, found.repaired) == (True, [], [], ())
    assert {"catalog", "data files", "objects", "state.sqlite", "lake.json", "disk", "versions"} <= {
        finding.where for finding in found.findings
    }
    assert full.doctor(repair=True).repaired == ()
    assert full.sql("SELECT count(*) FROM t").fetchall() == [(1031,)]


def test_a_new_lake_is_healthy(lake):
    assert lake.doctor(checksums=True).healthy


def test_a_missing_data_file(full):
    file = data_file(full)
    file.unlink()
    ((what, where),) = faults(full)
    assert where == str(file)
    assert "missing" in what
    assert "rows of t" in what
    assert "1,000 rows" in what
    assert "backup" in diagnose(full.path).faults[0].advice
    assert "missing" in faults(full, repair=True)[0][0]  # that is nothing to be repaired
    for query in ("SELECT sum(x) FROM t WHERE x > 3", "SELECT sum(x) FROM t AT (VERSION => 2)"):
        with pytest.raises(errors.LakeUnusable, match="a data file of the lake is missing"):
            full.sql(query)


def test_a_cut_data_file(full):
    file = data_file(full)
    os.truncate(file, 100)
    assert [where for _, where in faults(full)] == [str(file)]


def test_a_data_file_without_a_footer(full):
    file = data_file(full)
    file.write_bytes(b"x" * file.stat().st_size)
    ((what, where),) = faults(full)
    assert (where, "no Parquet" in what) == (str(file), True)


def test_a_data_file_with_other_rows(full):
    file = data_file(full)
    size = file.stat().st_size
    # As many bytes, fewer rows: what follows the footer's end is padding before it.
    other = file.with_name("other.parquet")
    full._database.root.execute(f"COPY (SELECT 1 AS x) TO '{other}' (FORMAT parquet)")
    content = other.read_bytes()
    other.unlink()
    file.write_bytes(content[:4] + b"\0" * (size - len(content)) + content[4:])
    ((what, where),) = faults(full)
    assert where == str(file)
    assert "1 rows" in what or "no Parquet" in what


def test_one_changed_bit_shows_against_the_first_checksum(full):
    file = data_file(full)
    assert full.doctor(checksums=True).healthy
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    assert full.doctor().healthy  # nobody has read it
    ((what, where),) = faults(full, checksums=True)
    assert (where, "content is not what it was" in what) == (str(file), True)


def test_what_was_never_committed_is_a_note_and_repaired_when_old(full):
    lost = full.path / "data" / "main" / "t" / "ducklake-lost.parquet"
    lost.write_bytes(b"x" * 10)
    found = diagnose(full.path, repair=True)
    assert found.healthy
    assert "1 file (10 bytes)" in found.notes[0].what
    assert lost.exists()  # it may be of a write under way
    os.utime(lost, (1, 1))
    assert "1 file, 10 bytes" in diagnose(full.path, repair=True).repaired[0]
    assert not lost.exists()
    assert full.sql("SELECT count(*) FROM t").fetchall() == [(1031,)]


def test_a_missing_mark_is_written_again(full):
    full.close()
    for damage in ((full.path / "lake.json").unlink, lambda: (full.path / "lake.json").write_text("{")):
        damage()
        assert [where for _, where in faults(full)] == ["lake.json"]
        assert "lake.json" in diagnose(full.path, repair=True).repaired[0]
        assert diagnose(full.path).healthy
    with lakehouse.open(full.path) as again:
        assert again.catalog.table("t").row_count == 1031


def test_a_lake_of_a_newer_version_is_left_alone(full):
    (full.path / "lake.json").write_text('{"format": 99}')
    assert "newer version" in faults(full, repair=True)[0][0]
    assert (full.path / "lake.json").read_text() == '{"format": 99}'


@pytest.mark.parametrize("damage", ["missing", "empty", "junk", "middle"])
def test_a_broken_catalog_is_told_and_not_touched(full, damage):
    full.close()
    catalog = full.path / "catalog.sqlite"
    if damage == "missing":
        catalog.unlink()
    elif damage == "empty":
        os.truncate(catalog, 0)
    elif damage == "junk":
        catalog.write_bytes(b"this is no database" * 1000)
    else:
        content = bytearray(catalog.read_bytes())
        content[4096:60_000] = b"\xff" * (60_000 - 4096)
        catalog.write_bytes(content)
    before = catalog.read_bytes() if catalog.exists() else None
    found = diagnose(full.path, repair=True)
    assert "catalog.sqlite" in {finding.where for finding in found.faults}
    assert any("nobody knows which table" in finding.what for finding in found.notes)
    assert all(finding.advice for finding in found.faults)
    assert (catalog.read_bytes() if catalog.exists() else None) == before
    assert found.repaired == ()


def test_a_damaged_object(full):
    (file,) = [path for path in (full.path / "objects" / "keys").rglob("*") if path.is_file()]
    file.chmod(0o644)
    file.write_bytes(b"changed")
    assert full.doctor().healthy
    assert faults(full, checksums=True) == [("its content is not what was put (SHA-256 d67e2e944994…)", "a/b.txt")]


def test_a_damaged_state_file(full):
    (full.path / "state.sqlite").write_bytes(b"junk" * 2000)
    assert [where for _, where in faults(full)] == ["state.sqlite"]


def test_a_tag_of_a_snapshot_that_is_gone(full):
    with full._state.write() as state:
        state.execute("INSERT INTO snapshot_tag VALUES ('lost', 999, '2026-01-01')")
    assert faults(full)[0][0].startswith("the tag 'lost'")
    assert "lost" in diagnose(full.path, repair=True).repaired[0]
    assert full.catalog.snapshot_tags() == {"first": 1}


def test_broken_settings(full):
    (full.path / "lakehouse.toml").write_text("[query]\nmax_rows = 'many'\n")
    assert [where for _, where in faults(full)] == ["lakehouse.toml"]


def test_a_lock_that_is_held_is_a_note(full):
    with full._writer.lock.hold(1):
        found = full.doctor()
    assert found.healthy
    assert "process" in found.notes[0].what


@pytest.mark.parametrize("what", ["nothing", "file", "strange"])
def test_what_is_no_lake(tmp_path, what):
    if what == "file":
        (tmp_path / "x").write_text("hello")
    elif what == "strange":
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "photo.jpg").write_text("")
    found = diagnose(tmp_path / "x")
    assert not found.healthy
    assert all(finding.advice for finding in found.faults)
    assert not (tmp_path / "x").is_dir() or sorted(os.listdir(tmp_path / "x")) == ["photo.jpg"]


def test_the_command(full):
    run = CliRunner().invoke
    assert (run(main, ["--lake", str(full.path), "doctor"]).exit_code) == 0
    data_file(full).unlink()
    shown = run(main, ["--lake", str(full.path), "doctor"])
    assert shown.exit_code == 1
    assert "fault" in shown.output
    assert "missing" in shown.output
    told = run(main, ["--lake", str(full.path), "doctor", "--json"])
    assert told.exit_code == 1
    assert json.loads(told.output)["healthy"] is False
    assert "as it should" not in told.output
    assert run(main, ["--lake", str(full.path / "nowhere"), "doctor"]).exit_code == 1
