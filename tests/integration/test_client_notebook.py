"""`%lake https://…` in a notebook: the magics on a lake behind a server."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from serving import PRIMARY, READER, TOKENS, Server

import lakehouse
from lakehouse.errors import Forbidden, LakehouseError, NotRemote, TableNotFound, Unauthenticated

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from session import Session


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    with lakehouse.open(folder / "lake") as lake:
        lake.sql("CREATE TABLE flights AS SELECT i AS id, 'A' || i % 3 AS origin FROM range(100) t(i)")
        lake.sql("CREATE VIEW busy AS SELECT origin, count(*) AS n FROM flights GROUP BY origin")
        lake.catalog.table("flights").set_comment("all of them")
        (folder / "copying.toml").write_text("[nodes.one]\nmode='sql'\nsql='FROM busy'\ntable='copied'\n")
        lake.workflows.store(folder / "copying.toml")
    running = Server(folder, ["lakehouse.cli", "serve"], TOKENS)
    try:
        yield running.ready()
        assert "Traceback" not in running.log, running.log
    finally:
        running.stop()


@pytest.fixture
def session(capsys):
    started = Session(capsys)
    started.run("%load_ext lakehouse")
    yield started
    started.run("%unload_ext lakehouse")


@pytest.fixture
def here(session, server, monkeypatch):
    """A session that works on the lake of the server."""
    monkeypatch.setenv("AUTH_TOKEN", PRIMARY)
    session.run(f"%lake {server.url}")
    session.printed()
    return session


def test_connecting(session, server, monkeypatch):
    monkeypatch.setenv("AUTH_TOKEN", READER)
    client = session.run(f"%lake {server.url}")
    assert repr(client) == f"<lakehouse.Client {server.url}, read>"
    assert "(read-only), 1 table, 1 view" in session.printed()
    assert "may not write" in session.fails("%sql INSERT INTO flights VALUES (1, 'x')", Forbidden)
    monkeypatch.setenv("AUTH_TOKEN", "a-wrong-token-000001")
    assert "a-wrong-token" not in session.fails(f"%lake {server.url}", Unauthenticated)
    assert "not pinned" in session.fails(f"%lake {server.url} --at 3", LakehouseError)


def test_the_token_is_asked_for(session, server, monkeypatch):
    monkeypatch.delenv("AUTH_TOKEN", raising=False)
    asked = []
    monkeypatch.setattr("lakehouse.notebook.remote.getpass", lambda prompt: asked.append(prompt) or PRIMARY)
    session.run(f"%lake {server.url}")
    assert asked == [f"token for {server.url}: "]
    assert session.run("%sql SELECT 1 AS one").fetchall() == [(1,)]

    def nobody(_):
        raise RuntimeError("no stdin here")

    for answer in (nobody, lambda _: ""):
        monkeypatch.setattr("lakehouse.notebook.remote.getpass", answer)
        assert "AUTH_TOKEN" in session.fails(f"%lake {server.url}", Unauthenticated)


def test_a_client_that_is_open_already(session, server):
    with lakehouse.connect(server.url, PRIMARY) as client:
        session["client"] = client
        assert session.run("%lake $client") is client
        assert session.run("%sql SELECT count(*) AS n FROM flights").fetchone() == (100,)


def test_sql(here):
    here["origin"] = "A1"
    result = here.run("%%sql\nSELECT origin, count(*) AS n FROM flights WHERE origin = $origin GROUP BY origin")
    assert isinstance(result, lakehouse.Result)
    assert "A1" in result._repr_html_()
    assert "1 row × 2 columns" in repr(result)
    assert here.run("%sql late << FROM busy ORDER BY origin") is None
    assert here["late"].df()["n"].tolist() == [34, 33, 33]
    assert isinstance(here.run("%sql --type df FROM busy"), pd.DataFrame)
    assert len(here.run("%sql --limit 5 FROM flights")) == 5
    assert "flights" in repr(here.run("%sql --explain SELECT * FROM flights")).lower()
    assert here.run("%sql --at 0 SELECT 1 AS one").fetchone() == (1,)
    assert "flights" in here.fails("%sql FROM flihgts", TableNotFound)
    receipt = here.run("%sql CREATE TABLE mine AS SELECT 1 AS a")
    assert "snapshot" in repr(receipt)
    assert here.run("%sql DROP TABLE mine").is_receipt


def test_what_is_in_it(here):
    tables = repr(here.run("%lake tables"))
    assert "flights" in tables
    assert "all of them" in tables
    assert "1 table, 1 view" in tables
    assert "origin" in repr(here.run("%lake columns flights"))
    assert "snapshot" in repr(here.run("%lake snapshots 2"))
    assert "flights" in repr(here.run("%lake search origin"))
    assert "origin" in repr(here.run("%lake profile flights"))
    assert "flights" in repr(here.run("%lake lineage busy"))
    assert "snapshot" in repr(here.run("%lake history flights"))
    assert "SELECT" in repr(here.run("%lake queries 50"))
    assert "flights" in repr(here.run("%lake diff 0 2"))
    assert here.run("%pathway similar why") is not None


def test_what_works_only_where_the_lake_is(here):
    here["frame"] = pd.DataFrame({"a": [1]})
    assert "ingest" in here.fails("%sql FROM frame", NotRemote)
    assert "stored workflows" in here.fails("%lake run copying.toml", NotRemote)
    assert "on the lake itself" in here.fails("%%pathway why?\nx = 1", NotRemote)
    here["flights"] = pd.DataFrame({"a": [1]})  # a table of the lake goes first
    assert here.run("%sql SELECT count(*) AS n FROM flights").fetchone() == (100,)


def test_completion(here):
    assert "flights" in here.complete("%sql SELECT * FROM fli|")
    assert "origin" in here.complete("%sql SELECT ori| FROM flights")
    assert "busy" in here.complete("%lake columns bu|")


def test_saved_queries_and_workflows(here):
    assert here.run("%sql --save few SELECT * FROM flights WHERE id < 3").fetchall()[0] == (0, "A0")
    assert here.run("%sql --with few SELECT count(*) FROM few").fetchall() == [(3,)]
    assert "few" in repr(here.run("%lake saved"))
    assert "id < 3" in repr(here.run("%lake saved few"))
    assert here.run("%lake run copying").status == "done"
    assert here.run("%sql SELECT count(*) FROM copied").fetchall() == [(3,)]
