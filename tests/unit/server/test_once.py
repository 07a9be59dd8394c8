"""Requests under an `Idempotency-Key`: one effect and one answer, whoever asks again, also after `kill -9`."""

import threading
import time
from types import SimpleNamespace

import msgspec
import nbformat
import pytest

import lakehouse
from lakehouse.auth import DEVELOPMENT
from lakehouse.errors import (
    AlreadyExists,
    KeyReused,
    LakehouseError,
    LockTimeout,
    QueryTimeout,
    RequestInFlight,
    RequestInvalid,
    SourceUnreadable,
)
from lakehouse.pathway.store import Pathway
from lakehouse.query.sandbox.confine import protection
from lakehouse.query.sandbox.sandbox import Sandbox
from lakehouse.reports.reports import Reports
from lakehouse.server import once
from lakehouse.server.asked import Register
from lakehouse.server.once import Requests, performed
from lakehouse.server.routes import observer, pathway, reports
from lakehouse.server.routes.ingest import ROUTES, Load
from lakehouse.server.routes.queries import ROUTES as QUERIES
from lakehouse.server.routes.queries import Statement
from lakehouse.server.routing import Answer, Call, Route, encoded

INGEST = next(route for route in ROUTES if route.path == "/ingest")
CSV = b"id,name\n1,ann\n2,bob\n"


class Asker:
    """Sends requests to routes of one lake as the handler does, without a network."""

    def __init__(self, lake):
        self.lake = lake
        self.service = SimpleNamespace(requests=Requests(lake.path), lake=lambda create: lake)

    def __call__(self, route=INGEST, content=CSV, key="k1", path=(), **query):
        stream = [content[at : at + 7] for at in range(0, len(content), 7)] if route.streams else None
        headers = {"Content-Type": "text/csv"} | ({} if key is None else {"Idempotency-Key": key})
        query = Load(**{"table": "t", **query}) if route is INGEST else None
        body = None if route.streams else content
        call = Call(self.service, DEVELOPMENT, path, query, body, stream, headers, creates=True)
        return performed(route, call)


@pytest.fixture
def ask(lake):
    return Asker(lake)


def value(answer):
    return msgspec.json.decode(encoded(answer.value))


def replayed(answer):
    return answer.headers.get("Idempotent-Replayed") == "true"


def test_the_same_request_gets_the_same_answer_and_is_done_once(ask, lake):
    first = ask(force=True)
    again = ask(force=True)
    assert (replayed(first), replayed(again)) == (False, True)
    assert value(again) == value(first)
    assert value(first)["duplicate"] is False
    assert lake.catalog.table("t").row_count == 2
    other = Asker(lake)(force=True)  # another server, or the same one later
    assert (replayed(other), value(other)) == (True, value(first))
    assert value(ask(key="k2", force=True))["duplicate"] is False
    assert lake.catalog.table("t").row_count == 4
    assert not isinstance(ask(key=None), Answer), "without a key nothing is kept"


@pytest.mark.parametrize("other", [{"content": CSV + b"3,cy\n"}, {"table": "u"}, {"force": True}])
def test_another_request_under_the_same_key_is_refused(ask, lake, other):
    ask()
    with pytest.raises(KeyReused):
        ask(**other)
    assert [one.name for one in lake.catalog.tables()] == ["t"]
    assert lake.catalog.table("t").row_count == 2


def test_the_same_key_while_it_is_worked_on_has_to_wait(ask):
    inside, go = threading.Event(), threading.Event()

    def slow(call):
        inside.set()
        assert go.wait(30)
        return {"n": 1}

    route = Route("POST", "/slow", "write", slow, body=bytes, counts_once=True)
    found = []
    worker = threading.Thread(target=lambda: found.append(ask(route)))
    worker.start()
    assert inside.wait(30)
    with pytest.raises(RequestInFlight):
        ask(route)
    with pytest.raises(RequestInFlight):
        Asker(ask.lake)(route)
    go.set()
    worker.join()
    assert value(ask(route)) == value(found[0]) == {"n": 1}


def test_a_refused_request_may_be_mended_and_sent_again(ask, lake):
    with pytest.raises(SourceUnreadable):
        ask(content=b"id,name\n1\n1,2,3\n")
    assert value(ask())["rows"] == 2


@pytest.mark.parametrize(
    ("error", "again"), [(LockTimeout("busy"), False), (QueryTimeout("slow"), True), (RuntimeError("odd"), True)]
)
def test_a_key_stands_for_its_request_unless_that_surely_did_nothing(ask, error, again):
    failures, begun = [error], []

    def fail(call):
        begun.append((call.name(), call.again()))
        if failures:
            raise failures.pop()
        return {"n": 1}

    route = Route("POST", "/odd", "write", fail, body=bytes, counts_once=True)
    with pytest.raises(type(error)):
        ask(route)
    if again:
        with pytest.raises(KeyReused):
            ask(route, content=b"another")
    assert value(ask(route)) == {"n": 1}
    assert [known for _, known in begun] == [False, again]
    assert (begun[0][0] == begun[1][0]) is again


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(ask, lake, monkeypatch):
    def full(*_):
        raise LakehouseError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Requests, "keep", full)
        assert value(ask(force=True))["duplicate"] is False
    again = ask(force=True)
    assert value(again)["duplicate"] is True
    assert lake.catalog.table("t").row_count == 2


def test_answers_expire(ask, lake, monkeypatch):
    ask(force=True)
    now = time.time() + once.KEPT_FOR + 1
    monkeypatch.setattr(once.time, "time", lambda: now)
    assert not replayed(ask(force=True))
    assert lake.catalog.table("t").row_count == 4
    assert ask.service.requests._state.read("SELECT count(*) FROM request") == [(1,)]


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256])
def test_keys_that_cannot_be(ask, key):
    with pytest.raises(RequestInvalid):
        ask(key=key)


def test_quotes_around_a_key_mean_nothing(ask):
    ask(key='"k"')
    assert replayed(ask(key="k"))


CRASH = """
    import os, signal, sys
    sys.path.insert(0, args[1])
    import lakehouse
    from test_once import Asker
    from lakehouse.server.once import Requests
    def die(*_): os.kill(os.getpid(), signal.SIGKILL)
    moment = {"before": "begin", "after": "keep"}[args[2]]
    with lakehouse.open(args[0]) as lake:
        setattr(Requests, moment, die)
        Asker(lake)(force=True, mode=args[3], key="k1", table=args[4])
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_killed_around_the_commit_loses_no_load_and_loads_none_twice(child, tmp_path, moment):
    """`after`: committed, the answer not kept. The retry, forced as it is, finds the commit and tells of it."""
    place = tmp_path / "lake"
    with lakehouse.open(place) as lake:
        lake.sql("CREATE TABLE t (id BIGINT, name VARCHAR)")
    died = child(CRASH, place, __file__.rpartition("/")[0], moment, "append", "t")
    died.process.wait(60)
    assert died.process.returncode == -9, died.process.stderr.read()
    with lakehouse.open(place) as lake:
        assert lake.catalog.table("t").row_count == (2 if moment == "after" else 0)
        if moment == "after":
            with pytest.raises(KeyReused):
                Asker(lake)(content=b"id,name\n7,x\n", force=True)
            lake.sql("DELETE FROM t WHERE id = 1")  # whatever became of its rows
        answer = Asker(lake)(force=True)
        assert value(answer)["duplicate"] is (moment == "after")
        assert (value(answer)["rows"], value(answer)["snapshot"]) == (2, 2)
        assert lake.catalog.table("t").row_count == (1 if moment == "after" else 2)
        assert value(Asker(lake)(force=True)) == value(answer)


TRACES = [{"content": {"n": 1}}, {"content": {"n": 2}, "uid": "mine"}, {"content": {"n": 3}}]


def _traces(lake):
    return "/pathway/batch", pathway.Batch(msgspec.convert(TRACES, list[pathway.New])), (), lake.pathway, "add_many"


def _events(lake):
    events = [{"run": "r", "status": "done"}, {"run": "r", "status": "started", "id": "mine"}]
    body = observer.Taken(msgspec.convert(events, list[observer.NewEvent]))
    return "/observer/events", body, (), lake.observer, "record_many"


def _report(lake):
    cells = [nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]})]
    (lake.path / "reports").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lake.path / "reports" / "one.ipynb")
    return "/reports/{report}/runs", reports.Start(force=True), ("one",), lake.reports, "start"


def count(lake):
    return len(lake.pathway.search(limit=100).results), len(lake.observer.events()), len(lake.reports.runs())


@pytest.mark.parametrize("made", [_traces, _events, _report])
def test_what_a_batch_or_a_run_came_to_is_told_again(ask, lake, monkeypatch, made):
    """Done, and the answer lost: the retry finds it by the names of the request. Not begun: it is done now."""
    where, body, path, owner, name = made(lake)
    route = next(
        one for one in (*pathway.ROUTES, *observer.ROUTES, *reports.ROUTES) if (one.path, one.method) == (where, "POST")
    )
    monkeypatch.setattr(Reports, "_go", lambda self, prepared, told, held: prepared.run)  # it is not about what runs
    with monkeypatch.context() as patch:
        patch.setattr(Requests, "keep", raising(LakehouseError("no space")))
        first = ask(route, body, path=path)
    there = count(lake)
    again = ask(route, body, path=path)
    key = "id" if made is _report else "seq" if made is _events else "uids"
    assert value(again)[key] == value(first)[key]
    assert any(there)
    assert (count(lake), replayed(again)) == (there, False)
    assert replayed(ask(route, body, path=path))
    if made is _traces:
        body.traces[1].uid = "yours"
    with monkeypatch.context() as patch:
        patch.setattr(type(owner), name, raising(RuntimeError("odd")))
        with pytest.raises(RuntimeError):
            ask(route, body, key="k2", path=path)
    assert count(lake) == there
    ask(route, body, key="k2", path=path)
    assert count(lake) == tuple(2 * n for n in there)


def test_a_batch_of_traces_that_broke_off_is_kept_to_its_end(ask, lake, monkeypatch):
    where, body, *_ = _traces(lake)
    route = next(one for one in pathway.ROUTES if one.path == where)
    whole = Pathway.add_many

    def half(self, items):
        whole(self, list(items)[:2])
        raise RuntimeError("odd")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Pathway, "add_many", half)
        ask(route, body)
    uids = value(ask(route, body))["uids"]
    assert [lake.pathway.get(uid).content["n"] for uid in uids] == [1, 2, 3]
    assert lake.pathway.stats().traces == 3
    body.traces[0].uid = "mine"
    with pytest.raises(AlreadyExists):
        ask(route, body, key="k2")


STATEMENTS = next(route for route in QUERIES if route.path == "/statements")


def stated(lake, sql="INSERT INTO t VALUES (1)", key="k1"):
    """Ask for a statement under a key."""
    asker = Asker(lake)
    asker.service.asked, asker.service.sql_served = Register(), True
    asker.service.protection = protection("full")
    return asker(STATEMENTS, Statement(sql), key)


STATEMENT_CRASH = """
    import os, signal, sys
    sys.path.insert(0, args[1])
    import lakehouse
    from test_once import stated
    from lakehouse.query.sandbox.sandbox import Sandbox
    from lakehouse.server.once import Requests
    def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
    owner, name = {"before": (Sandbox, "run"), "after": (Requests, "keep")}[args[2]]
    with lakehouse.open(args[0]) as lake:
        setattr(owner, name, die)
        stated(lake)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_server_killed_around_a_statement_runs_it_once(child, tmp_path, monkeypatch, moment):
    """`after`: committed, the answer not kept, the snapshot expired. Whoever asks again is told of that commit."""
    place = tmp_path / "lake"
    with lakehouse.open(place) as lake:
        lake.sql("CREATE TABLE t (id BIGINT)")
    died = child(STATEMENT_CRASH, place, __file__.rpartition("/")[0], moment)
    died.process.wait(60)
    assert died.process.returncode == -9, died.process.stderr.read()
    with lakehouse.open(place) as lake:
        assert lake.catalog.table("t").row_count == (1 if moment == "after" else 0)
        with pytest.raises(KeyReused):
            stated(lake, "INSERT INTO t VALUES (2)")
        if moment == "after":
            lake.sql("UPDATE t SET id = 3")  # another commit, so that the first can expire
            lake.maintenance.expire("0s", dry_run=False)
            assert 2 not in [one.id for one in lake.catalog.snapshots()]
        with monkeypatch.context() as patch, pytest.raises(LockTimeout):  # a refusal in between changes nothing
            patch.setattr(Sandbox, "run", raising(LockTimeout("busy")))
            stated(lake)
        answer = stated(lake)
        told = value(answer)
        assert (told["snapshot"], told["kind"]) == (2, "write")
        assert told["rows"] == (None if moment == "after" else 1)
        assert lake.catalog.table("t").row_count == 1
        assert replayed(stated(lake))
        assert value(stated(lake)) == told


def raising(error):
    def fail(*_, **__):
        raise error

    return fail
