"""Durable commits: several writer processes on one lake against one writer process alone."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from _report import Report, main, median, percentile, scratch, sync

import lakehouse

WRITERS = 4

_together: Any = None  # in a writer process: where all writers wait for each other before they start


@dataclass(frozen=True)
class Race:
    """What some writers did to one lake."""

    seconds: float
    """From the first commit's start to the last one's end."""
    commits: list[float]
    """How long each acknowledged commit took, in seconds."""
    lost: int
    """Acknowledged rows that are not in the table, are there twice, or have no snapshot of their own."""
    failed: list[str]

    @property
    def rate(self) -> float:
        """Commits per second, all writers together."""
        return len(self.commits) / self.seconds


def measure(quick: bool) -> Report:
    """4 processes × 250 single-row inserts through `lake.sql` against one process × 250."""
    each, count = (50, 2) if quick else (250, 3)
    report = Report(
        f"Commits: {WRITERS} writer processes × {each} single-row inserts, {count} interleaved rounds, fresh lakes",
        f"one writer process × {each}",
    )
    alone, together = [], []
    for _ in range(count):
        alone.append(_race(1, each))
        together.append(_race(WRITERS, each))
    report.add("commits that failed", sum(len(race.failed) for race in together), "", at_most=0)
    report.add("acknowledged commits that were lost", sum(race.lost for race in alone + together), "", at_most=0)
    ours, theirs = (median([race.rate for race in races]) for races in (together, alone))
    report.add("commits per second (median round)", ours, "/s", theirs, at_least=0.80)
    ours_ms, theirs_ms = ([second * 1000 for race in races for second in race.commits] for races in (together, alone))
    report.add("time of one commit, p50", median(ours_ms), "ms", median(theirs_ms))
    report.add("time of one commit, p99", percentile(ours_ms, 99), "ms", percentile(theirs_ms, 99))
    report.add("longest commit", max(ours_ms), "ms", max(theirs_ms))
    report.add("longest wait (longest commit − lone p50)", max(ours_ms) - median(theirs_ms), "ms")
    report.notes.append(f"a fair queue of {WRITERS} makes a commit take {WRITERS}× a lone one")
    report.notes.extend(sorted({text for race in together for text in race.failed}))
    return report


def _race(writers: int, each: int) -> Race:
    with scratch() as folder:
        path = folder / "lake"
        with lakehouse.open(path) as lake:
            lake.sql("CREATE TABLE t (writer INTEGER, i INTEGER)")
            before = lake.catalog.current_snapshot().id
        sync()
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(writers)
        with ProcessPoolExecutor(writers, mp_context=context, initializer=_ready, initargs=(barrier,)) as pool:
            results = list(pool.map(_write, [path] * writers, range(writers), [each] * writers))
        spans = [(begun, ended) for begun, ended, _, _ in results]
        commits = [second for _, _, seconds, _ in results for second in seconds]
        failed = [text for *_, texts in results for text in texts]
        with lakehouse.open(path) as lake:
            rows, distinct = lake.sql("SELECT count(*), count(DISTINCT (writer, i)) FROM t").fetchone() or (0, 0)
            snapshots = lake.catalog.current_snapshot().id - before
        lost = max(abs(len(commits) - found) for found in (rows, distinct, snapshots))
        return Race(max(e for _, e in spans) - min(b for b, _ in spans), commits, lost, failed)


def _ready(barrier: Barrier) -> None:
    global _together
    _together = barrier


def _write(path: Path, writer: int, each: int) -> tuple[float, float, list[float], list[str]]:
    seconds, failed = [], []
    with lakehouse.open(path) as lake:
        lake.sql("SELECT count(*) FROM t WHERE i = $i", {"i": 0})  # loads what a first query loads
        _together.wait()
        begun = time.monotonic()
        for i in range(each):
            started = time.monotonic()
            try:
                lake.sql("INSERT INTO t VALUES ($writer, $i)", {"writer": writer, "i": i})
            except lakehouse.LakehouseError as error:
                failed.append(f"{type(error).__name__}: {error}")
            else:
                seconds.append(time.monotonic() - started)
        return begun, time.monotonic(), seconds, failed


if __name__ == "__main__":
    main(measure)
