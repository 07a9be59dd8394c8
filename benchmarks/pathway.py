"""The pathway memory: durable adds beside a bare loop and SQLite, bulk, replay, and a million traces searched."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import time
from pathlib import Path

from _report import Report, fresh, main, median, percentile, rounds, scratch, sync, timed
from _traces import asking, corpus, modes, questions, traces

from lakehouse.pathway.store import Pathway
from lakehouse.records import Entry


def measure(quick: bool) -> Report:
    """Adds at one sync level, then open, get and search at 1,000,000 traces (quick: 20,000)."""
    count = 20_000 if quick else 1_000_000
    report = Report(f"Pathway memory, {count:,} traces", "at equal sync level, in the same rounds, on the same disk")
    _adds(report, 15 if quick else 200, 20)  # short rounds: a busy disk hits all alike
    _bulk(report, 20_000 if quick else 200_000)
    folder = corpus(count)
    fresh(_warm, folder)  # an index of another version, and vectors that are not there yet, are made here
    found, peak = fresh(_asked, folder, 100 if quick else 400)
    report.add("open and get one trace", found["open"], "ms", at_most=50)
    report.add("open and first search", found["first"], "ms")
    for what in found["times"]:
        times = found["times"][what]
        bound = {"at_most": 20} if what.startswith("search") else {}
        report.add(f"{what}, p50", median(times), "ms")
        report.add(f"{what}, p99", percentile(times, 99), "ms", **bound)
    report.add("memory of that process", peak, "MB")
    report.add("memory of one that has only imported the package", fresh(_nothing)[1], "MB")
    report.notes.append("open: without the imports; filtered: kind, user and a number in the content, newest first")
    report.notes.append(f"search: three words of a question, 20 results; modes: {', '.join(modes())}")
    return report


def _adds(report: Report, count: int, adds: int) -> None:
    """Rounds of so many adds, ours and others, each waiting for the disk."""
    contents = [trace["content"] for trace in itertools.islice(traces(adds), adds)]
    with scratch() as folder:
        memory = Pathway(folder / "ours")
        memory.add("first")
        bare = os.open(folder / "bare.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        database = sqlite3.connect(folder / "peer.sqlite", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE trace (uid TEXT PRIMARY KEY, content TEXT, at TEXT)")
        before = memory.journal.path.stat().st_size
        for content in contents:
            memory.add(content)
        line = b"x" * ((memory.journal.path.stat().st_size - before) // adds - 1) + b"\n"  # as long as ours

        def ours() -> None:
            for content in contents:
                memory.add(content)

        def bare_loop() -> None:
            for _ in contents:
                os.write(bare, line)
                os.fdatasync(bare)

        def peer() -> None:
            for content in contents:
                row = [os.urandom(16).hex(), repr(content), str(time.time())]
                database.execute("INSERT INTO trace VALUES (?, ?, ?)", row)

        sync()
        seconds = rounds(count, ours=ours, bare=bare_loop, peer=peer)
        os.close(bare)
        database.close()
        memory.close()
    rate = {name: adds / median(values) for name, values in seconds.items()}
    report.add("durable add (theirs: write + fdatasync)", rate["ours"], "/s", rate["bare"], at_least=0.8)
    report.add("durable add (theirs: SQLite, WAL, FULL)", rate["ours"], "/s", rate["peer"])


def _bulk(report: Report, count: int) -> None:
    items = list(traces(count))
    bare = [{"content": item["content"]} for item in items]
    with scratch() as folder:
        sync()
        plain = [timed(lambda n=n: Pathway(folder / f"plain{n}").add_many(bare)) for n in range(3)]
        memory = Pathway(folder / "full")
        full = timed(lambda: memory.add_many(items))
        report.add("bulk add, content alone, synced", count / median(plain), "/s", at_least=150_000)
        report.add("bulk add with kind, tag, scope and uid", count / full, "/s")
        read = timed(lambda: sum(isinstance(found, Entry) for found in memory.journal.read()))
        report.add("journal replay", count / read, "/s")
        report.add("verify", count / timed(memory.verify), "/s")
        (folder / "copy").mkdir()
        shutil.copy(memory.journal.path, folder / "copy")
        again = Pathway(folder / "copy")
        report.add("index made anew", count / timed(again.stats), "/s")
        again.close()
        memory.search("x", **asking("lexical"))
        memory.add("x")
        seen = timed(lambda: memory.search("x", **asking("lexical")))
        report.add("first search after an add", seen * 1000, "ms")
        memory.close()
        shutil.rmtree(folder / "full")


def _warm(folder: Path) -> None:
    memory = Pathway(folder)
    for mode in modes():
        memory.search(questions(1)[0], **asking(mode))
    memory.close()


def _asked(folder: Path, count: int) -> dict:
    """In a process of its own: how long opening and every kind of question takes, in ms."""
    import lakehouse.pathway.index  # noqa: F401 - what a search loads is not what is timed

    names = [f"t{number * 7919 % 20_000}" for number in range(count)]
    asked = questions(count)
    started = time.perf_counter()
    memory = Pathway(folder)
    memory.get("t17")
    opened = time.perf_counter()
    memory.search(asked[0], **asking("lexical"))
    found = {"open": (opened - started) * 1000, "first": (time.perf_counter() - opened) * 1000, "times": {}}
    filters = [{"content.rows": {"gte": 500}, "scope.user": f"user{number % 1000}"} for number in range(count)]
    found["times"]["get"] = [timed(lambda name=name: memory.get(name)) * 1000 for name in names]
    found["times"]["filtered list"] = [timed(lambda f=f: memory.search(filters=f)) * 1000 for f in filters[:100]]
    for mode in modes():
        for name, arguments in (("", {}), (", filtered", {"kind": "sql"})):
            asked_for = arguments | asking(mode)
            found["times"][f"search, {mode}{name}"] = [
                timed(lambda q=q, a=asked_for: memory.search(q, **a)) * 1000 for q in asked
            ]
    memory.close()
    return found


def _nothing() -> None:
    import lakehouse.pathway.index  # noqa: F401 - what a search loads is not what is timed


if __name__ == "__main__":
    main(measure)
