"""The commands for objects, contracts, upserts and retries."""

import json

import pytest
from click.testing import CliRunner

import lakehouse
from lakehouse.cli import main


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0, stdin=None):
        done = CliRunner().invoke(main, ["--lake", str(tmp_path / "lake"), *map(str, arguments)], input=stdin)
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done.stderr

    return call


def test_put_get_ls_rm(run, tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    assert "landing/a.csv: 5 bytes, sha256 " in run("put", tmp_path / "a.csv", "landing/a.csv")
    put = json.loads(run("put", "-", "b", "--json", stdin="text"))
    assert (put["key"], put["size"]) == ("b", 4)
    assert "already" in run("put", "-", "b", "--if-absent", stdin="x", code=1)
    assert "is not the object" in run("put", "-", "b", "--if-match", "other", stdin="x", code=1)
    assert run("get", "b") == "text"
    assert "5 bytes" in run("get", "landing/a.csv", tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_text() == "id\n1\n"
    assert [one["key"] for one in json.loads(run("ls", "--json"))] == ["b", "landing/a.csv"]
    assert [one["key"] for one in json.loads(run("ls", "land", "--json"))] == ["landing/a.csv"]
    assert json.loads(run("ls", "--after", "b", "--limit", 1, "--json"))[0]["size"] == 5
    assert "landing/a.csv" in run("ls")
    assert run("rm", "b", "none") == "b: removed\nnone: there was none\n"
    assert "no object 'b'" in run("get", "b", code=1)
    assert "cannot be a key" in run("put", "-", "../x", stdin="x", code=1)


def test_ingest_with_key_and_contract_then_retry(run, tmp_path):
    (tmp_path / "orders.csv").write_text("id,v\n1,10\n2,20\n2,21\n")
    run("put", tmp_path / "orders.csv", "in/orders.csv")
    said = run("ingest", "object:in/orders.csv", "--mode", "upsert", "--key", "id")
    assert said.startswith("orders: 2 rows (2 new, 0 updated; 1 left out for a later one of the same key) in ")
    (tmp_path / "more.csv").write_text("id,v\n2,22\n3,x\n")
    said = run("ingest", tmp_path / "more.csv", "orders", "--mode", "upsert", "--key", "id", "--contract", "quarantine")
    assert "orders: 1 row (0 new, 1 updated; 1 rejected)" in said
    assert "FROM orders__rejects" in said
    assert "0 rows loaded, 1 still rejected" in run("retry", "orders")
    run("sql", "UPDATE orders__rejects SET raw = '3,30'")
    assert json.loads(run("retry", "orders", "--json"))["inserted"] == 1
    with lakehouse.open(tmp_path / "lake") as lake:
        assert lake.sql("FROM orders ORDER BY id").fetchall() == [(1, 10), (2, 22), (3, 30)]
    (tmp_path / "other.csv").write_text("id,w\n1,1\n")
    assert "not in the table" in run("ingest", tmp_path / "other.csv", "orders", "--contract", "freeze", code=1)
    assert "needs the columns" in run("ingest", tmp_path / "more.csv", "orders", "--mode", "upsert", code=1)
    assert "no table 'none__rejects'" in run("retry", "none", code=1)
