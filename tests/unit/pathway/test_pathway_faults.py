"""A full disk at every single step of every operation: it raises, nothing half is left, and the next try succeeds."""

import errno
import json
import os
import resource
import shutil
import signal
from contextlib import contextmanager

import pytest

from lakehouse import errors
from lakehouse.pathway.store import Pathway

STEPS = ("write", "fdatasync", "fsync", "replace")
OPERATIONS = {
    "add": lambda memory: memory.add({"q": "new"}),
    "add named": lambda memory: memory.add({"q": "new"}, uid="new"),
    "add again": lambda memory: memory.add_idempotent("again", uid="a"),
    "add unless there": lambda memory: memory.add_idempotent({"q": "other"}),
    "add many": lambda memory: memory.add_many([{"content": n} for n in range(20)]),
    "update": lambda memory: memory.update("a", "updated"),
    "revise": lambda memory: memory.revise("a", "revised"),
    "retire": lambda memory: memory.retire("a", "old"),
    "restore": lambda memory: memory.restore("r"),
    "feedback": lambda memory: memory.feedback("a", 0.5, "good"),
    "compact": lambda memory: memory.compact(),
    "look at damage": lambda memory: memory.get_all(),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled") / "pathway"
    memory = Pathway(folder)
    memory.add("a", uid="a")
    memory.add("r", uid="r")
    memory.retire("r")
    memory.get_all()
    memory.close()
    with memory.journal.path.open("ab") as file:  # there is something for the quarantine, too
        file.write(b"damage\n")
    return folder


class Disk:
    """Fails at one step: `full` raises there, `short` writes half of it there, `over` raises from there on."""

    def __init__(self, monkeypatch, mode, at):
        self.mode, self.at, self.count, self.failed = mode, at, 0, False
        for name in STEPS:
            monkeypatch.setattr(os, name, self._step(name, getattr(os, name)))

    def _step(self, name, real):
        def step(*arguments):
            here, self.count = self.count, self.count + 1
            if here < self.at or (here > self.at and self.mode != "over"):
                return real(*arguments)
            self.failed = True
            if self.mode == "short" and name == "write":
                return real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        return step


def state(memory):
    traces = memory.get_all(include_retired=True)
    return sorted(json.dumps([t.content, t.version, t.retired, t.replay_count, t.score]) for t in traces)


def fresh_state(memory, folder):
    """As the journal alone tells it."""
    folder.mkdir()
    shutil.copy(memory.journal.path, folder)
    again = Pathway(folder)
    found = state(again)
    again.close()
    shutil.rmtree(folder)
    return found


@pytest.mark.parametrize("mode", ["full", "short", "over"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_full_disk_at_every_step(filled, tmp_path, monkeypatch, operation, mode):
    act, failures = OPERATIONS[operation], 0
    shutil.copytree(filled, tmp_path / "smooth")
    smooth = Pathway(tmp_path / "smooth")
    before = ['["a", 1, false, 0, null]', '["r", 1, true, 0, null]']
    act(smooth)
    after = state(smooth)
    smooth.close()
    for at in range(100):
        shutil.copytree(filled, tmp_path / "now")
        memory = Pathway(tmp_path / "now")
        with monkeypatch.context() as patched:
            disk = Disk(patched, mode, at)
            try:
                act(memory)
                raised = False
            except errors.DiskFull:
                raised = True
        assert raised == disk.failed, at
        assert state(memory) == (before if raised else after), at
        assert fresh_state(memory, tmp_path / "fresh") == state(memory), at
        if raised:
            failures += 1
            act(memory)
            assert state(memory) == after, at
            assert fresh_state(memory, tmp_path / "fresh") == after, at
        lines = memory.journal.quarantine.read_bytes().splitlines()
        kept = [json.loads(line)["line"] for line in lines if line.endswith(b"}")]  # a short write leaves a piece
        assert kept == ["damage"], at
        memory.close()
        shutil.rmtree(tmp_path / "now")
        if not raised:
            break
    assert failures > 0


@pytest.mark.parametrize("mode", ["full", "short", "over"])
def test_a_full_disk_at_every_step_of_an_import_and_an_export(tmp_path, monkeypatch, mode):
    source = Pathway(tmp_path / "source", sync="never")
    source.add("one", uid="one")
    source.revise("one", "two", new_uid="two")
    source.retire("one", "old")
    source.feedback("two", 0.5)
    text, complete = tmp_path / "out.ndjson", state(source)
    for at in range(100):
        with monkeypatch.context() as patched:
            disk = Disk(patched, mode, at)
            try:
                source.export(text)
            except errors.DiskFull:
                pass
        assert list(tmp_path.glob("*.part")) == []
        assert text.exists() != disk.failed or at > 1  # at last only the folder was not synced
        if not disk.failed:
            break
        text.unlink(missing_ok=True)
    for at in range(100):
        memory = Pathway(tmp_path / f"memory{at}")
        with monkeypatch.context() as patched:
            disk = Disk(patched, mode, at)
            try:
                memory.import_(text)
            except errors.DiskFull:
                pass
        assert set(state(memory)) <= set(complete), at
        memory.import_(text)
        assert state(memory) == complete, at
        memory.close()
        if not disk.failed:
            break
    assert at > 3


@contextmanager
def files_no_larger_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_an_index_that_cannot_grow_loses_nothing_that_was_acknowledged(tmp_path):
    """SQLite's own writes fail here, at many places of its files."""
    told = failed = 0
    for size in range(0, 300_000, 20_000):
        memory = Pathway(tmp_path / str(size))
        acknowledged = {}
        with files_no_larger_than(size):
            for number in range(60):
                for act, arguments in (
                    (memory.add, {"content": "x" * 100 + str(number), "uid": f"a{number}"}),
                    (memory.add, {"content": "x" * 100 + str(number)}),
                    (memory.update, {"content": "y", "uid": f"a{number}"}),
                    (memory.retire, {"uid": f"a{number}"}),
                ):
                    try:
                        trace = act(**arguments)
                    except errors.LakehouseError:
                        failed += 1
                    else:
                        acknowledged[trace.uid] = trace
                        told += 1
        assert {uid: memory.get(uid) for uid in acknowledged} == acknowledged
        assert len(memory.get_all(include_retired=True)) == len(acknowledged)
        assert memory.verify().sound
        memory.close()
    assert told > 100
    assert failed > 100
