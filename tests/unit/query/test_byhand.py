"""DuckLake's maintenance by hand: refused where it would break a promise, with what to call instead."""

from __future__ import annotations

import pytest

from lakehouse.errors import QueryError

REFUSED = [
    ("CALL ducklake_rewrite_data_files('lake')", "compact"),
    ("CALL ducklake_rewrite_data_files('lake', 't', delete_threshold => 0)", "compact"),
    ("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)", "clean"),
    ("FROM ducklake_cleanup_old_files('lake', dry_run => false, older_than => now())", "clean"),
    ("CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)", "clean"),
    ("CALL ducklake_expire_snapshots('lake', versions => [1])", "expire"),
    ("SELECT count(*) FROM \"ducklake_expire_snapshots\" ('lake', older_than => now())", "expire"),
    ("CREATE TABLE x AS FROM Ducklake_Expire_Snapshots('lake', older_than => now())", "expire"),
    ("EXPLAIN ANALYZE SELECT * FROM ducklake_expire_snapshots('lake', versions => [1])", "expire"),
    ("SELECT 1; CALL ducklake_add_data_files('lake', 't', '{file}')", "ingest"),
    ("CHECKPOINT", "run"),
    ("CHECKPOINT lake", "run"),
    ("FORCE CHECKPOINT", "run"),
    ("CALL lake.set_option('write_deletion_vectors', true)", "target_file_size"),
    ("CALL ducklake_set_option('lake', 'expire_older_than', '1 day')", "target_file_size"),
    ("CALL lake.set_option('data_inlining_row_limit', 10)", "target_file_size"),
    ("CALL ducklake_commit('lake', 1)", "BEGIN"),
]


def test_what_would_break_a_promise_is_refused(lake, tmp_path):
    lake.sql("CREATE TABLE t AS SELECT i FROM range(30) s(i); DELETE FROM t WHERE i = 0")
    lake.catalog.tag_snapshot("kept", 1)
    lake.sql(f"COPY t TO '{tmp_path / 'own.parquet'}'")
    before = [snapshot.id for snapshot in lake.catalog.snapshots()]
    for statement, instead in REFUSED:
        with pytest.raises(QueryError) as error:
            lake.sql(statement.format(file=tmp_path / "own.parquet"))
        assert instead in error.value.hint, statement
    assert [snapshot.id for snapshot in lake.catalog.snapshots()] == before
    assert lake.sql("SELECT count(*), min(i) FROM t").fetchall() == [(29, 1)]
    assert lake.sql("SELECT count(*) FROM t", at="kept").fetchall() == [(30,)]


def test_what_only_looks_or_moves_rows_runs(lake):
    lake.sql("CREATE TABLE t AS SELECT i FROM range(3) s(i)")
    lake.sql("INSERT INTO t VALUES ('7'::INTEGER)")
    looks = [
        "FROM ducklake_expire_snapshots('lake', dry_run => true, versions => [1])",
        "CALL ducklake_cleanup_old_files('lake', dry_run := true, cleanup_all => true)",
        "FROM ducklake_delete_orphaned_files('lake', cleanup_all => true, dry_run => TRUE)",
        "FROM ducklake_snapshots('lake')",
        "FROM ducklake_list_files('lake', 't')",
        "FROM ducklake_table_info('lake')",
        "FROM lake.options()",
    ]
    before = lake.catalog.current_snapshot().id
    for statement in looks:
        lake.sql(statement).fetchall()
    assert lake.catalog.current_snapshot().id == before
    assert len(lake.catalog.snapshots()) == before + 1
    lake.sql(
        "CALL lake.set_option('target_file_size', '10MB'); CALL ducklake_set_option('lake', 'parquet_compression', 'zstd')"
    )
    lake.sql("CALL ducklake_flush_inlined_data('lake'); CALL ducklake_merge_adjacent_files('lake')")
    lake.sql("ATTACH ':memory:' AS other; CHECKPOINT other")
    lake.sql(
        "CREATE TABLE notes AS SELECT 'ducklake_expire_snapshots(x)' AS said, 1 AS \"ducklake_commit\" -- checkpoint"
    )
    lake.sql("CREATE TABLE checkpoint (commit INTEGER); INSERT INTO checkpoint (commit) VALUES (1)")
    assert lake.sql("SELECT sum(i) FROM t").fetchall() == [(10,)]
    assert lake.sql("SELECT said FROM notes").fetchall() == [("ducklake_expire_snapshots(x)",)]
