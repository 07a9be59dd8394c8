"""`kill -9` at random moments of loads, upserts, rollbacks, deletes, maintenance and backup: fifty rounds."""

import itertools
import multiprocessing
import random
import threading
import time

import crashing
import patience
import pytest

import lakehouse


def test_fifty_rounds(tmp_path):
    rounds = crashing.Crashing(tmp_path, seed=3)
    try:
        summary = rounds.run(50)
    finally:
        rounds.close()
    print(summary)
    assert sum(summary.rounds.values()) == 50
    assert set(summary.rounds) == set(crashing.KINDS)
    assert summary.acknowledged > 50  # it was really working when it was killed
    assert summary.snapshots > 50


def test_a_restore_that_is_killed_leaves_a_whole_lake_or_none(lake, child, tmp_path):
    for n in range(20):
        lake.storage.put(f"object-{n}", bytes([n]) * 100_000)
    lake.sql("CREATE TABLE t AS SELECT range AS x FROM range(200000)")
    lake.backup(tmp_path / "backup")
    chance = random.Random(4)
    target = tmp_path / "again"
    code = """
        import lakehouse.lake
        say({"ready": 1})
        lakehouse.restore(args[0], args[1])
        say({"done": 1})
        sys.stdin.readline()
    """
    for _ in range(4):
        restorer = child(code, tmp_path / "backup", target)
        assert restorer.hear() == {"ready": 1}
        time.sleep(chance.uniform(0, 0.1))
        said = restorer.kill()
        if target.exists():
            break
        assert said == []
    if not target.exists():
        lakehouse.restore(tmp_path / "backup", target)
    with lakehouse.open(target) as again:
        assert again.sql("SELECT count(*), sum(x) FROM t").fetchall() == [(200_000, 19_999_900_000)]
        assert again.storage.get("object-7") == b"\7" * 100_000
        assert again.doctor(checksums=True).healthy


def silent(said, folder):
    patience.explain_on_signal(folder)
    said.send("here")
    threading.Event().wait()


def test_patience_is_for_a_busy_machine_and_not_for_a_process_that_hangs(tmp_path, monkeypatch):
    """It ends when the process could have got on for so long; the error shows where it hangs."""
    monkeypatch.setattr(patience, "LIMIT", 0.5)
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=silent, args=(there, tmp_path))
    process.start()
    try:
        assert here.recv() == "here"
        monkeypatch.setattr(patience, "_waited", lambda pids, seconds=itertools.count(): {1: next(seconds) * 0.1})
        with pytest.raises(AssertionError, match=r"(?s)work does not get on: .* line .* in silent"):
            patience.receive(here, [process], "work", tmp_path)  # of each 0.2 s it waited 0.1 for a processor
        monkeypatch.setattr(patience, "_waited", lambda pids, seconds=itertools.count(): {1: next(seconds)})
        threading.Timer(1.0, process.kill).start()
        there.close()
        with pytest.raises(EOFError):
            patience.receive(here, [process], "work", tmp_path)  # all the time: nobody gives up
    finally:
        process.kill()
        process.join()
