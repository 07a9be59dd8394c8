"""A journal of five gigabytes: opened at once, read and verified in flat memory."""

from __future__ import annotations

import time
from pathlib import Path

from _report import Report, fresh, main, percentile, scratch, sync, timed

from lakehouse.journal import Journal
from lakehouse.records import Entry

RECORD = {"op": "add", "content": {"question": "why are evening flights late", "text": "x" * 1500}}


def measure(quick: bool) -> Report:
    """5 GB of records of 1.7 KB (quick: 200 MB)."""
    size = 200_000_000 if quick else 5_000_000_000
    with scratch() as folder:
        path = folder / "long.jsonl"
        records, seconds = _written(path, size)
        size = path.stat().st_size
        sync()  # what was written without waiting is not the first append's to pay for
        (first, appends), _ = fresh(_appended, path)
        (verify, there), peak = fresh(_verified, path)
        assert there == records + 101, "records are missing"
        (read, _), read_peak = fresh(_read, path)
        idle = fresh(_idle)[1]
    report = Report(f"A journal of {size / 1e9:.1f} GB, {records:,} records", "a process that has read nothing")
    report.add("written, not synced", records / seconds, "/s")
    report.add("first append of a new process, durable", first, "ms", at_most=50)
    report.add("next appends, durable, p99", appends, "ms")
    report.add("verified", size / 1e6 / verify, "MB/s")
    report.add("read", size / 1e6 / read, "MB/s")
    report.add("peak memory of verifying", peak, "MB", idle, at_most=1.5)
    report.add("peak memory of reading", read_peak, "MB", idle, at_most=1.5)
    return report


def _written(path: Path, size: int) -> tuple[int, float]:
    journal, records, started = Journal(path, sync="never"), 0, time.perf_counter()
    while not path.exists() or path.stat().st_size < size:
        journal.append(*[RECORD] * 2000)
        records += 2000
    return records, time.perf_counter() - started


def _appended(path: Path) -> tuple[float, float]:
    journal = Journal(path)
    first = timed(lambda: journal.append(RECORD)) * 1000
    return first, percentile([timed(lambda: journal.append(RECORD)) * 1000 for _ in range(100)], 99)


def _verified(path: Path) -> tuple[float, int]:
    started = time.perf_counter()
    verified = Journal(path).verify()
    assert verified.sound, "the journal is damaged"
    return time.perf_counter() - started, verified.records


def _read(path: Path) -> tuple[float, int]:
    started = time.perf_counter()
    count = sum(isinstance(found, Entry) for found in Journal(path).read())
    return time.perf_counter() - started, count


def _idle() -> None:
    Journal(Path("nowhere"))


if __name__ == "__main__":
    main(measure)
