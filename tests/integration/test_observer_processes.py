"""The observer with many processes, with `kill -9`, and on disks that cannot be written."""

import os
import subprocess

import observing
import pytest
from test_disk_full import disk  # noqa: F401 - a fixture

from lakehouse import errors
from lakehouse.config import ObserverSettings
from lakehouse.observer.model import Counters, Event, Problem
from lakehouse.observer.observer import Observer

WRITE = """
from pathlib import Path
import sys, threading
from lakehouse.config import ObserverSettings
from lakehouse.observer.model import Event
from lakehouse.observer.observer import Observer
observer = Observer(Path(args[0]), ObserverSettings(ring_size=10, sync="never"))
say("ready"); sys.stdin.readline()
for n in range(60):
    observer.record(Event(run=args[1], node=f"n{2 * n}", status="done"))
    observer.record_many([Event(run=args[1], node=f"n{2 * n + 1}", status="skipped", reason="same")])
    if n % 20 == 0:
        assert len(observer.events(run=args[1], limit=1000)) == 2 * n + 2
counts = observer.counters()
say([[event.node for event in observer.ring()], counts.accepted, counts.evicted, counts.persisted, counts.persist_failed])
observer.close()
"""


def test_eight_writers_with_full_rings_and_exact_counters(tmp_path, child):
    """Each has a ring of its own; the journal is everybody's, and everybody reads all of it."""
    writers = [child(WRITE, tmp_path / "observer", f"w{n}") for n in range(8)]
    for writer in writers:
        writer.hear()
    for writer in writers:
        writer.go()
    for writer in writers:
        ring, *counts = writer.end()[0]
        assert counts == [120, 110, 120, 0]
        assert ring == [f"n{n}" for n in range(119, 109, -1)]
    here = Observer(tmp_path / "observer", ObserverSettings())
    found = here.events(limit=10_000, oldest=True)
    assert [event.seq for event in found] == list(range(1, 961))
    for n in range(8):
        assert [event.node for event in found if event.run == f"w{n}"] == [f"n{k}" for k in range(120)]
    assert here.verify().sound
    assert here.verify().records == 960
    here.close()


def test_fifteen_rounds_of_kill_9(tmp_path):
    """Acknowledged ⊆ recovered; more rounds in `benchmarks/observer.py`."""
    rounds = observing.Observing(tmp_path, seed=8)
    try:
        summary = rounds.run(15)
    finally:
        rounds.close()
    print(summary)
    assert summary.acknowledged > 200  # they were really working when they were killed
    assert summary.recovered >= summary.acknowledged


# disks


def done(run):
    return Event(run=run, status="done", elapsed=1.0)


def failed(run):
    return Event(run=run, status="failed", error=Problem("E", "m"))


@pytest.fixture
def read_only(tmp_path):
    """Makes a folder read-only, for root as well, and writable again."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    mounted = os.geteuid() == 0
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)

    def turn(on):
        if mounted:
            subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(folder)], check=True)
            return
        for path in (folder, folder / "observer"):
            path.chmod(0o555 if on else 0o755)

    yield folder, turn
    turn(False)
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_read_only_folder(read_only, indexed):
    folder, turn = read_only
    first = Observer(folder / "observer", ObserverSettings())
    first.record_many([done("a"), done("b")])
    if indexed:
        assert len(first.events()) == 2
    first.close()
    turn(True)
    observer = Observer(folder / "observer", ObserverSettings())
    strict = Observer(folder / "observer", ObserverSettings(require_persist=True))
    receipt = observer.record(failed("c"))
    assert (receipt.accepted, receipt.persisted) == (1, False)
    assert "Read-only" in receipt.problem or "Permission" in receipt.problem
    with pytest.raises(errors.JournalError):
        strict.record(failed("d"))
    assert [event.run for event in observer.events()] == ["c", "b", "a"]
    assert [event.run for event in strict.events()] == ["b", "a"]
    assert [(one.runs, one.failures) for one in observer.stats()] == [(3, 1)]
    assert observer.counters() == Counters(accepted=1, persist_failed=1)
    assert strict.counters() == Counters(persist_failed=1)
    turn(False)
    assert strict.record(done("e")).persisted
    assert [event.run for event in strict.events()] == ["e", "b", "a"]
    observer.close()
    strict.close()


def test_a_full_disk(disk):  # noqa: F811 - the fixture
    observer = Observer(disk.folder / "observer", ObserverSettings())
    strict = Observer(disk.folder / "observer", ObserverSettings(require_persist=True))
    observer.record_many([done("a"), done("b")])
    assert len(observer.events()) == 2
    observer.record(done("c"))  # the index has not heard of it when the disk is full
    with disk.full():
        receipt = observer.record(failed("d" * 5000))
        assert (receipt.accepted, receipt.persisted) == (1, False)
        assert receipt.problem
        with pytest.raises((errors.DiskFull, errors.JournalError)):
            strict.record(failed("e" * 5000))
        assert observer.counters() == Counters(accepted=4, persisted=3, persist_failed=1)
        assert strict.counters() == Counters(persist_failed=1)
        assert [event.run[0] for event in observer.ring()] == ["d", "c", "b", "a"]
    assert [event.run[0] for event in observer.events()] == ["d", "c", "b", "a"]
    assert strict.record(done("f")).persisted
    assert [event.run[0] for event in strict.events()] == ["f", "c", "b", "a"]
    assert strict.verify().sound
    observer.close()
    strict.close()


def test_reading_on_a_full_disk(disk):  # noqa: F811 - the fixture
    """Where the index cannot be brought up to date it is made in the temporary folder."""
    if type(disk).__name__ == "Limited":  # then no file can be written anywhere, the temporary folder included
        return
    writer = Observer(disk.folder / "observer", ObserverSettings())
    writer.record_many([done("a"), done("b")])
    assert len(writer.events()) == 2
    writer.record_many(done(f"c{n}") for n in range(500))
    with disk.full():
        reader = Observer(disk.folder / "observer", ObserverSettings())
        assert len(reader.events(limit=1000)) == 502
        assert len(writer.events(limit=1000)) == 502
        reader.close()
    writer.record(done("after"))
    assert [event.run for event in writer.events(limit=2)] == ["after", "c499"]
    writer.close()
