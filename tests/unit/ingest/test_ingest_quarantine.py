"""Quarantine: what does not fit is set aside with where, why and its raw text; a retry loads what was mended."""

import gzip
import threading

import pandas as pd
import pyarrow as pa
import pytest

from lakehouse import errors

CSV = 'id,name,x\n1,a,1\n2,b\n3,c,3,9\n\nabc,d,4\n5,"e,5\n6,f,6.5\n7,"two\nlines",zzz\n8,"two\nlines",8\n9,,\n'
BAD = [
    (3, None, "2 fields instead of 3", "2,b"),
    (4, None, "4 fields instead of 3", "3,c,3,9"),
    (6, "id", "the value abc does not fit INTEGER", "abc,d,4"),
    (7, None, 'a quote (") where none can be', '5,"e,5'),
    (8, "x", "the value 6.5 does not fit INTEGER", "6,f,6.5"),
    (9, "x", "the value zzz does not fit INTEGER", '7,"two\nlines",zzz'),
]


@pytest.fixture
def table(lake):
    lake.sql("CREATE TABLE t (id INTEGER, name VARCHAR, x INTEGER)")
    return lake


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    return tmp_path / "a.csv"


def rows(lake, table="t"):
    return lake.sql(f"FROM {table} ORDER BY ALL").fetchall()


def rejected(lake, table="t"):
    return lake.sql(f"SELECT line, field, reason, raw FROM {table}__rejects ORDER BY line").fetchall()


def test_every_bad_line_is_set_aside_and_the_rest_lands_in_one_commit(table, source):
    before = table.catalog.current_snapshot().id
    receipt = table.ingest(source, "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected, receipt.snapshot) == (3, 6, before + 1)
    assert rows(table) == [(1, "a", 1), (8, "two\nlines", 8), (9, None, None)]
    assert rejected(table) == BAD
    facts = table.sql("SELECT DISTINCT source, sha256, load, time IS NOT NULL FROM t__rejects").fetchall()
    assert [fact[:2] + fact[3:] for fact in facts] == [(str(source), receipt.sha256, True)]
    assert table.sql("SELECT count(DISTINCT id) FROM t__rejects").fetchall() == [(6,)]


def test_the_same_file_again_is_a_duplicate_also_when_all_of_it_was_rejected(table, source, tmp_path):
    first = table.ingest(source, "t", contract="quarantine")
    again = table.ingest(source, "t", contract="quarantine")
    assert (again.duplicate, again.snapshot, again.rows, again.rejected) == (True, first.snapshot, 3, 6)
    (tmp_path / "b.csv").write_text("id,name,x\nq,q,q\n")
    first = table.ingest(tmp_path / "b.csv", "t", contract="quarantine")
    assert (first.rows, first.rejected, first.duplicate) == (0, 1, False)
    again = table.ingest(tmp_path / "b.csv", "t", contract="quarantine")
    assert (again.duplicate, again.snapshot, again.rejected) == (True, first.snapshot, 1)
    assert len(rejected(table)) == 7


def test_a_retry_loads_what_was_mended_and_keeps_the_rest(table, source):
    table.ingest(source, "t", contract="quarantine")
    none = table.ingest.retry("t")
    assert (none.rows, none.rejected, none.snapshot) == (0, 6, table.catalog.current_snapshot().id)
    table.sql("UPDATE t__rejects SET raw = '2,b,2' WHERE raw = '2,b'")
    table.sql("UPDATE t__rejects SET raw = '5,\"e\",5' WHERE line = 7")
    table.sql("UPDATE t__rejects SET raw = '3,c' WHERE line = 4")
    before = table.catalog.current_snapshot().id
    receipt = table.ingest.retry("t")
    assert (receipt.rows, receipt.inserted, receipt.rejected) == (2, 2, 4)
    assert receipt.snapshot == before + 1
    assert rows(table)[1:3] == [(2, "b", 2), (5, "e", 5)]
    assert rejected(table)[0] == (4, None, "2 fields instead of 3", "3,c")
    assert [row[3] for row in rejected(table)[1:]] == [BAD[2][3], BAD[4][3], BAD[5][3]]
    assert table.ingest(source, "t", contract="quarantine").duplicate is True  # mended rows do not come again


def test_a_retry_after_the_columns_were_changed(table, source):
    table.ingest(source, "t", contract="quarantine")
    table.sql("CREATE OR REPLACE TABLE t AS SELECT * REPLACE (CAST(x AS DOUBLE) AS x) FROM t")
    table.sql("ALTER TABLE t ADD COLUMN more VARCHAR")
    receipt = table.ingest.retry("t")
    assert (receipt.rows, receipt.rejected) == (1, 5)
    assert (6, "f", 6.5, None) in rows(table)
    table.sql("ALTER TABLE t DROP COLUMN name")
    with pytest.raises(errors.SchemaMismatch, match="the rejected rows have name, which t has no more"):
        table.ingest.retry("t")
    assert len(rejected(table)) == 5


def test_a_new_table_gets_the_types_of_its_first_rows(lake, tmp_path):
    good = "".join(f"{i},2024-01-31,{i}.5,00{i},true\n" for i in range(30_000))
    (tmp_path / "a.csv").write_text("id,d,x,code,b\n" + good + "late,2024-01-31,1,1,true\n1,soon,1,1,true\n1,2\n")
    receipt = lake.ingest(tmp_path / "a.csv", "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (30_000, 3)
    assert [column.type for column in lake.catalog.table("t").schema] == [
        "BIGINT", "DATE", "DOUBLE", "VARCHAR", "BOOLEAN",
    ]  # fmt: skip
    assert [row[:2] for row in rejected(lake)] == [(30_002, "id"), (30_003, "d"), (30_004, None)]
    (tmp_path / "b.csv").write_text("id,d,x,code,b\n1\n7,2024-01-31,1.5,007,true\n")  # DuckDB would skip two lines
    receipt = lake.ingest(tmp_path / "b.csv", "u", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (1, 1)
    assert [column.type for column in lake.catalog.table("u").schema] == [
        "BIGINT", "DATE", "DOUBLE", "VARCHAR", "BOOLEAN",
    ]  # fmt: skip


def test_what_is_no_matter_of_single_rows_is_refused_as_ever(table, tmp_path):
    before = table.catalog.snapshots()
    for name, data, code in [
        ("columns.csv", b"id,nmae,x\n1,a,1\n2\n", "source_unreadable"),
        ("other.csv", b"id,nmae,x\n1,a,1\n", "schema_mismatch"),
        ("binary.csv", bytes(range(256)) * 20, "source_unreadable"),
        ("twice.csv", b"id,x,x\n1,a,1\n", "source_unreadable"),
        ("header.csv", b"id,name,x\n", "source_empty"),
        ("cut.csv.gz", gzip.compress(CSV.encode())[:-9], "source_unreadable"),
        ("title.csv", b"Sales of the year\n" + CSV.encode(), "source_unreadable schema_mismatch"),
    ]:
        (tmp_path / name).write_bytes(data)
        for into in ("t", "new"):
            if (name, into) in [("columns.csv", "new"), ("other.csv", "new"), ("title.csv", "new")]:
                continue  # for a new table these are good names
            with pytest.raises(errors.IngestError) as caught:
                table.ingest(tmp_path / name, into, contract="quarantine")
            assert caught.value.code in code.split(), (name, into)
    assert table.catalog.snapshots() == before


def test_lines_in_another_encoding(table, tmp_path):
    (tmp_path / "a.csv").write_bytes("id,name,x\n1,café,1\n".encode() + b"2,caf\xe9,2\n3,c,3\n")
    assert (table.ingest(tmp_path / "a.csv", "t", contract="quarantine")).rejected == 1
    assert rejected(table) == [(3, None, "the line is not UTF-8 text", "2,caf\\udce9,2")]
    table.sql("UPDATE t__rejects SET raw = '2,café,2'")
    assert table.ingest.retry("t").rows == 1
    assert rows(table) == [(1, "café", 1), (2, "café", 2), (3, "c", 3)]


def test_a_dialect_of_its_own_and_several_files(table, tmp_path):
    text = "id;name;x\n1;'a\\'b';1\n2;NA;1.234\n3;'c;d';4,5\nx;y;z\n"
    table.sql("ALTER TABLE t ALTER COLUMN x SET DATA TYPE DOUBLE")
    options = {
        "delim": ";", "quote": "'", "escape": "\\", "nullstr": "NA", "decimal_separator": ",", "thousands": ".",
    }  # fmt: skip
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text("id;name;x\n7\n8;h;8\n")
    receipt = table.ingest(tmp_path / "*.csv", "t", options=options, contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (4, 2)
    assert rows(table) == [(1, "a'b", 1.0), (2, None, 1234.0), (3, "c;d", 4.5), (8, "h", 8.0)]
    assert table.sql("SELECT source, line, raw FROM t__rejects ORDER BY source").fetchall() == [
        ("a.csv", 5, "x;y;z"),
        ("b.csv", 2, "7"),
    ]
    table.sql("UPDATE t__rejects SET raw = '7;''g;'';2.000,5' WHERE line = 2")
    assert table.ingest.retry("t").rows == 1
    assert (7, "g;", 2000.5) in rows(table)


@pytest.mark.parametrize("kind", ["frame", "json", "stream"])
def test_rows_of_other_sources(table, tmp_path, kind):
    records = [
        {"id": 1, "name": "a", "x": 1.0},
        {"id": 2, "name": "b", "x": 2.5},
        {"id": 5_000_000_000, "name": "c", "x": 3.0},
        {"id": 4, "name": None, "x": None},
    ]
    source = pd.DataFrame(records)
    if kind == "json":
        source.to_json(tmp_path / "a.json", orient="records", lines=True)
        source = tmp_path / "a.json"
    if kind == "stream":
        source = pa.Table.from_pandas(source).to_reader(2)
    receipt = table.ingest(source, "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (2, 2)
    assert rows(table) == [(1, "a", 1), (4, None, None)]
    assert [row[:3] for row in rejected(table)] == [
        (2, "x", "the value 2.5 does not fit INTEGER"),
        (3, "id", "the value 5000000000 does not fit INTEGER"),
    ]
    table.sql("UPDATE t__rejects SET raw = replace(raw, '2.5', '2') WHERE line = 2")
    table.sql("UPDATE t__rejects SET raw = '[1]' WHERE line = 3")
    assert (table.ingest.retry("t").rows, rejected(table)[0][2][:30]) == (1, "the text is not a JSON object ")
    table.sql("""UPDATE t__rejects SET raw = '{"id": "3", "name": "c", "x": "3"}'""")
    assert (table.ingest.retry("t").rejected, rows(table)[2]) == (0, (3, "c", 3))


def test_upserts_are_retried_as_upserts(lake, tmp_path):
    lake.ingest(pd.DataFrame({"id": [1, 2], "n": [1, 2]}), "t")
    (tmp_path / "a.csv").write_text("id,n\n1,10\n2,x\n3,y\n,4\n1,11\n")
    receipt = lake.ingest(tmp_path / "a.csv", "t", mode="upsert", key="id", contract="quarantine")
    assert (receipt.updated, receipt.inserted, receipt.deduplicated, receipt.rejected) == (1, 0, 1, 3)
    lake.sql("UPDATE t__rejects SET raw = replace(replace(raw, 'x', '20'), 'y', '30')")
    receipt = lake.ingest.retry("t")
    assert (receipt.updated, receipt.inserted, receipt.rejected) == (1, 1, 1)
    assert rows(lake) == [(1, 11), (2, 20), (3, 30)]


def test_replace_takes_the_place_of_rejects_too(table, source, tmp_path):
    table.ingest(source, "t", contract="quarantine")
    (tmp_path / "b.csv").write_text("id,name,x\n1,a,1\nx,y,z\n")
    receipt = table.ingest(tmp_path / "b.csv", "t", mode="replace", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (1, 1)
    assert (rows(table), [row[3] for row in rejected(table)]) == ([(1, "a", 1)], ["x,y,z"])
    assert table.ingest(tmp_path / "b.csv", "t", mode="replace", contract="quarantine").duplicate is True
    table.ingest(pd.DataFrame({"other": [1]}), "t", mode="replace")
    assert rejected(table) == []


def test_a_column_that_needs_a_value(lake, source):
    lake.sql("CREATE TABLE t (id INTEGER, name VARCHAR NOT NULL, x INTEGER)")
    receipt = lake.ingest(source, "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (2, 7)
    assert rejected(lake)[-1] == (13, "name", "there is no value, and the column needs one", "9,,")


def test_nothing_to_retry_and_names_that_are_taken(table, source):
    with pytest.raises(errors.TableNotFound, match="there is no table 't__rejects'"):
        table.ingest.retry("t")
    table.sql("CREATE TABLE t__rejects (mine INTEGER)")
    before = table.catalog.snapshots()
    with pytest.raises(errors.IngestError, match="t__rejects is there already"):
        table.ingest(source, "t", contract="quarantine")
    assert table.catalog.snapshots() == before
    with table.transaction(), pytest.raises(errors.IngestError, match="a retry is a commit of its own"):
        table.ingest.retry("t")


def test_many_bad_lines_and_open_quotes_take_no_time_of_their_own(table, tmp_path):
    """Every other line opens a quote; looking for its end must not read the rest of the file each time."""
    lines = "".join(f'{i},"open,{i}\n{i},plain,{i}\n{i},{i}\n' for i in range(20_000))
    (tmp_path / "a.csv").write_text("id,name,x\n" + lines)
    done = []
    worker = threading.Thread(
        target=lambda: done.append(table.ingest(tmp_path / "a.csv", "t", contract="quarantine")), daemon=True
    )
    worker.start()
    worker.join(120)
    assert [(one.rows, one.rejected) for one in done] == [(20_000, 40_000)]
