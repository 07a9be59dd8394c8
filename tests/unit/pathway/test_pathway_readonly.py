"""A memory in a folder that cannot be written: read where it is, or through an index in the temporary folder."""

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from lakehouse import errors
from lakehouse.pathway import place
from lakehouse.pathway.store import Pathway

READ = """
    import os, tempfile
    from pathlib import Path
    from lakehouse.pathway.store import Pathway
    warm = Pathway(Path(args[1]) / "warm")  # everything is imported while everything can be read
    warm.add("flights are late")
    for mode in ("lexical", "hybrid"):
        warm.search("flights", mode=mode)
    warm.close()
    if os.getuid() == 0:
        os.setuid(65534)
    tempfile.tempdir = args[2]
    pathway = Pathway(Path(args[0]), read_only=True)
    def look():
        try:
            found = [one.trace.uid for one in pathway.search("flights", mode="lexical")]
            meant = sorted(one.trace.uid for one in pathway.search("delayed aircraft", mode="semantic"))
            got = pathway.get("a").content
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})
            raise
        say({"found": found, "meant": meant, "got": got, "made": sorted(os.listdir(args[2]))})
    look()
    for line in sys.stdin:
        if line.strip() == "close":
            pathway.close()
            say({"made": sorted(os.listdir(args[2]))})
        else:
            look()
"""


@pytest.fixture
def lake():
    """A folder with two traces, and one for temporary files, where anybody may come."""
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    for name in ("lake", "warm", "tmp"):
        (home / name).mkdir()
    (home / "tmp").chmod(0o777)
    writer = Pathway(home / "lake")
    writer.add("flights are late", uid="a")
    writer.add("planes are old", uid="b")
    writer.search("late", mode="hybrid")
    yield home / "lake", writer
    (home / "lake").chmod(0o755)
    writer.close()
    shutil.rmtree(home)


def reader(child, lake):
    lake.chmod(0o555)
    for file in lake.iterdir():
        file.chmod(0o444)
    one = child(READ, lake, lake.parent / "warm", lake.parent / "tmp")
    return one, one.hear()


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".index-shm"}


def closed(one, lake):
    one.process.stdin.write("close\n")
    one.process.stdin.flush()
    assert one.hear() == {"made": []}
    one.end()


def test_a_current_index_is_read_where_it_is(lake, child):
    folder, writer = lake
    writer.close()
    before = files(folder)
    one, said = reader(child, folder)
    assert said == {"found": ["a"], "meant": ["a", "b"], "got": "flights are late", "made": []}
    closed(one, folder)
    assert files(folder) == before


def test_an_index_that_is_being_written_is_read_with_what_is_in_its_log(lake, child):
    folder, writer = lake
    assert folder.joinpath("traces.index-wal").stat().st_size
    one, said = reader(child, folder)
    assert said == {"found": ["a"], "meant": ["a", "b"], "got": "flights are late", "made": []}
    folder.chmod(0o755)
    writer.add("more flights", uid="c")
    writer.search("late", mode="hybrid")
    folder.chmod(0o555)
    one.go()
    assert one.hear()["found"] == ["c", "a"]
    closed(one, folder)


@pytest.mark.parametrize("lost", ["index", "all but the journal", "another version", "damaged"])
def test_without_an_index_one_is_made_in_the_temporary_folder(lake, child, lost):
    folder, writer = lake
    writer.close()
    if lost == "damaged":
        (folder / "traces.index").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    elif lost == "another version":
        with sqlite3.connect(folder / "traces.index") as connection:
            connection.execute("PRAGMA user_version = 1")
        connection.close()
    else:
        for file in folder.iterdir():
            if file.suffix == ".index" or (lost != "index" and file.name != "traces.jsonl"):
                file.unlink()
    before = files(folder)
    one, said = reader(child, folder)
    assert (said["found"], said["meant"], said["got"]) == (["a"], ["a", "b"], "flights are late")
    assert len(said["made"]) == 1
    closed(one, folder)
    assert files(folder) == before


def test_an_index_that_is_behind_is_caught_up_in_a_copy(lake, child):
    folder, writer = lake
    writer.close()
    old = {name: (folder / name).read_bytes() for name in ("traces.index",)}
    writer.add("more flights", uid="c")
    writer.close()
    for name, data in old.items():
        (folder / name).write_bytes(data)
    before = files(folder)
    one, said = reader(child, folder)
    assert (said["found"], said["meant"]) == (["c", "a"], ["a", "b", "c"])
    assert len(said["made"]) == 1
    closed(one, folder)
    assert files(folder) == before


def test_a_temporary_folder_without_room_is_an_error(lake, monkeypatch):
    folder, writer = lake
    writer.close()
    (folder / "traces.index").unlink()
    full = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(place.shutil, "disk_usage", lambda path: full)
    opened = os.open

    def refused(path, flags, *more, **named):
        if str(path).startswith(str(folder)) and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(place.os, "open", refused)
    with pytest.raises(errors.LakeUnusable, match="read-only"):
        Pathway(folder, read_only=True).get("a")
