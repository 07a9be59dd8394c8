"""What the observer promises (ADR-005), in one process."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import lakehouse
from lakehouse import errors
from lakehouse.config import ObserverSettings
from lakehouse.observer import observer as module
from lakehouse.observer.encoding import LONGEST
from lakehouse.observer.model import Counters, Data, Event, Problem
from lakehouse.observer.observer import Observer

FAULT = Problem("ValueError", "no such thing", "line 3")


@pytest.fixture
def make(tmp_path):
    made = []

    def observer(folder="observer", **settings):
        made.append(Observer(tmp_path / folder, ObserverSettings(**{"sync": "never", **settings})))
        return made[-1]

    yield observer
    for one in made:
        one.close()


def done(run, **more):
    return Event(run=run, status="done", **more)


def failed(run, **more):
    return Event(run=run, status="failed", error=FAULT, **more)


def runs(events):
    return [event.run for event in events]


# ADR-005, claim by claim


def test_a_full_ring_evicts_its_oldest_and_still_accepts(make):
    observer = make(ring_size=3)
    receipts = [observer.record(done(str(n))) for n in range(5)]
    assert [receipt.evicted for receipt in receipts] == [0, 0, 0, 1, 1]
    assert runs(observer.ring()) == ["4", "3", "2"]
    assert observer.counters() == Counters(accepted=5, evicted=2, persisted=5, persist_failed=0)
    assert runs(observer.events()) == ["4", "3", "2", "1", "0"], "the journal has what the ring let go of"
    receipt = observer.record_many(done(f"b{n}") for n in range(7))
    assert (receipt.accepted, receipt.evicted, receipt.seq) == (7, 7, 12)
    assert runs(observer.ring()) == ["b6", "b5", "b4"]
    assert observer.counters() == Counters(12, 9, 12, 0)


def test_a_persist_failure_is_logged_and_counted_not_raised(make, tmp_path, caplog):
    (tmp_path / "observer").write_text("a file where the folder should be")
    observer = make()
    with caplog.at_level(logging.ERROR, "lakehouse.observer"):
        receipts = [observer.record(failed(str(n), workflow="w")) for n in range(50)]
    assert [(one.accepted, one.persisted, one.seq) for one in receipts] == [(1, False, None)] * 50
    assert all("cannot be used" in one.problem for one in receipts)
    assert observer.counters() == Counters(accepted=50, evicted=0, persisted=0, persist_failed=50)
    assert len(caplog.records) == 1, "one line, not fifty"
    assert runs(observer.events(limit=3)) == ["49", "48", "47"], "they are in memory, and found there"
    assert observer.stats()[0].failures == 50
    (tmp_path / "observer").unlink()
    assert observer.record(done("after")).persisted
    assert runs(observer.events(limit=2)) == ["after", "49"]
    assert runs(Observer(tmp_path / "observer", ObserverSettings()).events()) == ["after"]


def test_the_log_says_later_how_many_there_were(make, tmp_path, caplog, monkeypatch):
    (tmp_path / "observer").write_text("")
    observer = make()
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in range(10):
        observer.record(done("x"))
    now[0] += 61
    observer.record(done("x"))
    assert [record.args[0] for record in caplog.records] == [1, 10]


def test_with_require_persist_it_fails_loudly_and_takes_nothing(make, tmp_path):
    (tmp_path / "observer").write_text("")
    observer = make(require_persist=True)
    with pytest.raises(errors.JournalError):
        observer.record(done("x"))
    with pytest.raises(errors.JournalError):
        observer.record_many([done("y"), done("z")])
    assert observer.counters() == Counters(accepted=0, evicted=0, persisted=0, persist_failed=3)
    assert observer.ring() == []
    (tmp_path / "observer").unlink()
    assert observer.record(done("x")).persisted


def test_no_event_says_that_a_failure_is_a_success():
    for status in ("failed", "timeout", "interrupted"):
        assert Event(run="r", status=status, error=FAULT).success is False
        for wrong in ({"success": True, "error": FAULT}, {}):
            with pytest.raises(errors.EventInvalid):
                Event(run="r", status=status, **wrong)
    assert Event(run="r", status="cancelled").success is False
    assert Event(run="r", status="not_run", reason="a failed").success is False
    assert Event(run="r", status="skipped", reason="nothing changed").success is True
    assert Event(run="r", status="started").success is None
    for wrong in (
        {"status": "done", "error": FAULT},
        {"status": "done", "success": False},
        {"status": "skipped", "reason": "x", "error": FAULT},
        {"status": "started", "success": True},
        {"status": "not_run"},
        {"status": "skipped"},
        {"status": "fine"},
    ):
        with pytest.raises(errors.EventInvalid):
            Event(run="r", **wrong)


def test_one_row_per_event_with_all_that_it_says(make):
    observer = make()
    times = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)
    event = Event(
        run="r", status="failed", workflow="w", node="n", mode="sql", error=FAULT, started=times[0], ended=times[1],
        inputs=(Data("main.a", snapshot=3),), outputs=(Data("k", "object", hash="ab", bytes=7),), attempt=2,
        principal="ann", fields={"rows": 3},
    )  # fmt: skip
    observer.record(event)
    (found,) = observer.events()
    assert found.elapsed == 2.0
    assert msgspec.structs.replace(found, seq=None, recorded=None) == event
    assert (found.seq, found.recorded.tzinfo) == (1, UTC)
    assert json.loads(json.dumps(found.to_dict()))["outputs"][0]["hash"] == "ab"


# other ways to be full


def test_a_read_only_lake_keeps_events_in_memory(tmp_path):
    lakehouse.open(tmp_path / "lake").close()
    with lakehouse.open(tmp_path / "lake", read_only=True) as lake:
        receipt = lake.observer.record(done("x"))
        assert (receipt.persisted, lake.observer.counters().persist_failed) == (False, 1)
        assert runs(lake.observer.events()) == ["x"]
        with pytest.raises(errors.LakeReadOnly):
            lake.observer.compact()
    strict = {"observer": {"require_persist": True}}
    with lakehouse.open(tmp_path / "lake", read_only=True, settings=strict) as lake:
        with pytest.raises(errors.LakeReadOnly):
            lake.observer.record(done("x"))
    assert not (tmp_path / "lake" / "observer").exists()


def test_in_memory_alone(make, tmp_path):
    observer = make(persist=False, ring_size=2)
    assert observer.record_many([done("a", elapsed=1), failed("b", elapsed=3), done("c")]).evicted == 1
    assert runs(observer.events()) == ["c", "b"]
    assert runs(observer.events(oldest=True, limit=1)) == ["b"]
    assert runs(observer.events(success=False)) == ["b"]
    assert (observer.stats()[0].runs, observer.stats()[0].p50) == (2, 3.0)
    assert observer.counters() == Counters(3, 1, 0, 0)
    assert not (tmp_path / "observer").exists()
    with pytest.raises(errors.JournalError):
        make(persist=False, require_persist=True).record(done("x"))


def test_whatever_is_in_an_event_it_is_taken(make):
    observer = make()
    deep = []
    for _ in range(100_000):
        deep = [deep]

    class Odd:
        def __str__(self):
            raise RuntimeError

    odd = {"\udcff": "\udc80", (1, 2): {3}, "big": 1 << 90, "deep": deep, "odd": Odd(), "nan": float("nan")}
    event = Event(run="\udcff", status="failed", error=Problem("E", "\udc80"), fields=odd, outputs=(Data("\udc80"),))
    assert observer.record(event).persisted
    (found,) = observer.events()
    assert (found.run, found.error.message, found.outputs[0].name) == ("\\udcff", "\\udc80", "\\udc80")
    assert found.fields["big"] == str(1 << 90)
    assert found.fields["odd"] == "<Odd>"
    assert found.fields["(1, 2)"] == [3]
    long = Event(run="long", status="failed", error=Problem("E", "x" * LONGEST), fields={"y": "y" * LONGEST})
    assert observer.record(long).persisted
    found = observer.events(run="long")[0]
    assert len(found.error.message) < LONGEST
    assert "left_out" in found.fields
    with pytest.raises(errors.EventInvalid):
        observer.record({"run": "r", "status": "done"})
    assert observer.counters() == Counters(2, 0, 2, 0)


def test_a_caller_cannot_change_what_was_recorded(make):
    observer = make()
    fields = {"rows": 1}
    observer.record(done("x", fields=fields))
    fields["rows"] = 2
    assert observer.ring()[0].fields == observer.events()[0].fields == {"rows": 1}
    again = observer.record(observer.events()[0])
    assert (again.seq, len(observer.events())) == (2, 2)


def test_a_clock_that_goes_back(make, monkeypatch):
    """Order is that of the journal; how long something took is never negative."""
    observer = make()
    back = done("back", started=datetime(2026, 1, 2, tzinfo=UTC), ended=datetime(2026, 1, 1, tzinfo=UTC))
    assert back.elapsed is None
    assert done("measured", started=back.started, ended=back.ended, elapsed=0.25).elapsed == 0.25

    class Clock(datetime):
        at = datetime(2026, 5, 1, tzinfo=UTC)

        @classmethod
        def now(cls, tz=None):
            cls.at -= timedelta(hours=1)
            return cls.at

    from lakehouse import journal

    monkeypatch.setattr(journal, "datetime", Clock)
    monkeypatch.setattr(module, "datetime", Clock)
    for n in range(5):
        observer.record(done(str(n)))
    found = observer.events()
    assert runs(found) == ["4", "3", "2", "1", "0"]
    assert [event.seq for event in found] == [5, 4, 3, 2, 1]
    assert found[0].recorded < found[-1].recorded
    assert runs(observer.events(since=2, oldest=True)) == ["2", "3", "4"]
    page = observer.page(observer.cursor(0), module.Filters())
    assert runs(page.events) == ["0", "1", "2", "3", "4"]


# asking


def test_filters_since_and_limit(make):
    observer = make()
    for n in range(6):
        event = done if n % 2 else failed
        observer.record(event(f"r{n}", workflow="w" if n < 4 else None, node=f"n{n % 3}", mode="sql", principal="ann"))
    assert runs(observer.events(workflow="w")) == ["r3", "r2", "r1", "r0"]
    assert runs(observer.events(workflow="w", success=False, node="n0")) == ["r0"]
    assert runs(observer.events(run="r5", mode="sql", principal="ann", status="done")) == ["r5"]
    assert runs(observer.events(limit=2)) == ["r5", "r4"]
    assert runs(observer.events(since=3, limit=2, oldest=True)) == ["r3", "r4"]
    half = observer.events(since=3, limit=1, oldest=True)[0].recorded
    assert runs(observer.events(since=half)) == ["r5", "r4", "r3"]
    assert runs(observer.events(since=half.isoformat())) == ["r5", "r4", "r3"]
    assert len(observer.events(since="1h")) == len(observer.events(since=timedelta(hours=1))) == 6
    assert observer.events(since=datetime.now(UTC) + timedelta(hours=1)) == []
    for wrong in ({"since": "soon"}, {"limit": 0}, {"limit": True}, {"status": "fine"}, {"since": 1.5}):
        with pytest.raises(errors.FilterInvalid):
            observer.events(**wrong)


def test_stats_are_those_of_all_that_ended(make):
    observer = make()
    took = [0.1 * n for n in range(1, 101)]
    observer.record_many(done(str(n), workflow="w", node="n", mode="sql", elapsed=t) for n, t in enumerate(took))
    observer.record(failed("f", workflow="w", node="n", mode="sql"))
    observer.record(Event(run="s", workflow="w", node="n", mode="sql", status="skipped", reason="same"))
    observer.record(Event(run="x", workflow="w", node="n", mode="sql", status="not_run", reason="a failed"))
    observer.record(Event(run="b", workflow="w", node="n", mode="sql", status="started"))
    observer.record(done("o", workflow="w", node="n", mode="python"))
    python, sql = observer.stats(workflow="w")
    assert (sql.runs, sql.failures, sql.skipped, sql.not_run) == (101, 1, 1, 1)
    assert [sql.p50, sql.p90, sql.p99, sql.slowest] == pytest.approx([took[49], took[89], took[98], took[99]])
    assert (sql.last_status, sql.last_error) == ("started", FAULT)
    assert (python.runs, python.p50, python.last_error) == (1, None, None)
    assert observer.stats(mode="python") == [python]
    assert observer.stats(workflow="v") == []


def test_the_index_is_made_anew_whatever_becomes_of_it(make):
    observer = make()
    observer.record_many(done(str(n)) for n in range(20))
    whole = observer.events()
    index = observer.journal.path.with_suffix(".index")
    for damage in (b"", b"no database at all" * 100):
        for suffix in ("-wal", "-shm"):
            index.with_name(index.name + suffix).unlink(missing_ok=True)
        index.write_bytes(damage)
        assert make().events() == whole
    index.unlink()
    assert observer.events() == whole
    # An older journal, as from a backup: the index knows more than is true.
    observer.journal.path.write_bytes(b"".join(observer.journal.path.read_bytes().splitlines(True)[:5]))
    assert make().events() == whole[-5:]


def test_damaged_lines_are_kept_aside_and_cost_only_themselves(make):
    observer = make()
    observer.record(done("a"))
    with observer.journal.path.open("ab") as file:
        file.write(b"damage\n")
    observer.record(done("b"))
    observer.journal.append({"op": "something else"})
    observer.record(done("c"))
    assert runs(observer.events()) == ["c", "b", "a"]
    assert len(observer.journal.quarantine.read_bytes().splitlines()) == 2
    assert not observer.verify().sound


def test_compaction_keeps_places_and_drops_what_is_old(make, monkeypatch):
    observer = make()
    observer.record_many([done("a"), failed("b")])
    time.sleep(0.02)
    cut = datetime.now(UTC)
    observer.record_many([done("c"), done("d")])
    whole = observer.events()
    assert observer.compact().dropped == 0
    assert observer.events() == whole
    assert make().events() == whole
    with observer.journal.path.open("ab") as file:
        file.write(b"damage\n")
    assert observer.compact(datetime.now(UTC) - cut).dropped == 2
    assert observer.events() == whole[:2]
    assert observer.verify().sound
    receipt = observer.record(done("e"))
    assert receipt.seq > whole[0].seq
    assert runs(observer.events(since=whole[0].seq)) == ["e"]
    assert observer.compact("0s").dropped == 3
    assert observer.events() == []
    assert make().events() == []


# following


def follow(observer, into, **arguments):
    events = observer.follow(**arguments)
    thread = threading.Thread(target=lambda: into.extend(events))
    thread.start()
    return thread


def test_follow_gives_what_comes_from_everybody_until_the_lake_is_closed(make):
    ours, theirs = make(), make()
    ours.record(done("before"))
    heard, filtered = [], []
    threads = [follow(ours, heard), follow(ours, filtered, success=False)]
    ours.record(done("1"))
    theirs.record(failed("2"))
    ours.record_many(done(str(n)) for n in range(3, 6))
    end = time.monotonic() + 60
    while (len(heard) < 5 or len(filtered) < 1) and time.monotonic() < end:
        time.sleep(0.005)
    ours.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert runs(heard) == ["1", "2", "3", "4", "5"]
    assert runs(filtered) == ["2"]
    assert runs(theirs.follow(since=0, timeout=0)) == ["before", "1", "2", "3", "4", "5"]
    with pytest.raises(errors.LakeClosed):
        ours.record(done("x"))


def test_follow_gives_each_event_once_though_they_are_more_than_a_page(make):
    observer = make()
    observer.record_many(done(str(n)) for n in range(1201))
    assert runs(observer.follow(since=0, timeout=0)) == [str(n) for n in range(1201)]


def test_follow_gives_what_is_only_in_memory(make):
    observer = make(persist=False)
    heard = []
    thread = follow(observer, heard)
    observer.record(done("1"))
    observer.record(done("2"))
    end = time.monotonic() + 60
    while len(heard) < 2 and time.monotonic() < end:
        time.sleep(0.005)
    observer.close()
    thread.join(20)
    assert runs(heard) == ["1", "2"]


def test_waiting_costs_next_to_nothing(make):
    """Half a second of following an observer that is silent, in this thread's own processor time."""
    observer = make()
    observer.record(done("x"))
    list(observer.follow(timeout=0))
    begun = time.thread_time()
    assert list(observer.follow(timeout=0.5)) == []
    assert time.thread_time() - begun < 0.1


# threads


def test_counters_are_exact_with_many_threads(make):
    observer = make(ring_size=10)

    def work(n):
        for k in range(40):
            observer.record_many([done(f"{n}-{k}"), failed(f"{n}-{k}")])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert observer.counters() == Counters(accepted=640, evicted=630, persisted=640, persist_failed=0)
    assert len(observer.ring()) == 10
    found = observer.events(limit=1000)
    assert [event.seq for event in found] == list(range(640, 0, -1))
    assert {event.run for event in found} == {f"{n}-{k}" for n in range(8) for k in range(40)}
    assert sorted(event.id for event in observer.ring()) == sorted(
        event.id for event in found if event.id in {one.id for one in observer.ring()}
    )


def test_a_lake_that_observes_nothing_loads_and_makes_nothing(tmp_path):
    code = (
        "import sys, lakehouse\n"
        f"with lakehouse.open({str(tmp_path / 'lake')!r}) as lake: lake.observer.counters()\n"
        "assert not {'sqlite3', 'openlineage'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
    assert not (tmp_path / "lake" / "observer").exists()


def test_no_place_for_an_index_is_an_error_of_ours(make, monkeypatch, tmp_path):
    observer = make()
    observer.record(done("x"))
    from lakehouse.observer import index

    def elsewhere(*_, **__):
        raise index._Elsewhere("nowhere")

    monkeypatch.setattr(index, "_caught_up", elsewhere)
    with pytest.raises(errors.LakeUnusable, match="nowhere"):
        observer.events()
