"""Runs of workflows: order, parameters, skipping, retries, timeouts, cancelling, resuming, pinning, executors."""

import io
import json
import os
import resource
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

import lakehouse
from lakehouse.errors import (
    DiskFull,
    LakeReadOnly,
    RunFailed,
    RunNotFound,
    WorkflowBusy,
    WorkflowError,
    WorkflowInvalid,
    WorkflowNotFound,
)
from lakehouse.journal import Journal
from lakehouse.workflow.model import Node, Workflow
from lakehouse.workflow.modes import Ingest, Python, Sql
from lakehouse.workflow.runs import Runs, new_run

FUNCTIONS = """
import os, subprocess, sys, time
def nothing(): pass
def seven(): return 7
def shout(text): print(text); return text
def fail(): raise ValueError("no")
def sleep(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with open(path, "w") as file: file.write(f"{os.getpid()} {child.pid}\\n")
    time.sleep(600)
def until(path):
    if not os.path.exists(path): raise ValueError("not yet")
def wait(path, started):
    open(started, "w").close()
    while not os.path.exists(path): time.sleep(0.01)
async def later(): pass
def steps(): yield 1
def draw(): import numpy; return float(numpy.random.random())
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "h7work.py").write_text(FUNCTIONS)
    (folder / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    with lakehouse.open(folder / "lake") as lake:
        lake.sql("CREATE TABLE base AS SELECT i AS a FROM range(10) t(i)")
        yield lake, folder


@pytest.fixture
def run(shared):
    lake, folder = shared

    def running(name, nodes, params=None, *, check=True, **more):
        options = {key: more.pop(key) for key in ("executor", "workers", "force", "progress") if key in more}
        workflow = Workflow(name=name, nodes=nodes, folder=str(folder), params=more.pop("defaults", {}), **more)
        return lake.workflows.run(workflow, params, check=check, **options)

    return running


def until(there):
    """Wait for what a node does; one that failed before it never will."""
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end, "the node never came so far"
        time.sleep(0.01)


def statuses(run):
    return {name: event.status for name, event in run.events.items()}


def test_nodes_in_order_values_as_values_and_one_row_each(shared, run):
    lake, _ = shared
    seen = []
    nodes = {
        "many": Sql(sql="SELECT a, $word AS word FROM grown WHERE a >= $least", table="many"),
        "grown": Sql(sql="SELECT a * 2 AS a FROM base", table="grown"),
        "load": Ingest(source="rows.csv", table="loaded"),
        "check": Sql(sql="SELECT * FROM many WHERE word <> $word", expect="no rows"),
        "tell": Python(call="h7work:shout", args={"text": "$word"}, after=("check",)),
    }
    injected = "x'; DROP TABLE base; --"
    done = run(
        "order", nodes, {"word": injected}, defaults={"word": "", "least": 4}, progress=lambda e: seen.append(e.node)
    )
    assert done.success
    assert lake.sql("SELECT count(*), min(a), any_value(word) FROM many").fetchall() == [(8, 4, injected)]
    assert lake.catalog.table("base").row_count == 10
    assert done.events["tell"].fields["result"] == injected
    assert lake.workflows.printed(done.id, "tell") == injected + "\n"
    assert seen.index("grown") < seen.index("many") < seen.index("check") < seen.index("tell")
    assert {one.name: one.snapshot for one in done.events["many"].outputs}["many"] == lake.catalog.table(
        "many"
    ).snapshots()[0].id
    assert [one.name for one in done.events["many"].inputs] == ["grown"]
    told = [event for event in lake.observer.events(run=done.id) if event.node]
    assert sorted(event.node for event in told) == sorted(nodes)
    note = lake.catalog.notes(lake.catalog.find("many"))[0].note
    assert f'"workflow":"order/{done.id}/many"' in note.replace(" ", "")


def test_what_has_not_changed_is_skipped(shared, run):
    lake, _ = shared
    nodes = {
        "load": Ingest(source="rows.csv", table="skip_loaded"),
        "sum": Sql(sql="SELECT sum(b) AS s FROM skip_loaded WHERE a > $k", table="skip_sum"),
        "next": Sql(sql="SELECT s + 1 AS s FROM skip_sum", table="skip_next"),
        "clock": Sql(sql="SELECT now() AS t", table="skip_clock"),
        "unsaid": Python(call="h7work:nothing"),
    }
    every = dict.fromkeys(nodes, "done")
    assert statuses(run("skips", nodes, defaults={"k": 0})) == every
    again = every | {"load": "skipped", "sum": "skipped", "next": "skipped"}
    before = lake.catalog.table("skip_next").snapshots()[0].id
    assert statuses(run("skips", nodes, defaults={"k": 0})) == again
    assert lake.catalog.table("skip_next").snapshots()[0].id == before
    assert statuses(run("skips", nodes, {"k": 1}, defaults={"k": 0})) == every | {"load": "skipped"}
    assert statuses(run("skips", nodes, {"k": 1}, defaults={"k": 0})) == again
    lake.sql("INSERT INTO skip_loaded VALUES (5, 6)")  # its input is another one
    assert statuses(run("skips", nodes, {"k": 1}, defaults={"k": 0})) == every | {"load": "skipped"}
    lake.sql("DELETE FROM skip_next")  # somebody else has changed its output
    assert statuses(run("skips", nodes, {"k": 1}, defaults={"k": 0})) == again | {"next": "done"}
    assert lake.sql("FROM skip_next").fetchall() == [(11,)]
    assert statuses(run("skips", nodes, {"k": 1}, defaults={"k": 0}, force=True)) == every | {"load": "skipped"}


def test_a_failure_stops_what_comes_after_it_and_nothing_else(run, shared, tmp_path):
    lake, _ = shared
    door = tmp_path / "door"
    nodes = {
        "bad": Python(call="h7work:until", args={"path": str(door)}, retries=2, backoff=0.01),
        "below": Sql(sql="SELECT 1 AS a", table="below", write="append", after=("bad",)),
        "far": Python(call="h7work:nothing", after=("below",)),
        "else": Sql(sql="SELECT 1 AS a", table="elsewhere", write="append"),
    }
    with pytest.raises(RunFailed, match="'bad': not yet"):
        run("failing", nodes)
    failed = lake.workflows.runs("failing")[0]
    assert statuses(failed) == {"bad": "failed", "below": "not_run", "far": "not_run", "else": "done"}
    assert failed.events["bad"].attempt == 3
    assert len(failed.attempts) == 2
    assert failed.events["bad"].error.where.endswith("in until")
    assert failed.events["far"].reason == "node 'bad' failed"
    door.touch()
    done = lake.workflows.resume(failed.id)
    assert done.id == failed.id
    assert statuses(done) == dict.fromkeys(nodes, "done")
    assert done.events["else"].id == failed.events["else"].id
    assert done.events["bad"].attempt == 4
    assert lake.sql("SELECT (SELECT count(*) FROM below), (SELECT count(*) FROM elsewhere)").fetchall() == [(1, 1)]
    assert statuses(lake.workflows.resume(failed.id)) == dict.fromkeys(nodes, "done")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_timeout_ends_the_work_with_all_that_it_started(run, tmp_path):
    pids = tmp_path / "pids"
    for seconds in (3.0, 15.0, 60.0):  # until it has come so far by then
        node = Python(call="h7work:sleep", args={"path": str(pids)}, timeout=seconds)
        done = run("slow", {"slow": node}, check=False)
        if pids.exists() and pids.read_text().endswith("\n"):
            break
    assert statuses(done) == {"slow": "timeout"}
    assert done.events["slow"].success is False
    assert [pid for pid in pids.read_text().split() if alive(pid)] == []


def test_what_returns_without_having_run_is_a_failure(run):
    nodes = {"later": Python(call="h7work:later"), "steps": Python(call="h7work:steps")}
    nodes |= {"missing": Python(call="h7work:nothing", outputs=("never_made",)), "gone": Python(call="h7work:no_such")}
    nodes |= {"none": Python(call="h7work:nothing", table="of_nothing")}
    done = run("idle", nodes, check=False)
    assert statuses(done) == dict.fromkeys(nodes, "failed")
    assert "never_made" in done.events["missing"].error.message


def test_processes_do_not_share_their_random_numbers(shared, tmp_path):
    settings = {"workflow": {"preload": ["numpy.random"]}}
    with lakehouse.open(tmp_path / "lake", settings=settings) as lake:
        nodes = {f"n{i}": Python(call="h7work:draw") for i in range(3)}
        done = lake.workflows.run(Workflow(name="random", nodes=nodes, folder=str(shared[1])))
    assert len({event.fields["result"] for event in done.events.values()}) == 3


def test_who_watches_sees_what_runs_and_what_waits(run, tmp_path):
    from rich.console import Console

    from lakehouse.workflow.progress import Shown

    seen = []

    class Watched(Shown):
        def begun(self, event):
            super().begun(event)
            console = Console(width=120, record=True, file=io.StringIO())
            console.print(self._table())
            seen.append((event.node, event.status, event.attempt, console.export_text()))

    there = tmp_path / "there"
    nodes = {
        "good": Python(call="h7work:shout", args={"text": "a"}),
        "late": Python(call="h7work:until", args={"path": str(there)}, retries=1, backoff=0.001, after=("good",)),
    }
    with Watched("w", 2, Console(file=io.StringIO(), width=120)) as shown:
        run("shown", nodes, check=False, progress=shown)
    assert [one[:3] for one in seen] == [
        ("good", "started", 1), ("late", "started", 1), ("late", "started", 1), ("late", "started", 2),
    ]  # fmt: skip
    begun, _, waits, again = (one[3] for one in seen)
    assert ("runs" in begun, "0 of 2 nodes" in begun) == (True, True)
    assert "attempt 1 failed; the next one in 0 s" in waits
    assert ("attempt 2" in again, "1 of 2 nodes" in again) == (True, True)
    assert not shown._going


def test_resumed_as_it_began_or_by_the_file_as_it_is_now(shared, tmp_path):
    lake, folder = shared
    file = folder / "edited.toml"
    first = """
        params = {n = 1}
        [nodes]
        kept = {mode = "sql", sql = "SELECT 0 AS a", table = "kept"}
        made = {mode = "sql", sql = "SELECT 1 AS a", table = "made"}
        bad = {mode = "python", call = "h7work:fail", after = ["made"]}
        old = {mode = "python", call = "h7work:nothing", after = ["bad"]}
    """
    file.write_text(first)
    failed = lake.workflows.run(file, {"n": 5}, check=False)
    assert lake.workflows.resume(failed.id, check=False).note is None
    file.write_text(
        first.replace("SELECT 1 AS", "SELECT $n AS").replace("h7work:fail", "h7work:seven").replace("old =", "new =")
    )
    as_it_began = lake.workflows.resume(failed.id, check=False)
    assert statuses(as_it_began) == {"kept": "done", "made": "done", "bad": "failed", "old": "not_run"}
    for told in ("edited.toml has changed since (changed: made, bad; new: new; gone: old)", "--updated"):
        assert told in as_it_began.note
        assert told in repr(as_it_began)
        assert told in as_it_began._repr_html_()
    with pytest.raises(RunFailed, match="goes on as it began"):
        lake.workflows.resume(failed.id)
    with pytest.raises(WorkflowError, match="not of 'other'"):
        lake.workflows.resume(
            failed.id, workflow=Workflow(name="other", nodes={"a": Sql(sql="SELECT 1", expect="rows")})
        )
    file.write_text(file.read_text() + "broken = {}")
    assert "cannot be run as it is now" in lake.workflows.resume(failed.id, check=False).note
    with pytest.raises(WorkflowInvalid):
        lake.workflows.resume(failed.id, workflow=file)
    file.write_text(file.read_text().replace("broken = {}", ""))
    assert statuses(lake.workflows.get(failed.id))["bad"] == "failed"
    done = lake.workflows.resume(failed.id, workflow=file)
    assert done.note is None
    for run in (done, lake.workflows.get(failed.id)):
        assert statuses(run) == dict.fromkeys(("kept", "made", "bad", "new"), "done")
        attempts = {name: event.attempt for name, event in run.events.items()}
        assert attempts == {"kept": 1, "made": 2, "bad": 6, "new": 1}
        assert [event.node for event in run.attempts].count("made") == 1
        assert run.nodes == {"kept": "sql", "made": "sql", "bad": "python", "new": "python"}
    assert lake.sql("SELECT a FROM made").fetchall() == [(5,)]  # the output of the old definition is not taken for it
    assert len(lake.catalog.table("kept").snapshots()) == 1
    assert statuses(lake.workflows.resume(failed.id)) == statuses(done)


def test_a_process_that_ends_does_not_wait_for_a_run_in_the_background(shared, child, tmp_path):
    lake, folder = shared
    pids = tmp_path / "pids"
    other = child(
        "import sys, lakehouse; from lakehouse.workflow.model import Workflow; from lakehouse.workflow.modes import Python\n"
        "sys.path.insert(0, args[1]); nodes = {'long': Python(call='h7work:sleep', args={'path': args[2]})}\n"
        "lake = lakehouse.open(args[0])\n"
        "say(lake.workflows.start(Workflow(name='left', nodes=nodes, folder=args[1])).id)",
        lake.path,
        folder,
        pids,
    )
    left = other.hear()
    other.process.wait(60)  # the node would take ten minutes
    assert lake.workflows.get(left).status == "interrupted"
    text = pids.read_text() if pids.exists() else ""
    nodes = [int(pid) for pid in text.split()] if text.endswith("\n") else []
    until(lambda: not any(map(alive, nodes)))


def test_cancelled_from_another_process_and_resumed(shared, child, tmp_path):
    lake, folder = shared
    pids = tmp_path / "pids"
    nodes = {
        "first": Sql(sql="SELECT 1 AS a", table="first_one", write="append"),
        "long": Python(call="h7work:sleep", args={"path": str(pids)}, after=("first",)),
        "last": Python(call="h7work:nothing", after=("long",)),
    }
    handle = lake.workflows.start(Workflow(name="cancelling", nodes=nodes, folder=str(folder)))
    with pytest.raises(WorkflowBusy, match=handle.id):
        lake.workflows.run(Workflow(name="cancelling", nodes=nodes, folder=str(folder)))
    with pytest.raises(WorkflowBusy):
        lake.workflows.resume(handle.id)
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    assert handle.state().status == "running"
    other = child(
        "import lakehouse\nlakehouse.open(args[0]).workflows.cancel(args[1], principal='else'); say(1)",
        lake.path,
        handle.id,
    )
    assert other.hear() == 1
    ended = handle.wait(60)
    assert ended.status == "cancelled"
    assert statuses(ended) == {"first": "done", "long": "cancelled", "last": "not_run"}
    assert "cancelled" in ended.events["last"].reason
    assert [pid for pid in pids.read_text().split() if alive(pid)] == []
    pids.unlink()
    again = lake.workflows.resume_behind(handle.id)
    until(pids.exists)
    lake.workflows.cancel(handle.id)
    assert again.wait(60).status == "cancelled"
    assert lake.catalog.table("first_one").row_count == 1


def test_a_pinned_run_reads_one_moment_and_what_it_makes_itself(shared, run, tmp_path):
    lake, folder = shared
    lake.sql("CREATE TABLE pinned_base AS SELECT 1 AS a")
    go, started = tmp_path / "go", tmp_path / "started"
    nodes = {
        "wait": Python(call="h7work:wait", args={"path": str(go), "started": str(started)}),
        "copy": Sql(sql="SELECT a FROM pinned_base", table="pinned_copy", after=("wait",)),
        "twice": Sql(sql="SELECT c.a + b.a AS a FROM pinned_copy c, pinned_base b", table="pinned_twice"),
    }
    handle = lake.workflows.start(Workflow(name="pinned", nodes=nodes, folder=str(folder), pin=True))
    until(started.exists)
    lake.sql("INSERT INTO pinned_base VALUES (100)")
    go.touch()
    done = handle.wait()
    assert done.success, done
    assert lake.sql("FROM pinned_copy").fetchall() == [(1,)]
    assert lake.sql("FROM pinned_twice").fetchall() == [(2,)]
    assert done.events["copy"].inputs[0].snapshot == done.pin


def test_what_replaces_a_table_keeps_its_comment_and_reads_itself(shared, run):
    lake, _ = shared
    lake.sql("CREATE TABLE keeps AS SELECT 1 AS a")
    lake.catalog.table("keeps").set_comment("mine")
    id = lake.catalog.find("keeps").id
    assert run("keeping", {"n": Sql(sql="SELECT 2::INTEGER AS a", table="keeps")}).success
    assert lake.catalog.table("keeps").comment == "mine"
    assert lake.catalog.find("keeps").id == id
    assert run("keeping", {"n": Sql(sql="SELECT a + 1 AS a FROM keeps", table="keeps")}).success
    assert lake.sql("FROM keeps").fetchall() == [(3,)]
    assert run("keeping", {"n": Sql(sql="SELECT 'x' AS b", table="keeps")}).success
    assert lake.sql("FROM keeps").fetchall() == [("x",)]


class Broken(ThreadPoolExecutor):
    def submit(self, *_, **__):
        raise RuntimeError("the pool is broken")


def test_executors(run):
    nodes = {
        "a": Python(call="h7work:seven"),
        "b": Python(call="h7work:fail"),
        "c": Python(call="h7work:nothing", after=("b",)),
    }
    expected = {"a": "done", "b": "failed", "c": "not_run"}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert statuses(run("executors", nodes, executor=processes, check=False)) == expected
    assert statuses(run("executors", nodes, executor="processes", check=False)) == expected
    with pytest.raises(WorkflowError, match="no executor 'clouds'"):
        run("executors", nodes, executor="clouds")
    with Broken() as broken:
        done = run("executors", nodes, executor=broken, check=False)
        assert statuses(done) == {"a": "failed", "b": "failed", "c": "not_run"}
        assert "broken" in done.events["a"].error.message


def test_a_dask_cluster(run):
    from distributed import Client, LocalCluster

    nodes = {
        "a": Python(call="h7work:seven"),
        "b": Python(call="h7work:fail"),
        "c": Python(call="h7work:nothing", after=("b",)),
    }
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        done = run("dask", nodes, executor=client.get_executor(pure=False, retries=0), check=False)
        assert statuses(done) == {"a": "done", "b": "failed", "c": "not_run"}
        again = run("dask", nodes, executor=f"dask:{cluster.scheduler_address}", check=False)
        assert statuses(again) == statuses(done)


def test_a_thousand_nodes_beside_each_other(run):
    nodes: dict[str, Node] = {
        f"n{i}": Sql(sql="SELECT 1", expect="rows", after=("first",))
        if i % 4
        else Python(call="h7work:nothing", after=("first",))
        for i in range(1000)
    }
    nodes = {"first": Python(call="h7work:nothing"), **nodes, "last": Python(call="h7work:nothing", after=tuple(nodes))}
    done = run("wide", nodes, workers=8)
    assert len(done.events) == 1002
    assert done.success


def test_ten_thousand_nodes_each_have_a_row(shared, run):
    lake, _ = shared
    nodes = {"n0": Python(call="h7work:fail")}
    nodes |= {f"n{i}": Python(call="h7work:nothing", after=(f"n{i - 1}",)) for i in range(1, 10_000)}
    failed = run("long", nodes, check=False)
    assert [failed.events[f"n{i}"].status for i in range(10_000)] == ["failed", *["not_run"] * 9_999]
    assert len(lake.observer.events(run=failed.id, limit=20_000)) == 10_000
    assert lake.workflows.get(failed.id).events == failed.events


def test_what_is_not_there(shared):
    lake, _ = shared
    for asked in ("20200101T000000-00000000", "../../x", "*", ""):
        with pytest.raises(RunNotFound):
            lake.workflows.get(asked)
    with lakehouse.open(lake.path, read_only=True) as reader, pytest.raises(LakeReadOnly):
        reader.workflows.cancel(lake.workflows.runs()[0].id)
    for name in ("nothing", "..", "a b", ""):
        with pytest.raises(WorkflowNotFound):
            lake.workflows.stored(name)
    with pytest.raises(WorkflowInvalid, match=r"params\.x"):
        lake.workflows.run(
            Workflow(name="p", nodes={"n": Python(call="h7work:nothing")}, folder=str(shared[1])), {"x": 1}
        )


def test_only_so_many_runs_are_kept_and_the_newest_is_the_last_that_began(tmp_path, monkeypatch):
    """Also of runs within one second, and when the clock goes back."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=tz)

    with lakehouse.open(tmp_path / "lake", settings={"workflow": {"keep_runs": 2}}) as lake:
        workflow = Workflow(name="kept", nodes={"n": Sql(sql="SELECT 1", expect="rows")})
        ids = [lake.workflows.run(workflow).id for _ in range(3)]
        assert [run.id for run in lake.workflows.runs(limit=None)] == ids[:0:-1]
        monkeypatch.setattr("lakehouse.workflow.runs.datetime", Clock)
        ids += [lake.workflows.run(workflow).id for _ in range(2)]
        assert [run.id for run in lake.workflows.runs(limit=None)] == ids[:2:-1]
    assert new_run("20991231T235959-ffffffff").startswith("20991231T235959000001-")
    assert new_run("20991231T235959999999-ffffffff").startswith("21000101T000000000000-")


def test_a_run_that_breaks_off_on_a_full_disk_leaves_no_node_at_work(tmp_path, shared, monkeypatch):
    """Not even the file that cancels a run can be made then."""
    pids = tmp_path / "pids"
    nodes = {
        "long": Python(call="h7work:sleep", args={"path": str(pids)}),
        "short": Python(call="h7work:wait", args={"path": str(pids), "started": str(tmp_path / "started")}),
    }
    append = Journal.append

    def full(*data, **_):
        raise DiskFull("no space")

    def mostly_full(journal, *data):
        return full() if any(getattr(one, "event", None) is not None for one in data) else append(journal, *data)

    with lakehouse.open(tmp_path / "lake") as lake:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", mostly_full)
            patch.setattr(Runs, "cancel", full)
            with pytest.raises(DiskFull):
                lake.workflows.run(Workflow(name="full", nodes=nodes, folder=str(shared[1]), workers=2))
        assert [pid for pid in pids.read_text().split() if alive(pid)] == []
        assert lake.workflows.runs()[0].status == "interrupted"


def test_a_process_with_thousands_of_open_files_runs_workflows(run):
    """As a server with many connections has: select(2) takes no number above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert run("many_files", {"n": Python(call="h7work:nothing")}).success
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_openlineage_hears_of_the_run_that_its_nodes_name_as_parent(tmp_path, shared):
    door = tmp_path / "door"
    settings = {"observer": {"openlineage": f"file:{tmp_path / 'ol.jsonl'}"}}
    nodes = {"n": Python(call="h7work:until", args={"path": str(door)})}
    with lakehouse.open(tmp_path / "lake", settings=settings) as lake:
        failed = lake.workflows.run(Workflow(name="told", nodes=nodes, folder=str(shared[1])), check=False)
        door.touch()
        lake.workflows.resume(failed.id)
        assert {event.node for event in lake.observer.events(run=failed.id)} == {"n"}  # one row for each node
    told = [json.loads(line) for line in (tmp_path / "ol.jsonl").read_text().splitlines()]
    whole = [one for one in told if one["job"]["name"] == "told"]
    assert [one["eventType"] for one in whole] == ["START", "FAIL", "START", "COMPLETE"]
    assert "not yet" in whole[1]["run"]["facets"]["errorMessage"]["message"]
    of_nodes = [one["run"]["facets"]["parent"]["run"]["runId"] for one in told if one["job"]["name"] == "told.n"]
    assert set(of_nodes) == {one["run"]["runId"] for one in whole}


def test_closing_the_lake_cancels_what_runs_behind(tmp_path, shared):
    pids = tmp_path / "pids"
    workflow = Workflow(
        name="behind", nodes={"n": Python(call="h7work:sleep", args={"path": str(pids)})}, folder=str(shared[1])
    )
    with lakehouse.open(tmp_path / "lake") as lake:
        handle = lake.workflows.start(workflow)
        until(pids.exists)
    with lakehouse.open(tmp_path / "lake") as lake:
        assert lake.workflows.get(handle.id).status == "cancelled"
    assert [pid for pid in pids.read_text().split() if alive(pid)] == []


def test_ctrl_c_ends_a_run_and_says_so(tmp_path, shared, request):
    # A loop of an earlier test may have taken the signal for itself.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )
    pids = tmp_path / "pids"
    workflow = Workflow(
        name="typed", nodes={"n": Python(call="h7work:sleep", args={"path": str(pids)})}, folder=str(shared[1])
    )
    with lakehouse.open(tmp_path / "lake") as lake:

        def press():
            until(pids.exists)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            lake.workflows.run(workflow)
        assert statuses(lake.workflows.runs()[0]) == {"n": "cancelled"}
        assert lake.workflows.runs()[0].status == "cancelled"
