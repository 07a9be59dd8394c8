"""No path turns a failure into a success: a fault in every mode at every stage, and the rows that tell of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import lakehouse
from lakehouse.errors import LakehouseError, NotFound
from lakehouse.workflow.model import Workflow
from lakehouse.workflow.modes import Http, Ingest, Notebook, Pathway, Python, Sql

STAGES = ("start", "middle", "write", "report")
FAULTS = ("raise", "exit", "vanish", "kill", "hang")
ERRORS = {
    "raise": "RuntimeError",
    "exit": "SystemExit",
    "vanish": "ProcessDied",
    "kill": "ProcessDied",
    "hang": "Timeout",
}


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def host():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory, host):
    folder = tmp_path_factory.mktemp("faults")
    (folder / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    cells = [
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": "n = 1",
            "outputs": [],
            "id": "a",
            "execution_count": None,
        },
        {
            "cell_type": "code",
            "metadata": {},
            "source": "assert n == 1",
            "outputs": [],
            "id": "b",
            "execution_count": None,
        },
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "n.ipynb").write_text(
        json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )
    settings = {"workflow": {"allowed_hosts": [host], "preload": ["workflow_faults"], "workers": 3}}
    with lakehouse.open(folder / "lake", settings=settings) as lake:
        lake.sql("CREATE TABLE base AS SELECT 1 AS a")
        with lake.pathway.record("how many"):
            lake.sql("SELECT count(*) FROM base")
        lake.analysis = lake.pathway.similar("how many")[0].trace.uid
        yield lake, folder, host


def _node(lake, mode, name, host, **more):
    return {
        "sql": lambda: Sql(sql="SELECT a FROM base", table=f"t_{name}", **more),
        "ingest": lambda: Ingest(source="rows.csv", table=f"t_{name}", **more),
        "notebook": lambda: Notebook(notebook="n.ipynb", object=f"{name}.ipynb", **more),
        "python": lambda: Python(call="workflow_faults:frame", table=f"t_{name}", **more),
        "http": lambda: Http(url=f"http://{host}/", object=f"{name}.txt", **more),
        "pathway": lambda: Pathway(trace=lake.analysis, **more),
    }[mode]()


def test_a_fault_in_every_mode_at_every_stage(place):
    lake, folder, host = place
    nodes = {}
    for place_of, mode in enumerate(("sql", "ingest", "python", "http", "pathway", "notebook")):
        for number, stage in enumerate(STAGES):
            # What hangs is killed by the clock: only where it does not matter how far it has come by then.
            possible = FAULTS if stage in ("start", "middle") else FAULTS[:-1]
            turn = possible[(place_of + number) % len(possible)]
            # A notebook takes seconds to get as far as its middle.
            faults = {turn} if mode == "notebook" else set(possible) if mode == "python" else {"raise", turn}
            for fault in sorted(faults):
                name = f"{mode}__{stage}__{fault}"
                # Nobody waits for what hangs; what does not hang may take as long as this machine needs.
                nodes[name] = _node(
                    lake,
                    mode,
                    name,
                    host,
                    timeout=1.5 if fault == "hang" else 300.0,
                )
    faulty = list(nodes)
    for name in faulty:
        nodes[f"after_{name}"] = Python(call="workflow_faults:nothing", after=(name,))
    nodes |= {
        f"good_{mode}": _node(lake, mode, f"good_{mode}", host)
        for mode in ("sql", "ingest", "python", "http", "pathway")
    }
    run = lake.workflows.run(Workflow(name="matrix", nodes=nodes, folder=str(folder)), check=False)

    assert run.status == "failed"
    rows = {event.node: event for event in lake.observer.events(run=run.id, limit=1000) if event.node}
    assert {name: event.id for name, event in rows.items()} == {name: event.id for name, event in run.events.items()}
    assert len(rows) == len(nodes) == len([e for e in lake.observer.events(run=run.id, limit=1000) if e.node])
    assert run.events == lake.workflows.get(run.id).events
    for name in faulty:
        mode, stage, fault = name.split("__")
        event, below = rows[name], rows[f"after_{name}"]
        assert event.success is False, name
        assert event.mode == mode
        assert event.status == ("timeout" if fault == "hang" else "failed"), (name, event)
        assert event.error.type == ERRORS[fault], (name, event)
        if fault in ("raise", "exit"):
            assert event.error.where.startswith(stage), (name, event)
        assert below.status == "not_run", name
        assert below.success is False
        assert f"'{name}'" in below.reason
        assert _there(lake, mode, name) == _expected(mode, stage), name
    for name, event in rows.items():
        if name.startswith("good_"):
            assert event.success is True, event
            assert _there(lake, name.removeprefix("good_"), name) is not False


def _expected(mode, stage):
    """Whether the output is there although the node failed: what was committed before the fault stays."""
    if mode == "pathway":
        return None
    # The commit of a load, and a notebook's or a request's object, is one call: `write` is after the load, before the put.
    return stage == "report" or (stage == "write" and mode == "ingest")


def _there(lake, mode, name):
    try:
        if mode in ("sql", "ingest", "python"):
            return lake.catalog.table(f"t_{name}").row_count > 0
        if mode in ("http", "notebook"):
            return lake.storage.head(f"{name}{'.txt' if mode == 'http' else '.ipynb'}").size > 0
    except NotFound:
        return False
    return None


def test_a_notebook_that_leaves_before_its_end_is_a_failure(place):
    lake, folder, _ = place
    notebook = json.loads((folder / "n.ipynb").read_text())
    notebook["cells"][1]["source"] = "import os, sys; print(os.getcwd(), n); sys.exit(0)"
    notebook["cells"].append({**notebook["cells"][1], "source": "never = 1", "id": "c"})
    (folder / "left {n}.ipynb").write_text(json.dumps(notebook))
    nodes = {"left": Notebook(notebook="left {n}.ipynb", args={"n": 7}, object="left.ipynb")}
    run = lake.workflows.run(Workflow(name="left", nodes=nodes, folder=str(folder)), check=False)
    assert "SystemExit: the notebook left before its end" in run.events["left"].error.message
    kept = (lake.path / "workflows/runs/left" / run.id / run.events["left"].fields["kept"]).read_text()
    assert f"{folder} 7" in kept
    with pytest.raises(NotFound):
        lake.storage.head("left.ipynb")


def test_what_was_committed_before_a_fault_is_not_written_again(place):
    lake, folder, _ = place
    nodes = {
        "add__report__vanish": Sql(sql="SELECT a FROM base", table="added", write="append", retries=1, backoff=0.01)
    }
    run = lake.workflows.run(Workflow(name="adding", nodes=nodes, folder=str(folder)), check=False)
    assert [event.error.type for event in run.attempts] == ["ProcessDied"]
    assert lake.catalog.table("added").row_count == 1
    resumed = lake.workflows.resume(run.id, check=False)
    assert resumed.events["add__report__vanish"].attempt == 4
    assert lake.catalog.table("added").row_count == 1


def test_a_report_that_must_be_kept_and_cannot_is_a_failure(tmp_path):
    settings = {"observer": {"require_persist": True}, "workflow": {"preload": ["workflow_faults"]}}
    with lakehouse.open(tmp_path / "lake", settings=settings) as lake:
        wall = lake.path / "observer"
        if wall.exists():
            wall.rename(tmp_path / "elsewhere")
        wall.write_text("no folder can be here")
        nodes = {
            "one": Python(call="workflow_faults:nothing"),
            "two": Python(call="workflow_faults:nothing", after=("one",)),
        }
        run = lake.workflows.run(Workflow(name="unseen", nodes=nodes), check=False)
        told = lake.workflows.get(run.id)
        assert told.status == "failed"
        assert told.events["one"].success is False
        assert told.events["one"].error.where == "report"
        assert told.events["two"].status == "not_run"
        wall.unlink()
        assert lake.workflows.resume(run.id).status == "done"


def test_an_account_that_cannot_be_written_stops_the_run(place, monkeypatch):
    lake, _, _ = place
    from lakehouse.errors import DiskFull
    from lakehouse.journal import Journal

    append = Journal.append

    def full(journal, *data):
        if any(getattr(one, "event", None) is not None for one in data):
            raise DiskFull("no space")
        return append(journal, *data)

    workflow = Workflow(name="full", nodes={"one": Sql(sql="SELECT a FROM base", table="full_one", write="append")})
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        with pytest.raises(LakehouseError, match="no space"):
            lake.workflows.run(workflow)
    run = lake.workflows.runs("full")[0]
    assert run.status == "interrupted"
    assert run.events == {}
    assert lake.workflows.resume(run.id).status == "done"
    assert lake.catalog.table("full_one").row_count == 1
