"""`kill -9` in the middle of work, again and again, on one lake: shared by the test (fifty rounds) and the benchmark.

In each round a process of its own works on the lake: it feeds two tables and does one kind of work between, and says
what was acknowledged. It is killed at a random moment. The lake must then be exactly what the acknowledged work made
it, or that and the one piece of work that was under way; older snapshots as they were; the doctor finds no fault.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from patience import explain_on_signal, receive

import lakehouse
from lakehouse.lake import verify_backup

KINDS = ("ingest", "upsert", "rollback", "delete", "compact", "expire", "clean", "backup")
ROWS = 150  # of one load
REMEMBERED = 40  # snapshots whose content is known
LOOKED_AT = 2  # of these in each round
FIRST = 0.1  # seconds that a piece of work may take, until it is known


@dataclass
class State:
    """What is in the two tables."""

    t: dict[int, int] = field(default_factory=dict)
    """Rows by number of the load."""
    u: dict[int, int] = field(default_factory=dict)
    """Value by key."""

    def copy(self) -> State:
        return State(dict(self.t), dict(self.u))


def after(state: State, kind: str, n: int, base: State) -> State:
    """The state after one piece of work, in plain Python."""
    new = state.copy()
    if kind in ("ingest", "feed"):
        new.t[n] = new.t.get(n, 0) + (ROWS if kind == "ingest" else 3)
    elif kind == "upsert":
        new.u.update(dict.fromkeys(keys(n), n))
    elif kind == "rollback":
        new.u = dict(base.u)
    elif kind == "delete":
        new.t.pop(oldest(n), None)
    return new


def keys(n: int) -> range:
    return range(n % 7 * 20, n % 7 * 20 + 50)


def oldest(n: int) -> int:
    return n - 6


def work(folder: str, place: str, kind: str, start: int, base: int, said) -> None:
    """What the process does until it is killed."""
    import pyarrow as pa

    explain_on_signal(Path(folder).parent)
    with lakehouse.open(folder, settings={"maintenance": {"keep_files": "0s"}}) as lake:
        table = lake.catalog.table("u")
        for n in itertools.count(start):
            for piece in ("feed", kind):
                snapshot = None
                if piece == "feed":
                    snapshot = lake.sql(f"INSERT INTO t SELECT {n}, range FROM range(3)").snapshot
                elif piece == "ingest":
                    frame = pa.table({"n": pa.array([n] * ROWS, pa.int64()), "i": pa.array(range(ROWS), pa.int64())})
                    snapshot = lake.ingest(frame, "t").snapshot
                elif piece == "upsert":
                    ids = keys(n)
                    frame = pa.table({"id": pa.array(ids, pa.int64()), "v": pa.array([n] * len(ids), pa.int64())})
                    snapshot = lake.ingest(frame, "u", mode="upsert", key="id", force=True).snapshot
                elif piece == "rollback":
                    table.rollback(base)
                elif piece == "delete":
                    snapshot = lake.sql(f"DELETE FROM t WHERE n = {oldest(n)}").snapshot
                elif piece == "compact":
                    lake.maintenance.compact("t")
                    lake.maintenance.compact("u")
                elif piece == "expire":
                    lake.maintenance.expire("1s", dry_run=False)
                elif piece == "clean":
                    lake.maintenance.compact("t")
                    lake.maintenance.clean(dry_run=False)
                elif piece == "backup":
                    snapshot = lake.backup(place).snapshot
                said.send((piece, n, snapshot))


@dataclass
class Summary:
    """What many rounds showed."""

    rounds: Counter = field(default_factory=Counter)
    """By kind of work."""
    acknowledged: int = 0
    finished: int = 0
    """Pieces of work under way that had been committed all the same."""
    undone: int = 0
    """Pieces of work under way of which nothing stayed."""
    snapshots: int = 0
    """Older snapshots that were read again and compared."""
    restored: int = 0
    notes: int = 0
    """Left-overs that the doctor told of."""
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.rounds.items()))
        return (
            f"{sum(self.rounds.values())} rounds in {self.seconds:.0f} s ({kinds}): {self.acknowledged} acknowledged and"
            f" none missing; under way when killed: {self.finished} whole, {self.undone} not there;"
            f" {self.snapshots} older snapshots as they were; {self.restored} backups restored equal;"
            f" {self.notes} left-overs told of, no fault"
        )


class Crashing:
    """Rounds of work and kill on one lake.

    Args:
        folder: an empty folder for the lake and its backup.
        seed: of the random moments.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.place = folder / "backup"
        self.chance = random.Random(seed)
        self.summary = Summary()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["lakehouse.lake", "pyarrow", "crashing"])
        self.lake = lakehouse.open(folder / "lake", settings={"query": {"cache_size": "0B"}})
        self.lake.sql("CREATE TABLE t (n BIGINT, i BIGINT)")
        self.lake.sql("CREATE TABLE u AS SELECT range AS id, 0::BIGINT AS v FROM range(40)")
        self.state = State({}, dict.fromkeys(range(40), 0))
        self.base_state = self.state.copy()
        self.base = self.lake.catalog.tag_snapshot("base")  # tagged: it never expires
        self.known = {self.base: self.state.copy()}
        self.lake.backup(self.place)
        self.number = 10
        self.pace: dict[str, float] = {}
        """Seconds that a piece of work took last: the kill comes within them, on a slow machine as well."""

    def close(self) -> None:
        self.lake.close()

    def run(self, rounds: int) -> Summary:
        """So many rounds, each kind of work in turn; AssertionError when something promised does not hold."""
        started = time.monotonic()
        for number in range(rounds):
            self.round(KINDS[number % len(KINDS)])
        self.summary.seconds = time.monotonic() - started
        return self.summary

    def round(self, kind: str) -> None:
        here, there = self._context.Pipe(duplex=False)
        arguments = (str(self.lake.path), str(self.place), kind, self.number, self.base, there)
        process = self._context.Process(target=work, args=arguments)
        process.start()
        there.close()
        said: list = []
        try:
            # Mostly the kind itself is then under way, and not the feed before it.
            for _ in range(self.chance.choice((1, 1, 3, 3, 2))):
                before = time.monotonic()
                said.append(receive(here, [process], kind, self.folder))
                if said[-1][0] == kind:
                    self.pace[kind] = time.monotonic() - before
            time.sleep(self.chance.uniform(0, 1.2 * self.pace.get(kind, FIRST)))
            assert process.is_alive(), f"{kind} ended by itself"
        finally:
            process.kill()
            process.join()
        try:
            while here.poll(0):
                said.append(here.recv())
        except (EOFError, OSError):
            pass  # nothing more, or half a message
        here.close()
        self._check(kind, said)
        self.summary.rounds[kind] += 1
        self.summary.acknowledged += len(said)

    def _check(self, kind: str, said: list) -> None:
        state = self.state
        expected = [
            (piece, n) for n in range(self.number, self.number + len(said) // 2 + 2) for piece in ("feed", kind)
        ]
        assert [(piece, n) for piece, n, _ in said] == expected[: len(said)]
        for piece, n, snapshot in said:
            state = after(state, piece, n, self.base_state)
            if snapshot is not None and piece != "backup":
                self.known[snapshot] = state.copy()
        piece, n = expected[len(said)]
        whole = after(state, piece, n, self.base_state)
        found = self._read()
        assert found in (state, whole), f"after {len(said)} acknowledged, {piece} {n} under way"
        if state != whole:
            self.summary.finished += found == whole
            self.summary.undone += found == state
        self.state = found
        self.number += len(said) // 2 + 8
        self._check_past()
        diagnosis = self.lake.doctor()
        assert diagnosis.healthy, str(diagnosis)
        self.summary.notes += len(diagnosis.notes)
        if kind == "backup":
            self._check_backup([snapshot for piece, _, snapshot in said if piece == "backup"])

    def _read(self, lake=None, at: int | None = None) -> State:
        lake = lake or self.lake
        pin = "" if at is None else f" AT (VERSION => {at})"
        both = (
            f"SELECT 't', n, count(*) FROM t{pin} GROUP BY n UNION ALL SELECT 'u', id, max(v) FROM u{pin} GROUP BY id"
            f" UNION ALL SELECT 'twice', id, count(*) FROM u{pin} GROUP BY id HAVING count(*) > 1"
        )
        found: dict[str, dict[int, int]] = {"t": {}, "u": {}, "twice": {}}
        for table, key, value in lake.sql(both).fetchall():
            found[table][key] = value
        assert not found["twice"], "a key is there twice"
        return State(found["t"], found["u"])

    def _check_past(self) -> None:
        there = {snapshot.id for snapshot in self.lake.catalog.snapshots()}
        assert self.base in there
        self.known = {id: state for id, state in self.known.items() if id in there}
        for id in self.chance.sample(sorted(self.known), min(LOOKED_AT, len(self.known))):
            assert self._read(at=id) == self.known[id], f"snapshot {id} is not what it was"
            self.summary.snapshots += 1
        for id in sorted(self.known)[1:-REMEMBERED]:
            del self.known[id]

    def _check_backup(self, acknowledged: list[int]) -> None:
        manifest = verify_backup(self.place)
        assert not acknowledged or manifest.snapshot >= acknowledged[-1]
        target = self.folder / "restored"
        shutil.rmtree(target, ignore_errors=True)
        lakehouse.restore(self.place, target)
        with lakehouse.open(target, read_only=True) as restored:
            assert restored.catalog.current_snapshot().id == manifest.snapshot
            assert restored.catalog.snapshot_tags() == {"base": self.base}
            assert self._read(restored, at=self.base) == self.base_state
            if manifest.snapshot in self.known:
                assert self._read(restored) == self.known[manifest.snapshot]
                self.summary.restored += 1
            assert restored.doctor().healthy
