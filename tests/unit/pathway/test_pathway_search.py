"""Search: words, filters, pages; the same answer for the same position."""

import functools
from datetime import datetime

import pytest

from lakehouse import errors, records
from lakehouse.pathway.store import Pathway

CORPUS = {
    "delays": {
        "question": "why are evening flights late",
        "sql": "SELECT hour, avg(dep_delay) FROM flights GROUP BY 1",
    },
    "carriers": {
        "question": "which carrier has most flights",
        "sql": "SELECT carrier, count(*) FROM flights GROUP BY 1",
    },
    "weather": {"question": "does rain make departures late", "sql": "SELECT corr(precip, dep_delay) FROM weather"},
    "planes": {"question": "how old are the planes", "sql": "SELECT avg(2013 - year) FROM planes", "rows": 1},
    "café": {
        "question": "Où est le café",
        "steps": [{"sql": "SELECT 1", "ok": True}, {"sql": "SELECT 2", "ok": False}],
    },
}


@pytest.fixture(scope="module")
def pathway(tmp_path_factory):
    memory = Pathway(tmp_path_factory.mktemp("pathway"), sync="never", snapshot=lambda: 3)
    for uid, content in CORPUS.items():
        memory.add(content, uid=uid, kind="note" if uid == "café" else "sql", tags=[uid[0], "all"], scope={"user": uid})
    memory.add_idempotent(CORPUS["planes"], uid="planes")
    memory.feedback("planes", 0.9)
    yield memory
    memory.close()


def uids(page):
    return [found.trace.uid for found in page]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("late", ["weather", "delays"]),
        ("late flight", ["delays", "carriers", "weather"]),  # stemmed: flight finds flights
        ("LATE Evening", ["delays", "weather"]),
        ("cafe", ["café"]),
        ("dep_delay", ["weather", "delays"]),
        ('plane\'s AND "old" -x * ^', ["planes"]),
        ("zzz", []),
        ("'", []),
    ],
)
def test_the_ranking_of_a_fixed_corpus(pathway, query, expected):
    page = pathway.search(query, mode="lexical")
    assert page.ranking == "lexical"
    assert uids(page) == expected
    scores = [found.score for found in page]
    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


def test_explain_tells_the_words_and_what_each_added(pathway):
    best = pathway.search("late evening", mode="lexical", explain=True).results[0]
    assert set(best.why["words"]) == {"late", "even"}
    assert sum(best.why["words"].values()) == pytest.approx(best.score)
    assert pathway.search("late", mode="lexical").results[0].why is None


def test_a_threshold_leaves_out_weak_results(pathway):
    scores = [found.score for found in pathway.search("late flight", mode="lexical")]
    assert uids(pathway.search("late flight", mode="lexical", threshold=scores[1])) == uids(
        pathway.search("late flight", mode="lexical", limit=2)
    )
    assert len(pathway.search("late", mode="lexical", threshold=1e9)) == 0


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"kind": "note"}, "café"),
        ({"kind": {"ne": "note"}}, "delays carriers weather planes"),
        ({"kind": {"in": ["note", "x"]}}, "café"),
        ({"kind": {"nin": ["note", "x"]}}, "delays carriers weather planes"),
        ({"uid": {"gt": "d", "lt": "q"}}, "delays planes"),
        ({"tags": "p"}, "planes"),
        ({"tags": {"in": ["p", "w"]}}, "planes weather"),
        ({"tags": {"nin": ["p", "w"]}}, "delays carriers café"),
        ({"tags": {"ne": "d"}}, "carriers weather planes café"),
        ({"tags": {"icontains": "AL"}, "scope.user": "weather"}, "weather"),
        ({"scope.user": {"contains": "a"}}, "delays carriers weather planes café"),
        ({"replay_count": {"gte": 1}}, "planes"),
        ({"score": {"exists": True}}, "planes"),
        ({"score": {"gt": 0.5, "lte": 0.9}}, "planes"),
        ({"predecessor": None}, "delays carriers weather planes café"),
        ({"snapshot": 3, "version": 1, "retired": False, "kind": "note"}, "café"),
        ({"content.rows": 1}, "planes"),
        ({"content.rows": {"exists": True}}, "planes"),
        ({"content.rows": {"gte": "0"}}, ""),  # a text is not larger than a number
        ({"content.steps.0.sql": "SELECT 1"}, "café"),
        ({"content.steps.1.ok": False}, "café"),
        ({"content.sql": {"contains": "corr("}}, "weather"),
        ({"content.sql": {"icontains": "FLIGHTS"}}, "delays carriers"),
        ({"content.question": {"icontains": "CAFÉ"}}, "café"),
        ({"or": [{"tags": "p"}, {"content.steps": {"exists": True}}]}, "planes café"),
        ({"and": [{"kind": "sql"}, {"not": {"content.sql": {"icontains": "flights"}}}]}, "weather planes"),
        ({"not": {"content.rows": 1}}, "delays carriers weather café"),
        ({"created_at": {"gt": "2020-01-01"}, "tags": "p"}, "planes"),
        ({"created_at": {"lt": "2020-01-01"}}, ""),
        ({"uid": {"in": [*map(str, range(40_000)), "planes", None]}}, "planes"),
        ({"tags": {"nin": [*map(str, range(40_000)), "p"]}}, "delays carriers weather café"),
        ({"score": {"in": [None, 1]}}, "delays carriers weather café"),
        ({"score": {"nin": [None, 1]}}, "planes"),
        ({"or": [{"content.rows": number} for number in range(900)]}, "planes"),
        ({"version": {"lt": 10**30}, "tags": "p"}, "planes"),
        ({"content.²": None, "tags": "p"}, "planes"),
        ({"content.steps.9": None, "scope.0": None}, "delays carriers weather planes café"),
        ({}, "delays carriers weather planes café"),
        (None, "delays carriers weather planes café"),
    ],
)
def test_filters(pathway, filters, expected):
    assert set(uids(pathway.search(filters=filters))) == set(expected.split())
    assert set(uids(pathway.search(filters=filters, as_of=pathway.search().position))) == set(expected.split())
    assert {trace.uid for trace in pathway.get_all(filters=filters)} == set(expected.split())


@pytest.mark.parametrize(
    "filters",
    [{"kinds": 1}, {"kind": {"like": "x"}}, {"content.": 1}, {"content.a..b": 1}, {"scope": "x"}, {"kind": {}},
     {"and": {"kind": 1}}, {"or": []}, {"kind": {"in": "abc"}}, {"tags": 3}, {"tags": {"gt": "a"}}, {3: 4}, "kind",
     {"content.a": object()}, {"score": {"exists": "yes"}}, {"created_at": "soon"}, {'content.a"b': 1},
     {"kind": {"gt": None}}, {"kind": {"icontains": 3}}, [], "", 0, False, {"not": []}, {"or": [[]]}, {"score": float("nan")},
     {"score": float("inf")}, {"score": 10**400}, {"kind": "\ud800"}, {"content.\ud800": 1}, {"content.a\0b": 1},
     {"tags": {"in": [1]}}, {"tags": "\ud800"}, {"uid": {"in": ["\ud800"]}}, {"created_at": "0001-01-01T00:00+14:00"},
     {"created_at": {"lt": "9999-12-31T23:59:59-12:00"}}, {"or": [{"kind": "x"}] * 20_000},
     functools.reduce(lambda inner, _: {"not": inner}, range(900), {"kind": "x"})],
)  # fmt: skip
def test_a_filter_that_is_not_understood_is_an_error(pathway, filters):
    with pytest.raises(errors.FilterInvalid):
        pathway.search(filters=filters)


@pytest.mark.parametrize(
    "arguments",
    [{"query": 5}, {"query": "\ud800"}, {"tags": 5}, {"tags": ["a", 5]}, {"kind": 5}, {"scope": "ann"}, {"scope": ["a"]},
     {"threshold": "x"}, {"threshold": float("nan")}, {"limit": True}, {"as_of": "0001-01-01T00:00+14:00"}, {"as_of": 1.5}],
)  # fmt: skip
def test_an_argument_that_cannot_be_used_is_an_error(pathway, arguments):
    for mode in ("lexical", "hybrid"):
        with pytest.raises(errors.FilterInvalid):
            pathway.search(**{"query": "late", "mode": mode, **arguments})


def test_a_time_means_the_same_after_the_clock_was_set_back(tmp_path, monkeypatch):
    memory = Pathway(tmp_path, sync="never")
    clock = iter(f"2026-01-01T12:00:{second:02d}+00:00" for second in (10, 20, 5, 30))
    real = records.stamp
    monkeypatch.setattr("lakehouse.journal.stamp", lambda _: real(datetime.fromisoformat(next(clock))))

    def then(second):
        return uids(memory.search(as_of=f"2026-01-01T12:00:{second:02d}Z"))

    for uid in ("first", "second"):
        memory.add(uid, uid=uid)
    before = [then(second) for second in range(20)]
    for uid in ("set back", "third"):
        memory.add(uid, uid=uid)
    assert [then(second) for second in range(20)] == before == 10 * [[]] + 10 * [["first"]]
    assert then(29) == ["set back", "second", "first"]
    assert len(then(30)) == 4


def test_arguments_narrow_together(pathway):
    for mode in ("lexical", "semantic", "hybrid"):
        arguments = {"kind": "sql", "tags": ["w", "all"], "scope": {"user": "weather"}, "mode": mode}
        assert uids(pathway.search("late", **arguments)) == ["weather"]
        assert uids(pathway.search("late", kind="note", mode=mode)) == ([] if mode == "lexical" else ["café"])
        assert uids(pathway.search("late", kind="unknown", mode=mode)) == []


def test_pages_are_of_one_moment(tmp_path):
    memory = Pathway(tmp_path, sync="never")
    memory.add_many({"content": f"flights {n}", "uid": f"{n:03d}"} for n in range(50))
    for query, mode in ((None, "auto"), ("flights", "lexical"), ("flights", "semantic"), ("flights 3", "hybrid")):
        seen, cursor = [], None
        while True:
            page = memory.search(query, limit=7, cursor=cursor, mode=mode)
            seen += uids(page)
            memory.add(f"flights and more, after {len(seen)}")
            cursor = page.next_cursor
            if cursor is None:
                break
        first = memory.search(query, limit=1000, as_of=page.position, mode=mode)
        assert seen == uids(first)
        assert len(set(seen)) == len(seen) >= 50
    other = memory.search("flights", limit=7, mode="lexical").next_cursor
    for arguments in ({"query": "and"}, {"query": "flights", "kind": "a"}, {"query": "flights", "threshold": 0.1}):
        with pytest.raises(errors.FilterInvalid, match="cursor"):
            memory.search(cursor=other, mode="lexical", **arguments)
    for cursor in ("x", "W10=", 3):
        with pytest.raises(errors.FilterInvalid, match="cursor"):
            memory.search(cursor=cursor)
    for limit in (0, -1, 10_001, "5"):
        with pytest.raises(errors.FilterInvalid, match="limit"):
            memory.search(limit=limit)
