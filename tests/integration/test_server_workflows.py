"""Workflows over HTTP: stored names only, begun once, watched, cancelled, resumed."""

import time

import pytest
from serving import TOKENS, Server, problem

import lakehouse

MODULE = """
import os, time
def nothing(): pass
def until(path):
    while not os.path.exists(path): time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("http-workflows")
    with lakehouse.open(folder / "lake") as lake:
        stored = lake.path / "workflows"
        stored.mkdir(exist_ok=True)
        (stored / "served.py").write_text(MODULE)
        (folder / "quick.toml").write_text(
            'description = "quick"\n[params]\nn = 1\n[nodes.one]\nmode = "sql"\nsql = "SELECT $n AS n"\ntable = "one"\nwrite = "append"\n'
        )
        lake.workflows.store(folder / "quick.toml")
        (stored / "long.toml").write_text(
            f"[nodes.wait]\nmode = 'python'\ncall = 'served:until'\nargs = {{ path = '{folder / 'go'}' }}\n"
            "[nodes.next]\nmode = 'python'\ncall = 'served:nothing'\nafter = ['wait']\n"
        )
        (stored / "broken.toml").write_text("[nodes.a]\nmode = 'none'\n")
    running = Server(folder, ["lakehouse.cli", "serve"], TOKENS)
    try:
        yield running.ready()
        assert "Traceback" not in running.log, running.log
    finally:
        running.stop()


def ended(server, run):
    while True:
        answer = server.call("GET", f"/runs/{run}")
        assert answer.status_code == 200, answer.text
        if answer.json()["status"] != "running":
            return answer.json()
        time.sleep(0.02)


def test_begun_once_and_watched(server):
    assert server.call("GET", "/workflows").json() == {"workflows": ["broken", "long", "quick"]}
    told = server.call("GET", "/workflows/quick").json()
    assert told["params"] == {"n": 1}
    assert [(node["node"], node["writes"]) for node in told["nodes"]] == [("one", ["one"])]
    key = {"Idempotency-Key": "begin-1"}
    first = server.call("POST", "/workflows/quick/runs", json={"params": {"n": 7}}, headers=key)
    assert first.status_code == 202, first.text
    run = first.json()["run"]
    assert first.headers["Location"].endswith(f"/runs/{run}")
    again = server.call("POST", "/workflows/quick/runs", json={"params": {"n": 7}}, headers=key)
    assert (again.status_code, again.json()["run"]) == (202, run)
    problem(
        server.call("POST", "/workflows/quick/runs", json={"params": {"n": 8}}, headers=key),
        422,
        "idempotency_key_reused",
    )
    done = ended(server, run)
    assert (done["status"], done["success"], done["params"], done["counts"]) == ("done", True, {"n": 7}, {"done": 1})
    assert done["principal"]
    events = server.call("GET", f"/runs/{run}/events").json()["events"]
    assert [(event["node"], event["success"]) for event in events] == [("one", True)]
    listed = server.call("GET", "/runs?workflow=quick").json()["runs"]
    assert [one["run"] for one in listed] == [run]
    with lakehouse.open(server.folder / "lake") as lake:
        assert lake.sql("FROM one").fetchall() == [(7,)]
        assert lake.workflows.get(run).status == "done"


def test_cancelled_and_resumed(server):
    run = server.call("POST", "/workflows/long/runs").json()["run"]
    problem(server.call("POST", "/workflows/long/runs"), 409, "workflow_busy")
    assert server.call("POST", f"/runs/{run}/cancel").status_code == 202
    done = ended(server, run)
    assert done["status"] == "cancelled"
    assert done["counts"] in ({"cancelled": 1, "not_run": 1}, {"not_run": 2})
    (server.folder / "go").touch()
    assert server.call("POST", f"/runs/{run}/resume").status_code == 202
    assert ended(server, run)["counts"] == {"done": 2}


def test_only_names_that_are_stored(server):
    for name in ("none", "..%2fquick", "%2e%2e", "quick.toml"):
        problem(server.call("POST", f"/workflows/{name}/runs"), 404, "workflow_not_found")
    problem(server.call("POST", "/workflows/broken/runs"), 400, "workflow_invalid")
    problem(server.call("GET", "/workflows/broken"), 400, "workflow_invalid")
    problem(server.call("POST", "/workflows/quick/runs", json={"params": {"x": 1}}), 400, "workflow_invalid")
    problem(server.call("POST", "/workflows/quick/runs", json={"nodes": {}}), 400, "request_invalid")
    problem(server.call("GET", "/runs/20200101T000000-00000000"), 404, "run_not_found")
    problem(server.call("POST", "/workflows/quick/runs", token="reading-token-00000003"), 403)
