"""Search by meaning and by both: fixed rankings, no network, other embedders, lost and damaged vectors."""

import hashlib
from functools import cache

import numpy as np
import pytest

from lakehouse import errors
from lakehouse.pathway import embedding, vectors
from lakehouse.pathway.store import Pathway

CORPUS = {
    "delays": "why are evening flights late",
    "carriers": "which carrier has most flights",
    "rain": "does rain make departures late",
    "age": "how old are the aircraft",
    "wind": "strong wind at the airport in winter",
    "money": "monthly revenue per customer",
    "refunds": "how much was paid back to customers",
    "storage": "disk space used by each table",
}


class Letters:
    """A vector that counts letters: small, exact, and of any machine."""

    name = "letters"
    dimension = 26

    def embed(self, texts):
        return np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)


@cache  # one text is asked for again and again
def noise(text, dimension):
    seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
    return np.random.default_rng(seed).standard_normal(dimension)


class Hashes:
    name = "hashes"
    dimension = 70

    def embed(self, texts):
        return np.array([noise(text, 70) for text in texts], np.float32)


class Planted(Hashes):
    """Noise, but texts that begin with `near` point roughly where the query `here` does."""

    name = "planted"
    dimension = 256

    def embed(self, texts):
        here = np.random.default_rng(7).standard_normal(256)
        far = {"here": 0.0, "near": 1.2}
        noises = [(text[:4], noise(text, 256)) for text in texts]
        rows = [here + far[begin] * one if begin in far else one for begin, one in noises]
        return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    pathway = Pathway(tmp_path_factory.mktemp("meaning"), sync="never")
    for uid, text in CORPUS.items():
        pathway.add({"question": text}, uid=uid, tags=["all"])
    yield pathway
    pathway.close()


def uids(page, count=None):
    return [found.trace.uid for found in page][:count]


def scored(page):
    return [(found.trace.uid, found.score, found.why) for found in page]


@pytest.mark.parametrize(
    ("query", "lexical", "semantic", "hybrid"),
    [
        ("late flights", ["delays", "carriers", "rain"], "delays carriers rain age", "delays carriers rain age"),
        ("delayed planes", [], "delays rain age", "delays rain age"),
        ("storm weather", [], "wind rain", "wind rain"),
        ("income of clients", [], "refunds money", "refunds money"),
        ("customer", ["money", "refunds"], "money refunds", "money refunds"),
        ("free bytes on the hard drive", ["age", "wind"], "storage refunds", "age storage wind refunds"),
    ],
)
def test_the_ranking_of_a_fixed_corpus(memory, query, lexical, semantic, hybrid):
    assert uids(memory.search(query, mode="lexical"), len(lexical)) == lexical
    for mode, expected in (("semantic", semantic.split()), ("hybrid", hybrid.split())):
        page = memory.search(query, mode=mode)
        assert page.ranking == mode
        assert uids(page, len(expected)) == expected


def test_hybrid_is_the_fusion_of_the_ranks_of_both(memory):
    query = "late customer flights in winter"
    ranks = {
        mode: {uid: rank for rank, uid in enumerate(uids(memory.search(query, mode=mode)), start=1)}
        for mode in ("lexical", "semantic")
    }
    page = memory.search(query, mode="hybrid", explain=True)
    assert page.ranking == memory.search(query).ranking == "hybrid"
    for uid, score, why in scored(page):
        assert why["ranks"] == {mode: ranks[mode].get(uid) for mode in ranks}
        assert score == sum(1 / (60 + ranks[mode][uid]) for mode in ranks if uid in ranks[mode])
    scores = [score for _, score, _ in scored(page)]
    assert scores == sorted(scores, reverse=True)
    assert set(ranks["lexical"]) | set(ranks["semantic"]) == set(uids(page))
    assert len(memory.search(query, mode="hybrid", threshold=scores[2])) == 3


def test_semantic_tells_the_cosine(memory):
    page = memory.search(CORPUS["wind"], mode="semantic", explain=True)
    assert page.results[0].trace.uid == "wind"
    assert page.results[0].score > 0.9  # the tags are in it too
    assert all(found.score == found.why["cosine"] for found in page)
    assert len(memory.search(CORPUS["wind"], mode="semantic", threshold=0.9)) == 1
    assert uids(memory.search("   ", mode="semantic")) == uids(memory.search())


def test_it_needs_no_network_and_words_alone_need_no_embedder(tmp_path, child):
    code = """
        import socket
        from pathlib import Path
        def refuse(*args, **named):
            raise OSError("there is no network")
        socket.socket.__init__ = socket.create_connection = socket.getaddrinfo = refuse
        from lakehouse.pathway.store import Pathway
        pathway = Pathway(Path(args[0]))
        pathway.add("why are evening flights late", uid="a")
        pathway.add("monthly revenue", uid="b")
        found = []
        for mode in ("lexical", "hybrid", "semantic"):
            page = pathway.search("flights with a delay", mode=mode)
            found.append([one.trace.uid for one in page][:1] + [name for name in
                ("tokenizers", "safetensors", "wordllama", "requests", "huggingface_hub") if name in sys.modules])
        say(found)
    """
    (said,) = child(code, tmp_path).end()
    assert said == [["a"], ["a", "tokenizers", "safetensors"], ["a", "tokenizers", "safetensors"]]


def test_without_the_extra_search_is_by_words_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    memory = Pathway(tmp_path, sync="never")
    memory.add("late flights", uid="a")
    assert memory.search("flights").ranking == "lexical"
    for mode in ("semantic", "hybrid"):
        with pytest.raises(errors.ConfigError, match=r"lakehouse-workbench\[semantic\]"):
            memory.search("flights", mode=mode)
    with pytest.raises(errors.FilterInvalid, match="no mode 'fuzzy'"):
        memory.search("flights", mode="fuzzy")


def test_another_embedder_has_vectors_of_its_own(tmp_path):
    letters = Pathway(tmp_path, sync="never", embedder=Letters())
    letters.add("aaaa bb", uid="a")
    letters.add("bbbb a", uid="b")
    letters.add("123", uid="none")
    cosines = {found.trace.uid: found.score for found in letters.search("ab", mode="semantic")}
    assert cosines == {"a": pytest.approx(6 / 40**0.5, abs=0.01), "b": pytest.approx(5 / 34**0.5, abs=0.01)}
    assert uids(letters.search("b", mode="semantic")) == ["b", "a"]
    assert uids(letters.search("789", mode="semantic")) == []
    assert uids(letters.search("123", mode="hybrid")) == ["none"]
    assert uids(Pathway(tmp_path, embedder=Hashes()).search("bbbb a", mode="semantic"), 1) == ["b"]
    assert len(list(tmp_path.glob("*.vectors"))) == 2


@pytest.mark.parametrize(
    ("name", "dimension", "shape"), [("../x", 3, (1, 3)), ("ok", 0, (1, 0)), ("ok", 3, (1, 4)), ("ok", 3, (2, 3))]
)
def test_an_embedder_that_cannot_be_used_is_an_error(tmp_path, name, dimension, shape):
    broken = Letters()
    broken.name, broken.dimension, broken.embed = name, dimension, lambda texts: np.ones(shape)
    memory = Pathway(tmp_path, sync="never", embedder=broken)
    memory.add("a")
    with pytest.raises(errors.ConfigError, match="embedder"):
        memory.search("a", mode="hybrid")
    assert len(memory.search("a", mode="lexical")) == 1


def big(folder, embedder, count=3000):
    memory = Pathway(folder, sync="never", embedder=embedder)
    memory.add_many(
        {
            "content": f"text {n} {n % 7}",
            "uid": f"{n:04d}",
            "tags": [f"t{n % 3}"],
            "kind": "rare" if n % 500 == 9 else "k",
        }
        for n in range(count)
    )
    return memory


def answers(memory, position, modes=("lexical", "semantic", "hybrid")):
    return [
        scored(memory.search(query, mode=mode, as_of=position, limit=300, explain=True, **narrow))
        for query in ("text 77", "t1 text 2000 3")
        for mode in modes
        for narrow in ({}, {"kind": "rare"}, {"tags": ["t1"]}, {"filters": {"uid": {"gt": "2500"}}})
    ]


def flip(path, places):
    data = bytearray(path.read_bytes())
    for at in places:
        data[at % len(data)] ^= 0xFF
    path.write_bytes(data)


def test_lost_and_damaged_vectors_are_made_again(tmp_path):
    memory = big(tmp_path, Hashes())
    position = memory.search().position
    modes = ("semantic", "hybrid")  # the other one does not look at them
    before = answers(memory, position, modes)
    codes, rows = next(tmp_path.glob("*.codes")), next(tmp_path.glob("*.vectors"))
    size = rows.stat().st_size
    for damage in (
        rows.unlink,
        codes.unlink,
        lambda: rows.write_bytes(b""),
        lambda: rows.write_bytes(rows.read_bytes()[:-33]),
        lambda: codes.write_bytes(codes.read_bytes()[:1001]),
        lambda: rows.write_bytes(b"\0" * size),
        lambda: rows.write_bytes(rows.read_bytes()[: size // 2] + b"x" * (size - size // 2)),
        lambda: flip(rows, (n * 82 + 30 for n in range(0, 3000, 2))),
        lambda: codes.write_bytes(b"\0" * codes.stat().st_size),
    ):
        damage()
        again = Pathway(tmp_path, sync="never", embedder=Hashes())
        assert answers(again, position, modes) == before
        again.close()


def test_the_same_position_gives_the_same_answer_later(tmp_path):
    memory = big(tmp_path, Hashes())
    position = memory.search().position
    before = answers(memory, position)
    memory.add_many({"content": f"text 77 again {n}", "uid": f"later {n}", "kind": "rare"} for n in range(500))
    memory.update("0077", "something else")
    memory.retire("2000")
    assert answers(memory, position) == before
    assert answers(memory, None) != before
    memory.compact()
    assert answers(memory, position) == before
    memory.close()
    for file in tmp_path.iterdir():
        if file.name != "traces.jsonl":
            file.unlink()
    assert answers(Pathway(tmp_path, embedder=Hashes()), position) == before


@pytest.mark.parametrize("mode", ["lexical", "semantic", "hybrid"])
def test_pages_neither_repeat_nor_skip(tmp_path, mode):
    memory = big(tmp_path, Hashes(), 2500)
    seen, cursor = [], None
    while True:
        page = memory.search("text 5", mode=mode, limit=700, cursor=cursor)
        seen += scored(page)
        memory.add("text 5 5 5")
        cursor = page.next_cursor
        if cursor is None:
            break
    whole = scored(memory.search("text 5", mode=mode, limit=10_000, as_of=page.position))
    assert [one[:2] for one in seen] == [one[:2] for one in whole]
    assert len({uid for uid, *_ in seen}) == len(seen) > 1000
    with pytest.raises(errors.FilterInvalid, match="cursor"):
        memory.search("text 5", mode="lexical" if mode != "lexical" else "hybrid", cursor=memory_cursor(memory, mode))


def memory_cursor(memory, mode):
    return memory.search("text 5", mode=mode, limit=1).next_cursor


def test_what_is_alike_is_found_among_many(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "TIER", 100)
    memory = big(tmp_path, Planted(), 4000)
    memory.add_many({"content": f"near {n}", "uid": f"near {n}"} for n in range(50))
    memory.add_many({"content": f"text and more {n}"} for n in range(1000))
    texts = [f"near {n}" for n in range(50)]
    made = Planted().embed([*texts, "here"])
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    cosines = dict(zip(texts, made[:-1] @ made[-1], strict=True))
    found = memory.search("here", mode="semantic", limit=50)
    assert set(uids(found)) == set(texts)
    assert [one.score for one in found] == pytest.approx([cosines[uid] for uid in uids(found)], abs=0.01)
    everything = uids(memory.search("here", mode="semantic", limit=10_000))
    assert len(set(everything)) == len(everything)
    assert 2000 < len(everything) < 3200  # about half of the noise points away
