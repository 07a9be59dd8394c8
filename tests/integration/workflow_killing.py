"""Rounds of a runner, or a node's process, that is killed at a random moment: `python workflow_killing.py FOLDER ROUNDS SEED`.

Everything is forked from this process, which has all loaded, so that a round takes no longer than its work. A round
looks first whether the rows of the one before equal what is there, then goes on with its run, or begins the next.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import pandas  # noqa: F401 - DuckDB loads it to bind values: here once, instead of in every process
import pyarrow  # noqa: F401
import sqlglot

import lakehouse
import lakehouse.lake
from lakehouse.workflow import warm, work
from lakehouse.workflow.model import Workflow
from lakehouse.workflow.modes import Python, Sql
from lakehouse.workflow.workers import Warm

NODES = {
    "one": Sql(sql="SELECT $round AS r", table="t_one", write="append"),
    "two": Sql(sql="SELECT max(r) AS r FROM t_one", table="t_two", write="append"),
    "three": Sql(sql="SELECT max(r) AS r FROM t_two", table="t_three", write="append"),
    "side": Python(call="workflow_killing:frame", args={"r": "$round"}, table="t_side", write="append"),
    "rest": Python(call="workflow_killing:rest"),
    "end": Sql(sql="SELECT max(r) AS r FROM t_three", table="t_end", write="append", after=("side", "rest")),
}
TABLES = ("t_one", "t_two", "t_three", "t_side", "t_end")


def frame(r):
    import pyarrow as pa

    return pa.table({"r": [r]})


def rest():
    time.sleep(random.random() * 0.2)


def looked_at(lake):
    """Hold the rows of the newest run against the tables; gives the run."""
    run = next(iter(lake.workflows.runs(limit=1)), None)
    if run is None:
        return None
    number = run.params["round"]
    assert run.status in ("done", "interrupted", "failed"), run
    for node, event in run.events.items():
        table = NODES[node].table if hasattr(NODES[node], "table") else None
        rows = (
            lake.sql(f"SELECT count(*) FROM {table} WHERE r = $n", {"n": number}).fetchone()[0]
            if table in there(lake)
            else 0
        )
        if event.success and table is not None:
            assert rows == 1, (node, event, rows)
        if event.status == "not_run":
            assert rows == 0, (node, event, rows)
            upstream = [other for other in run.events.values() if other.success is False and other.status != "not_run"]
            assert upstream, run
    for table in TABLES:
        if table in there(lake):
            twice = lake.sql(f"SELECT r FROM {table} GROUP BY r HAVING count(*) > 1").fetchall()
            assert twice == [], (table, twice)
    told = {event.id for event in lake.observer.events(run=run.id, limit=1000)}
    recorded = [event for event in run.events.values() if event.id in told]
    assert len(run.events) - len(recorded) <= 1, "only the last word may not have come to the observer"
    if run.status == "done":
        assert set(run.events) == set(NODES)
    return run


def there(lake):
    return {table.name for table in lake.catalog.tables()}


def runner(folder, control, say):
    """What is killed: one look, and one run."""
    with lakehouse.open(folder / "lake", settings={"query": {"progress": False, "threads": 1}}) as lake:
        run = looked_at(lake)
        lake.workflows._warm = Warm((), control)
        os.write(say, b"g")
        if run is None or run.status == "done":
            number = 0 if run is None else run.params["round"] + 1
            workflow = Workflow(
                name="killed", nodes=NODES, params={"round": -1}, workers=3, folder=str(Path(__file__).parent)
            )
            lake.workflows.run(workflow, {"round": number}, check=False)
        else:
            lake.workflows.resume(run.id, check=False)


def forked(function, *args):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function(*args)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def descendants(pid):
    """The processes below one, nearest first."""
    children = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                parent = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, level = [], [pid]
    while level:
        level = [child for one in level for child in children.get(one, [])]
        found += level
    return found


def one_round(folder, luck, target):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ready, say = os.pipe()

    def server():
        ours.close()
        warm.serve(theirs, work.serve)

    forge = forked(server)
    theirs.close()
    pid = forked(runner, folder, ours, say)
    ours.close()
    os.close(say)
    assert os.read(ready, 1) == b"g", "what the round before left is not as its rows say"
    os.close(ready)
    time.sleep(luck.random() ** 2 * 1.2)
    killed = False
    try:
        victims = [pid] if target == "runner" else descendants(forge)
        if victims and target != "nobody":
            os.kill(luck.choice(victims), signal.SIGKILL)
            killed = True
    except ProcessLookupError:
        pass
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in ((0, -signal.SIGKILL) if target == "runner" else (0,)), (target, code)
    os.waitpid(forge, 0)
    return killed and (target != "runner" or code != 0)


def main(folder, rounds, seed):
    sqlglot.parse("SELECT 1", dialect="duckdb")
    luck = random.Random(seed)
    kills = {"runner": 0, "node": 0}
    for number in range(rounds):
        target = "runner" if number % 2 else "node"
        kills[target] += one_round(folder, luck, target)
    for _ in range(2):
        one_round(folder, luck, "nobody")  # whatever is left is done, and looked at once more

    def last():
        with lakehouse.open(folder / "lake") as lake:
            run = looked_at(lake)
            assert run.status == "done", run
            runs = lake.workflows.runs(limit=None)
            resumed = sum(run.resumed > 0 for run in runs)
            say = {"runs": len(runs), "resumed": resumed, "done": sum(run.success for run in runs), **kills}
            assert say["runs"] == say["done"], say
            print(json.dumps(say), flush=True)

    pid = forked(last)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
