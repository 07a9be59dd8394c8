"""What a run costs beside its nodes: nothing-nodes in processes of their own, against a bare loop and against Dagster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from _report import Report, main, scratch

import lakehouse
from lakehouse.workflow import Node, Python, Sql, Workflow

FUNCTION = "def nothing(): pass\n"


def nothing() -> None:
    """The work."""


def measure(quick: bool) -> Report:
    """Milliseconds a node: chains and wide graphs of nodes that do nothing, queries, and the plan of 10,000."""
    count = 100 if quick else 500
    report = Report("Workflows: cost per node", "a bare loop over processes; Dagster")
    with scratch() as folder, lakehouse.open(folder / "lake") as lake:
        (folder / "worked.py").write_text(FUNCTION)
        call = "worked:nothing"
        wide: dict[str, Node] = {f"n{i}": Python(call=call) for i in range(count)}
        chain: dict[str, Node] = {
            f"n{i}": Python(call=call, after=(f"n{i - 1}",) if i else ()) for i in range(count // 5)
        }
        asks: dict[str, Node] = {f"n{i}": Sql(sql=f"SELECT {i}", expect="rows", skip=False) for i in range(count // 5)}

        def cost(nodes: dict[str, Node], name: str) -> float:
            started = time.perf_counter()
            lake.workflows.run(Workflow(name=name, nodes=nodes, folder=str(folder)))
            return (time.perf_counter() - started) / len(nodes) * 1000

        lake.workflows.run(Workflow(name="warm", nodes={"n": Python(call=call)}, folder=str(folder)))
        loop = _loop(folder, 5 if quick else 20)
        report.add("a process for each node, beside each other", cost(wide, "wide"), "ms", theirs=loop, at_most=0.5)
        report.notes.append("theirs: `python -c` started for each node, with what ours has loaded; no account, no lake")
        report.add("the same one after the other", cost(chain, "chain"), "ms")
        report.add("a check in SQL, processes used again", cost(asks, "asks"), "ms")
        bare = _forks(count)
        report.add("fork and wait, nothing else", bare, "ms")
        peer = _dagster(folder, count // 5)
        if peer is not None:
            both = cost(chain, "again")
            report.add("a chain: Dagster runs it in its own process, in memory", both, "ms", theirs=peer)
        long = {f"n{i}": Python(call=call, after=(f"n{i - 1}",) if i else ()) for i in range(10_000)}
        started = time.perf_counter()
        lake.workflows.validate(Workflow(name="long", nodes=long, folder=str(folder)))
        report.add("validation and order of 10,000 nodes", time.perf_counter() - started, "s")
    return report


def _loop(folder: Path, count: int) -> float:
    """A process for each node by hand, each loading what a node needs."""
    command = [sys.executable, "-c", "import lakehouse.lake, worked; worked.nothing()"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    started = time.perf_counter()
    for _ in range(count):
        subprocess.run(command, env=environ, check=True)
    return (time.perf_counter() - started) / count * 1000


def _forks(count: int) -> float:
    """What the system asks for a process, of one as large as this."""
    started = time.perf_counter()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            nothing()
            os._exit(0)
        os.waitpid(pid, 0)
    return (time.perf_counter() - started) / count * 1000


def _dagster(folder: Path, count: int) -> float | None:
    """The same chain in Dagster, in a process of its own; None where it is not installed."""
    program = (
        "import sys, time, dagster\n"
        "count = int(sys.argv[1])\n"
        "@dagster.op(out=dagster.Out(dagster.Nothing), ins={'start': dagster.In(dagster.Nothing)})\n"
        "def nothing(): pass\n"
        "@dagster.graph\n"
        "def chain():\n"
        "    last = None\n"
        "    for i in range(count):\n"
        "        one = nothing.alias(f'n{i}')\n"
        "        last = one() if last is None else one(start=last)\n"
        "def work():\n"
        "    started = time.perf_counter()\n"
        "    assert chain.execute_in_process().success\n"
        "    return time.perf_counter() - started\n"
        "work()\n"
        "print(work() / count * 1000)\n"
    )
    environ = {**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1", "DAGSTER_HOME": str(folder)}
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    done = subprocess.run(
        [sys.executable, "-c", program, str(count)], env=environ, capture_output=True, text=True, check=False
    )
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


if __name__ == "__main__":
    main(measure)
