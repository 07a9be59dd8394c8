"""`%%pathway` and `%pathway` in a real IPython session."""

from __future__ import annotations

import pytest
from session import Session

import lakehouse
from lakehouse.errors import LakehouseError, TraceNotFound


@pytest.fixture
def session(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    session = Session(capsys)
    session.run("%load_ext lakehouse")
    session.run("%lake lake")
    session.run("%sql CREATE TABLE flights AS SELECT range AS id, range % 3 AS delay FROM range(10)")
    session.printed()
    yield session
    session.shell.run_cell("%unload_ext lakehouse")


def analyses(tmp_path):
    with lakehouse.open(tmp_path / "lake", read_only=True) as lake:
        return lake.pathway.get_all(kind="analysis")


def test_a_cell_is_recorded(session, tmp_path):
    session["least"] = 1
    session.run(
        "%%pathway why are flights late --tag delays --tag ops -o p\n"
        "late = %sql SELECT * FROM flights WHERE delay > $least\n"
        "counted = len(late)\n"
        "%sql SELECT count(*) FROM late\n"
    )
    (trace,) = analyses(tmp_path)
    assert trace.content["question"] == "why are flights late"
    assert trace.tags == ("delays", "ops")
    assert [step["rows"] for step in trace.content["steps"]] == [3, 1]
    assert trace.content["steps"][0]["params"] == {"least": 1}
    assert trace.content["steps"][1]["tables"] == {"late": 1}
    assert session["counted"] == 3
    assert session["p"].trace == trace
    assert f"recorded as {trace.uid}, 2 steps" in session.printed()


def test_a_cell_that_fails_is_kept_and_fails_and_says_so_once(session, tmp_path):
    done = session.shell.run_cell("%%pathway q\n%sql SELECT 1\n1 / 0\n%sql SELECT 2")
    assert isinstance(done.error_in_exec, ZeroDivisionError)
    assert session.printed().count("ZeroDivisionError: division by zero") == 1
    (trace,) = analyses(tmp_path)
    assert len(trace.content["steps"]) == 1
    assert trace.content["error"] == {"code": "ZeroDivisionError", "message": "division by zero"}
    session.run("%sql SELECT 'free again'")
    assert len(analyses(tmp_path)) == 1


def test_a_cell_that_is_no_python_fails(session, tmp_path):
    done = session.shell.run_cell("%%pathway q\n1 +\n")
    assert isinstance(done.error_in_exec, LakehouseError)
    assert session.printed().count("invalid syntax") == 1
    assert analyses(tmp_path)[0].content["error"]["message"] == "the cell was not run: SyntaxError"


def test_conclude_similar_and_replay(session, tmp_path):
    session.fails("%pathway conclude nothing yet", LakehouseError)
    assert repr(session.run("%pathway similar anything")) == "nothing like it was recorded"
    session.run("%%pathway why are flights late\n%sql SELECT count(*) FROM flights WHERE delay > 1")
    (trace,) = analyses(tmp_path)
    session.run("%pathway conclude one in three is")
    assert analyses(tmp_path)[0].content["conclusion"] == "one in three is"
    shown = repr(session.run("%pathway similar flights that are late"))
    assert trace.uid in shown
    assert "one in three is" in shown
    assert session.run(f"%pathway replay {trace.uid}").verdict == "same"
    session.run("%sql DELETE FROM flights WHERE id = 2")
    assert session.run(f"%pathway replay {trace.uid}").verdict == "changed"
    assert session.run(f"%pathway replay {trace.uid} recorded").verdict == "same"
    assert analyses(tmp_path)[0].replay_count == 3


@pytest.mark.parametrize(
    "cell", ["%%pathway\n1", "%%pathway --tagg x q\n1", "%%pathway q -o 1x\n1", "%pathway", "%pathway what"]
)
def test_what_is_not_understood(session, cell, tmp_path):
    session.fails(cell, LakehouseError)
    assert not analyses(tmp_path)


def test_a_replay_of_nothing(session):
    assert "there is no trace 'x'" in session.fails("%pathway replay x", TraceNotFound)
