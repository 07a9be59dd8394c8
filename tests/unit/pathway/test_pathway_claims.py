"""The claims of ADR-004, one test each, by name."""

import json
from datetime import UTC, datetime

import pytest

from lakehouse import errors
from lakehouse.journal import Journal
from lakehouse.pathway.store import Pathway


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "missing" / "parent" / "pathway"


@pytest.fixture
def pathway(folder):
    memory = Pathway(folder)
    yield memory
    memory.close()


def fresh(pathway):
    """A store that has only the journal, as on another machine."""
    pathway.close()
    for file in pathway.journal.path.parent.iterdir():
        if file != pathway.journal.path:
            file.unlink()
    return Pathway(pathway.journal.path.parent)


def found(pathway, query=None):
    return [result.trace.uid for result in pathway.search(query)]


def add_raw(pathway, line):
    with pathway.journal.path.open("ab") as file:
        file.write(line)


def test_add_assigns_a_uid_and_timestamps(pathway):
    before = datetime.now(UTC)
    one, two = pathway.add({"q": "why"}), pathway.add({"q": "why"})
    assert one.uid != two.uid
    assert before <= one.created_at == one.updated_at <= two.created_at <= datetime.now(UTC)
    assert pathway.get(one.uid) == one


def test_invalid_json_is_rejected(pathway):
    for content in (object(), float("nan"), {1: 2}, {"a": {1}}, b"x", "\ud800", 10**5000):
        with pytest.raises(errors.TraceInvalid):
            pathway.add(content)
        with pytest.raises(errors.TraceInvalid):
            pathway.add_idempotent(content)
        with pytest.raises(errors.TraceInvalid):
            pathway.add_many([{"content": content}])
    assert pathway.stats().records == 0


def test_update_keeps_the_uid(pathway):
    one = pathway.add({"n": 1})
    two = pathway.update(one.uid, {"n": 2})
    assert (two.uid, two.content, two.version, two.created_at) == (one.uid, {"n": 2}, 2, one.created_at)
    assert pathway.get(one.uid) == two


def test_a_missing_uid_is_an_error(pathway):
    for act in (
        lambda: pathway.get("nobody"),
        lambda: pathway.update("nobody", 1),
        lambda: pathway.retire("nobody"),
        lambda: pathway.restore("nobody"),
        lambda: pathway.feedback("nobody", 1),
        lambda: pathway.history("nobody"),
        lambda: pathway.versions("nobody"),
        lambda: pathway.descendants("nobody"),
    ):
        with pytest.raises(errors.TraceNotFound, match="'nobody'"):
            act()
    assert pathway.stats().records == 0


def test_revise_links_to_its_predecessor(pathway):
    one = pathway.add({"n": 1})
    two = pathway.revise(one.uid, {"n": 2})
    assert (two.predecessor, one.predecessor) == (one.uid, None)
    assert two.uid != one.uid
    assert pathway.get(two.uid) == two
    assert pathway.get(one.uid) == one


def test_revising_a_missing_predecessor_is_an_error(pathway):
    with pytest.raises(errors.TraceNotFound, match="'nobody'"):
        pathway.revise("nobody", {"n": 2})
    assert pathway.stats().traces == 0


def test_a_chain_of_three_walks_back(pathway):
    one = pathway.add(1)
    two = pathway.revise(one.uid, 2)
    three = pathway.revise(two.uid, 3)
    history = pathway.history(three.uid)
    assert [trace.uid for trace in history.items] == [three.uid, two.uid, one.uid]
    assert (history.truncated, history.cycle) == (False, False)


def test_a_retired_trace_is_excluded_from_search(pathway):
    one, two = pathway.add("late flights"), pathway.add("early flights")
    pathway.retire(one.uid, "wrong")
    assert found(pathway, "flights") == found(pathway) == [two.uid]


def test_a_retired_trace_is_still_in_get_and_in_history(pathway):
    one = pathway.add("late flights")
    two = pathway.revise(one.uid, "late evening flights")
    pathway.retire(one.uid, "wrong")
    got = pathway.get(one.uid)
    assert (got.content, got.retired, got.retired_reason) == ("late flights", True, "wrong")
    assert pathway.history(two.uid).items[1] == got


def test_a_cycle_is_detected(pathway):
    pathway.journal.append({"op": "add", "uid": "a", "content": 1, "predecessor": "b"})
    pathway.journal.append({"op": "add", "uid": "b", "content": 2, "predecessor": "a"})
    history = pathway.history("b")
    assert history.cycle
    assert [trace.uid for trace in history.items] == ["b", "a"]


def test_a_missing_predecessor_truncates(pathway):
    pathway.journal.append({"op": "add", "uid": "b", "content": 2, "predecessor": "gone"})
    history = pathway.history("b")
    assert (history.truncated, history.missing_predecessor, history.cycle) == (True, "gone", False)


def test_an_idempotent_add_increments_the_replay_count(pathway):
    counts = [pathway.add_idempotent({"q": 1}, uid="one").replay_count for _ in range(4)]
    assert counts == [0, 1, 2, 3]
    assert pathway.get("one").replay_count == 3
    assert pathway.stats().traces == 1


def test_an_idempotent_add_preserves_the_content(pathway):
    pathway.add_idempotent({"q": "first"}, uid="one", tags=["a"])
    again = pathway.add_idempotent({"q": "second"}, uid="one", tags=["b"])
    assert (again.content, again.tags, again.version) == ({"q": "first"}, ("a",), 1)
    assert pathway.get("one") == again


def test_a_fresh_store_has_the_same_stats(pathway):
    one = pathway.add(1)
    pathway.revise(one.uid, 2)
    pathway.retire(one.uid)
    pathway.add_idempotent(2)
    stats, traces = pathway.stats(), pathway.get_all(include_retired=True)
    assert (stats.traces, stats.retired, stats.replays, stats.records) == (2, 1, 1, 4)
    again = fresh(pathway)
    assert again.stats() == stats
    assert again.get_all(include_retired=True) == traces


def test_corrupted_lines_are_skipped(pathway):
    one = pathway.add(1)
    add_raw(pathway, b'not json\n{"seq": 2}\n')
    two = pathway.add(2)
    assert found(pathway) == found(fresh(pathway)) == [two.uid, one.uid]


def test_a_line_whose_application_fails_is_skipped(pathway):
    one = pathway.add(1)
    pathway.journal.append({"op": "update", "uid": "nobody", "content": 2})
    two = pathway.add(2)
    assert found(pathway) == found(fresh(pathway)) == [two.uid, one.uid]
    reasons = [json.loads(line)["reason"] for line in pathway.journal.quarantine.read_bytes().splitlines()]
    assert reasons == ["record 2 cannot be applied: there is no trace nobody"]


def test_a_long_line_is_skipped_and_a_long_content_is_refused(pathway):
    one = pathway.add("x" * 5_000_000)
    add_raw(pathway, b"y" * (pathway.journal.max_line + 2000) + b"\n")
    with pytest.raises(errors.JournalError, match="longer"):
        pathway.add("x" * pathway.journal.max_line)
    two = pathway.add(2)
    assert found(pathway) == found(fresh(pathway)) == [two.uid, one.uid]
    assert pathway.verify().corrupt == 1


def test_a_missing_file_is_an_empty_memory(pathway):
    assert pathway.stats().traces == 0
    assert found(pathway, "anything") == []
    assert pathway.verify().sound
    assert not pathway.journal.path.exists()


def test_the_parent_folder_is_created(pathway, folder):
    assert not folder.parent.parent.exists()
    one = pathway.add(1)
    assert Journal(folder / "traces.jsonl").verify().records == 1
    assert Pathway(folder).get(one.uid) == one
