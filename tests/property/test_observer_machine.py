"""The observer against a plain list, step by step: ring, counters, what everybody reads."""

import shutil
import tempfile
from collections import deque
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lakehouse import errors
from lakehouse.config import ObserverSettings
from lakehouse.observer.model import Counters, Event, Problem
from lakehouse.observer.observer import Observer

TEXT = st.text(max_size=4)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT, lambda x: st.lists(x, max_size=2))
NODES = st.sampled_from(["a", "b", None])


@st.composite
def events(draw):
    status = draw(st.sampled_from(["done", "failed", "not_run", "started", "cancelled"]))
    return Event(
        run=draw(TEXT),
        node=draw(NODES),
        status=status,
        error=Problem(draw(TEXT), draw(TEXT)) if status == "failed" else None,
        reason="why" if status == "not_run" else None,
        elapsed=draw(st.none() | st.floats(0, 100)),
        fields={"x": draw(JSON)},
    )


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    @initialize(size=st.integers(1, 4), strict=st.booleans())
    def open(self, size, strict):
        self.settings = ObserverSettings(ring_size=size, require_persist=strict, sync="never")
        self.journal, self.broken = [], False
        self.begin()

    def begin(self):
        self.observer = Observer(self.folder, self.settings)
        self.ring = deque(maxlen=self.settings.ring_size)
        self.loose = {}
        self.counts = {"accepted": 0, "evicted": 0, "persisted": 0, "persist_failed": 0}

    def teardown(self):
        self.observer.close()
        shutil.rmtree(self.folder)

    @rule(given=st.lists(events(), min_size=1, max_size=5))
    def record(self, given):
        if self.broken:
            self.counts["persist_failed"] += len(given)
            if self.settings.require_persist:
                with pytest.raises(errors.DiskFull):
                    self.observer.record_many(given)
                return
        receipt = self.observer.record_many(given)
        assert (receipt.accepted, receipt.persisted) == (len(given), not self.broken)
        for event in given:
            self.counts["accepted"] += 1
            self.counts["evicted"] += len(self.ring) == self.ring.maxlen
            self.ring.append(event.id)
        if not self.broken:
            self.counts["persisted"] += len(given)
            self.journal += [event.id for event in given]
            assert receipt.seq is not None
        else:
            self.loose.update(dict.fromkeys(event.id for event in given))

    @rule(event=events())
    def another_process_records(self, event):
        other = Observer(self.folder, self.settings)
        other.record(event)
        other.close()
        self.journal.append(event.id)

    @rule()
    def the_disk_breaks_or_is_repaired(self):
        self.broken = not self.broken
        if self.broken:

            def full(*_):
                raise errors.DiskFull("no space")

            self.observer.journal.writing = full
        else:
            del self.observer.journal.writing

    @rule()
    def compact(self):
        assert self.observer.compact("30d").dropped == 0

    @precondition(lambda self: self.journal)
    @rule(line=st.sampled_from([b"damage\n", b'{"seq":1,"torn']))
    def damage(self, line):
        with self.observer.journal.path.open("ab") as file:
            file.write(line)

    @precondition(lambda self: not self.broken)
    @rule()
    def open_again(self):
        self.observer.close()
        self.begin()

    @rule()
    def lose_the_index(self):
        for path in self.folder.glob("events.index*"):
            path.unlink()

    @invariant()
    def counters_are_exact(self):
        assert self.observer.counters() == Counters(**self.counts)

    @invariant()
    def the_ring_has_the_newest(self):
        assert [event.id for event in self.observer.ring()] == list(self.ring)[::-1]
        read = {event.id: event for event in self.observer.events(limit=1000)}
        assert [str(event) for event in self.observer.ring()] == [str(read[id]) for id in reversed(self.ring)]

    @invariant()
    def everything_is_read_that_is_somewhere(self):
        found = self.observer.events(limit=1000, oldest=True)
        assert [event.id for event in found if event.seq is not None] == self.journal
        in_memory = [id for id in self.ring if id in self.loose]
        assert [event.id for event in found if event.seq is None] == in_memory
        places = [event.seq for event in found if event.seq is not None]
        assert places == sorted(set(places))
        stats = {one.node: one for one in self.observer.stats()}
        for node in ("a", "b", None):
            ended = [e for e in found if e.node == node and e.status in ("done", "failed", "cancelled")]
            known = stats.get(node)
            assert (0 if known is None else known.runs) == len(ended)
            assert (0 if known is None else known.failures) == sum(e.status != "done" for e in ended)
            took = sorted(e.elapsed for e in ended if e.elapsed is not None)
            if took:
                assert (known.p50, known.slowest) == (took[(len(took) + 1) // 2 - 1], took[-1])


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestMachine = Machine.TestCase
