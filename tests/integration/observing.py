"""`kill -9` of processes that record events, round after round: shared by the test and the benchmark.

In each round two processes record into one journal, in every second one beside a third that compacts it, and say what
was acknowledged. All are killed at a random moment. Then everything that was acknowledged must be there, as it was,
in the order of each writer; of what was under way all of a batch or nothing; and the journal alone must tell the same
as the index.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from patience import receive

from lakehouse.config import ObserverSettings
from lakehouse.observer.model import Event, Problem
from lakehouse.observer.observer import Observer

BATCH = 7
RING = 5
LONGEST = 0.05  # seconds until the kill, after the first word
SETTINGS = ObserverSettings(ring_size=RING)


def event(run: str, number: int) -> Event:
    """The event of that number, whatever process asks."""
    error = Problem("E", f"{run} {number}") if number % 3 == 0 else None
    status = "done" if error is None else "failed"
    return Event(run=run, node=f"n{number}", status=status, error=error, fields={"text": "x" * (number % 50)})


def work(folder: str, run: str, said) -> None:
    """What a writer does until it is killed."""
    observer = Observer(Path(folder), SETTINGS)
    for n in itertools.count(0, BATCH + 1):
        receipts = [observer.record(event(run, n)), observer.record_many(event(run, n + k + 1) for k in range(BATCH))]
        assert all(receipt.persisted for receipt in receipts)
        said.send((n + BATCH, receipts[-1].seq))


def compact(folder: str, run: str, said) -> None:
    """What the compacting process does."""
    observer = Observer(Path(folder), SETTINGS)
    while True:
        observer.compact()
        said.send((-1, 0))


@dataclass
class Summary:
    """What many rounds showed."""

    rounds: int = 0
    acknowledged: int = 0
    recovered: int = 0
    compactions: int = 0
    torn: int = 0


class Observing:
    """Rounds of recording and kill on one journal.

    Args:
        folder: an empty folder.
        seed: of the random moments.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder / "observer"
        self.copy = folder / "copy"
        self.chance = random.Random(seed)
        self.summary = Summary()
        self.observer = Observer(self.folder, SETTINGS)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["lakehouse.observer.observer", "observing"])

    def run(self, rounds: int) -> Summary:
        """So many rounds; AssertionError when something that was acknowledged is not there."""
        for number in range(rounds):
            self.round(number)
        self._check_journal()
        return self.summary

    def close(self) -> None:
        self.observer.close()

    def round(self, number: int) -> None:
        jobs = [(work, f"{number}x"), (work, f"{number}y")] + [(compact, "")] * (number % 2)
        running = []
        for job, name in jobs:
            here, there = self._context.Pipe(duplex=False)
            process = self._context.Process(target=job, args=(str(self.folder), name, there))
            process.start()
            there.close()
            running.append((process, here, name))
        said: dict[str, int] = {}
        processes = [process for process, *_ in running]
        try:
            for _, here, name in running:
                said[name] = max(said.get(name, -1), receive(here, processes, "recording")[0])
            time.sleep(self.chance.uniform(0, LONGEST))
            assert all(process.is_alive() for process, _, _ in running), "a process ended by itself"
        finally:
            for process, _, _ in running:
                process.kill()
            for process, _, _ in running:
                process.join()
        for _, here, name in running:
            try:
                while here.poll(0):
                    said[name] = max(said.get(name, -1), here.recv()[0])
            except (EOFError, OSError):
                pass  # nothing more, or half a message
            here.close()
        self.summary.rounds += 1
        self.summary.compactions += number % 2
        for name in (f"{number}x", f"{number}y"):
            found = self.observer.events(run=name, limit=1_000_000, oldest=True)
            self.summary.acknowledged += said[name] + 1
            self.summary.recovered += len(found)
            assert len(found) > said[name], "what was acknowledged is not there"
            assert len(found) % (BATCH + 1) in (0, 1), "half a batch is there"
            assert [one.node for one in found] == [f"n{n}" for n in range(len(found))], "out of order, or twice"
            for n, one in enumerate(found):
                assert (one.success, one.error, one.fields) == (
                    event(name, n).success, event(name, n).error, event(name, n).fields,
                ), "not as it was"  # fmt: skip
        verified = self.observer.verify()
        assert verified.chain_breaks == 0
        self.summary.torn = max(self.summary.torn, verified.corrupt + verified.torn)

    def _check_journal(self) -> None:
        """The journal alone, as on another machine, tells the same as the index that saw all the kills."""
        self.copy.mkdir()
        shutil.copy(self.observer.journal.path, self.copy)
        again = Observer(self.copy, SETTINGS)
        assert again.events(limit=1_000_000) == self.observer.events(limit=1_000_000)
        assert again.stats() == self.observer.stats()
        again.close()
