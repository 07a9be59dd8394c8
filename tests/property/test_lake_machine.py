"""A state machine over one table: loads, updates, deletes, other columns, rollback, expiry, beside a plain model."""

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import lakehouse

NUMBERS = st.integers(0, 40)
FAST = {"catalog": {"sync": False}, "query": {"cache_size": "0B"}}


class LakeMachine(RuleBasedStateMachine):
    """The model: columns and rows of the table, now and at every snapshot that is still there."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.lake = lakehouse.open(Path(self.folder.name, "lake"), settings=FAST)
        self.lake.sql("CREATE TABLE t (k BIGINT, v BIGINT)")
        self.columns = ["k", "v"]
        self.rows = []
        self.past = {}
        self.tagged = set()
        self.made = 0
        self.committed()

    def committed(self):
        self.past[self.lake.catalog.current_snapshot().id] = (list(self.columns), list(self.rows))

    def frame(self, start, count):
        values = {name: pa.array([start * 7 + i for i in range(count)], pa.int64()) for name in self.columns}
        return pa.table({**values, "k": pa.array(range(start, start + count), pa.int64())})

    def read(self, at=None):
        pin = "" if at is None else f" AT (VERSION => {at})"
        result = self.lake.sql(f"SELECT * FROM t{pin}")
        return list(result.columns), result.fetchall()

    def new_rows(self, start, count):
        return [tuple(start + i if name == "k" else start * 7 + i for name in self.columns) for i in range(count)]

    @rule(start=NUMBERS, count=st.sampled_from([1, 3, 15, 40]))
    def load(self, start, count):
        receipt = self.lake.ingest(self.frame(start, count), "t", force=True)
        assert receipt.rows == count
        self.rows += self.new_rows(start, count)
        self.committed()

    @rule(start=NUMBERS, count=st.sampled_from([2, 20]))
    def replace(self, start, count):
        self.lake.ingest(self.frame(start, count), "t", mode="replace", force=True)
        self.rows = self.new_rows(start, count)
        self.committed()

    @rule(start=NUMBERS, width=st.integers(0, 15))
    def delete(self, start, width):
        self.lake.sql(f"DELETE FROM t WHERE k BETWEEN {start} AND {start + width}")
        self.rows = [row for row in self.rows if not start <= row[0] <= start + width]
        self.committed()

    @rule(start=NUMBERS, width=st.integers(0, 15))
    def update(self, start, width):
        self.lake.sql(f"UPDATE t SET k = k + 100 WHERE k BETWEEN {start} AND {start + width}")
        self.rows = [(k + 100, *rest) if start <= k <= start + width else (k, *rest) for k, *rest in self.rows]
        self.committed()

    @rule(default=st.none() | st.integers(0, 9))
    def add_column(self, default):
        self.made += 1
        name = f"c{self.made}"
        self.lake.catalog.table("t").add_column(name, "BIGINT", default=default)
        self.columns.append(name)
        self.rows = [(*row, default) for row in self.rows]
        self.committed()

    @precondition(lambda self: len(self.columns) > 2)
    @rule(which=st.integers(0, 9))
    def drop_column(self, which):
        at = 1 + which % (len(self.columns) - 1)
        self.lake.catalog.table("t").drop_column(self.columns.pop(at))
        self.rows = [row[:at] + row[at + 1 :] for row in self.rows]
        self.committed()

    @rule(which=st.integers(0, 9))
    def rename_column(self, which):
        at = 1 + which % (len(self.columns) - 1)
        self.made += 1
        self.lake.catalog.table("t").rename_column(self.columns[at], f"r{self.made}")
        self.columns[at] = f"r{self.made}"
        self.committed()

    @rule(which=NUMBERS)
    def roll_back(self, which):
        version = sorted(self.past)[which % len(self.past)]
        self.lake.catalog.table("t").rollback(version, allow_schema_change=True)
        columns, rows = self.past[version]
        self.columns, self.rows = list(columns), list(rows)
        self.committed()

    @rule(which=NUMBERS)
    def tag(self, which):
        version = sorted(self.past)[which % len(self.past)]
        self.tagged.add(self.lake.catalog.tag_snapshot(f"tag-{version}", version))

    @rule(which=NUMBERS)
    def expire(self, which):
        snapshots = self.lake.catalog.snapshots()
        gone = self.lake.maintenance.expire(snapshots[which % len(snapshots)].time, dry_run=False).snapshots
        assert not self.tagged & set(gone)
        self.past = {id: state for id, state in self.past.items() if id not in gone}
        assert set(self.past) <= {s.id for s in self.lake.catalog.snapshots()}

    @rule()
    def compact(self):
        self.lake.maintenance.compact("t")
        self.committed()

    @rule()
    def clean(self):
        self.lake.maintenance.clean("0s", dry_run=False)

    @rule()
    def open_again(self):
        self.lake.close()
        self.lake = lakehouse.open(self.lake.path, settings=FAST)

    @invariant()
    def the_present_is_right(self):
        columns, rows = self.read()
        assert columns == self.columns
        assert sorted(rows, key=str) == sorted(self.rows, key=str)
        assert self.lake.catalog.table("t").row_count == len(self.rows)

    @rule()
    def the_past_is_right(self):
        for version, (columns, rows) in self.past.items():
            found, there = self.read(version)
            assert found == columns, f"snapshot {version}"
            assert sorted(there, key=str) == sorted(rows, key=str), f"snapshot {version}"

    def teardown(self):
        try:
            self.the_past_is_right()
            assert self.lake.doctor().healthy
        finally:
            self.lake.close()
            self.folder.cleanup()


LakeMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=18)
TestLakeMachine = LakeMachine.TestCase
