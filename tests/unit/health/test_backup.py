"""`lake.backup()` and `lakehouse.restore()`: the same lake again, or a clear refusal."""

import json
import threading

import pytest
from click.testing import CliRunner

import lakehouse
from lakehouse.cli import main
from lakehouse.config import Settings
from lakehouse.errors import BackupUnusable, LakeUnusable
from lakehouse.health import manifest
from lakehouse.health.backup import without_secrets
from lakehouse.health.maintenance import Maintenance
from lakehouse.lake import verify_backup


@pytest.fixture
def full(lake, tmp_path):
    lake.sql("CREATE SCHEMA odd; CREATE TABLE odd.\"a b\" AS SELECT 'é' AS s, 1.5::DECIMAL(9,2) AS d")
    lake.sql("CREATE TABLE t AS SELECT range AS x FROM range(1000)")
    lake.sql("DELETE FROM t WHERE x < 20")
    lake.sql("INSERT INTO t VALUES (1)")
    lake.sql("CREATE VIEW v AS SELECT max(x) AS m FROM t")
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    lake.ingest(tmp_path / "a.csv", "loaded")
    lake.catalog.tag_snapshot("early", 3)
    lake.storage.put("landing/ü.bin", b"\0\1" * 5000)
    lake.storage.put("empty", b"")
    (lake.path / "lakehouse.toml").write_text("[query]\nmax_rows = 777_777\n")
    return lake


def everything(lake):
    """All that a restored lake must have."""
    return {
        "snapshots": lake.catalog.snapshots(),
        "tags": lake.catalog.snapshot_tags(),
        "tables": {
            table.full_name: (sorted(lake.sql(f"SELECT * FROM {table.full_name}").fetchall()), table.schema)
            for table in (*lake.catalog.tables(), *lake.catalog.views())
        },
        "past": [lake.sql(f"SELECT count(*), sum(x) FROM t AT (VERSION => {n})").fetchall() for n in (3, 4, 5)],
        "objects": {info.key: (lake.storage.get(info.key), info.sha256) for info in lake.storage.list()},
        "settings": lakehouse.open(lake.path, read_only=True).settings.query.max_rows,
    }


def test_a_restored_lake_is_the_same_lake(full, tmp_path):
    full.queries()  # what was asked is in its file now
    report = full.backup(tmp_path / "backup")
    assert report.snapshot == full.catalog.current_snapshot().id
    assert report.left_out == ("queries.sqlite: it belongs to this place, or is none of the lake's files",)
    done = lakehouse.restore(tmp_path / "backup", tmp_path / "again")
    assert (done.files, done.bytes, done.snapshot) == (report.files, report.bytes, report.snapshot)
    with lakehouse.open(tmp_path / "again") as again:
        assert everything(again) == everything(full)
        assert again.doctor(checksums=True).healthy
        assert again.ingest(tmp_path / "a.csv", "loaded").duplicate
        again.sql("INSERT INTO t VALUES (99)")
        again.maintenance.compact("t")
    assert full.catalog.table("t").row_count == 981


def test_a_second_backup_copies_what_is_new(full, tmp_path):
    first = full.backup(tmp_path / "backup")
    full.sql("INSERT INTO t SELECT range FROM range(300)")
    second = full.backup(tmp_path / "backup")
    assert second.copied <= 5  # catalog, state, mark, settings, one data file
    assert second.files == first.files + 1
    full.sql("DROP TABLE t")
    full.maintenance.expire("0s", dry_run=False)
    full.maintenance.clean("0s", dry_run=False)
    third = full.backup(tmp_path / "backup")
    assert third.files < second.files
    kept = {path.name for path in (tmp_path / "backup" / "files").rglob("*") if path.is_file()}
    assert kept == set(verify_backup(tmp_path / "backup").hashes())  # nothing superfluous is left
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == ["backup.json", "files"]


def test_a_backup_that_broke_off_goes_on(full, tmp_path, monkeypatch):
    place = tmp_path / "backup"

    def full_disk(self, _manifest):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(manifest.Place, "finish", full_disk)
        with pytest.raises(OSError):
            full.backup(place)
    with pytest.raises(BackupUnusable, match="no finished backup"):
        lakehouse.restore(place, tmp_path / "again")
    with pytest.raises(BackupUnusable, match="no finished backup"):
        verify_backup(place)
    report = full.backup(place)
    assert report.copied < report.files  # the data files were there
    verify_backup(place)


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "manifest", "half a manifest"])
def test_a_damaged_backup_is_refused_and_nothing_is_left(full, tmp_path, damage):
    place = tmp_path / "backup"
    full.backup(place)
    file = max((p for p in (place / "files").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if damage == "changed":
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing":
        file.unlink()
    elif damage == "manifest":
        text = (place / "backup.json").read_text()
        (place / "backup.json").write_text(text.replace("catalog.sqlite", "catalog.sqlitf"))
    else:
        (place / "backup.json").write_bytes((place / "backup.json").read_bytes()[:50])
    for work in (lambda: verify_backup(place), lambda: lakehouse.restore(place, tmp_path / "again")):
        with pytest.raises(BackupUnusable):
            work()
    assert [path.name for path in tmp_path.iterdir() if "again" in path.name] == []


def test_a_manifest_cannot_lead_out_of_the_target(full, tmp_path):
    place = tmp_path / "backup"
    full.backup(place)
    found = manifest.read(place)
    evil = manifest.Entry("../outside", found.files[0].sha256, found.files[0].size)
    fields = {name: getattr(found, name) for name in found.__struct_fields__}
    writing = manifest.Place(place)
    with writing.opened():
        writing.finish(manifest.Manifest(**{**fields, "files": (*found.files, evil)}))
    with pytest.raises(BackupUnusable, match="outside"):
        lakehouse.restore(place, tmp_path / "again")
    assert not (tmp_path / "outside").exists()


def test_places_that_are_refused(full, tmp_path, monkeypatch):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"")
    with pytest.raises(BackupUnusable, match="other things"):
        full.backup(other)
    with pytest.raises(BackupUnusable, match="in the lake itself"):
        full.backup(full.path / "backup")
    full.backup(tmp_path / "backup")
    with lakehouse.open(tmp_path / "second") as second, pytest.raises(BackupUnusable, match="another lake"):
        second.backup(tmp_path / "backup")
    with pytest.raises(LakeUnusable, match="not empty"):
        lakehouse.restore(tmp_path / "backup", full.path)
    with pytest.raises(LakeUnusable, match="is a file"):
        lakehouse.restore(tmp_path / "backup", tmp_path / "a.csv")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("LAKEHOUSE_PATH", str(tmp_path / "empty"))
    lakehouse.restore(tmp_path / "backup")
    assert verify_backup(tmp_path / "backup").snapshot == full.catalog.current_snapshot().id


def test_a_damaged_data_file_does_not_take_the_place_of_a_good_copy(full, tmp_path):
    full.doctor(checksums=True)
    file = max((full.path / "data").rglob("*.parquet"), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[30] ^= 1
    file.write_bytes(content)
    with pytest.raises(LakeUnusable, match="not what was written"):
        full.backup(tmp_path / "backup")


def test_a_backup_is_of_one_moment_while_others_write(full, tmp_path):
    """Each commit writes both tables: in the backup they agree."""
    full.sql("CREATE TABLE a (n BIGINT); CREATE TABLE b (n BIGINT)")
    stop, wrong = threading.Event(), []

    def write():
        n = 0
        try:
            with lakehouse.open(full.path) as lake:
                while not stop.is_set():
                    n += 1
                    many = 30 if n % 2 else 2
                    lake.sql(
                        f"BEGIN; INSERT INTO a SELECT {n} FROM range({many}); INSERT INTO b SELECT {n} FROM range({many}); COMMIT"
                    )
                    if n % 5 == 0:
                        lake.maintenance.compact("a")
                        lake.maintenance.expire("0s", dry_run=False)
                        lake.maintenance.clean("0s", dry_run=False)
        except Exception as error:
            wrong.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            report = full.backup(tmp_path / "backup")
            lakehouse.restore(tmp_path / "backup", tmp_path / f"again{number}")
            with lakehouse.open(tmp_path / f"again{number}", read_only=True) as again:
                assert again.catalog.current_snapshot().id == report.snapshot
                a, b = (again.sql(f"SELECT count(*), max(n) FROM {name}").fetchall() for name in "ab")
                assert a == b
                assert again.doctor().healthy
    finally:
        stop.set()
        writer.join()
    assert wrong == []


def test_cleaning_waits_while_files_are_copied(full, tmp_path, monkeypatch):
    full.maintenance.compact("t")
    seen = []
    copied = manifest.Place.add

    def slow(self, stream):
        if not seen:
            cleaner = threading.Thread(target=lambda: Maintenance.clean(full.maintenance, "0s", dry_run=False))
            cleaner.start()
            cleaner.join(0.5)
            seen.append((cleaner.is_alive(), cleaner))
        return copied(self, stream)

    monkeypatch.setattr(manifest.Place, "add", slow)
    full.backup(tmp_path / "backup")
    assert seen[0][0]
    seen[0][1].join(60)
    assert not seen[0][1].is_alive()


def test_secrets_are_left_out_of_the_settings():
    text = '[query]\nmax_rows = 5\n\n[catalog]\nauthor = "me"  # not a secret\n'
    assert without_secrets(text) == text
    assert Settings  # no setting of today is a secret; the next test makes one


def test_a_secret_is_taken_out_by_its_line(monkeypatch):
    from lakehouse.health import backup

    hints = backup.get_type_hints

    def with_a_secret(struct):
        return {**hints(struct), "author": "Secret | None"} if struct.__name__ == "CatalogSettings" else hints(struct)

    monkeypatch.setattr(backup, "get_type_hints", with_a_secret)
    assert without_secrets('[catalog]\nauthor = "s3cret"\nsync = true\n') == "[catalog]\nsync = true\n"
    assert without_secrets('catalog = { author = "s3cret", sync = true }\n') is None
    assert without_secrets('[catalog]\nauthor = """\ns3cret\n"""\n') is None


def test_the_commands(full, tmp_path):
    def run(*words):
        return CliRunner().invoke(main, ["--lake", str(full.path), *words])

    assert json.loads(run("backup", str(tmp_path / "b"), "--json").output)["copied"] > 3
    assert "copied" in run("backup", str(tmp_path / "b")).output
    assert "whole" in run("backup", str(tmp_path / "b"), "--verify").output
    again = CliRunner().invoke(main, ["--lake", str(tmp_path / "again"), "restore", str(tmp_path / "b"), "--json"])
    assert json.loads(again.output)["path"] == str(tmp_path / "again")
    refused = run("restore", str(tmp_path / "b"))
    assert (refused.exit_code, "not empty" in refused.output) == (1, True)
    assert run("backup", str(tmp_path / "nothing"), "--verify").exit_code == 1
    for words in (
        ["run"],
        ["compact", "t"],
        ["expire", "--older-than", "0s"],
        ["clean", "--older-than", "0s", "--yes"],
    ):
        assert run("maintenance", *words).exit_code == 0
        assert json.loads(run("maintenance", *words, "--json").output)[0]["operation"]
    assert "--yes does it" in run("maintenance", "expire", "--older-than", "0s").output
