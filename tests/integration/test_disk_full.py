"""A full disk: a clear error, the table as it was, and work goes on when there is space again.

As root on a small file system of our own; otherwise under a limit on file sizes, which fails the same writes.
"""

import os
import resource
import signal
import subprocess
from contextlib import contextmanager

import pytest

import lakehouse
from lakehouse.errors import LakehouseError

SIZE = 3 << 20  # of the small file system, and of the largest file where there is none


class Mounted:
    """A file system of a few megabytes that is filled up and freed by one file."""

    def __init__(self, folder):
        self.folder = folder
        self._ballast = folder / ".ballast"

    @contextmanager
    def full(self):
        with self._ballast.open("wb") as file:
            try:
                for block in (1 << 16, 1):
                    while True:
                        os.write(file.fileno(), b"\0" * block)
            except OSError:
                pass
            file.close()
            yield
        self._ballast.unlink()

    @contextmanager
    def nearly_full(self):
        """Room for a commit of the catalog, not for a megabyte."""
        self._ballast.write_bytes(b"\0" * (SIZE - 1_500_000))
        yield
        self._ballast.unlink()


class Limited:
    """A limit on the size of files that this process writes: 0, or too small for data."""

    def __init__(self, folder):
        self.folder = folder

    @contextmanager
    def _limit(self, size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    def full(self):
        return self._limit(0)

    def nearly_full(self):
        return self._limit(1_000_000)


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield (Mounted if mounted else Limited)(folder)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def source(tmp_path):
    """A few megabytes that do not compress."""
    lines = (f"{i},{os.urandom(60).hex()}\n" for i in range(60_000))
    (tmp_path / "big.csv").write_text("id,x\n" + "".join(lines))
    return tmp_path / "big.csv"


def says_full(error):
    text = str(error).lower()
    return "full" in text or "no space" in text or "file too large" in text


def state(lake):
    return (
        lake.catalog.snapshots(),
        lake.sql("SELECT count(*), sum(id) FROM t").fetchall(),
        len(lake.catalog.tables()),
    )


@pytest.mark.parametrize("how", ["nearly_full", "full"])
def test_loads_and_inserts_into_a_full_lake(disk, source, how):
    with lakehouse.open(disk.folder / "lake") as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS id, 'x' AS x FROM range(100)")
        before = state(lake)
        text = "SELECT range AS id, md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS x FROM range(100000)"
        writes = [
            lambda: lake.ingest(source, "t"),
            lambda: lake.ingest(source, "t", mode="replace"),
            lambda: lake.ingest(source, "new"),
            lambda: lake.sql(f"INSERT INTO t {text}"),
            lambda: lake.sql(f"CREATE TABLE new AS {text}"),
        ]
        if how == "full":
            writes.append(lambda: lake.sql("INSERT INTO t VALUES (1, 'y')"))
            writes.append(lambda: lake.catalog.create_schema("s"))
        with getattr(disk, how)():
            for write in writes:
                with pytest.raises(LakehouseError) as caught:
                    write()
                assert says_full(caught.value), str(caught.value)
                if how == "nearly_full":  # on a full disk the catalog's log has no room, so nobody reads either
                    assert state(lake) == before
        assert state(lake) == before
        assert lake.sql("INSERT INTO t VALUES (1000, 'after')").kind == "write"
        small = disk.folder / "small.csv"
        small.write_text("id,x\n" + "".join(f"{i},y\n" for i in range(50)))
        assert lake.ingest(small, "t").rows == 50
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(151,)]
    with lakehouse.open(disk.folder / "lake") as again:
        assert again.sql("SELECT count(*) FROM t").fetchall() == [(151,)]
        # What the failed loads had written is gone, so the space is there for others.
        kept = {
            row[0].rsplit("/", 1)[-1] for row in again.catalog.metadata.rows("s", "SELECT path FROM ducklake_data_file")
        }
        landed = {path.name for path in (again.path / "data").rglob("lakehouse-*.parquet")}
        assert landed <= kept


def test_a_lake_cannot_be_made_on_a_full_disk_and_can_be_afterwards(disk):
    with disk.full():
        with pytest.raises(LakehouseError) as caught:
            lakehouse.open(disk.folder / "lake").close()
        assert says_full(caught.value)
    with lakehouse.open(disk.folder / "lake") as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS x")
        assert lake.sql("SELECT x FROM t").fetchall() == [(1,)]


def test_an_archive_that_does_not_fit_the_temporary_folder(disk, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.csv", "id\n" + "1234567\n" * 1_000_000)
    settings = {"storage": {"temp_directory": str(disk.folder / "temp")}}
    with lakehouse.open(tmp_path / "lake", settings=settings) as lake:
        with disk.nearly_full(), pytest.raises(LakehouseError) as caught:
            lake.ingest(tmp_path / "big.zip", "t")
        assert says_full(caught.value)
        assert lake.catalog.tables() == []
        assert not any((disk.folder / "temp").rglob("*"))
