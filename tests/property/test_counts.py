"""`Table.row_count` is what counting gives, at every snapshot, whatever happened in between."""

from hypothesis import given, settings
from hypothesis import strategies as st

import lakehouse

STEPS = st.one_of(
    st.builds("INSERT INTO t SELECT range FROM range({})".format, st.sampled_from([1, 3, 9, 11, 200])),
    st.builds("DELETE FROM t WHERE x % {} = 0".format, st.integers(1, 6)),
    st.builds("UPDATE t SET x = x + 1 WHERE x < {}".format, st.integers(0, 50)),
    st.sampled_from(
        [
            "DELETE FROM t",
            "TRUNCATE t",
            "CALL ducklake_flush_inlined_data('lake')",
            "CALL ducklake_merge_adjacent_files('lake')",
            "ALTER TABLE t ADD COLUMN IF NOT EXISTS y INTEGER DEFAULT 3",
            "BEGIN; INSERT INTO t SELECT range FROM range(20); DELETE FROM t WHERE x = 3; INSERT INTO t VALUES (3); COMMIT",
        ]
    ),
)


@settings(max_examples=8)
@given(steps=st.lists(STEPS, min_size=2, max_size=7))
def test_row_count_at_every_snapshot(tmp_path_factory, steps):
    with lakehouse.open(tmp_path_factory.mktemp("counts") / "lake") as lake:
        lake.sql("CREATE TABLE t (x INTEGER)")
        for step in steps:
            # Inserted by name, so that a column added on the way takes its default.
            lake.sql(
                step.replace("INSERT INTO t SELECT range", "INSERT INTO t (x) SELECT range").replace(
                    "t VALUES", "t (x) VALUES"
                )
            )
            assert lake.catalog.table("t").row_count == lake.sql("SELECT count(*) FROM t").fetchall()[0][0]
        table = lake.catalog.table("t")
        snapshots = [snapshot.id for snapshot in lake.catalog.snapshots()[:-1]]
        for version in snapshots:
            counted = lake.sql(f"SELECT count(*) FROM t AT (VERSION => {version})").fetchall()[0][0]
            assert table.at(version).row_count == counted
        middle = snapshots[len(snapshots) // 2]
        with lakehouse.open(lake.path, at=middle) as past:
            assert past.catalog.table("t").row_count == past.sql("SELECT count(*) FROM t").fetchall()[0][0]
            assert past.catalog.table("t").row_count == table.at(middle).row_count
