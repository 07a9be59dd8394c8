"""Reports over HTTP and in the shell: begun, watched, fetched, cancelled."""

import json
import subprocess
import sys
import time

import nbformat
import pytest
from serving import TOKENS, Server, problem

import lakehouse

CODE = "import lakehouse, time\nlake = lakehouse.open()\ntime.sleep(wait)\nlake.sql('SELECT 6 * 7 AS answer')"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    with lakehouse.open(folder / "lake"):
        pass
    probe = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A probe"),
            nbformat.v4.new_code_cell('wait = 0\nkey = "env:PATH"', metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(CODE),
        ]
    )
    probe.metadata["lakehouse"] = nbformat.from_dict({"parameters": {"key": {"kind": "secret"}}})
    (folder / "lake" / "reports").mkdir()
    nbformat.write(probe, folder / "lake" / "reports" / "probe.ipynb")
    running = Server(folder, ["lakehouse.cli", "serve"], TOKENS)
    try:
        yield running.ready()
        assert "Traceback" not in running.log, running.log
    finally:
        running.stop()


def waited(server, path, wanted):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        run = server.call("GET", path).json()
        if wanted(run):
            return run
        time.sleep(0.05)
    raise AssertionError(run)


def test_a_run_is_begun_watched_and_fetched(server):
    assert "probe" in [one["name"] for one in server.call("GET", "/reports").json()["reports"]]
    known = server.call("GET", "/reports/probe").json()
    assert [(p["name"], p["kind"]) for p in known["parameters"]] == [("wait", "int"), ("key", "secret")]
    begun = server.call("POST", "/reports/probe/runs", json={}, headers={"Idempotency-Key": "one"})
    assert begun.status_code == 202, begun.text
    run = begun.json()
    path = f"/reports/probe/runs/{run['id']}"
    assert begun.headers["Location"] == path[1:]
    again = server.call("POST", "/reports/probe/runs", json={}, headers={"Idempotency-Key": "one"})
    assert again.json()["id"] == run["id"]
    done = waited(server, path, lambda one: one["status"] not in ("queued", "running"))
    assert (done["status"], done["cell"], done["cells"]) == ("ok", 4, 4)
    page = server.call("GET", f"{path}/html")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "sandbox" in page.headers["Content-Security-Policy"]
    assert ">42<" in page.text
    assert nbformat.reads(server.call("GET", f"{path}/notebook").text, as_version=4).cells
    problem(server.call("GET", f"{path}/pdf"), 404, "object_not_found")
    problem(server.call("GET", "/reports/table_quality/runs/" + run["id"]), 404, "run_not_found")
    same = server.call("POST", "/reports/probe/runs", json={})
    assert (same.status_code, same.json()["id"], same.json()["reused"]) == (200, run["id"], True)
    other = server.call("POST", "/reports/probe/runs", json={"force": True}).json()
    waited(server, f"/reports/probe/runs/{other['id']}", lambda one: one["status"] == "ok")
    found = server.call("GET", "/reports/probe/compare", params={"a": run["id"], "b": other["id"]}).json()
    assert found["outputs"] == []
    assert [one["id"] for one in server.call("GET", "/reports/probe/runs").json()["runs"]] == [other["id"], run["id"]]


def test_a_run_is_cancelled(server):
    run = server.call("POST", "/reports/probe/runs", json={"parameters": {"wait": 600}}).json()
    path = f"/reports/probe/runs/{run['id']}"
    waited(server, path, lambda one: one["cell"] >= 3)
    assert server.call("POST", f"{path}/cancel").status_code == 200
    assert waited(server, path, lambda one: one["status"] != "running")["status"] == "cancelled"


def test_refusals(server):
    problem(server.call("GET", "/reports/missing"), 404, "report_not_found")
    problem(server.call("GET", "/reports/..%2Fx"), 400, "report_invalid")
    problem(server.call("POST", "/reports/probe/runs", json={"parameters": {"x": 1}}), 400, "report_invalid")
    problem(server.call("POST", "/reports/probe/runs", json={"parameters": {"key": "env:HOME"}}), 400, "report_invalid")
    problem(server.call("POST", "/reports/probe/runs", json={"formats": ["exe"]}), 400, "request_invalid")
    problem(server.call("POST", "/reports/probe/runs", json={}, token="reading-token-00000003"), 403, "forbidden")
    problem(server.call("GET", "/reports/probe/runs/../../x"), 404)


def test_the_command(server):
    def shell(*args, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "lakehouse.cli", "--lake", server.folder / "lake", "report", *args],
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
            cwd=server.folder,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    assert "daily_operations" in shell("list")[0]
    assert "wait" in shell("describe", "probe")[0]
    run = json.loads(shell("run", "probe", "-p", "wait=0", "--json")[0])
    assert run["status"] == "ok"
    assert shell("open", run["id"], "--no-browser")[0].strip() == str(server.folder / f"{run['id']}.html")
    assert "<h1" in (server.folder / f"{run['id']}.html").read_text()
    assert run["id"] in shell("runs", "probe")[0]
    assert "the outputs are the same" in shell("compare", run["id"], run["id"])[0]
    assert "whole number" in shell("run", "probe", "-p", "wait=soon", code=1)[1]
    assert "not under way" in shell("cancel", run["id"])[0]
    sets = server.folder / "sets.jsonl"
    sets.write_text('{"wait": 0}\n\n{"wait": 0}\n')
    assert len(json.loads(shell("batch", "probe", str(sets), "--json")[0])["runs"]) == 2
