"""`lake.sandbox()`: what it gives, what it stops, and that nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

import lakehouse
from lakehouse.errors import (
    LakehouseError,
    LakeReadOnly,
    ParameterFault,
    QueryCancelled,
    QueryError,
    QueryMemory,
    QueryTimeout,
    ResultTooLarge,
    SandboxBusy,
    SandboxUnavailable,
    SnapshotNotFound,
    SqlRefused,
    SyntaxFault,
    TableNotFound,
    WorkerDied,
)
from lakehouse.query.sandbox import landlock, pool
from lakehouse.query.sandbox.pool import Pool
from lakehouse.query.sandbox.sandbox import Sandbox

SETTINGS = {
    "query": {
        "progress": False,
        "sandbox_memory": "200MB",
        "sandbox_spill": "40MB",
        "sandbox_threads": 2,
        "sandbox_workers": 6,
        "max_rows": 100_000,
    }
}
FOREVER = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = 3"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    with lakehouse.open(tmp_path_factory.mktemp("sandbox") / "lake", settings=SETTINGS) as opened:
        opened.sql(
            "CREATE TABLE orders AS SELECT range AS id, range % 7 AS g, 'order ' || range AS text FROM range(50000)"
        )
        opened.sql("CREATE TABLE few AS SELECT 1 AS id")
        yield opened


@pytest.fixture(scope="module")
def sandbox(lake):
    return lake.sandbox("somebody")


@pytest.fixture
def unhurried(monkeypatch):
    """On a busy machine a small query may take long; its worker is kept all the same."""
    monkeypatch.setattr(pool, "_LONG", 1e9)


def pids(lake) -> dict[int, str | None]:
    return {worker.pid: worker.principal for worker in lake._strangers._workers}


def gone(pid: int) -> bool:
    """Whether a process has ended, with all its threads: the first of them may be dead before; waits a little."""
    for _ in range(1200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1:
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_answers_are_those_of_the_lake(lake, sandbox):
    for sql in (
        "SELECT g, count(*) AS n, max(text) AS t FROM orders GROUP BY g ORDER BY g",
        "FROM few",
        "WITH a AS (SELECT id FROM orders WHERE id < 5) SELECT list(id ORDER BY id) AS ids FROM a",
        "SELECT DATE '2026-01-31' AS d, 1.50::DECIMAL(9,2) AS m, {'a': 1} AS s, NULL AS n, 'ä' AS u",
        "SELECT id FROM orders WHERE false",
        "DESCRIBE orders",
    ):
        with sandbox.sql(sql) as answer:
            found = answer.arrow()
        expected = lake.sql(sql)
        assert found.to_pylist() == expected.arrow().to_pylist(), sql
        assert answer.types == expected.types, sql
        assert answer.snapshot == lake.catalog.metadata.current()
        assert answer.schema == found.schema
    assert sandbox.sql("FROM few").df().equals(lake.sql("FROM few").df())
    assert sandbox.protection == "full"
    assert "Landlock" in sandbox.reason


def test_values_of_parameters_arrive_as_they_are(lake, sandbox):
    values = {
        "a": 1, "b": 2**70, "c": -1.5, "d": "it's; DROP TABLE few --", "e": b"\x00\xff", "f": None, "g": True,
        "h": date(2026, 1, 31), "i": datetime(2026, 1, 31, 12, 30, 1, 250), "j": clock(23, 59, 59, 999999),
        "k": timedelta(days=-1, microseconds=7), "l": Decimal("12345678901234567.890"),
        "m": UUID("12345678-1234-5678-1234-567812345678"), "n": [1, 2, 3], "o": {"x": [1]},
        "p": datetime(2026, 1, 31, 12, tzinfo=UTC),
    }  # fmt: skip
    sql = "SELECT " + ", ".join(f"${name} AS {name}" for name in values)
    assert sandbox.sql(sql, values).arrow().to_pylist() == lake.sql(sql, values).arrow().to_pylist()
    assert sandbox.sql("SELECT id FROM orders WHERE id = ?", [7]).arrow().to_pylist() == [{"id": 7}]
    with pytest.raises(ParameterFault):
        sandbox.sql("SELECT $a", {"b": 1})
    with pytest.raises(ParameterFault, match="cannot be sent"):
        sandbox.sql("SELECT $a", {"a": object()})


def test_writes_are_commits_of_the_lake(lake, sandbox):
    before = lake.catalog.metadata.current()
    made = sandbox.run("CREATE TABLE mine AS SELECT id, text FROM orders WHERE id < 100")
    done = sandbox.run("INSERT INTO mine VALUES ($id, $text)", {"id": 100, "text": "new"})
    assert (made.snapshot, done.snapshot, done.rows, done.kind) == (before + 1, before + 2, 1, "write")
    assert lake.sql("SELECT count(*) FROM mine").fetchone() == (101,)
    assert '"principal":"somebody"' in lake.catalog.snapshots(1)[0].note
    assert "orders" in str(lake.catalog.table("mine").lineage())
    assert sandbox.sql("SELECT max(id) AS m FROM mine").arrow().to_pylist() == [{"m": 100}]
    with pytest.raises(SqlRefused):
        sandbox.run("COPY mine TO 'x.csv'")
    with pytest.raises(SqlRefused):
        sandbox.sql("DELETE FROM mine")
    sandbox.run("DROP TABLE mine")
    with pytest.raises(TableNotFound):
        sandbox.sql("FROM mine")
    with lakehouse.open(lake.path, read_only=True) as reader, pytest.raises(LakeReadOnly):
        reader.sandbox().run("INSERT INTO few VALUES (2)")


@pytest.mark.usefixtures("unhurried")
def test_a_warm_worker_sees_every_commit_and_any_snapshot(lake, sandbox):
    first = sandbox.sql("SELECT count(*) AS n FROM few")
    start = first.arrow().to_pylist()[0]["n"]
    worker = first._worker.pid
    for more in (1, 2, 3):
        snapshot = lake.sql("INSERT INTO few VALUES (7)").snapshot
        answer = sandbox.sql("SELECT count(*) AS n FROM few")
        assert (answer.snapshot, answer.arrow().to_pylist()) == (snapshot, [{"n": start + more}])
        assert answer._worker.pid == worker
    then = sandbox.sql("SELECT count(*) AS n FROM few", at=first.snapshot)
    assert (then.snapshot, then.arrow().to_pylist()) == (first.snapshot, [{"n": start}])
    assert sandbox.sql("FROM orders ORDER BY id", limit=3).arrow().num_rows == 3
    with pytest.raises(SnapshotNotFound):
        sandbox.sql("FROM few", at=10**6)
    with lakehouse.open(lake.path, at=first.snapshot) as pinned:
        assert pinned.sandbox().sql("SELECT count(*) AS n FROM few").arrow().to_pylist() == [{"n": start}]


def test_traces_can_be_read(lake, sandbox):
    for number in (1, 2):
        lake.pathway.add({"text": f"number {number}"}, kind="note")
        rows = sandbox.sql("SELECT kind, count(*) AS n FROM pathway.traces GROUP BY kind").arrow().to_pylist()
        assert rows == [{"kind": "note", "n": number}]


def test_what_is_asked_is_in_the_history(lake, sandbox):
    sandbox.sql("SELECT 'remember me' AS x", query_id="mine-1").arrow()
    with pytest.raises(SqlRefused):
        sandbox.sql("FROM read_text('remember me')")
    kept = lake.queries(2, text="remember me")
    assert [(one.query_id, one.status, one.code) for one in kept] == [
        (None, "failed", "sql_refused"),
        ("mine-1", "ok", None),
    ]


def test_errors_say_what_was_wrong_and_not_where_this_machine_keeps_things(lake, sandbox):
    for sql, kind in (
        ("SELECT * FROM nothing", TableNotFound),
        ("SELECT nothing FROM few", LakehouseError),
        ("SELECT 1 +", SyntaxFault),
        ("FROM read_csv('/etc/passwd')", SqlRefused),
        ("SELECT 1; SELECT 2", SqlRefused),
        ("SELECT CAST(text AS INTEGER) FROM orders", QueryError),
        ("", QueryError),
    ):
        with pytest.raises(kind) as caught:
            sandbox.sql(sql).arrow()
        for secret in (str(lake.path), os.path.expanduser("~"), "site-packages"):
            assert secret not in str(caught.value)


def test_rows_wait_until_they_are_taken_and_memory_stays_flat(lake, sandbox):
    with sandbox.sql("SELECT range AS a, range * 2 AS b, 'text ' || range AS c FROM range(20000000)") as answer:
        rows = answer.batches()
        held = next(rows).num_rows
        end, sent = time.monotonic() + 60, [-1, -2]
        while not sent[-1] == sent[-2] > 0:  # it has come to a stand
            assert time.monotonic() < end, sent
            time.sleep(0.3)
            sent.append(answer._worker.progress()[1])
        assert sent[-1] < 3_000_000
        while held < 4_000_000:
            batch = next(rows)
            assert batch.nbytes < 16 << 20
            held += batch.num_rows
        peak = int(Path(f"/proc/{answer._worker.pid}/status").read_text().split("VmHWM:")[1].split()[0])
        assert peak < 400_000
        pid = answer._worker.pid
    assert gone(pid)


def test_results_are_taken_whole_only_up_to_the_limit(sandbox):
    with pytest.raises(ResultTooLarge):
        sandbox.sql("FROM range(100001)").arrow()
    assert sandbox.sql("FROM range(100000)").arrow().num_rows == 100_000


@pytest.mark.parametrize("how", ["answer", "sandbox", "lake", "other"])
def test_a_query_can_be_stopped_by_who_asked(lake, how):
    sandbox = lake.sandbox("stopper")
    caught: list[BaseException] = []

    def ask():
        try:
            sandbox.sql(FOREVER, query_id="endless", timeout=300).arrow()
        except LakehouseError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not sandbox.running():
        assert thread.is_alive(), caught
        time.sleep(0.01)
    (running,) = sandbox.running()
    assert (running.query_id, running.principal) == ("endless", "stopper")
    with pytest.raises(QueryError, match="under way already"):
        sandbox.sql("SELECT 1", query_id="endless")
    stranger = lake.sandbox("somebody else")
    assert stranger.running() == []
    assert stranger.cancel("endless") is False
    if how == "answer":
        running.cancel()
    elif how == "lake":
        assert lake.cancel("endless") is True
    else:
        assert sandbox.cancel("endless") is True
    thread.join(60)
    assert [type(error) for error in caught] == [QueryCancelled]
    assert sandbox.running() == []
    assert sandbox.cancel("endless") is False


def test_a_query_that_takes_too_long_is_stopped(lake, sandbox):
    with pytest.raises(QueryTimeout, match=r"after 0\.3 s"):
        sandbox.sql(FOREVER, timeout=0.3).arrow()
    with pytest.raises(QueryTimeout):  # also where its rows are taken slowly
        for _ in sandbox.sql("FROM range(100000000)", timeout=1).batches():
            time.sleep(0.2)


def test_one_that_does_not_stop_is_killed(lake, sandbox, monkeypatch):
    monkeypatch.setattr(pool, "_GRACE", 0.2)
    answer = sandbox.sql("FROM range(100000000)")
    os.kill(answer._worker.pid, signal.SIGSTOP)
    answer.cancel()
    with pytest.raises(QueryCancelled):
        list(answer.batches())
    assert gone(answer._worker.pid)


@pytest.mark.parametrize(
    ("bomb", "kinds"),
    [
        ("SELECT list(range) FROM range(100000000)", (QueryMemory, WorkerDied)),
        ("SELECT string_agg(repeat('x', 1000000), '') FROM range(2000)", (QueryMemory, WorkerDied, QueryError)),
        ("SELECT repeat('x', 400000000)", (QueryMemory, ResultTooLarge, WorkerDied, QueryError)),
        ("SELECT * FROM range(30000000) ORDER BY hash(range), range::VARCHAR", (QueryMemory,)),
    ],
    ids=["list", "text", "one value", "sort"],
)
def test_bombs_cost_one_query(lake, sandbox, bomb, kinds):
    with pytest.raises(kinds):
        list(sandbox.sql(bomb, timeout=30).batches())
    assert sandbox.sql("SELECT 42 AS x").arrow().to_pylist() == [{"x": 42}]


def test_a_worker_that_is_killed_is_one_failed_query(lake, sandbox):
    answer = sandbox.sql("FROM range(100000000)")
    next(answer.batches())
    os.kill(answer._worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        list(answer.batches())
    assert sandbox.sql("SELECT 42 AS x").arrow().to_pylist() == [{"x": 42}]
    assert not answer._worker.folder.exists()


@pytest.mark.usefixtures("unhurried")
def test_a_killed_write_is_done_or_not_and_the_answer_knows(lake):
    """Killed at four moments of its life: what `run` says is what the lake holds."""
    sandbox = lake.sandbox("writer")
    sandbox.run("CREATE TABLE sure AS SELECT 0 AS round, 0 AS id")
    outcomes = set()
    for number in range(2, 6):
        sandbox.run("INSERT INTO sure VALUES (-1, 0)")  # the next one finds a warm worker
        (worker,) = [one for one in lake._strangers._workers if one.principal == "writer"]
        killer = threading.Timer(0.004 * 2**number / 2, os.kill, (worker.pid, signal.SIGKILL))
        killer.start()
        try:
            said = sandbox.run(f"INSERT INTO sure SELECT {number}, range FROM range(1000)").snapshot
        except WorkerDied:
            said = None
        killer.join()
        assert gone(worker.pid)
        held = lake.sql("SELECT count(*) FROM sure WHERE round = $n", {"n": number}).fetchone()[0]
        assert held == (0 if said is None else 1000)
        outcomes.add(said is not None)
    sandbox.run("DROP TABLE sure")


@pytest.mark.usefixtures("unhurried")
def test_a_worker_serves_one_principal_and_not_forever(lake, monkeypatch):
    monkeypatch.setattr(pool, "QUERIES", 3)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(4):
        for name, numbers in seen.items():
            answer = lake.sandbox(name).sql("SELECT 1")
            numbers.append(answer._worker.pid)
            answer.arrow()
    assert not set(seen["a"]) & set(seen["b"])
    assert [len(set(numbers)) for numbers in seen.values()] == [2, 2]
    assert seen["a"][0] == seen["a"][2] != seen["a"][3]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("end", ["release", "drop"])
def test_a_worker_that_is_to_end_is_offered_to_nobody(lake, end, monkeypatch):
    with lake.sandbox("next").sql("SELECT 1") as answer:
        answer.arrow()
    workers, offered = lake._strangers, []

    class Watched(threading.Condition):
        def __exit__(self, *reason):
            offered.extend(one for one in workers._workers if not one.busy)  # whoever comes now may take them
            return super().__exit__(*reason)

    worker = workers.acquire("next", write=False, timeout=None)
    monkeypatch.setattr(workers, "_changed", Watched())
    if end == "release":
        workers.release(worker, clean=False)
    else:
        workers._drop(worker)
    assert worker not in offered
    assert worker.process.poll() is not None


@pytest.mark.usefixtures("unhurried")
def test_errors_before_it_runs_keep_a_worker_and_others_do_not(lake):
    sandbox = lake.sandbox("careless")

    def pid(sql: str) -> int:
        try:
            answer = sandbox.sql(sql)
            answer.arrow()
            return answer._worker.pid
        except LakehouseError:
            return next(one.pid for one in lake._strangers._workers if one.principal == "careless")

    first = pid("SELECT 1")
    for sql in ("SELECT 1; SELECT 2", "SELECT", "FROM nothing", "FROM read_text('x')"):
        assert pid(sql) == first
    with pytest.raises(QueryError):
        sandbox.sql("SELECT CAST(text AS INTEGER) FROM orders").arrow()
    assert first not in pids(lake)


def test_when_all_workers_are_busy_others_wait_and_one_principal_cannot_take_all(lake):
    made = Pool(lake.path, lake.settings, read_only=False)
    try:
        greedy, other = (Sandbox(made, name, lake.settings, lake.catalog) for name in ("greedy", "other"))
        held = [greedy.sql("FROM range(100000000)") for _ in range(3)]
        with pytest.raises(SandboxBusy):
            greedy.sql("SELECT 1", timeout=0.1)
        assert other.sql("SELECT 1 AS x").arrow().num_rows == 1
        held.pop().close()
        assert greedy.sql("SELECT 1 AS x", timeout=60).arrow().num_rows == 1
        assert made.count()[1] == 2
    finally:
        made.close()
    with pytest.raises(QueryCancelled):
        list(held[0].batches())


def test_an_answer_that_nobody_takes_or_closes_gives_its_place_back(lake, monkeypatch):
    monkeypatch.setattr(pool, "_GRACE", 0.1)
    made = Pool(lake.path, lake.settings, read_only=False)
    try:
        sandbox = Sandbox(made, "forgetful", lake.settings, lake.catalog)
        kept = sandbox.sql("FROM range(100000000)")
        pid = kept._worker.pid
        kept._worker.deadline = time.monotonic()
        assert gone(pid)  # at its deadline, although nobody reads on
        assert made.count()[1] == 0
        with pytest.raises(QueryTimeout):
            list(kept.batches())
        lost = sandbox.sql("FROM range(100000000)")
        pid = lost._worker.pid
        del lost
        assert gone(pid)
        assert sandbox.running() == []
    finally:
        made.close()


def test_neighbours_of_a_hostile_client_do_not_notice(lake):
    """Fifteen ask small questions, the sixteenth throws bombs: nobody fails, and every answer is right."""
    wrong: list[object] = []
    counts = [0] * 15
    end = time.monotonic() + 3

    def neighbour(number: int) -> None:
        mine = lake.sandbox(f"neighbour {number % 2}")
        while time.monotonic() < end:
            try:
                found = mine.sql("SELECT count(*) AS n FROM orders WHERE g = $g", {"g": number % 7}).arrow().to_pylist()
            except LakehouseError as error:
                wrong.append(error)
                return
            if found != [{"n": 7143 if number % 7 < 6 else 7142}]:
                wrong.append(found)
            counts[number] += 1

    def hostile() -> None:
        mine = lake.sandbox("hostile")
        bombs = (FOREVER, "SELECT list(range) FROM range(100000000)", "FROM read_text('/etc/passwd')", "SELECT $x")
        while time.monotonic() < end:
            for bomb in bombs:
                with pytest.raises(LakehouseError):
                    mine.sql(bomb, timeout=0.5).arrow()

    threads = [threading.Thread(target=neighbour, args=(number,)) for number in range(15)]
    threads.append(threading.Thread(target=hostile))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(counts)


def test_workers_die_with_their_parent(lake, child):
    code = """
        import lakehouse, time
        lake = lakehouse.open(args[0])
        answer = lake.sandbox().sql("FROM range(100000000)")
        idle = lake.sandbox("idle").sql("SELECT 1")
        list(idle.batches())
        say([worker.pid for worker in lake._strangers._workers])
        time.sleep(60)
    """
    process = child(code, lake.path)
    started = process.hear()
    assert len(started) == 2
    process.kill()
    assert all(gone(pid) for pid in started)


def test_closing_the_lake_ends_all_and_leaves_nothing(lake):
    with lakehouse.open(lake.path) as other:
        answer = other.sandbox().sql("FROM range(100000000)")
        folder = answer._worker.folder
        assert folder.is_dir()
    assert gone(answer._worker.pid)
    assert not folder.exists()
    with pytest.raises(LakehouseError):
        list(answer.batches())


def test_without_landlock_it_is_refused_unless_the_gate_alone_will_do(lake, monkeypatch):
    monkeypatch.setattr(landlock, "version", lambda: 0)
    with lakehouse.open(lake.path) as strict:
        assert strict.sandbox().protection == "none"
        assert "no Landlock" in strict.sandbox().reason
        with pytest.raises(SandboxUnavailable, match="no Landlock"):
            strict.sandbox().sql("SELECT 1")
        assert strict._strangers.count() == (0, 0)
        (note,) = [one for one in strict.doctor().findings if one.where == "SQL from strangers"]
        assert note.level == "note"
        assert "refused" in note.what
    with lakehouse.open(lake.path, settings={"query": {"sandbox": "gate-only"}}) as lenient:
        assert "gate alone" in lenient.sandbox().reason
        assert lenient.sandbox().protection == "gate-only"
        assert lenient.sandbox().sql("SELECT 1 AS x").arrow().to_pylist() == [{"x": 1}]
        with pytest.raises(SqlRefused):
            lenient.sandbox().sql("FROM read_text('/etc/passwd')")


def test_the_shell_runs_a_strangers_query(lake):
    from click.testing import CliRunner

    from lakehouse.cli import main

    def shell(*arguments: str):
        return CliRunner().invoke(main, ["--lake", str(lake.path), *arguments])

    shown = shell("sql", "--sandbox", "SELECT id, text FROM orders ORDER BY id")
    assert "order 19" in shown.output
    assert "the first 20 rows" in shown.output
    told = shell("sql", "--sandbox", "--json", "SELECT id FROM orders WHERE id < $most ORDER BY id", "-p", "most=2")
    assert json.loads(told.output) == [{"id": 0}, {"id": 1}]
    refused = shell("sql", "--sandbox", "FROM read_text('/etc/passwd')")
    assert (refused.exit_code, "read_text is not allowed" in refused.output) == (1, True)
    assert shell("sql", "--sandbox", "--explain", "SELECT 1").exit_code == 2
    assert "SQL from strangers: full protection" in shell("doctor", "-v").output
