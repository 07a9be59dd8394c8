"""What was loaded before is known after rollbacks and published branches, and what was taken away may come again."""

import pandas as pd
import pytest


@pytest.fixture
def files(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.csv").write_text("id,x\n" + "".join(f"{name},{i}\n" for i in range(20)))
    return lambda name: tmp_path / f"{name}.csv"


def counts(lake):
    return dict(lake.sql("SELECT id, count(*)::INT FROM t GROUP BY 1 ORDER BY 1").fetchall())


def test_what_a_rollback_took_away_is_loaded_again_and_what_it_kept_is_not(lake, files):
    first = lake.ingest(files("a"), "t")
    lake.ingest(files("b"), "t")
    lake.sql("UPDATE t SET x = x + 1")
    lake.catalog.table("t").rollback(first.snapshot)
    assert lake.ingest(files("a"), "t").duplicate
    assert not lake.ingest(files("b"), "t").duplicate
    assert counts(lake) == {"a": 20, "b": 20}
    assert lake.ingest(files("b"), "t").duplicate


def test_a_rollback_of_a_rollback_brings_the_loads_back(lake, files):
    first = lake.ingest(files("a"), "t")
    second = lake.ingest(files("b"), "t")
    lake.catalog.table("t").rollback(first.snapshot)
    lake.catalog.table("t").rollback(second.snapshot)
    assert counts(lake) == {"a": 20, "b": 20}
    assert lake.ingest(files("b"), "t").duplicate
    assert lake.ingest(files("a"), "t").duplicate


@pytest.mark.parametrize("whole", [False, True])
def test_a_table_that_a_rollback_made_anew_keeps_its_loads(lake, files, whole):
    first = lake.ingest(files("a"), "t")
    lake.ingest(files("b"), "t")
    lake.catalog.table("t").add_column("more", "INTEGER")
    if whole:
        lake.catalog.drop("t")
        lake.rollback(first.snapshot)
    else:
        lake.catalog.table("t").rollback(first.snapshot, allow_schema_change=True)
    assert lake.ingest(files("a"), "t").duplicate
    assert not lake.ingest(files("b"), "t").duplicate
    assert counts(lake) == {"a": 20, "b": 20}


def test_what_a_branch_loaded_is_known_when_it_is_published(lake, files):
    lake.ingest(files("a"), "t")
    lake.sql("CREATE TABLE other AS SELECT 'c' AS id, 1 AS x")
    with lake.branch("staging") as branch:
        assert branch.ingest(files("a"), "t").duplicate
        branch.ingest(files("b"), "t")
        branch.ingest(files("c"), "other")
        branch.publish()
    assert lake.ingest(files("b"), "t").duplicate
    assert lake.ingest(files("a"), "t").duplicate
    assert not lake.ingest(files("c"), "t").duplicate
    assert lake.ingest(files("c"), "other").duplicate
    assert counts(lake) == {"a": 20, "b": 20, "c": 20}


def test_compaction_forgets_no_load(lake, files):
    lake.ingest(pd.DataFrame({"id": ["a"], "x": [1]}), "t")
    lake.ingest(files("a"), "t")
    lake.sql("UPDATE t SET x = 5 WHERE x = 1")
    lake.maintenance.compact()
    assert lake.ingest(files("a"), "t").duplicate
