"""BM25 over packed postings: what it should be, however the index came to be as it is."""

import json
import math
import random
import re
import shutil

import pytest

from lakehouse.pathway import events, index, search, words
from lakehouse.pathway.store import Pathway

VOCABULARY = [f"{a}{b}" for a in ("ba", "ko", "ri", "tu") for b in ("m", "n", "x", "z")]


@pytest.fixture
def small(monkeypatch):
    """Blocks so small that a few hundred traces fill, seal and merge many."""
    monkeypatch.setattr(words, "BLOCK", 64)
    monkeypatch.setattr(words, "SMALL", 8)
    monkeypatch.setattr(events, "_FLUSH", 5)
    monkeypatch.setattr(index, "_BATCH", 23)


def content(chance):
    often = [1 / (rank + 1) for rank in range(len(VOCABULARY))]
    return " ".join(chance.choices(VOCABULARY, often, k=chance.randint(1, 12)))


def written(folder, count, *, bulk=False):
    """Traces, updates and retirements; the texts in the order in which they were written, with their positions."""
    chance = random.Random(count)
    memory = Pathway(folder, sync="never")
    texts = []
    if bulk:
        items = [{"content": content(chance), "uid": f"{n:04d}"} for n in range(count)]
        memory.add_many(items)
        return memory, [(n + 1, item["uid"], item["content"]) for n, item in enumerate(items)]
    for number in range(count):
        uid = f"{number:04d}"
        texts.append((memory.stats().records + 1, uid, content(chance)))
        memory.add(texts[-1][2], uid=uid, kind=chance.choice("ab"), tags=chance.sample("xyz", 2), scope={"u": uid[-1]})
        if number % 5 == 0:
            other = f"{chance.randrange(number + 1):04d}"
            texts.append((memory.stats().records + 1, other, content(chance)))
            memory.update(other, texts[-1][2])
        if number % 7 == 0:
            memory.retire(f"{chance.randrange(number + 1):04d}")
    return memory, texts


def expected(texts, query, position, labels=lambda uid: []):
    """BM25 as in the book, in plain Python: what each text up to a position scores."""
    there = [(uid, re.findall(r"\w+", text) + labels(uid)) for at, uid, text in texts if at <= position]
    mean = sum(len(found) for _, found in there) / len(there)
    having = {word: sum(word in found for _, found in there) for word in query.split()}
    scores = []
    for uid, found in there:
        score = 0.0
        for word, count in having.items():
            weight = math.log(1 + (len(there) - count + 0.5) / (count + 0.5))
            often = found.count(word)
            score += weight * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(found) / mean))
        scores.append((uid, score))
    return dict(scores)  # of a trace that was updated, its last text


def ranked(memory, query, **arguments):
    return [(found.trace.uid, found.score) for found in memory.search(query, mode="lexical", **arguments)]


@pytest.mark.parametrize("count", [1, 9, 70, 300])
def test_scores_are_those_of_the_book(tmp_path, small, count):
    memory, texts = written(tmp_path, count)
    kinds = {trace.uid: [trace.kind, *trace.tags] for trace in memory.get_all(include_retired=True)}
    last = memory.search().position
    for position in {last, last // 2 + 1, 1}:
        for query in ("bam", "tuz", "bam ban", "riz kox bam tuz", "none"):
            want = expected(texts, query, position, kinds.__getitem__)
            found = ranked(memory, query, limit=1000, include_retired=True, as_of=position)
            assert dict(found) == pytest.approx({uid: score for uid, score in want.items() if score}, rel=1e-5)
            assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_one_by_one_and_all_at_once_make_one_answer(tmp_path, small):
    memory, _ = written(tmp_path, 400)
    queries = ("bam", "bax bam", "tuz rim kon bam", "rix")
    positions = (None, memory.search().position, 250, 3)
    before = {(q, at): ranked(memory, q, limit=500, as_of=at) for q in queries for at in positions}
    sizes = [row[0] for row in memory._index.ask("SELECT texts FROM block ORDER BY first")]
    assert sizes[:6] == [56] * 6  # seven small ones each
    assert set(sizes) == {8, 56}
    memory._index.rebuild()
    assert {(q, at): ranked(memory, q, limit=500, as_of=at) for q in queries for at in positions} == before
    memory.compact()
    assert {(q, at): ranked(memory, q, limit=500, as_of=at) for q in queries for at in positions} == before
    written(tmp_path / "more", 5)
    for number in range(100):
        memory.add(f"bam bax {number} and what was written later")
    later = {(q, at): ranked(memory, q, limit=500, as_of=at) for q in queries for at in positions[1:]}
    assert later == {key: found for key, found in before.items() if key[1] is not None}


def test_narrowing_by_labels_changes_no_answer(tmp_path, small, monkeypatch):
    memory, _ = written(tmp_path, 300)
    asked = [
        {"kind": "a"}, {"tags": ["x"]}, {"tags": ["x", "y"], "scope": {"u": "3"}}, {"scope": {"u": "none"}},
        {"filters": {"kind": {"in": ["a", "c"]}, "tags": {"contains": "z"}}}, {"filters": {"kind": {"in": []}}},
        {"filters": {"and": [{"kind": "b"}, {"or": [{"tags": "x"}, {"scope.u": "1"}]}]}},
        {"filters": {"kind": "a", "not": {"tags": "x"}}}, {"filters": {"tags": {"eq": "x", "nin": ["y"]}}},
        {"filters": {"kind": None}}, {"filters": {"kind": {"in": ["a", None]}}}, {"filters": {"kind": {"gt": "a"}}},
    ]  # fmt: skip

    def answers():
        return [
            (memory.search(query, mode="lexical", limit=7, as_of=at, include_retired=retired, **one).results)
            for query in (None, "bam", "tuz rim")
            for at in (None, 200)
            for retired in (True, False)
            for one in asked
        ]

    narrowed = answers()
    monkeypatch.setattr(search, "labels", lambda filters: [])
    assert answers() == narrowed
    assert sum(map(len, narrowed)) > 300


def test_a_rebuild_that_was_killed_goes_on_where_it_was(tmp_path, child):
    memory, texts = written(tmp_path, 30_000, bulk=True)
    memory.close()
    (tmp_path / "traces.index").unlink()
    code = """
        from pathlib import Path
        from lakehouse.pathway import index
        index._BATCH = 500
        remember = index.Index._remember
        def slow(self, connection, end, faults):
            remember(self, connection, end, faults)
            say({"seq": end.seq})
        index.Index._remember = slow
        from lakehouse.pathway.store import Pathway
        Pathway(Path(args[0])).get("0000")
    """
    one = child(code, tmp_path)
    for _ in range(5):
        one.hear()
    one.kill()
    memory = Pathway(tmp_path, sync="never")
    found = memory._index._known(memory._index._connection()).seq
    assert 500 <= found < 30_000
    assert memory.stats().traces == 30_000
    want = expected(texts, "riz bam", 30_000)
    best = sorted(want, key=lambda uid: (-want[uid], uid))[:20]
    assert [score for _, score in ranked(memory, "riz bam")] == pytest.approx([want[uid] for uid in best], rel=1e-5)


def test_an_event_that_does_not_fit_costs_only_itself_also_when_it_was_compacted(tmp_path):
    memory = Pathway(tmp_path)
    memory.add("one", uid="a")
    memory.journal.append({"op": "add", "uid": "a", "content": "twice"}, {"op": "add", "uid": "b", "content": "two"})
    memory.journal.append({"op": "add", "uid": "c", "content": "x", "tags": [1]}, ["no event"], 3)
    memory.add("three", uid="d")
    assert [trace.uid for trace in memory.get_all()] == ["d", "b", "a"]
    memory.compact()
    assert [trace.uid for trace in memory.get_all()] == ["d", "b", "a"]
    lines = [json.loads(line) for line in memory.journal.quarantine.read_text().splitlines()]
    assert any("there is a trace a already" in line["reason"] for line in lines)


def test_another_journal_in_the_same_place_is_another_memory(tmp_path):
    one = Pathway(tmp_path / "one", sync="never")
    one.add("bam", uid="a")
    one.search("bam", mode="hybrid")
    other = Pathway(tmp_path / "other", sync="never")
    other.add("tuz", uid="z")
    other.add("tuz and more", uid="y")
    other.add("rim", uid="x")
    shutil.copy(tmp_path / "other" / "traces.jsonl", tmp_path / "one" / "traces.jsonl")
    assert [trace.uid for trace in one.get_all()] == ["x", "y", "z"]
    assert {found.trace.uid for found in one.search("tuz", mode="hybrid")} == {"z", "y", "x"}


def test_an_index_that_somebody_deletes_is_made_again(tmp_path):
    memory = Pathway(tmp_path, sync="never")
    memory.add("bam", uid="a")
    other = Pathway(tmp_path, sync="never")
    assert ranked(other, "bam") == ranked(memory, "bam")
    for name in ("", "-wal", "-shm", ".lock"):
        (tmp_path / f"traces.index{name}").unlink()
    assert [uid for uid, _ in ranked(memory, "bam")] == ["a"]
    memory.add("bam again", uid="b")
    assert ranked(other, "bam") == ranked(memory, "bam")
    assert (tmp_path / "traces.index").exists()


def test_long_and_odd_texts(tmp_path):
    memory = Pathway(tmp_path, sync="never")
    memory.add("bam " * 100_000 + "x" * 100_000, uid="long")
    memory.add(["", None, True, 3.5, {"Ünï": "Straße\u2028naïve\x00end"}], uid="odd")
    memory.add({}, uid="empty")
    for query, uid in (("bam", "long"), ("uni", "odd"), ("NAIVE end", "odd"), ("3.5", "odd"), ("straße", "odd")):
        assert [found for found, _ in ranked(memory, query)] == [uid]
    assert ranked(memory, "\x00") == ranked(memory, "·—") == []
