"""ADR-004, claim by claim, and what the memory promises beyond it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse import errors
from lakehouse.pathway.store import Pathway


@pytest.fixture
def pathway(tmp_path):
    memory = Pathway(tmp_path / "pathway", sync="never", snapshot=lambda: 7)
    yield memory
    memory.close()


def reopened(pathway, *, fresh=False):
    pathway.close()
    folder = pathway.journal.path.parent
    if fresh:  # as on another machine that has only the journal
        for file in folder.iterdir():
            if file != pathway.journal.path:
                file.unlink()
    return Pathway(folder, sync="never")


def uids(page):
    return [found.trace.uid for found in page]


def inject(pathway, **event):
    """A record that no operation of ours would write: as a damaged or foreign journal may have."""
    pathway.journal.append(event)


def test_add_assigns_a_uid_and_times(pathway):
    before = datetime.now(UTC)
    trace = pathway.add({"q": "why"}, kind="sql", tags=["a", "b", "a"], scope={"user": "ann"})
    assert len(trace.uid) == 32
    assert before <= trace.created_at == trace.updated_at <= datetime.now(UTC)
    assert (trace.kind, trace.tags, trace.scope) == ("sql", ("a", "b"), {"user": "ann"})
    assert (trace.version, trace.replay_count, trace.retired, trace.snapshot) == (1, 0, False, 7)
    assert pathway.get(trace.uid) == trace


def test_content_may_be_any_json(pathway):
    for content in (None, True, 0, -1.5, "ü\n\x00", [], {}, [1, [2, {"a": None}]], {"": {"ö": "x" * 10_000}}):
        assert pathway.get(pathway.add(content).uid).content == content


@pytest.mark.parametrize(
    "content",
    [object(), {1: 2}, {"a": float("nan")}, [float("inf")], b"bytes", {"a": {1, 2}}, "\ud800", datetime.now(UTC)],
)
def test_invalid_json_is_rejected_and_nothing_is_written(pathway, content):
    with pytest.raises(errors.TraceInvalid):
        pathway.add(content)
    assert not pathway.journal.path.exists()


@pytest.mark.parametrize(
    "arguments",
    [{"uid": ""}, {"uid": "a\n"}, {"uid": "x" * 257}, {"uid": 3}, {"tags": "late"}, {"tags": [1]}, {"scope": {"a": 1}},
     {"scope": "ann"}, {"kind": " "}, {"uid": 0}, {"tags": 5}],
)  # fmt: skip
def test_odd_names_are_rejected(pathway, arguments):
    for work in (pathway.add, pathway.add_idempotent):
        with pytest.raises(errors.TraceInvalid):
            work(1, **arguments)
    with pytest.raises(errors.TraceInvalid):
        pathway.add_many([{"content": 1, **arguments}])
    assert not pathway.journal.path.exists()


def test_an_existing_uid_is_a_conflict(pathway):
    pathway.add(1, uid="one")
    with pytest.raises(errors.AlreadyExists):
        pathway.add(2, uid="one")
    with pytest.raises(errors.AlreadyExists):
        pathway.add_many([{"content": 3}, {"content": 4, "uid": "one"}])
    assert pathway.get("one").content == 1
    assert pathway.stats().traces == 1


def test_update_keeps_the_uid_and_the_versions(pathway):
    first = pathway.add({"n": 1})
    second = pathway.update(first.uid, {"n": 2})
    assert (second.uid, second.version, second.content) == (first.uid, 2, {"n": 2})
    assert second.created_at == first.created_at < second.updated_at
    assert [(v.version, v.content) for v in pathway.versions(first.uid)] == [(1, {"n": 1}), (2, {"n": 2})]
    with pytest.raises(errors.Conflict, match="version 2, not 1"):
        pathway.update(first.uid, {"n": 3}, if_version=1)
    assert pathway.update(first.uid, {"n": 3}, if_version=2).version == 3


@pytest.mark.parametrize("operation", ["get", "history", "versions", "descendants", "retire", "restore"])
def test_a_missing_uid_is_an_error(pathway, operation):
    with pytest.raises(errors.TraceNotFound, match="no trace 'nobody'"):
        getattr(pathway, operation)("nobody")


def test_update_revise_and_feedback_of_a_missing_uid_are_errors(pathway):
    with pytest.raises(errors.TraceNotFound):
        pathway.update("nobody", 1)
    with pytest.raises(errors.TraceNotFound):
        pathway.revise("nobody", 1)
    with pytest.raises(errors.TraceNotFound):
        pathway.feedback("nobody", 1)


def test_revise_links_to_its_predecessor_and_a_chain_of_three_walks_back(pathway):
    one = pathway.add({"n": 1}, kind="sql", tags=["a"])
    two = pathway.revise(one.uid, {"n": 2})
    three = pathway.revise(two.uid, {"n": 3}, tags=["b"])
    assert (two.predecessor, two.kind, two.tags, three.tags) == (one.uid, "sql", ("a",), ("b",))
    history = pathway.history(three.uid)
    assert [trace.content["n"] for trace in history.items] == [3, 2, 1]
    assert (history.truncated, history.cycle, history.missing_predecessor) == (False, False, None)
    assert [trace.uid for trace in pathway.descendants(one.uid)] == [two.uid, three.uid]
    assert pathway.get(one.uid).content == {"n": 1}


def test_retired_traces_leave_search_and_stay_in_get_and_history(pathway):
    old = pathway.add({"q": "late flights"})
    new = pathway.revise(old.uid, {"q": "late evening flights"})
    retired = pathway.retire(old.uid, "wrong column")
    assert (retired.retired, retired.retired_reason) == (True, "wrong column")
    assert uids(pathway.search("flights")) == uids(pathway.search()) == [new.uid]
    assert set(uids(pathway.search("flights", include_retired=True))) == {old.uid, new.uid}
    assert pathway.get(old.uid) == retired
    assert [trace.uid for trace in pathway.history(new.uid).items] == [new.uid, old.uid]
    assert pathway.retire(old.uid, "again") == retired  # once is enough
    assert pathway.restore(old.uid).retired is False
    assert len(pathway.search("flights")) == 2
    assert pathway.delete(old.uid).retired  # mem0's word


def test_a_cycle_is_reported_and_walked_once(pathway):
    inject(pathway, op="add", uid="a", content=1, predecessor="b")
    inject(pathway, op="add", uid="b", content=2, predecessor="a")
    history = pathway.history("a")
    assert [trace.uid for trace in history.items] == ["a", "b"]
    assert history.cycle
    assert not history.truncated
    assert [trace.uid for trace in pathway.descendants("a")] == ["b"]


def test_a_missing_predecessor_truncates(pathway):
    inject(pathway, op="add", uid="b", content=2, predecessor="gone")
    history = pathway.history("b")
    assert (history.truncated, history.missing_predecessor, len(history.items)) == (True, "gone", 1)


def test_an_idempotent_add_counts_and_keeps_the_original_content(pathway):
    first = pathway.add_idempotent({"q": 1}, uid="one")
    again = pathway.add_idempotent({"q": "other"}, uid="one")
    assert (first.replay_count, again.replay_count, again.content, again.version) == (0, 1, {"q": 1}, 1)
    made = pathway.add_idempotent({"b": 1, "a": [1.5]})
    same = pathway.add_idempotent({"a": [1.5], "b": 1}, kind="ignored")
    assert (same.uid, same.replay_count, same.kind) == (made.uid, 1, None)
    assert pathway.stats().traces == 2
    assert pathway.stats().replays == 2


def test_what_a_caller_gets_is_a_copy(pathway):
    content = {"steps": [1]}
    trace = pathway.add(content)
    content["steps"].append(2)
    trace.content["steps"].append(3)
    pathway.search().results[0].trace.content["steps"].append(4)
    assert pathway.get(trace.uid).content == {"steps": [1]}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_fresh_store_has_the_same_stats_and_traces(pathway, fresh):
    one = pathway.add({"n": 1}, tags=["a"])
    two = pathway.revise(one.uid, {"n": 2})
    pathway.update(two.uid, {"n": 3})
    pathway.retire(one.uid, "old")
    pathway.feedback(two.uid, 0.5, "good")
    pathway.add_idempotent({"n": 3})
    stats, traces = pathway.stats(), pathway.get_all(include_retired=True)
    again = reopened(pathway, fresh=fresh)
    assert again.stats() == stats
    assert again.get_all(include_retired=True) == traces
    assert traces[0].score == 0.5
    assert stats.records == 6


def test_corrupt_lines_and_events_that_do_not_fit_are_skipped_and_kept_aside(pathway):
    one = pathway.add(1)
    with pathway.journal.path.open("ab") as file:
        file.write(b"{ this is no record\n")
    inject(pathway, op="update", uid="nobody", content=2)
    inject(pathway, op="add", uid=one.uid, content="twice")
    inject(pathway, op="dance", uid=one.uid)
    inject(pathway, nonsense=True)
    two = pathway.add(2)
    assert [trace.content for trace in pathway.get_all()] == [2, 1]
    reasons = [json.loads(line)["reason"] for line in pathway.journal.quarantine.read_bytes().splitlines()]
    assert len(reasons) == 5
    assert "not a JSON record" in reasons
    again = reopened(pathway, fresh=True)
    assert [trace.uid for trace in again.get_all()] == [two.uid, one.uid]
    assert len(again.journal.quarantine.read_bytes().splitlines()) == 5


def test_a_damaged_index_is_rebuilt(pathway):
    one = pathway.add({"q": "late"})
    again = reopened(pathway)
    again.journal.path.with_suffix(".index").write_bytes(b"no database" * 1000)
    assert again.get(one.uid) == one
    assert uids(again.search("late")) == [one.uid]


def test_as_of_gives_what_was_then(pathway):
    one = pathway.add({"q": "late flights"})
    two = pathway.add({"q": "flights of the morning"})
    page = pathway.search("flights")
    then, time = page.position, datetime.now(UTC)
    pathway.update(one.uid, {"q": "nothing"})
    pathway.retire(two.uid)
    for number in range(20):
        pathway.add({"q": f"flights {number}"})
    assert pathway.search("flights", as_of=then).results == page.results
    assert pathway.search("flights", as_of=time).results == page.results
    assert pathway.search("flights", as_of=time.isoformat()).results == page.results
    assert pathway.get(one.uid, as_of=then) == one
    assert pathway.get(one.uid).content == {"q": "nothing"}
    assert uids(pathway.search(as_of=then)) == [two.uid, one.uid]
    with pytest.raises(errors.TraceNotFound, match="as of 0"):
        pathway.get(one.uid, as_of=0)
    with pytest.raises(errors.FilterInvalid):
        pathway.get(one.uid, as_of="yesterday")
    assert len(pathway.search(as_of=time - timedelta(days=1))) == 0


def test_a_read_only_memory_refuses_every_change(pathway):
    one = pathway.add(1)
    reading = Pathway(pathway.journal.path.parent, read_only=True)
    assert reading.get(one.uid) == one
    for change in (
        lambda: reading.add(2),
        lambda: reading.add_idempotent(1),
        lambda: reading.add_many([{"content": 1}]),
        lambda: reading.update(one.uid, 2),
        lambda: reading.revise(one.uid, 2),
        lambda: reading.retire(one.uid),
        lambda: reading.restore(one.uid),
        lambda: reading.feedback(one.uid, 1),
    ):
        with pytest.raises(errors.LakeReadOnly):
            change()


def test_many_are_added_in_order_and_a_wrong_one_is_named(pathway):
    uids = pathway.add_many({"content": {"n": n}, "tags": ["bulk"]} for n in range(2500))
    assert len(set(uids)) == 2500
    assert [trace.content["n"] for trace in pathway.get_all()] == list(range(2499, -1, -1))
    for wrong in ([{"contents": 1}], ["text"], [{"content": 1, "uid": "x"}, {"content": 2, "uid": "x"}]):
        with pytest.raises(errors.LakehouseError):
            pathway.add_many(wrong)
    assert pathway.stats().traces == 2500


def filled(pathway):
    one = pathway.add({"n": 1}, tags=["a"], scope={"user": "ann"})
    two = pathway.revise(one.uid, {"n": 2})
    pathway.update(two.uid, {"n": 3})
    pathway.retire(one.uid, "old")
    pathway.feedback(two.uid, 0.5)
    return one.uid, two.uid


def test_compaction_changes_nothing_but_the_size(pathway):
    filled(pathway)
    past = [(position, pathway.get_all(as_of=position, include_retired=True)) for position in range(1, 6)]
    pathway.add_many({"content": {"n": n}} for n in range(1200))
    with pathway.journal.path.open("ab") as file:
        file.write(b"damage\n")
    traces = pathway.get_all(include_retired=True)
    before, after = pathway.compact()
    assert after < before
    for memory in (pathway, reopened(pathway, fresh=True)):
        assert memory.get_all(include_retired=True) == traces
        assert [(position, memory.get_all(as_of=position, include_retired=True)) for position, _ in past] == past
        assert memory.verify().sound
        assert memory.add("next").content == "next"
        traces = memory.get_all(include_retired=True)
    again = reopened(pathway)
    again.compact()
    assert again.get_all(include_retired=True) == traces


def test_what_is_exported_can_be_imported(pathway, tmp_path):
    one, two = filled(pathway)
    assert pathway.export(tmp_path / "out.ndjson") == 2
    other = Pathway(tmp_path / "other", sync="never")
    assert other.import_(tmp_path / "out.ndjson").added == 2
    for uid in (one, two):
        want, got = pathway.get(uid), other.get(uid)
        for same in (
            "content",
            "kind",
            "tags",
            "scope",
            "predecessor",
            "retired",
            "retired_reason",
            "score",
            "snapshot",
        ):
            assert getattr(got, same) == getattr(want, same), same
    assert [trace.uid for trace in other.history(two).items] == [two, one]
    again = other.import_(tmp_path / "out.ndjson")
    assert (again.added, again.skipped, again.revised) == (0, 2, 0)
    with pytest.raises(errors.AlreadyExists, match="line 1"):
        other.import_(tmp_path / "out.ndjson", on_conflict="fail")
    assert other.import_(tmp_path / "out.ndjson", on_conflict="revise").revised == 2
    assert other.stats().traces == 4


def test_memories_of_other_stores_are_taken(pathway, tmp_path):
    memories = {
        "results": [
            {"id": "m1", "memory": "likes late flights", "user_id": "ann", "categories": ["taste"], "score": 0.3},
            {"id": "m2", "memory": "hates rain", "metadata": {"source": "chat"}},
        ]
    }
    (tmp_path / "mem0.json").write_text(json.dumps(memories))
    assert pathway.import_(tmp_path / "mem0.json").added == 2
    first = pathway.get("m1")
    assert (first.content, first.scope, first.tags, first.score) == (
        "likes late flights",
        {"user": "ann"},
        ("taste",),
        None,
    )
    assert pathway.get("m2").content == {"text": "hates rain", "metadata": {"source": "chat"}}


def test_an_export_of_mem0_keeps_ids_owners_times_and_metadata(pathway, tmp_path):
    """What `Memory.get_all()` of mem0 gives."""
    memory = {
        "id": "bf4d4092-cf91-4181-bfeb-b6fa2ed3061b",
        "memory": "Likes evening flights",
        "hash": "7a3d8f",
        "metadata": {"category": "travel", "rank": 3},
        "score": None,
        "created_at": "2024-07-20T01:30:36.275141-07:00",
        "updated_at": "2024-07-21T01:30:36.275141-07:00",
        "user_id": "ann",
        "agent_id": "planner",
        "run_id": "r1",
        "role": "user",
    }
    other = {"id": "other", "memory": "Likes trains", "created_at": "2025-01-01T00:00:00+00:00", "user_id": "bob"}
    (tmp_path / "mem0.json").write_text(json.dumps({"results": [memory, other], "relations": []}))
    assert pathway.import_(tmp_path / "mem0.json").added == 2
    trace = pathway.get(memory["id"])
    assert trace.scope == {"user": "ann", "agent": "planner", "run": "r1"}
    assert trace.content["text"] == "Likes evening flights"
    assert trace.content["metadata"] == {
        "category": "travel",
        "rank": 3,
        **{key: memory[key] for key in ("hash", "created_at", "updated_at", "role")},
    }
    for filters in (
        {"content.metadata.category": "travel"},
        {"content.metadata.rank": {"gte": 3}},
        {"content.metadata.created_at": {"lt": "2025"}},
        {"scope.user": "ann"},
    ):
        assert uids(pathway.search(filters=filters)) == [trace.uid]
    assert uids(pathway.search("evening flight", scope={"user": "ann"})) == [trace.uid]
    assert pathway.import_(tmp_path / "mem0.json").skipped == 2


def test_items_of_a_langgraph_store_keep_namespace_key_value_and_times(pathway, tmp_path):
    """What `Item.dict()` of LangGraph gives: a key is one of its namespace."""
    times = {"created_at": "2025-03-01T10:00:00+00:00", "updated_at": "2025-03-02T10:00:00+00:00"}
    items = [
        {"namespace": ["users", "ann"], "key": "k1", "value": {"food": "pizza", "likes": 3}, **times},
        {"namespace": ["users", "bob"], "key": "k1", "value": {"food": "soup"}, **times, "score": 0.2},
        {"namespace": ["users"], "key": "bob/k1", "value": {"food": "cake"}, **times},
    ]
    (tmp_path / "items.ndjson").write_text("".join(json.dumps(item) + "\n" for item in items))
    assert pathway.import_(tmp_path / "items.ndjson").added == 3
    trace = pathway.get("users/ann/k1")
    assert trace.scope == {"namespace": "users.ann"}
    assert trace.content == {"value": {"food": "pizza", "likes": 3}, "metadata": times}
    assert uids(pathway.search(filters={"content.value.likes": {"gt": 2}})) == [trace.uid]
    assert uids(pathway.search("soup"))[0] == "users/bob/k1"
    assert uids(pathway.search("cake"))[0] == "users/bob%2Fk1"
    assert pathway.import_(tmp_path / "items.ndjson").skipped == 3


def test_an_export_of_ours_keeps_every_text_and_says_in_the_journal_when_it_was_made(pathway, tmp_path):
    odd = pathway.add("next\u2028line\x85 and \x0b\x1e tab\t", uid="odd")
    pathway.export(tmp_path / "out.ndjson")
    other = Pathway(tmp_path / "other", sync="never")
    assert other.import_(tmp_path / "out.ndjson").added == 1
    assert other.get("odd").content == odd.content
    (event,) = [json.loads(line)["data"] for line in other.journal.path.read_text().split("\n")[:-1]]
    assert event["origin"]["created_at"] == odd.created_at.isoformat()
    assert other.import_(tmp_path / "out.ndjson", on_conflict="revise").revised == 1
    assert other.get_all()[0].scope == odd.scope


@pytest.mark.parametrize(
    "wrong",
    [{"snapshot": "x"}, {"snapshot": [1]}, {"snapshot": 2**70}, {"snapshot": True}, {"predecessor": ["a"]},
     {"retired": True, "retired_reason": [1]}, {"score": "good"}, {"score": 10**400}, {"scope": [1]}, {"kind": 3}],
)  # fmt: skip
def test_an_import_that_the_index_could_not_hold_is_refused_and_nothing_is_written(pathway, tmp_path, wrong):
    (tmp_path / "a.ndjson").write_text(json.dumps({"uid": "a", "content": 1, **wrong}))
    with pytest.raises(errors.TraceInvalid, match=r"a\.ndjson"):
        pathway.import_(tmp_path / "a.ndjson")
    assert not pathway.journal.path.exists()
    assert pathway.stats().traces == 0


def test_reasons_notes_and_scores_are_what_they_say(pathway):
    pathway.add(1, uid="a")
    size = pathway.journal.path.stat().st_size
    for act in (
        lambda: pathway.retire("a", ["no text"]),
        lambda: pathway.retire("a", "\ud800"),
        lambda: pathway.feedback("a", "good"),
        lambda: pathway.feedback("a", True),
        lambda: pathway.feedback("a", 10**400),
        lambda: pathway.feedback("a", float("nan")),
        lambda: pathway.feedback("a", 1, note={"a": 1}),
    ):
        with pytest.raises(errors.TraceInvalid):
            act()
    assert pathway.journal.path.stat().st_size == size
    assert pathway.feedback("a", 2**70).score == pathway.get("a").score == float(2**70)


def test_numbers_and_texts_of_other_libraries_are_taken_as_what_they_are(pathway):
    import numpy

    class Name(str):
        __slots__ = ()

    content = {"mean": numpy.float64(0.5), "name": Name("flights"), "big": 2**70}
    trace = pathway.add(content)
    assert trace.content == pathway.get(trace.uid).content == {"mean": 0.5, "name": "flights", "big": 2**70}
    assert type(trace.content["mean"]) is float


def test_what_a_write_returns_is_what_is_read_afterwards(pathway):
    one = pathway.add({"t": (1, 2)}, kind="sql", tags=["b", "a"], scope={"user": "ann"})
    assert one == pathway.get(one.uid)
    for act in (
        lambda: pathway.update(one.uid, {"t": (3,)}),
        lambda: pathway.add_idempotent("x", uid=one.uid),
        lambda: pathway.feedback(one.uid, 1),
        lambda: pathway.retire(one.uid, "old"),
        lambda: pathway.restore(one.uid),
        lambda: pathway.revise(one.uid, "next", tags=["c"], scope={"user": "bob"}),
        lambda: pathway.add_idempotent("unheard of", kind="note", tags=["x"]),
        lambda: pathway.add_idempotent("next"),
    ):
        told = act()
        assert told == pathway.get(told.uid)


def test_large_traces_can_be_compacted(pathway):
    for number in range(40):
        pathway.add({"n": number, "text": "x" * 600_000})
    traces = pathway.get_all()
    pathway.compact()
    assert pathway.get_all() == traces
    assert pathway.verify().sound


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (None, errors.SourceNotFound, "no file"),
        ('{"content": 1}\n{broken\n', errors.SourceUnreadable, "line 2 is no JSON"),
        ('{"nothing": 1}\n', errors.TraceInvalid, "no content"),
        ("[1, 2]", errors.SourceUnreadable, "record 1 is not an object"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(pathway, tmp_path, text, error, said):
    if text is not None:
        (tmp_path / "a.ndjson").write_text(text)
    with pytest.raises(error, match=said):
        pathway.import_(tmp_path / "a.ndjson")
