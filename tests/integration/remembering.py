"""`kill -9` of processes that write one pathway memory, round after round: shared by the test and the benchmark.

In each round two processes work on the memory, in every second one beside a third that compacts it, and say what was
acknowledged. All are killed at a random moment. Then everything that was acknowledged must be there as it was said;
of what was under way, all or nothing of a trace; and the journal alone must tell the same as the index.
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

from lakehouse.pathway.store import Pathway

SHARED = "asked by everybody"
BULK = 30  # traces of one add_many
LONGEST = 0.08  # seconds until the kill, after the first word


def content(uid: str, version: int) -> dict:
    return {"uid": uid, "version": version, "text": "why are evening flights late " * (version * 7)}


def work(folder: str, name: str, said) -> None:
    """What a writer does until it is killed."""
    pathway = Pathway(Path(folder))
    for n in itertools.count():
        uid = f"{name}-{n}"
        said.send(("add", pathway.add(content(uid, 1), uid=uid).uid))
        if n % 2:
            said.send(("update", pathway.update(uid, content(uid, 2)).uid))
        if n % 3 == 0:
            said.send(("retire", pathway.retire(uid, "old").uid))
        if n % 4 == 1:
            said.send(("revise", pathway.revise(uid, content(f"{uid}r", 1), new_uid=f"{uid}r").uid))
        if n % 5 == 2:
            uids = [f"{uid}b{number}" for number in range(BULK)]
            said.send(("bulk", pathway.add_many({"content": content(uid, 1), "uid": uid} for uid in uids)))
        said.send(("replay", pathway.add_idempotent("anything", uid=SHARED).replay_count))


def compact(folder: str, name: str, said) -> None:
    """What the compacting process does."""
    pathway = Pathway(Path(folder))
    while True:
        said.send(("compact", pathway.compact()))


@dataclass
class Summary:
    """What many rounds showed."""

    rounds: int = 0
    acknowledged: int = 0
    finished: int = 0
    """Traces that nobody had acknowledged, and that are there, whole."""
    compactions: int = 0
    rebuilt: int = 0
    """Rounds after which the journal alone gave the same traces as the index."""
    torn: int = 0
    """Lines that a kill left unfinished."""
    seconds: float = 0.0


class Remembering:
    """Rounds of work and kill on one memory.

    Args:
        folder: an empty folder.
        seed: of the random moments.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder / "pathway"
        self.copy = folder / "copy"
        self.chance = random.Random(seed)
        self.summary = Summary()
        self.pathway = Pathway(self.folder)
        self.pathway.add("anything", uid=SHARED)
        self.replays = 0
        self.known: dict[str, tuple[int, bool]] = {SHARED: (1, False)}
        """Version and whether retired, of all that was ever acknowledged."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["lakehouse.pathway.index", "remembering"])

    def close(self) -> None:
        self.pathway.close()

    def run(self, rounds: int) -> Summary:
        """So many rounds; AssertionError when something that was acknowledged is not there."""
        started = time.monotonic()
        for number in range(rounds):
            self.round(number)
        self.summary.seconds = time.monotonic() - started
        return self.summary

    def round(self, number: int) -> None:
        jobs = [(work, f"{number}x"), (work, f"{number}y")] + [(compact, "")] * (number % 2)
        running = []
        for job, name in jobs:
            here, there = self._context.Pipe(duplex=False)
            process = self._context.Process(target=job, args=(str(self.folder), name, there))
            process.start()
            there.close()
            running.append((process, here))
        said = []
        processes = [process for process, *_ in running]
        try:
            for _, here in running:
                said.append(receive(here, processes, "a process"))
            time.sleep(self.chance.uniform(0, LONGEST))
            assert all(process.is_alive() for process, _ in running), "a process ended by itself"
        finally:
            for process, _ in running:
                process.kill()
            for process, _ in running:
                process.join()
        for _, here in running:
            try:
                while here.poll(0):
                    said.append(here.recv())
            except (EOFError, OSError):
                pass  # nothing more, or half a message
            here.close()
        self.summary.rounds += 1
        self._check(number, said)

    def _check(self, number: int, said: list) -> None:
        new: dict[str, tuple[int, bool]] = {}
        for did, what in said:
            if did == "compact":
                self.summary.compactions += 1
                continue
            self.summary.acknowledged += 1
            if did == "replay":
                self.replays = max(self.replays, what)
            elif did == "bulk":
                new.update(dict.fromkeys(what, (1, False)))
            else:
                version, retired = new.get(what, (1, False))
                new[what] = (2 if did == "update" else version, retired or did == "retire")
        self.known.update(new)
        found = {trace.uid: trace for trace in self.pathway.get_all(include_retired=True)}
        assert set(self.known) <= set(found), "what was acknowledged is not there"
        for uid, trace in found.items():
            if uid == SHARED:
                continue
            assert trace.content == content(uid, trace.version), "half a trace"
            version, retired = self.known.setdefault(uid, (trace.version, trace.retired))
            # One piece of work of its writer may have been under way.
            assert trace.version >= version, "an acknowledged update is not there"
            assert trace.retired >= retired, "an acknowledged retirement is not there"
            if uid not in new and uid.startswith((f"{number}x", f"{number}y")):
                self.summary.finished += 1
            self.known[uid] = (trace.version, trace.retired)
        shared = found[SHARED].replay_count
        assert self.replays <= shared <= self.replays + 2, "replays were lost or counted twice"
        self.replays = shared
        verified = self.pathway.verify()
        assert verified.chain_breaks == 0, "the chain of the journal is broken"
        self.summary.torn = max(self.summary.torn, verified.corrupt + verified.torn)
        if number % 10 == 9:
            self._check_journal(found)

    def _check_journal(self, found: dict) -> None:
        """The journal alone, as on another machine, tells the same as the index that saw all the kills."""
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()
        shutil.copy(self.pathway.journal.path, self.copy)
        again = Pathway(self.copy)
        assert {trace.uid: trace for trace in again.get_all(include_retired=True)} == found
        again.close()
        self.summary.rebuilt += 1
