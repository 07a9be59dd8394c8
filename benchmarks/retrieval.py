"""How good the search of the pathway memory is, on the documentation of numpy and pandas.

A labelled set that needs no download: a docstring's first sentence is the question, the rest of it is the trace, and
the trace of the same function is the one right answer. It measures whether a short description finds the long text
that it belongs to, among some thousand others in the same jargon; it says nothing of conversations.
"""

from __future__ import annotations

import inspect
import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from _report import Report, main, scratch
from _traces import asking, modes

from lakehouse.pathway.store import Pathway

PLACES = (np, np.linalg, np.fft, np.random, np.ma, np.ndarray, pd, pd.DataFrame, pd.Series, pd.Index)
AT = 5


def measure(quick: bool) -> Report:
    """Recall at 5 and mean reciprocal rank of every kind of search, beside SQLite's own bm25() on the same texts."""
    pairs = dict(list(_pairs())[:300] if quick else _pairs())
    with scratch() as folder:
        memory = Pathway(folder, sync="never")
        memory.add_many({"content": rest, "uid": name} for name, (_, rest) in pairs.items())
        ranks = {
            mode: _ranks(
                pairs, lambda q, a=asking(mode): [found.trace.uid for found in memory.search(q, limit=50, **a)]
            )
            for mode in modes()
        }
        memory.close()
    peer = _ranks(pairs, _fts5(pairs))
    report = Report(
        f"Finding {len(pairs):,} docstrings by their first sentence", "SQLite FTS5 bm25(), Porter stems, OR"
    )
    for mode, found in ranks.items():
        report.add(f"recall at {AT}, {mode}, of 100", 100 * _recall(found), "", 100 * _recall(peer))
        report.add(f"mean reciprocal rank, {mode}, of 1,000", 1000 * _mrr(found), "", 1000 * _mrr(peer))
    report.notes.append("question: the first sentence of a docstring of numpy or pandas; answer: the rest of it")
    return report


def _pairs() -> Iterator[tuple[str, tuple[str, str]]]:
    """Name, first sentence and rest of every docstring that has both, each text once."""
    seen = set()
    for place in PLACES:
        for name, member in sorted(inspect.getmembers(place, lambda m: callable(m) or isinstance(m, property))):
            text = inspect.getdoc(member) or ""
            first, _, rest = text.partition("\n\n")
            first = " ".join(first.split())
            if name.startswith("_") or len(rest) < 200 or not re.search(r"\w+ \w+ \w+", first) or rest in seen:
                continue
            if re.match(rf"{re.escape(name)}\(", first):  # a signature is no question
                first, _, rest = rest.partition("\n\n")
                first = " ".join(first.split())
            if first in seen or len(rest) < 200:
                continue
            seen |= {first, rest}
            yield f"{place.__name__}.{name}", (first, rest)


def _ranks(pairs: dict[str, tuple[str, str]], search: Callable[[str], list[str]]) -> list[int | None]:
    """The rank of the right answer for every question, from 1; None when it is not among the first 50."""
    ranks: list[int | None] = []
    for name, (question, _) in pairs.items():
        found = search(question)
        ranks.append(found.index(name) + 1 if name in found else None)
    return ranks


def _fts5(pairs: dict[str, tuple[str, str]]) -> Callable[[str], list[str]]:
    database: Any = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE doc USING fts5(name UNINDEXED, text, tokenize='porter unicode61')")
    database.executemany("INSERT INTO doc VALUES (?, ?)", [(name, rest) for name, (_, rest) in pairs.items()])

    def search(question: str) -> list[str]:
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
        rows = database.execute("SELECT name FROM doc WHERE doc MATCH ? ORDER BY bm25(doc) LIMIT 50", [words])
        return [name for (name,) in rows]

    return search


def _recall(ranks: list[int | None]) -> float:
    return sum(rank is not None and rank <= AT for rank in ranks) / len(ranks)


def _mrr(ranks: list[int | None]) -> float:
    return sum(1 / rank for rank in ranks if rank) / len(ranks)


if __name__ == "__main__":
    main(measure)
