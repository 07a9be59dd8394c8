"""Analyses are recorded as they are made, and replayed."""

from __future__ import annotations

import datetime
import decimal
import threading
import uuid

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakehouse
from lakehouse.errors import (
    ArgumentInvalid,
    ColumnNotFound,
    LakeReadOnly,
    QueryError,
    TableNotFound,
    TraceInvalid,
    TraceNotFound,
)
from lakehouse.pathway import recorder, steps
from lakehouse.pathway.values import decoded, encoded


@pytest.fixture
def flights(lake):
    lake.sql("CREATE TABLE flights AS SELECT range AS id, range % 3 AS carrier, range / 7 AS delay FROM range(1000)")
    return lake


def by_step(replay):
    return [step.verdict for step in replay.steps]


def test_a_step_keeps_how_it_was_answered(flights):
    with flights.pathway.record("which carrier is late", tags=["delays"], scope={"user": "ann"}) as p:
        flights.sql("SELECT carrier, count(*) AS n FROM flights WHERE id < $id GROUP BY ALL", {"id": 10})
        p.conclude("carrier 0")
    trace = flights.pathway.get(p.trace.uid)
    assert (trace.kind, trace.tags, trace.snapshot) == ("analysis", ("delays",), 1)
    assert trace.scope["user"] == "ann"
    assert trace.content["question"] == "which carrier is late"
    assert trace.content["conclusion"] == "carrier 0"
    (step,) = trace.content["steps"]
    assert step["sql"].startswith("SELECT carrier")
    assert step["params"] == {"id": 10}
    assert step["inputs"] == [{"kind": "table", "name": "flights", "snapshot": 1}]
    assert step["rows"] == 3
    assert step["columns"] == [["carrier", "BIGINT"], ["n", "BIGINT"]]
    assert sorted(step["first"]) == [[0, 4], [1, 3], [2, 3]]
    assert step["elapsed"] > 0
    assert "digest" not in step


def test_only_what_this_thread_asks_inside_the_block_is_a_step(flights):
    flights.sql("SELECT 'before'")
    with flights.pathway.record("q") as p:
        other = threading.Thread(target=flights.sql, args=["SELECT 'other thread'"])
        other.start()
        other.join()
        flights.sql("SELECT 'inside'")
    flights.sql("SELECT 'after'")
    assert [step["sql"] for step in p.trace.content["steps"]] == ["SELECT 'inside'"]


def test_what_fails_is_kept_and_fails(flights):
    with pytest.raises(TableNotFound), flights.pathway.record("q") as p:
        flights.sql("SELECT 1")
        flights.sql("SELECT * FROM nowhere")
    first, second = p.trace.content["steps"]
    assert "error" not in first
    assert second["error"]["code"] == "table_not_found"
    assert p.trace.content["error"]["code"] == "table_not_found"


def test_a_conclusion_may_come_later(flights):
    with flights.pathway.record("q") as p:
        flights.sql("SELECT 1")
    p.conclude("one")
    assert flights.pathway.get(p.trace.uid).content["conclusion"] == "one"
    assert [version.version for version in flights.pathway.versions(p.trace.uid)] == [1, 2]
    with pytest.raises(TraceInvalid):
        p.conclude("  ")


def test_recordings_do_not_nest(flights):
    with flights.pathway.record("outer"):
        with pytest.raises(QueryError, match="under way already"):
            with flights.pathway.record("inner"):
                pass
        flights.sql("SELECT 1")
    assert len(flights.pathway.get_all(kind="analysis")) == 1
    assert flights.pathway.recording is None


@pytest.mark.parametrize(
    ("question", "wrong"), [("", TraceInvalid), ("  ", TraceInvalid), (None, ArgumentInvalid), (3, ArgumentInvalid)]
)
def test_a_question_is_a_text(flights, question, wrong):
    with pytest.raises(wrong), flights.pathway.record(question):
        pass


def test_secrets_are_not_kept(flights):
    with flights.pathway.record("q") as p:
        flights.sql("SELECT $token AS t, 1 AS password_length", {"token": "hidden"})
        flights.sql("SELECT 'x' AS a WHERE 'hidden' <> 'password=hidden'")
    assert "hidden" not in str(p.trace.content["steps"][0]["params"])
    assert p.trace.content["steps"][1]["lost"] == "holds a secret"
    assert "password=hidden" not in p.trace.content["steps"][1]["sql"]
    replay = flights.pathway.replay(p.trace.uid)
    assert by_step(replay) == ["failed", "failed"]
    assert "secret" in replay.steps[1].detail


def test_a_recording_has_bounds_and_tells_what_it_left_out(flights, monkeypatch):
    monkeypatch.setattr(recorder, "_STEPS", 3)
    monkeypatch.setattr(recorder, "_ROOM", 30_000)
    with flights.pathway.record("q") as p:
        flights.sql("SELECT repeat('x', 200000)")
        flights.sql("SELECT repeat('x', 20000)")
        flights.sql(f"SELECT length('{'x' * 200_000}')")
        for number in range(4):
            flights.sql(f"SELECT {number}")
    assert [len(step["first"]) for step in p.trace.content["steps"]] == [0, 1, 1]
    assert p.trace.content["left_out"] == 4
    assert by_step(flights.pathway.replay(p.trace.uid)) == ["same", "same", "failed"]


def test_a_replay_on_an_unchanged_lake_is_the_same_and_counts(flights):
    with flights.pathway.record("q") as p:
        flights.sql("SELECT carrier, avg(delay) FROM flights GROUP BY ALL")
        flights.sql("SELECT * FROM flights")  # too many rows to keep: a digest
        flights.sql(
            "SELECT DATE '2024-02-29', 1.50::DECIMAL(9, 2), 'x'::BLOB, INTERVAL 1 DAY, 'nan'::DOUBLE, [1, NULL]"
        )
        with pytest.raises(ColumnNotFound):
            flights.sql("SELECT nothing FROM flights")
    replay = flights.pathway.replay(p.trace.uid)
    assert by_step(replay) == ["same"] * 4
    assert replay.verdict == "same"
    assert replay.trace.replay_count == 1
    assert flights.pathway.get(p.trace.uid).content == p.trace.content
    assert flights.pathway.stats().replays == 1


def test_a_replay_tells_what_changed(flights):
    with flights.pathway.record("q") as p:
        flights.sql("SELECT carrier, count(*) AS n FROM flights GROUP BY ALL")
        flights.sql("SELECT * FROM flights")
        flights.sql("SELECT max(delay) FROM flights")
        flights.sql("SELECT id FROM flights LIMIT 1")
    flights.sql("DELETE FROM flights WHERE id = 3")
    flights.sql("ALTER TABLE flights ALTER COLUMN delay SET DATA TYPE DOUBLE")
    replay = flights.pathway.replay(p.trace.uid)
    assert by_step(replay) == ["changed", "changed", "same", "same"]
    assert replay.steps[0].removed == ((0, 334),)
    assert replay.steps[0].added == ((0, 333),)
    assert replay.steps[1].rows == (1000, 999)
    then = flights.pathway.replay(p.trace.uid, at="recorded")
    assert by_step(then) == ["same"] * 4
    assert then.trace.replay_count == 2
    flights.sql("ALTER TABLE flights RENAME TO flown")
    assert by_step(flights.pathway.replay(p.trace.uid)) == ["failed"] * 4
    assert by_step(flights.pathway.replay(p.trace.uid, at=1)) == ["same"] * 4


def test_rows_that_change_without_a_change_of_their_number_are_seen(flights):
    with flights.pathway.record("q") as p:
        flights.sql("SELECT * FROM flights")
    flights.sql("UPDATE flights SET delay = delay + 0.001 WHERE id = 777")
    assert by_step(flights.pathway.replay(p.trace.uid)) == ["changed"]


def test_a_replay_writes_nothing(flights):
    with flights.pathway.record("q") as p:
        flights.sql("CREATE TABLE late AS SELECT * FROM flights WHERE delay > 100")
        flights.sql("INSERT INTO late SELECT * FROM flights WHERE id < 5")
        flights.sql("CREATE OR REPLACE VIEW latest AS SELECT max(id) AS id FROM late")
        flights.sql("SELECT count(*) FROM late")
        flights.sql("UPDATE flights SET delay = 0 WHERE id = 0")
    snapshot = flights.catalog.current_snapshot().id
    for at in (None, "recorded", 1):
        assert by_step(flights.pathway.replay(p.trace.uid, at=at)) == ["same"] * 5, at
    assert flights.catalog.current_snapshot().id == snapshot
    assert not list((flights.path / "branches").glob("replay-*"))


def test_results_of_earlier_steps_are_read_again(flights):
    frame = pd.DataFrame({"carrier": [0, 1], "name": ["a", "b"]})
    with flights.pathway.record("q") as p:
        counts = flights.sql("SELECT carrier, count(*) AS n FROM flights GROUP BY ALL")
        flights.sql("SELECT sum(n) FROM counts", tables={"counts": counts})
        flights.sql("SELECT name, n FROM counts JOIN frame USING (carrier)", tables={"counts": counts, "frame": frame})
    assert p.trace.content["steps"][2]["tables"] == {"counts": 1, "frame": None}
    replay = flights.pathway.replay(p.trace.uid)
    assert by_step(replay) == ["same", "same", "failed"]
    assert "the frame frame was not kept" in replay.steps[2].detail
    again = flights.pathway.replay(p.trace.uid, tables={"frame": frame})
    assert by_step(again) == ["same"] * 3


def test_what_cannot_be_replayed(flights, tmp_path):
    note = flights.pathway.add("only a note")
    with pytest.raises(TraceInvalid, match="no recorded analysis"):
        flights.pathway.replay(note.uid)
    with pytest.raises(TraceNotFound):
        flights.pathway.replay("nobody")
    with flights.pathway.record("q") as p:
        flights.sql("SELECT 1")
    with lakehouse.open(flights.path, read_only=True) as reader:
        with pytest.raises(LakeReadOnly):
            reader.pathway.replay(p.trace.uid)
        with pytest.raises(LakeReadOnly), reader.pathway.record("q"):
            pass


def test_similar_questions_are_found(flights):
    for question, conclusion in (
        ("why are evening flights late", "the day's delays add up"),
        ("cheapest carrier", "c"),
    ):
        with flights.pathway.record(question) as p:
            p.conclude(conclusion)
    flights.pathway.add("evening flights late: only a note")
    found = flights.pathway.similar("late in the evening?")
    assert [one.trace.content["question"] for one in found] == ["why are evening flights late"]


def test_its_rows_are_not_searched(flights):
    with flights.pathway.record("which carrier is late") as p:
        flights.sql("SELECT 'needle' AS hay FROM flights LIMIT 1")
        flights.sql("SELECT 'nee' || 'dle' AS hay")
        p.conclude("none of them")
    flights.sql("CREATE TABLE straw AS SELECT 'grain' AS a")
    with flights.pathway.record("what is in the barn"):
        flights.sql("SELECT * FROM straw")
    for word, found in (("needle", 1), ("carrier", 1), ("none", 1), ("straw", 1), ("grain", 0), ("columns", 0)):
        assert len(flights.pathway.search(word, mode="lexical")) == found, word


def test_it_is_shown_in_a_notebook(flights):
    with flights.pathway.record("q") as p:
        flights.sql("SELECT count(*) AS n FROM flights WHERE delay < 5")
    flights.sql("DELETE FROM flights WHERE id = 0")
    replay = flights.pathway.replay(p.trace.uid)
    assert "changed" in repr(replay)
    assert "- (35,)" in repr(replay)
    assert "+ (34,)" in repr(replay)
    assert "delay &lt; 5" in replay._repr_html_()
    assert "conclude it" in repr(p)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas(datetime.timedelta(-1000), datetime.timedelta(1000))
    | st.binary()
    | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab$"), inner) | st.dictionaries(st.integers(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_values_come_back_as_they_were(value):
    assert decoded(encoded(value)) == value


def test_what_cannot_be_kept_says_so():
    with pytest.raises(ValueError, match="a DataFrame could not be kept"):
        decoded(encoded({"a": [pd.DataFrame()]}))
    assert encoded(pd.Series([1.5])[0]) == 1.5
    assert decoded(encoded([uuid.UUID(int=1), decimal.Decimal("1.50")])) == [uuid.UUID(int=1), decimal.Decimal("1.50")]


def test_floats_differ_only_beyond_their_last_digits():
    step = {"sql": "s", "rows": 1, "columns": [["a", "DOUBLE"]], "first": [[0.1 + 0.2]]}
    assert steps.compare(1, step, {**step, "first": [[0.3]]}).verdict == "same"
    assert steps.compare(1, step, {**step, "first": [[0.3001]]}).verdict == "changed"
    assert steps.compare(1, step, {**step, "first": [[True]]}).verdict == "changed"
