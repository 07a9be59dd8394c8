"""Traces as an analyst would leave them, made from a seed: what the benchmarks of the pathway memory work on."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _report import KEPT, kept

from lakehouse.pathway.store import Pathway

WORDS = 20_000
USERS = 1_000
KINDS = ("sql", "conclusion", "question", "note")


def traces(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """What `add_many` takes: a question and its SQL of words with the frequencies of a language (Zipf)."""
    chance = random.Random(seed)
    words = vocabulary()
    weights = [1 / (rank + 2) for rank in range(len(words))]
    total, cumulated = 0.0, []
    for weight in weights:
        total += weight
        cumulated.append(total)
    for number in range(count):
        some = chance.choices(words, cum_weights=cumulated, k=18)
        yield {
            "content": {
                "question": " ".join(some[:12]),
                "sql": f"SELECT {some[12]}, avg({some[13]}) FROM {some[14]} WHERE {some[15]} > {number % 997} GROUP BY 1",
                "rows": number % 1000,
            },
            "kind": KINDS[number % 4],
            "tags": [some[16]],
            "scope": {"user": f"user{number % USERS}"},
            "uid": f"t{number}",
        }


def vocabulary() -> list[str]:
    """Made-up words that no stemmer takes for one another."""
    consonants, vowels = "bdfgklmnprtvz", "aiou"
    syllables = [a + b for a in consonants for b in vowels]
    return [syllables[n % 52] + syllables[n // 52 % 52] + syllables[n // 2704 % 52] + "k" for n in range(WORDS)]


def questions(count: int, seed: int = 2) -> list[str]:
    """Three words each, as somebody asks who remembers half of a question."""
    return [" ".join(trace["content"]["question"].split()[2:5]) for trace in traces(count, seed)]


def corpus(count: int) -> Path:
    """The folder of a memory of so many traces; made once."""
    name = f"pathway-{count}"
    with kept(name) as folder:
        if folder is not None:
            print(f"making {count:,} traces, once …", flush=True)
            memory = Pathway(folder, sync="never")
            memory.add_many(traces(count))
            memory.close()
    return KEPT / name


def modes() -> list[str]:
    """The ways of searching that there are: by meaning only with the extra that brings an embedder."""
    if "mode" not in inspect.signature(Pathway.search).parameters:
        return ["lexical"]
    return ["lexical", "semantic", "hybrid"] if find_spec("wordllama") else ["lexical"]


def asking(mode: str) -> dict[str, str]:
    """The argument of `search` for a mode, where there are several."""
    return {"mode": mode} if "mode" in inspect.signature(Pathway.search).parameters else {}
