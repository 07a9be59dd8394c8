"""The corpus of statements from strangers: against the gate alone, and end to end through a worker.

After each, the lake, the disk and the processes are as before, unless it was a change that may be made; sockets and
settings are looked at after every fifty.
"""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest
from strangers import entries, make

import lakehouse
from lakehouse.errors import LakehouseError, NotFound, SqlRefused, SyntaxFault
from lakehouse.query.gate import Gate, names

_ERRORS = {"refused": SqlRefused, "syntax": SyntaxFault}
_ENOUGH = 32 << 20  # bytes of a result that has no end
_PATIENCE = 0.3  # seconds for a statement that would take for ever
_NOW_AND_THEN = 50  # statements


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make(tmp_path_factory.mktemp("strangers"))


class World:
    """What a statement must leave as it was; `rare` takes long to look at.

    `others` are the children of this process that other tests started (a PostgreSQL, say): what they do is theirs.
    """

    def __init__(self, lake, place, others) -> None:
        self._metadata = lake.catalog.metadata
        self._place = place
        self._others = others
        self._before = _sockets(os.getpid())  # of earlier tests: they may close at any moment
        self._duckdb = lake._database.cursor()

    def state(self):
        files = [
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for folder in (self._place.folder, self._place.lake / "data")
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        grandchildren = [_children(pid) for pid in self._workers()]
        return {
            "snapshot": self._metadata.current(),
            "files": files,
            "beside the lake": sorted(os.listdir(self._place.lake.parent)),
            "processes of a worker": [pids for pids in grandchildren if pids],
        }

    def rare(self):
        ours = set().union(*(_sockets(pid) for pid in (os.getpid(), *self._workers())))
        return {
            "sockets of the internet": [inode for inode in _internet() if inode in ours - self._before],
            "settings": self._duckdb.execute("SELECT name, value FROM duckdb_settings()").fetchall(),
        }

    def _workers(self):
        return [pid for pid in _children(os.getpid()) if pid not in self._others]


class AloneGate:
    """The gate, in this process, with the names of the newest snapshot."""

    def __init__(self, lake) -> None:
        self._metadata = lake.catalog.metadata
        self._parser = duckdb.connect(config={"threads": 1})
        self._made = (-1, None)

    def outcome(self, door, sql):
        if self._made[0] != (now := self._metadata.current()):
            self._made = (now, Gate(self._parser, names(self._metadata, now)))
        try:
            passed = getattr(self._made[1], door)(sql)
        except LakehouseError as error:
            return _kind(error)
        assert passed.kind == door
        return "passes"


def test_there_are_enough():
    found = entries()
    assert len(found) >= 1400
    assert {entry.must for entry in found} == {*_ERRORS, "missing", "passes", "fails", "held"}
    assert all(entry.why for entry in found)
    assert len({entry.sql for entry in found}) == len(found)


def test_the_gate_and_the_worker(place):
    wrong = []
    limits = {"sandbox_memory": "200MB", "sandbox_spill": "64MB", "sandbox_workers": 2}
    others = _children(os.getpid())
    with lakehouse.open(place.lake, settings={"query": limits}) as lake:
        sandbox, world, alone = lake.sandbox("stranger"), World(lake, place, others), AloneGate(lake)
        assert sandbox.protection == "full", f"this machine cannot show that the sandbox holds: {sandbox.reason}"
        before, rare = world.state(), world.rare()
        for number, entry in enumerate(entries()):
            sql = place.put(entry.sql)
            for door in ("read", "write") if entry.door == "both" else (entry.door,):
                gated = alone.outcome(door, sql)
                outcome, told = _outcome(sandbox, door, sql, held=entry.must == "held")
                after = world.state()
                changed = [what for what in before if before[what] != after[what]]
                if entry.must == "passes" and door == "write":
                    changed = [what for what in changed if what not in ("snapshot", "files")]
                before = after
                if gated != ("passes" if entry.must in ("fails", "held") else entry.must):
                    wrong.append(
                        f"{entry.where}, {door}: the gate alone must say {entry.must}, says {gated}: {sql[:200]!r}"
                    )
                if outcome != entry.must or changed or _leaks(told, sql, place):
                    wrong.append(
                        f"{entry.where}, {door}: must be {entry.must}, is {outcome}, changed {changed}: {told!r}"
                        f" {sql[:200]!r} ({entry.why})"
                    )
            if number % _NOW_AND_THEN == 0 and (now := world.rare()) != rare:
                wrong.append(
                    f"{entry.where}, or one before it, changed {[what for what in rare if rare[what] != now[what]]}"
                )
        assert world.rare() == rare
        rows = sandbox.sql("SELECT count(*) AS n, sum(amount) AS amount FROM orders").arrow().to_pylist()
        assert rows == [{"n": 100, "amount": 7425.0}]
    assert not wrong, "\n".join(wrong)


def _outcome(sandbox, door, sql, *, held):
    """What became of a statement, as in the corpus, and what its sender was told."""
    told = ""
    try:
        if door == "write":
            sandbox.run(sql)
        else:
            with sandbox.sql(sql, timeout=_PATIENCE if held else 20) as answer:
                size = 0
                for batch in answer.batches():
                    size += batch.nbytes
                    if sql.upper().startswith(("EXPLAIN", "DESCRIBE", "SUMMARIZE", "SHOW")):
                        told += str(batch.to_pylist())
                    if held and size > _ENOUGH:
                        break
    except LakehouseError as error:
        kind = _kind(error)
        return ("held" if held and kind == "fails" else kind), str(error)
    return ("held" if held else "passes"), told


def _kind(error):
    if isinstance(error, NotFound) and error.code in ("table_not_found", "schema_not_found"):
        return "missing"
    return next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "fails")


def _leaks(told, sql, place):
    """Whether a message names a path or an account that the statement did not name itself."""
    words = [str(place.lake.parent), str(Path.home()), ".parquet", ".sqlite", "ducklake-", "0x"]
    for own in (str(place.secret), str(place.folder), str(place.lake)):
        if own in sql:
            told = told.replace(own, "")
    return any(word in told for word in words if word not in sql)


def _sockets(pid):
    """The inodes of the sockets of a process; none when it has just ended."""
    found = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("socket:"):
                found.add(link[8:-1])
    except OSError:
        pass  # it, or one of its files, has just been closed
    return found


def _internet():
    """The inodes of all sockets of the internet that there are."""
    for name in ("tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/self/net/{name}") as lines:
            next(lines)
            for line in lines:
                yield line.split()[9]


def _children(pid):
    """The processes that a process started."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += file.read_text().split()
        except OSError:
            continue  # the thread, or the process, has just ended
    return found
