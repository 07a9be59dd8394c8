"""What the kernel alone holds, with the gate off: by SQL that reaches out, and by a worker that has been taken over."""

from __future__ import annotations

import json
import os
import socket

import pytest

import lakehouse
from lakehouse.errors import LakehouseError
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.sandbox import Sandbox

SECRET = "not-for-strangers"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake with a secret beside its tables, in its settings and in the environment."""
    folder = tmp_path_factory.mktemp("kernel") / "lake"
    with lakehouse.open(folder) as opened:
        opened.sql("CREATE TABLE orders AS SELECT range AS id FROM range(1000)")
        opened.sql("CREATE TABLE few AS SELECT 1 AS id")
        assert opened.queries()  # the history is written
        (folder / "lakehouse.toml").write_text(f'[auth]\ntoken = "{SECRET}"\n')
        (folder.parent / "beside.csv").write_text(f"word\n{SECRET}\n")
        os.environ["AUTH_TOKEN"] = SECRET
        yield opened
        del os.environ["AUTH_TOKEN"]


class Forgiving(Pool):
    """Keeps a worker after an error, so that what one statement has set up is there for the next."""

    def release(self, worker, *, clean):
        super().release(worker, clean=worker.process.poll() is None)


@pytest.fixture(scope="module")
def pools(lake):
    """Workers without a gate, and workers that run Python; both kinds of each."""
    made = {entry: Forgiving(lake.path, lake.settings, read_only=False, entry=entry) for entry in ("ungated", "native")}
    yield made
    for pool in made.values():
        pool.close()


@pytest.fixture(scope="module")
def ungated(lake, pools):
    return Sandbox(pools["ungated"], "stranger", lake.settings, lake.catalog)


@pytest.fixture(scope="module")
def taken(lake, pools):
    """What a worker that was taken over says when it is told to evaluate something."""
    sandbox = Sandbox(pools["native"], "stranger", lake.settings, lake.catalog)

    def tell(code: str, *, write: bool = False):
        answer = sandbox._ask(sandbox_request(code), None, None, None, write=write)
        return json.loads(answer.arrow().column(0)[0].as_py())

    return tell


def sandbox_request(code: str):
    from lakehouse.query.sandbox.wire import Request

    return Request(code)


def whole(lake) -> dict[str, tuple[int, int, int]]:
    """Size, change and mode of every file of the lake but its temporary ones and SQLite's shared memory."""
    return {
        str(path): (stat.st_size, stat.st_mtime_ns, stat.st_mode)
        for path in sorted(lake.path.rglob("*"))
        if path.is_file() and "tmp" not in path.parts and not path.name.endswith("-shm")
        for stat in [path.stat()]
    }


def refused(lake) -> dict[str, str]:
    """What a taken-over reader may try, by what it would gain."""
    at = str(lake.path)
    parquet = next(str(path) for path in lake.path.rglob("*.parquet"))
    return {
        "a file of the system": "open('/etc/passwd').read()",
        "the token in the settings": f"open('{at}/lakehouse.toml').read()",
        "other people's queries": f"open('{at}/queries.sqlite', 'rb').read()",
        "a file beside the lake": f"open('{at}/../beside.csv').read()",
        "its own environment": "open('/proc/self/environ').read()",
        "the parent's environment": "open(f'/proc/{os.getppid()}/environ').read()",
        "the parent's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "what is in the lake": f"os.listdir('{at}')",
        "what is in the root": "os.listdir('/')",
        "changing the catalog": f"open('{at}/catalog.sqlite', 'r+b')",
        "changing the log of the catalog": f"open('{at}/catalog.sqlite-wal', 'r+b')",
        "changing the catalog's shared memory": f"open('{at}/catalog.sqlite-shm', 'r+b')",
        "emptying the catalog": f"os.truncate('{at}/catalog.sqlite', 0)",
        "taking the writer's turn": f"open('{at}/write.lock', 'r+b')",
        "changing rows": f"open('{parquet}', 'r+b')",
        "deleting rows": f"os.unlink('{parquet}')",
        "a new file among the rows": f"open('{at}/data/new.parquet', 'wb')",
        "renaming rows": f"os.rename('{parquet}', '{parquet}.old')",
        "modes of the catalog": f"os.chmod('{at}/catalog.sqlite', 0)",
        "owner of the catalog": f"os.chown('{at}/catalog.sqlite', 12345, 12345)",
        "times of rows": f"os.utime('{parquet}', (0, 0))",
        "a link to the catalog": f"os.link('{at}/catalog.sqlite', os.environ['TMPDIR'] + '/c')",
        "a way out by a symbolic link": "os.symlink('/etc', os.environ['TMPDIR'] + '/etc')",
        "TCP": "socket.socket().connect(('127.0.0.1', 9))",
        "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "a unix socket": "socket.socket(socket.AF_UNIX)",
        "netlink": "socket.socket(16, 3, 0)",
        "a new pair of sockets": "socket.socketpair()",
        "fork": "os.fork()",
        "another program": "os.execv('/bin/true', ['true'])",
        "another program, spawned": "os.posix_spawn('/bin/true', ['true'], {})",
        "ending the parent": "os.kill(os.getppid(), 0)",
        "ending everybody": "os.kill(-1, 0)",
        "another root": "os.chroot('/tmp')",
        "more power": "os.setuid(0) or os.chroot('/')",
        "more memory": "__import__('resource').setrlimit(2, (-1, -1))",
        "more files": "__import__('resource').setrlimit(7, (99999, 99999))",
    }  # fmt: skip


def let_through(got: dict[str, object]) -> dict[str, object]:
    """What did not end in a refusal: EACCES or EPERM, EXDEV for links between folders, ValueError for limits."""
    refusals = ("PermissionError 1", "PermissionError 13", "OSError 18", "ValueError ")
    return {what: said for what, said in got.items() if said not in refusals}


def test_a_reader_that_was_taken_over_reaches_nothing(lake, taken):
    before = whole(lake)
    got = {what: taken(code) for what, code in refused(lake).items()}
    assert let_through(got) == {}
    assert whole(lake) == before


def test_system_calls_that_have_no_name_in_python(taken):
    calls = {"ptrace": (101, 117), "bpf": (321, 280), "io_uring_setup": (425, 425), "unshare": (272, 97),
             "mount": (165, 40), "keyctl": (250, 219), "process_vm_readv": (310, 270), "userfaultfd": (323, 282),
             "shmget": (29, 194), "pidfd_open": (434, 434), "open_by_handle_at": (304, 265), "clone3": (435, 435),
             "clone": (56, 220)}  # fmt: skip
    column = 0 if os.uname().machine == "x86_64" else 1
    for name, numbers in calls.items():
        said = taken(f"[libc.syscall({numbers[column]}, 0, 0, 0, 0, 0, 0), ctypes.get_errno()]")
        assert said[0] == -1, name
        assert said[1] in (1, 38), name


def test_what_a_worker_knows(lake, taken):
    environment = taken("dict(os.environ)")
    assert SECRET not in json.dumps(environment)
    assert set(environment) <= {"PYTHONPATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR", "OPENBLAS_NUM_THREADS", "TZ",
                                "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}  # fmt: skip
    opened = taken("[n for n in range(1 << 14) if libc.fcntl(n, 1) >= 0 and n > 2 and "
                   "__import__('stat').S_ISSOCK(os.fstat(n).st_mode)]")  # fmt: skip
    assert len(opened) == 2
    assert taken("os.getpgid(0) == os.getpid() == os.getsid(0)") is True
    assert taken("open(os.environ['TMPDIR'] + '/mine', 'w').write('x')") == 1


def test_a_writer_that_was_taken_over_has_the_lake_and_nothing_else(lake, taken):
    at = lake.path
    own = ("changing", "emptying", "taking", "deleting", "a new file", "renaming")
    got = {what: taken(code, write=True) for what, code in refused(lake).items() if not what.startswith(own)}
    assert let_through(got) == {}
    assert taken(f"open('{at}/data/mine', 'w').write('x')", write=True) == 1
    assert taken(f"os.unlink('{at}/data/mine')", write=True) is None
    for path in ("lake.json", "lakehouse.toml", "state.sqlite", "queries.sqlite", "new"):
        assert str(taken(f"open('{at}/{path}', 'a')", write=True)).startswith("PermissionError"), path


REACHING_OUT = (
    "FROM read_text('{at}/lakehouse.toml')",
    "FROM read_csv('{at}/../beside.csv')",
    "FROM '{at}/../beside.csv'",
    "FROM glob('/etc/*')",
    "FROM sqlite_scan('{at}/queries.sqlite', 'query')",
    "FROM sqlite_query('__ducklake_metadata_lake', 'DELETE FROM ducklake_snapshot RETURNING 1')",
    "ATTACH '{at}/state.sqlite' AS other (TYPE sqlite)",
    "ATTACH '{at}/../new.duckdb' AS other",
    "COPY few TO '{at}/data/x.csv'",
    "COPY few TO '{at}/../x.csv'",
    "EXPORT DATABASE '{at}/../export'",
    "INSERT INTO lake.main.few VALUES (2)",
    "DROP TABLE lake.main.few",
    "CALL lake.set_option('target_file_size', '1GB')",
    "CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)",
    "FROM postgres_scan('host=127.0.0.1 port={port}', 'a', 'b')",
    "FROM read_text('http://127.0.0.1:{port}/')",
    "INSTALL httpfs FROM 'http://127.0.0.1:{port}'",
    "LOAD '{at}/../beside.csv'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET allowed_directories",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "CALL enable_logging(storage = 'file', storage_path = '{at}/../log')",
)  # fmt: skip


def test_sql_without_a_gate_neither_reads_nor_writes_nor_connects(lake, ungated):
    before, beside = whole(lake), sorted(os.listdir(lake.path.parent))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for sql in REACHING_OUT:
            text = sql.format(at=lake.path, port=server.getsockname()[1])
            try:
                rows = str(ungated.sql(text, timeout=20).arrow().to_pylist())
            except LakehouseError as error:
                rows = f"{error.code} {error}"
            assert "query_timeout" not in rows, text
            assert SECRET not in rows, text
            assert whole(lake) == before, text
        with pytest.raises(BlockingIOError):
            server.accept()
    assert sorted(os.listdir(lake.path.parent)) == beside
    assert lake.sql("SELECT count(*) FROM few").fetchone() == (1,)
