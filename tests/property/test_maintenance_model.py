"""Maintenance between writes: nothing live is ever deleted, and every kept snapshot reads as it did.

Writes, deletes, tags, compacting, expiry and cleaning in any order, beside a plain model: rows by snapshot.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

import lakehouse
from lakehouse.health import inventory

NUMBERS = st.integers(0, 60)
STEPS = st.one_of(
    st.tuples(st.just("insert"), NUMBERS, st.integers(1, 4)),  # kept in the catalog
    st.tuples(st.just("insert"), NUMBERS, st.integers(11, 200)),  # a file
    st.tuples(st.just("delete"), NUMBERS, st.integers(0, 30)),
    st.tuples(st.just("update"), NUMBERS, st.integers(0, 30)),
    st.tuples(st.just("tag"), NUMBERS, st.just(0)),
    st.tuples(st.sampled_from(["compact", "compact", "expire", "clean", "clean"]), NUMBERS, st.just(0)),
)


def rows(lake, at):
    return sorted(lake.sql(f"SELECT x, note FROM t AT (VERSION => {at})").fetchall(), key=str)


class Model:
    """The rows of every snapshot that is still there."""

    def __init__(self, lake):
        self.lake = lake
        self.past = {}
        self.tagged = set()
        self.remember()

    def remember(self):
        current = self.lake.catalog.current_snapshot().id
        self.past.setdefault(current, rows(self.lake, current))

    def write(self, what, number, count):
        before = self.past[max(self.past)]
        if what == "insert":
            expected = before + [(x, f"n{number}") for x in range(number, number + count)]
            self.lake.sql(f"INSERT INTO t SELECT range, 'n{number}' FROM range({number}, {number + count})")
        elif what == "delete":
            expected = [row for row in before if not number <= row[0] <= number + count]
            self.lake.sql(f"DELETE FROM t WHERE x BETWEEN {number} AND {number + count}")
        else:
            expected = [(x + 1000, note) if number <= x <= number + count else (x, note) for x, note in before]
            self.lake.sql(f"UPDATE t SET x = x + 1000 WHERE x BETWEEN {number} AND {number + count}")
        current = self.lake.catalog.current_snapshot().id
        self.past[current] = sorted(expected, key=str)

    def keep(self, what, number):
        if what == "tag":
            ids = sorted(self.past)
            self.tagged.add(self.lake.catalog.tag_snapshot(f"tag{number}", ids[number % len(ids)], replace=True))
            self.tagged = set(self.lake.catalog.snapshot_tags().values())
        elif what == "compact":
            newest = self.past[max(self.past)]
            self.lake.maintenance.compact("t" if number % 2 else None)
            self.past.setdefault(self.lake.catalog.current_snapshot().id, newest)
            for id in (s.id for s in self.lake.catalog.snapshots() if s.id > max(self.past, default=0)):
                self.past[id] = newest
        elif what == "expire":
            ids = [s.id for s in self.lake.catalog.snapshots()]
            limit = self.lake.catalog.snapshots()[number % len(ids)].time
            planned = self.lake.maintenance.expire(limit)
            assert planned.dry_run
            assert [s.id for s in self.lake.catalog.snapshots()] == ids
            done = self.lake.maintenance.expire(limit, dry_run=False)
            assert (done.snapshots, done.before, done.after) == (planned.snapshots, planned.before, planned.after)
            assert not set(done.snapshots) & (self.tagged | {ids[0]})
            left = {s.id for s in self.lake.catalog.snapshots()}
            assert left == set(ids) - set(done.snapshots)
            self.past = {id: rows for id, rows in self.past.items() if id in left}
        else:
            on_disk = {path for path, _ in inventory.on_disk(self.lake.path / "data")}
            planned = self.lake.maintenance.clean("0s")
            assert {path for path, _ in inventory.on_disk(self.lake.path / "data")} == on_disk
            done = self.lake.maintenance.clean("0s", dry_run=False)
            assert (done.before, done.after) == (planned.before, planned.after)
            known = inventory.take(self.lake.catalog.metadata, self.lake.path / "data")
            there = {path for path, _ in inventory.on_disk(self.lake.path / "data")}
            assert there == {file.path for file in known.known}  # what is needed, and nothing else
            assert known.scheduled == []

    def check(self):
        for id, expected in self.past.items():
            assert rows(self.lake, id) == expected, f"snapshot {id}"
            if expected:  # filters use statistics, which compacting must leave right for the past
                middle = expected[len(expected) // 2][0]
                count = self.lake.sql(f"SELECT count(*) FROM t AT (VERSION => {id}) WHERE x <= {middle}").fetchall()
                assert count == [(sum(x <= middle for x, _ in expected),)]


@settings(max_examples=8)
@given(steps=st.lists(STEPS, min_size=8, max_size=16))
def test_nothing_live_is_lost(tmp_path_factory, steps):
    fast = {"catalog": {"sync": False}, "query": {"cache_size": "0B"}}
    with lakehouse.open(tmp_path_factory.mktemp("lakes") / "lake", settings=fast) as lake:
        lake.sql("CREATE TABLE t (x BIGINT, note VARCHAR)")
        model = Model(lake)
        for what, number, count in steps:
            if what in ("insert", "delete", "update"):
                model.write(what, number, count)
            else:
                model.keep(what, number)
                model.check()
        model.check()
        assert lake.doctor().healthy
