"""Many traces at once: names that are taken are told without the index, exports and imports go page by page."""

import json
import os
import signal
import tracemalloc

import pytest

from lakehouse import errors
from lakehouse.journal import Journal
from lakehouse.pathway import names, search, store, transfer
from lakehouse.pathway.index import Index
from lakehouse.pathway.store import Pathway


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What takes thousands elsewhere takes few here."""
    monkeypatch.setattr(store, "_BULK", 10)
    monkeypatch.setattr(search, "_BATCH", 7)
    monkeypatch.setattr(transfer, "_BATCH", 7)


@pytest.fixture
def memory(tmp_path):
    memory = Pathway(tmp_path / "pathway", sync="never")
    yield memory
    memory.close()


def named(*numbers):
    return ({"content": number, "uid": f"t{number}"} for number in numbers)


def test_names_bring_the_index_up_to_date_once_given_in_bulk_or_singly(memory, monkeypatch):
    memory.add_many({"content": number} for number in range(5))
    applied = []
    apply = Index._apply
    monkeypatch.setattr(Index, "_apply", lambda index, connection: (applied.append(1), apply(index, connection)))
    assert memory.add_many(named(*range(5, 80))) == [f"t{number}" for number in range(5, 80)]
    for number in range(80, 100):
        memory.add(number, uid=f"t{number}") if number % 2 else memory.add_idempotent(number, uid=f"t{number}")
    assert len(applied) == 1
    assert [trace.content for trace in memory.get_all()] == list(range(99, -1, -1))


def test_few_names_are_kept_in_memory(memory, monkeypatch):
    monkeypatch.setattr(names, "MOST", 20)
    for number in range(50):
        memory.add(number, uid=f"t{number}")
        assert len(memory._names._later) <= 20
    memory.stats()
    memory.add("x")  # behind what the index has: read when the next name is asked for
    memory.add("y", uid="y")
    assert len(memory._names._later) == 2
    for number in (0, 21, 49):
        with pytest.raises(errors.AlreadyExists):
            memory.add("again", uid=f"t{number}")


@pytest.mark.parametrize("event", ["compacted", "deleted", "shorter", "another"])
def test_single_names_after_the_journal_or_the_index_was_made_anew(memory, tmp_path, event):
    memory.add(1, uid="t1")
    kept = memory.journal.path.read_bytes()
    memory.add(2, uid="t2")
    path, there = memory.journal.path, {"t1", "t2"}
    if event == "compacted":
        other = Pathway(tmp_path / "pathway", sync="never")
        other.compact()
        other.close()
    elif event == "deleted":
        memory._index.path.unlink()
    elif event == "shorter":  # a copy of yesterday
        path.unlink()
        path.write_bytes(kept)
        there = {"t1"}
    else:
        other = Pathway(tmp_path / "other", sync="never")
        there = {"t3", "t4", "t5"}
        for name in sorted(there):
            other.add(3, uid=name)
        other.close()
        path.unlink()
        path.write_bytes(other.journal.path.read_bytes())
    for name in ("t1", "t2", "t3", "t4", "t5"):
        if name in there:
            with pytest.raises(errors.AlreadyExists):
                memory.add("new", uid=name)
        else:
            memory.add("new", uid=name)
    assert memory.stats().traces == 5


@pytest.mark.parametrize("taken", ["before", "in an earlier ten", "in the same ten", "meanwhile by another"])
def test_a_name_that_is_taken_is_found_wherever_it_was_given(memory, tmp_path, taken):
    if taken == "before":
        memory.add("x", uid="t25")
        memory.get("t25")

    def items():
        yield from named(*range(25))
        if taken == "in an earlier ten":
            yield from named(3)
        elif taken == "in the same ten":
            yield from named(24)
        elif taken == "meanwhile by another":
            other = Pathway(tmp_path / "pathway", sync="never")
            other.add("x", uid="t25")
            other.close()
        yield from named(*range(25, 30))

    with pytest.raises(errors.AlreadyExists):
        memory.add_many(items())
    assert memory.stats().traces == 20 + (taken in ("before", "meanwhile by another"))
    assert memory.stats().records == memory.stats().traces


@pytest.mark.parametrize("event", ["compacted", "deleted", "damaged batch"])
def test_a_name_is_found_after_the_journal_or_the_index_was_made_anew_meanwhile(memory, tmp_path, event):
    def items():
        yield from named(*range(15))
        other = Pathway(tmp_path / "pathway", sync="never")
        other.add("x", uid="x")
        if event == "compacted":
            other.compact()
        elif event == "deleted":
            memory._index.path.unlink()
        else:
            other.journal.append({"batch": [3, {"op": "add", "uid": "y", "content": 1}, {"op": "add", "uid": [1]}]})
        other.close()
        yield from named(*range(15, 25))
        yield {"content": 1, "uid": "y" if event == "damaged batch" else "x"}

    with pytest.raises(errors.AlreadyExists, match="y" if event == "damaged batch" else "x"):
        memory.add_many(items())
    assert memory.stats().traces == 20 + (1 if event != "damaged batch" else 2)


def test_an_export_tells_the_oldest_first_and_only_what_the_filters_let_through(memory, tmp_path):
    kinds = ("a", "b", "c")
    memory.add_many(
        {"content": n, "uid": f"t{n}", "kind": kinds[n % 3], "tags": ["even"] * (n % 2 == 0)} for n in range(50)
    )
    memory.retire("t6")
    position = memory.position
    memory.update("t9", "changed")

    def exported(**arguments):
        memory.export(tmp_path / "out.ndjson", **arguments)
        return [json.loads(line)["content"] for line in (tmp_path / "out.ndjson").read_text().splitlines()]

    everything = list(range(50))
    assert exported(as_of=position) == everything
    assert exported() == [*everything[:9], "changed", *everything[10:]]
    assert exported(kind="a", tags=["even"]) == [n for n in everything if n % 6 == 0]
    assert exported(kind="a", include_retired=False, as_of=position) == [n for n in everything if n % 3 == 0 and n != 6]
    assert exported(filters={"content": {"gte": 40}}) == everything[40:]
    assert exported(kind="none") == []


def test_what_is_written_during_an_export_is_not_in_it(memory, tmp_path):
    memory.add_many(named(*range(20)))
    whole = search.every(
        memory._index, search.Asked(None, None, None, None, None, True, 1, None, False, "lexical"), None
    )
    found = [next(whole).content]
    memory.add("new", uid="new")
    memory.update("t19", "changed")
    assert [*found, *(trace.content for trace in whole)] == list(range(20))


def test_exports_and_imports_of_many_keep_few_of_them_in_memory(memory, tmp_path):
    text = "x" * 20_000
    memory.add_many({"content": {"n": number, "text": text}} for number in range(400))
    memory.stats()
    tracemalloc.start()
    try:
        assert memory.export(tmp_path / "out.ndjson") == 400
        assert (tmp_path / "out.ndjson").stat().st_size > 8_000_000
        for _ in transfer._records(tmp_path / "out.ndjson"):
            pass
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_wrong_line_is_found_before_anything_is_imported(memory, tmp_path):
    (tmp_path / "a.ndjson").write_text('\ufeff{"content": 1}\n\n{"content": 2}\n[3]\n', "utf-8")
    with pytest.raises(errors.SourceUnreadable, match="line 4 is not an object but list"):
        memory.import_(tmp_path / "a.ndjson")
    assert memory.stats().traces == 0
    (tmp_path / "b.json").write_text('{\n"memories": [{"memory": "a"},\n{"memory": "b"}]\n}\n')
    assert memory.import_(tmp_path / "b.json").added == 2


def test_many_damaged_lines_are_kept_aside_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("lakehouse.journal._MANY", 8)
    monkeypatch.setattr("lakehouse.journal._FIRST", 5)
    journal = Journal(tmp_path / "a.jsonl", sync="never")
    journal.append(1)
    with journal.path.open("ab") as file:
        file.write(b"".join(b"damage %d\n" % number for number in range(100)))
    journal.append(2)
    seen = []
    for _ in range(2):
        _, faults = journal.replay(lambda entry: seen.append(entry.seq))
        assert [fault.reason for fault in faults] == ["not a JSON record"] * 5
        lines = [json.loads(line)["line"] for line in journal.quarantine.read_text().splitlines()]
        assert lines == [f"damage {number}" for number in range(100)]
    assert seen == [1, 2, 1, 2]
    journal.compact(lambda entries: [entry.data for entry in entries])
    assert len(journal.quarantine.read_text().splitlines()) == 100
    assert journal.verify().sound


def test_a_process_forked_during_an_append_keeps_nobody_from_the_next(tmp_path):
    journal = Journal(tmp_path / "a.jsonl", sync="never")
    with journal.writing() as writing:
        writing.append(1)
        child = os.fork()
        if not child:
            signal.alarm(60)
            signal.pause()
            os._exit(0)
    try:
        signal.alarm(20)  # instead of waiting for ever
        assert Journal(tmp_path / "a.jsonl", sync="never").append(2).seq == 2
    finally:
        signal.alarm(0)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
