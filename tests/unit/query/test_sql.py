"""`lake.sql`: reads, writes, parameters, limits, snapshots."""

import decimal
import gc
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import lakehouse
from lakehouse import errors


@pytest.fixture
def numbers(lake):
    lake.sql("CREATE TABLE numbers AS SELECT range AS i, range % 7 AS k, 'n' || range AS s FROM range(100000)")
    return lake


def test_a_result_is_repeatable_and_knows_what_it_is(numbers):
    result = numbers.sql("SELECT k, count(*) AS n, sum(i) AS total FROM numbers GROUP BY k ORDER BY k")
    assert result.columns == ["k", "n", "total"]
    assert result.types == ["BIGINT", "BIGINT", "HUGEINT"]
    assert result.snapshot == numbers.catalog.current_snapshot().id
    assert result.sql.startswith("SELECT k")
    assert result.query_id
    assert result.elapsed > 0
    rows = result.fetchall()
    assert rows == result.fetchall()
    assert len(result) == 7
    assert rows[0] == (0, 14286, 714264285)
    assert isinstance(rows[0][2], int)
    assert list(result.df()["n"]) == [row[1] for row in rows]
    assert result.arrow().num_rows == 7
    assert result.pl()["k"].to_list() == list(range(7))
    assert result.relation().fetchall() == rows
    assert result.fetchone() == rows[0]
    assert list(result) == rows
    assert result.records(2)[1] == {"k": 1, "n": 14286, "total": 714278571}
    assert sum(batch.num_rows for batch in result.reader(3)) == 7


@pytest.mark.parametrize("buffer", ["64MB", "1KB"])
def test_small_and_large_results_give_the_same_rows(tmp_path, buffer):
    with lakehouse.open(tmp_path / "lake", settings={"query": {"buffer_size": buffer}}) as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS i, (range % 3)::VARCHAR AS s FROM range(300000)")
        result = lake.sql("SELECT i, s FROM t WHERE i % 2 = 0")
        assert len(result) == 150_000
        assert result.arrow()["i"].to_pylist() == list(range(0, 300_000, 2))
        assert result.df()["i"].sum() == sum(range(0, 300_000, 2))
        assert sum(batch.num_rows for batch in result.reader(1000)) == 150_000
        assert "150,000 rows (first 20)" in repr(result)
        assert len(result.page()) == 20
        limited = lake.sql("SELECT i FROM t ORDER BY i DESC", limit=3)
        assert limited.fetchall() == [(299_999,), (299_998,), (299_997,)]


def test_a_large_result_stays_what_it_was_while_the_table_changes(tmp_path):
    with lakehouse.open(tmp_path / "lake", settings={"query": {"buffer_size": "1KB"}}) as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS i FROM range(300000)")
        result = lake.sql("SELECT i FROM t")
        lake.sql("DELETE FROM t WHERE i >= 10")
        lake.sql("ALTER TABLE t RENAME COLUMN i TO j")
        assert len(result) == 300_000
        assert result.arrow()["i"].to_pylist() == list(range(300_000))
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(10,)]


def test_random_results_are_repeatable_too(tmp_path):
    with lakehouse.open(tmp_path / "lake", settings={"query": {"buffer_size": "1KB"}}) as lake:
        result = lake.sql("SELECT random() AS r FROM range(200000)")
        assert result.arrow().equals(result.arrow())
        assert len(result) == 200_000
        assert not any((tmp_path / "lake" / "tmp").glob("*.arrow"))


def test_repr_and_html_show_one_page_and_the_count(numbers):
    result = numbers.sql("SELECT i, NULL AS nothing, '<b>&' AS s FROM numbers ORDER BY i")
    text, html = repr(result), result._repr_html_()
    assert "100,000 rows (first 20) × 3 columns" in text
    assert text.count("\n") < 30
    assert html.count("<tr>") == 21
    assert "&lt;b&gt;&amp;" in html
    assert "NULL" in html
    assert "100,000 rows (first 20)" in html


def test_duplicate_and_odd_column_names_survive(lake):
    result = lake.sql("""SELECT 1 AS a, 2 AS a, 3 AS "o'dd "" name", 4 AS "ü" """)
    assert result.columns == ["a", "a", "o'dd \" name", "ü"]
    assert result.fetchall() == [(1, 2, 3, 4)]
    assert "ü" in repr(result)


def test_types_that_arrow_would_lose_come_back(lake):
    row = lake.sql(
        "SELECT 170141183460469231731687303715884105727::HUGEINT h, uuid() IS NOT NULL u, 1.50::DECIMAL(5,2) d,"
        " DATE '2020-02-29' t, [1, NULL] l, {'a': 1} s, '{\"x\": 1}'::JSON j, 'x'::BLOB b, INTERVAL 1 DAY v"
    ).fetchone()
    assert row[0] == 170141183460469231731687303715884105727
    assert row[2] == decimal.Decimal("1.50")
    assert row[3] == date(2020, 2, 29)
    assert row[4] == [1, None]
    assert row[5] == {"a": 1}
    assert row[7] == b"x"


def test_parameters_are_values_and_never_sql(numbers):
    evil = "x'; DROP TABLE numbers; --"
    assert numbers.sql("SELECT $v AS v", {"v": evil}).fetchall() == [(evil,)]
    assert numbers.sql("SELECT count(*) FROM numbers WHERE s = $v", {"v": evil}).fetchall() == [(0,)]
    assert numbers.sql("SELECT ? + ?", [40, 2]).fetchall() == [(42,)]
    assert numbers.sql("SELECT count(*) FROM numbers WHERE i = ANY($v)", {"v": [1, 2, 3]}).fetchall() == [(3,)]
    assert numbers.catalog.table("numbers").row_count == 100_000


def test_missing_and_unknown_parameters_are_named(lake):
    with pytest.raises(errors.ParameterFault, match=r"\$b"):
        lake.sql("SELECT $a, $b", {"a": 1})
    with pytest.raises(errors.ParameterFault, match=r"no parameter \$c"):
        lake.sql("SELECT $a", {"a": 1, "c": 2})


def test_parameters_of_a_script_are_shared(lake):
    assert lake.sql("CREATE TABLE t AS SELECT $a AS a; SELECT a + $b FROM t", {"a": 1, "b": 2}).fetchall() == [(3,)]


@pytest.mark.parametrize(
    "frame",
    [pd.DataFrame({"x": [1, 2]}), pa.table({"x": [1, 2]}), pl.DataFrame({"x": [1, 2]})],
    ids=["pandas", "arrow", "polars"],
)
def test_frames_are_tables_by_name_for_one_call(lake, frame):
    assert lake.sql("SELECT sum(x) FROM f", tables={"f": frame}).fetchall() == [(3,)]
    with pytest.raises(errors.TableNotFound):
        lake.sql("SELECT sum(x) FROM f")
    lake.sql("CREATE TABLE kept AS FROM f", tables={"f": frame})
    assert lake.sql("SELECT sum(x) FROM kept").fetchall() == [(3,)]
    earlier = lake.sql("SELECT x * 10 AS y FROM kept")
    assert lake.sql("SELECT max(y) FROM earlier", tables={"earlier": earlier}).fetchall() == [(20,)]


def test_frames_and_views_and_values_that_do_not_fit_are_refused(lake):
    frame = pd.DataFrame({"x": [1]})
    with pytest.raises(errors.QueryError, match="view cannot read 'zz'"):
        lake.sql("CREATE VIEW v AS SELECT * FROM zz", tables={"zz": frame})
    with pytest.raises(errors.QueryError, match="'zz' cannot be used as a table: int"):
        lake.sql("SELECT * FROM zz", tables={"zz": 3})
    assert lake.sql("SELECT $x + 1", {"x": np.int64(3)}).fetchall() == [(4,)]
    plan = lake.sql("SELECT sum(x) FROM zz", tables={"zz": frame}).explain()
    assert "SCAN" in plan
    total = lake.sql("SELECT sum(range) AS s FROM range(10)")
    assert lake.sql("SELECT typeof(s) FROM total", tables={"total": total}).fetchall() == [("HUGEINT",)]


def test_local_variables_are_not_tables_by_accident(lake):
    frame = pd.DataFrame({"x": [1]})  # noqa: F841  # what must not be found
    connection = "the engine's own name"  # noqa: F841
    for name in ("frame", "connection", "statement", "rows"):
        with pytest.raises(errors.TableNotFound):
            lake.sql(f"SELECT * FROM {name}")


def test_unknown_names_offer_the_nearest(numbers):
    with pytest.raises(errors.TableNotFound) as caught:
        numbers.sql("SELECT * FROM numbrs")
    assert caught.value.hint == "did you mean numbers?"
    with pytest.raises(errors.ColumnNotFound) as column:
        numbers.sql("SELECT ii FROM numbers")
    assert "Candidate" in column.value.message
    assert "^" in column.value.message


def test_a_write_makes_one_snapshot_with_author_message_and_note(lake):
    lake.sql("CREATE TABLE t (i INT)")
    before = lake.catalog.current_snapshot().id
    result = lake.sql("INSERT INTO t VALUES (1), (2)")
    assert result.snapshot == before + 1
    assert result.fetchall() == [(2,)]
    snapshot = lake.catalog.current_snapshot()
    assert snapshot.author
    assert snapshot.message == "INSERT INTO t VALUES (1), (2)"
    assert '"operation":"sql"' in snapshot.note
    assert '"sql_sha256"' in snapshot.note


def test_begin_commit_is_one_snapshot_and_rollback_none(lake):
    lake.sql("CREATE TABLE t (i INT)")
    before = lake.catalog.current_snapshot().id
    lake.sql("BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT")
    assert lake.catalog.current_snapshot().id == before + 1
    lake.sql("BEGIN; INSERT INTO t VALUES (3); ROLLBACK")
    assert lake.catalog.current_snapshot().id == before + 1
    assert lake.sql("SELECT sum(i) FROM t").fetchall() == [(3,)]


@pytest.mark.parametrize("script", ["BEGIN; INSERT INTO t VALUES (1)", "COMMIT", "BEGIN; BEGIN; COMMIT"])
def test_unbalanced_transactions_run_nothing(lake, script):
    lake.sql("CREATE TABLE t (i INT)")
    with pytest.raises(errors.QueryError):
        lake.sql(script)
    assert lake.catalog.table("t").row_count == 0


def test_an_error_in_a_transaction_undoes_all_of_it(lake):
    lake.sql("CREATE TABLE t (i INT)")
    with pytest.raises(errors.LakehouseError):
        lake.sql("BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES ('x'); COMMIT")
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(0,)]
    with pytest.raises(RuntimeError), lake.transaction("two at once"):
        lake.sql("INSERT INTO t VALUES (1)")
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(1,)]
        raise RuntimeError
    assert lake.sql("SELECT count(*) FROM t").fetchall() == [(0,)]


def test_a_transaction_over_several_calls_is_one_snapshot(lake):
    lake.sql("CREATE TABLE t (i INT)")
    before = lake.catalog.current_snapshot().id
    with lake.transaction("three rows") as transaction:
        for value in range(3):
            lake.sql("INSERT INTO t VALUES ($v)", {"v": value})
    assert transaction.snapshot == before + 1
    assert lake.catalog.current_snapshot().message == "three rows"


def test_at_reads_the_whole_lake_as_it_was(lake):
    lake.sql("CREATE TABLE t AS SELECT 1 AS i")
    first = lake.catalog.current_snapshot().id
    lake.sql("CREATE VIEW v AS SELECT i * 10 AS j FROM t")
    lake.sql("UPDATE t SET i = 2; CREATE TABLE later (x INT)")
    for query in ("SELECT i FROM t", "SELECT i FROM lake.main.t", "SELECT i FROM main.t"):
        result = lake.sql(query, at=first)
        assert (result.fetchall(), result.snapshot) == ([(1,)], first)
    assert lake.sql("SELECT j FROM v", at=first + 1).fetchall() == [(10,)]
    with pytest.raises(errors.TableNotFound):
        lake.sql("SELECT * FROM later", at=first)
    with pytest.raises(errors.LakeReadOnly, match=f"snapshot {first}"):
        lake.sql("DELETE FROM t", at=first)
    with pytest.raises(errors.SnapshotNotFound, match="999"):
        lake.sql("SELECT 1", at=999)


def test_the_cache_answers_only_for_the_same_snapshot_and_values(numbers):
    query = "SELECT count(*) FROM numbers WHERE i < $n"
    assert not numbers.sql(query, {"n": 10}).cached
    assert numbers.sql(query, {"n": 10}).cached
    assert not numbers.sql(query, {"n": 11}).cached
    assert not numbers.sql(query, {"n": 10.0}).cached
    assert not numbers.sql(query, {"n": True}).cached
    numbers.sql("DELETE FROM numbers WHERE i = 0")
    again = numbers.sql(query, {"n": 10})
    assert not again.cached
    assert again.fetchall() == [(9,)]


@pytest.mark.parametrize("query", ["SELECT random()", "SELECT now()", "SELECT current_timestamp", "SELECT uuid()"])
def test_what_changes_by_itself_is_never_cached(lake, query):
    first, second = lake.sql(query), lake.sql(query)
    assert not second.cached
    assert first.fetchall() == first.fetchall()
    assert "now" in query or "current" in query or first.fetchall() != second.fetchall()


def test_a_commit_of_another_process_is_seen_at_once(lake, child):
    lake.sql("CREATE TABLE t (i INT)")
    for expected in range(1, 4):
        child("import lakehouse; lakehouse.open(args[0]).sql('INSERT INTO t VALUES (1)')", lake.path).end()
        assert lake.sql("SELECT count(*) FROM t").fetchall() == [(expected,)]


def test_temporary_tables_live_in_their_thread(lake):
    lake.sql("CREATE TEMP TABLE mine AS SELECT 42 AS x")
    assert lake.sql("SELECT x FROM mine").fetchall() == [(42,)]
    seen = []

    def other():
        try:
            lake.sql("SELECT x FROM mine")
        except errors.TableNotFound:
            seen.append("not found")

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == ["not found"]


def test_a_temporary_table_of_the_same_name_wins_and_is_not_cached_over(lake):
    lake.sql("CREATE TABLE t AS SELECT 1 AS i")
    assert lake.sql("SELECT i FROM t").fetchall() == [(1,)]
    lake.sql("CREATE TEMP TABLE t AS SELECT 2 AS i")
    assert lake.sql("SELECT i FROM t").fetchall() == [(2,)]


def test_too_many_rows_say_what_to_do(tmp_path):
    with lakehouse.open(tmp_path / "lake", settings={"query": {"max_rows": 1000, "buffer_size": "1KB"}}) as lake:
        lake.sql("CREATE TABLE t AS SELECT range AS i FROM range(300000)")
        result = lake.sql("SELECT i FROM t")
        for read in (result.df, result.arrow, result.fetchall, result.pl, result.relation):
            with pytest.raises(errors.ResultTooLarge) as caught:
                read()
            assert "1,000" in caught.value.message
            assert ".reader()" in caught.value.hint
        assert sum(batch.num_rows for batch in result.reader()) == 300_000
        assert len(result.to_parquet(tmp_path / "t.parquet").read_bytes()) > 1000


def test_a_memory_limit_says_what_to_do(tmp_path):
    limits = {"query": {"memory_limit": "60MB"}, "storage": {"max_temp_size": "1MB"}}
    with lakehouse.open(tmp_path / "lake", settings=limits) as lake:
        with pytest.raises(errors.QueryMemory) as caught:
            lake.sql("SELECT list(range) FROM range(50000000)")
        assert "memory_limit" in caught.value.hint
        assert lake.sql("SELECT 1").fetchall() == [(1,)]


def test_a_result_that_fills_the_spool_says_what_to_do(tmp_path):
    limits = {"query": {"buffer_size": "1MB"}, "storage": {"max_temp_size": "5MB"}}
    with lakehouse.open(tmp_path / "lake", settings=limits) as lake:
        with pytest.raises(errors.QueryMemory, match="max_temp_size"):
            lake.sql("SELECT random() FROM range(5000000)")
        assert list((tmp_path / "lake" / "tmp").glob("*.arrow")) == []
        assert lake.sql("SELECT 1").fetchall() == [(1,)]


SLOW = "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3"


def test_a_timeout_stops_the_query_and_leaves_the_lake_usable(lake):
    with pytest.raises(errors.QueryTimeout, match=r"0\.3 s"):
        lake.sql(SLOW, timeout=0.3)
    assert lake.running() == []
    assert lake.sql("SELECT 1").fetchall() == [(1,)]


def test_cancel_from_another_thread(lake):
    caught = []

    def slow():
        try:
            lake.sql(SLOW)
        except errors.LakehouseError as error:
            caught.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    while not lake.running():
        time.sleep(0.01)
    (running,) = lake.running()
    assert running.sql == SLOW
    assert lake.cancel(running.query_id)
    thread.join(20)
    assert isinstance(caught[0], errors.QueryCancelled)
    assert not lake.cancel(running.query_id)
    assert lake.sql("SELECT 1").fetchall() == [(1,)]


def test_a_write_stopped_by_its_timeout_leaves_nothing(lake):
    lake.sql("CREATE TABLE t (i BIGINT)")
    with pytest.raises(errors.QueryTimeout):
        lake.sql("INSERT INTO t SELECT i FROM range(100000000000) r(i) WHERE i % 7 = 3", timeout=0.3)
    assert lake.catalog.table("t").row_count == 0
    assert repr(lake.sql("INSERT INTO t VALUES (1)")) == f"1 row changed, snapshot {lake.catalog.current_snapshot().id}"
    assert lake.catalog.table("t").row_count == 1


def test_explain_shows_the_plan_and_analyze_the_times(numbers):
    result = numbers.sql("SELECT k, count(*) FROM numbers GROUP BY k")
    assert "GROUP_BY" in result.explain()
    assert "Total Time" in result.explain(analyze=True)
    bound = numbers.sql("SELECT i FROM numbers WHERE i = $i", {"i": 5})
    assert "numbers" in bound.explain().lower() or "SCAN" in bound.explain()


def test_exports_are_whole_and_right(numbers, tmp_path):
    result = numbers.sql("SELECT i, s, NULL AS empty FROM numbers ORDER BY i")
    csv, parquet = result.to_csv(tmp_path / "a.csv"), result.to_parquet(tmp_path / "a.parquet")
    assert pd.read_csv(csv)["i"].sum() == sum(range(100_000))
    assert pd.read_parquet(parquet)["s"].iloc[-1] == "n99999"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(errors.LakehouseError, match="does not exist"):
        result.to_csv(tmp_path / "nowhere" / "a.csv")


def test_a_closed_lake_says_so(tmp_path):
    lake = lakehouse.open(tmp_path / "lake")
    lake.close()
    lake.close()
    with pytest.raises(errors.LakeClosed):
        lake.sql("SELECT 1")


def test_threads_read_and_write_one_lake(lake):
    lake.sql("CREATE TABLE t (i INT)")
    failures = []

    def work(number):
        try:
            for step in range(5):
                lake.sql("INSERT INTO t VALUES ($v)", {"v": number * 100 + step})
                lake.sql("SELECT count(*) FROM t").fetchall()
        except Exception as error:  # told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert lake.sql("SELECT count(*), count(DISTINCT i) FROM t").fetchall() == [(30, 30)]


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        ("RENAME COLUMN a TO b", ["b", "c"]),
        ("ADD COLUMN d INT", ["a", "c", "d"]),
        ("DROP COLUMN a", ["c"]),
        ("ALTER COLUMN a TYPE BIGINT", ["a", "c"]),
    ],
)
def test_a_column_changed_in_the_commit_of_its_rows(lake, change, columns):
    lake.sql(f"BEGIN; CREATE TABLE r AS SELECT i::INT a, i c FROM range(1000) t(i); ALTER TABLE r {change}; COMMIT")
    short, full = lake.sql("SELECT * FROM r"), lake.sql("SELECT * FROM lake.main.r")
    assert short.columns == full.columns == columns
    assert short.types == full.types
    assert short.fetchall() == full.fetchall()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT DISTINCT i % 200000 AS k FROM g",
        "SELECT k, count(*) AS n FROM (SELECT i % 150000 AS k FROM g) GROUP BY k",
        "SELECT i % 7 AS k, i FROM g ORDER BY k",
        "SELECT a.i FROM g a JOIN g b USING (i)",
        "SELECT i FROM g WHERE i % 2 = 0",
        "SELECT i, row_number() OVER () AS r FROM g",
    ],
)
def test_every_accessor_of_a_large_result_gives_the_same_rows(tmp_path, query):
    with lakehouse.open(tmp_path / "lake", settings={"query": {"buffer_size": "1KB"}}) as lake:
        lake.sql("CREATE TABLE g AS SELECT range AS i FROM range(400000)")
        result = lake.sql(query)
        first = result.arrow()
        assert first.equals(result.arrow())
        assert result.page(5) == [tuple(row.values()) for row in first.slice(0, 5).to_pylist()]
        assert len(result) == first.num_rows


def test_values_that_are_equal_but_not_the_same_are_not_mixed_up(lake):
    lake.sql("CREATE TABLE t AS SELECT 1 AS i")
    for values in ((decimal.Decimal("1.0"), decimal.Decimal("1.00")), (0.0, -0.0)):
        seen = [str(lake.sql("SELECT $x AS x FROM t", {"x": value}).fetchone()[0]) for value in values]
        assert seen == [str(value) for value in values]


def test_nested_and_rare_types_are_exact(lake, tmp_path):
    query = """SELECT '12:00:00+05'::TIMETZ AS tz, '0101'::BIT AS b,
               340282366920938463463374607431768211455::UHUGEINT AS u, [1::HUGEINT] AS h,
               ['5d6c0e5e-3f8a-4d52-8a4b-0f5b4d7f5c11'::UUID] AS ids, {'t': '12:00:00+05'::TIMETZ} AS s"""
    result = lake.sql(query)
    row = result.fetchone()
    assert row[0].utcoffset().total_seconds() == 5 * 3600
    assert (row[1], row[2], row[3]) == ("0101", 340282366920938463463374607431768211455, [1])
    assert str(row[4][0]) == "5d6c0e5e-3f8a-4d52-8a4b-0f5b4d7f5c11"
    assert row[5]["t"].utcoffset().total_seconds() == 5 * 3600
    assert "12:00:00+05,0101,340282366920938463463374607431768211455" in result.to_csv(tmp_path / "x.csv").read_text()
    assert result.arrow().column("h").to_pylist() == [[decimal.Decimal(1)]]


def test_a_macro_of_the_lake_is_used_by_every_query(lake):
    lake.sql("CREATE TABLE t AS SELECT 'a' AS s FROM range(100)")
    lake.sql("CREATE MACRO lake.main.upper(x) AS 'MACRO'")
    assert lake.sql("SELECT DISTINCT upper(s) FROM t").fetchall() == [("MACRO",)]


def test_pinned_queries_are_seen_and_stopped_like_others(lake):
    lake.sql("CREATE TABLE t (i INT)")
    caught = []

    def slow():
        try:
            lake.sql(SLOW, at=1)
        except errors.LakehouseError as error:
            caught.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    while not lake.running():
        time.sleep(0.01)
    assert lake.cancel(lake.running()[0].query_id)
    thread.join(20)
    assert isinstance(caught[0], errors.QueryCancelled)
    assert lake.sql("SELECT 1").query_id != lake.sql("SELECT 1", at=1).query_id


@pytest.mark.parametrize("text", ["EXPLAIN /*x*/ ANALYZE INSERT INTO t VALUES (1)", "COPY t FROM '{csv}'"])
def test_no_write_passes_for_a_read(lake, tmp_path, text):
    lake.sql("CREATE TABLE t (i INT)")
    file = tmp_path / "f) to x.csv"
    file.write_text("i\n7\n")
    result = lake.sql(text.format(csv=file))
    assert result.kind == "write"
    assert '"operation":"sql"' in lake.catalog.current_snapshot().note


def test_names_with_spaces_can_be_copied_out(lake, tmp_path):
    lake.sql('CREATE TABLE "my t" AS SELECT 1 AS i')
    before = lake.catalog.current_snapshot().id
    assert lake.sql(f"COPY \"my t\" TO '{tmp_path / 'o.csv'}'").kind == "read"
    assert lake.catalog.current_snapshot().id == before


def test_many_long_queries_do_not_hold_up_a_short_one(lake):

    def slow():
        with pytest.raises(errors.QueryCancelled):
            lake.sql(SLOW)

    stop = [threading.Thread(target=slow) for _ in range(8)]
    for thread in stop:
        thread.start()
    while len(lake.running()) < 8:
        time.sleep(0.01)
    try:
        assert lake.sql("SELECT 1", timeout=60).fetchall() == [(1,)]
    finally:
        for running in lake.running():
            lake.cancel(running.query_id)
        for thread in stop:
            thread.join(30)
    assert lake.running() == []


def test_errors_in_the_middle_of_a_stream_are_ours(tmp_path):
    with lakehouse.open(tmp_path / "lake", settings={"query": {"buffer_size": "1KB"}}) as lake:
        lake.sql("CREATE TABLE s AS SELECT CASE WHEN i = 900000 THEN 'x' ELSE '1' END AS v FROM range(1000000) t(i)")
        with pytest.raises(errors.QueryError, match="Could not convert"):
            lake.sql("SELECT v::INT AS n FROM s").arrow()
        with pytest.raises(errors.QueryError, match="boom"):
            lake.sql("SELECT error('boom') FROM range(1000000) t(i) WHERE i > 900000").arrow()
        assert lake.sql("SELECT 1").fetchall() == [(1,)]


def test_a_result_used_after_its_lake_is_closed_says_so(tmp_path):
    with lakehouse.open(tmp_path / "lake") as lake:
        result = lake.sql("SELECT 1 AS one")
    for use in (result.df, result.fetchall, result.relation):
        with pytest.raises(errors.LakeClosed):
            use()
    assert result.arrow()["one"].to_pylist() == [1]


def test_readers_that_are_dropped_unread_let_go(lake, tmp_path):
    with lakehouse.open(tmp_path / "other", settings={"query": {"buffer_size": "1KB"}}) as other:
        other.sql("CREATE TABLE t AS SELECT range AS i FROM range(300000)")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            other.sql("SELECT i FROM t").reader()
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 10


def test_closing_ends_threads_and_files(tmp_path):
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.sql("CREATE TABLE t (i INT)")
        for _ in range(8):
            lake.sql("INSERT INTO t VALUES (1)")
        for version in range(1, 9):
            lake.sql("SELECT count(*) FROM t", at=version)
    del lake
    gc.collect()
    deadline = time.monotonic() + 30
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.1)
    assert threading.active_count() <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": "x"},
        {"limit": -1},
        {"timeout": -1},
        {"timeout": "x"},
        {"at": 1.5},
        {"at": "0001-01-01"},
        {"params": 1},
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(lake, arguments):
    with pytest.raises(errors.LakehouseError):
        lake.sql("SELECT 1", **arguments)


def test_text_that_is_no_text_is_refused(lake):
    with pytest.raises(errors.LakehouseError):
        lake.sql("SELECT '\ud800'")
    assert lake.sql("BEGIN; SELECT 1; ROLLBACK").fetchall() == []


def test_rows_are_not_written_after_a_type_was_changed_in_the_same_transaction(lake):
    lake.sql("CREATE TABLE t AS SELECT i::INTEGER AS id FROM range(100) r(i)")
    alter = "ALTER TABLE t ALTER COLUMN id SET DATA TYPE BIGINT"
    with pytest.raises(errors.QueryError, match="changed the type"), lake.transaction():
        lake.sql(alter)
        lake.sql("INSERT INTO t VALUES (1)")
    with pytest.raises(errors.QueryError, match="changed the type"):
        lake.sql(f"BEGIN; {alter}; INSERT INTO t VALUES (1); COMMIT")
    assert lake.catalog.table("t").schema[0].type == "INTEGER"
    lake.sql(f"BEGIN; INSERT INTO t VALUES (1); {alter}; COMMIT")
    lake.sql("INSERT INTO t VALUES (-1)")
    assert lake.sql("SELECT count(*) FROM t WHERE id < 50").fetchall() == [(52,)]
