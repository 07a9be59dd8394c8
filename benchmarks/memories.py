"""The pathway memory beside other memory stores: mem0 (no language model) and LangGraph's SqliteStore."""

from __future__ import annotations

import inspect
import os
import sqlite3
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from _report import Report, fresh, main, median, scratch, sync, timed
from _traces import asking, modes, questions, traces

from lakehouse.pathway.store import Pathway

DIMENSION = 256
VECTORS = hasattr(sqlite3.Connection, "enable_load_extension")
"""Whether this Python lets LangGraph load its vector search into SQLite; if not, its search is a list."""


class Embedder:
    """The same for all: each word a direction of its own. It costs next to nothing, so that the stores are measured."""

    name = "hashed-words"
    dimension = DIMENSION

    def embed(self, texts: Any, *_: Any) -> Any:
        """One vector for one text, as mem0 asks; an array of rows for several, as we do."""
        if isinstance(texts, str):
            return self._one(texts).tolist()
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> np.ndarray:
        vector = np.zeros(DIMENSION, np.float32)
        for word in text.lower().split():
            value = crc32(word.encode())
            vector[value % DIMENSION] += 1 if value & 1024 else -1
        return vector / (float(np.linalg.norm(vector)) or 1.0)


def measure(quick: bool) -> Report:
    """10,000 memories (quick: 300) added one by one, then searched for; each store in a process of its own."""
    count, searches = (300, 30) if quick else (10_000, 200)
    report = Report(
        f"{count:,} memories, added one by one, {searches} searches",
        f"mem0 {version('mem0ai')} with Qdrant on disk, langgraph-checkpoint-sqlite {version('langgraph-checkpoint-sqlite')}",
    )
    results = {}
    for name, work in (("ours", _ours), ("mem0", _mem0), ("langgraph", _langgraph)):
        with scratch() as folder:
            sync()
            results[name], peak = fresh(work, folder, count, searches)
            results[name]["memory"] = peak
    ours = results["ours"]
    for name in ("mem0", "langgraph"):
        peer = results[name]
        for mode in modes() if name == "mem0" or VECTORS else ():
            report.add(f"search, {mode} (theirs: {name})", ours[mode], "ms", peer["search"])
        report.add(f"adds (theirs: {name})", count / ours["adds"], "/s", count / peer["adds"])
        report.add(f"get by id (theirs: {name})", ours["get"], "ms", peer["get"])
        report.add(f"memory of the process (theirs: {name})", ours["memory"], "MB", peer["memory"])
    report.notes.append(
        "mem0 searches by vectors of an embedder that costs next to nothing; adds of ours are synced and indexed"
    )
    if not VECTORS:
        report.notes.append(
            "this Python's SQLite loads no extensions: LangGraph has no vectors, and its search ranks nothing: not compared"
        )
    if modes() == ["lexical"]:
        report.notes.append("ours searches by words here: the extra that brings an embedder is not installed")
    return report


def _items(count: int) -> list[tuple[str, str]]:
    return [(trace["content"]["question"], trace["scope"]["user"]) for trace in traces(count)]


def _searched(search: Any, count: int) -> float:
    asked = questions(count)
    search(asked[0])
    return median([timed(lambda q=q: search(q)) for q in asked]) * 1000


def _ours(folder: Path, count: int, searches: int) -> dict[str, float]:
    own = {"embedder": Embedder()} if "embedder" in inspect.signature(Pathway.__init__).parameters else {}
    memory = Pathway(folder, **own)
    started = time.perf_counter()
    uids = [memory.add({"text": text}, scope={"user": user}).uid for text, user in _items(count)]
    found = {"adds": time.perf_counter() - started}
    memory.search("anything")  # brings the index up to date, for as many adds as there were
    found["adds"] = time.perf_counter() - started
    everybody = {"user": _items(1)[0][1]}
    for mode in modes():
        arguments = asking(mode)
        found[mode] = _searched(lambda q, a=arguments: memory.search(q, scope=everybody, limit=10, **a), searches)
    found["get"] = median([timed(lambda uid=uid: memory.get(uid)) for uid in uids[:200]]) * 1000
    memory.close()
    return found


def _mem0(folder: Path, count: int, searches: int) -> dict[str, float]:
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder / "mem0"), "ANONYMIZED_TELEMETRY": "False"}
    from mem0 import Memory

    unused = {"provider": "openai", "config": {"api_key": "not used"}}
    store = {"path": str(folder / "qdrant"), "on_disk": True, "embedding_model_dims": DIMENSION, "collection_name": "m"}
    memory = Memory.from_config(
        {
            "vector_store": {"provider": "qdrant", "config": store},
            "embedder": unused,
            "llm": unused,
            "history_db_path": str(folder / "history.db"),
        }
    )
    memory.embedding_model = Embedder()
    items = _items(count)
    started = time.perf_counter()
    uids = [memory.add(text, user_id=user, infer=False)["results"][0]["id"] for text, user in items]
    found = {"adds": time.perf_counter() - started}
    everybody = {"user_id": items[0][1]}
    found["search"] = _searched(lambda q: memory.search(q, filters=everybody, top_k=10), searches)
    found["get"] = median([timed(lambda uid=uid: memory.get(uid)) for uid in uids[:200]]) * 1000
    return found


def _langgraph(folder: Path, count: int, searches: int) -> dict[str, float]:
    from langgraph.store.sqlite import SqliteStore

    embedder = Embedder()
    connection = sqlite3.connect(folder / "store.sqlite", check_same_thread=False, isolation_level=None)
    index = {"dims": DIMENSION, "embed": lambda texts: embedder.embed(texts).tolist(), "fields": ["text"]}
    store = SqliteStore(connection, index=index if VECTORS else None)
    store.setup()
    items = _items(count)
    started = time.perf_counter()
    for number, (text, user) in enumerate(items):
        store.put(("memories", user), str(number), {"text": text})
    found = {"adds": time.perf_counter() - started}
    found["search"] = _searched(lambda q: store.search(("memories",), query=q, limit=10), searches)
    found["get"] = median([timed(lambda n=n: store.get(("memories", items[n][1]), str(n))) for n in range(200)]) * 1000
    connection.close()
    return found


if __name__ == "__main__":
    main(measure)
