"""Everything that can be loaded, and that what was loaded is exactly what was there."""

import csv
import gzip
import json
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal

import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse import errors
from lakehouse.ingest import signs

ROWS = [
    (1, "Ann", 1.5, date(2024, 1, 31)),
    (2, 'quoted "word", comma', -2.25, date(2024, 2, 29)),
    (3, None, None, None),
]
COLUMNS = ["id", "name", "score", "day"]
TEXT = 'id,name,score,day\n1,Ann,1.5,2024-01-31\n2,"quoted ""word"", comma",-2.25,2024-02-29\n3,,,\n'


def rows(lake, table="t", order="id"):
    return lake.sql(f'SELECT * FROM {table} ORDER BY "{order}"').fetchall()


def arrow():
    return pa.table({name: [row[i] for row in ROWS] for i, name in enumerate(COLUMNS)})


def records():
    return [{"id": i, "name": name, "score": score, "day": day and day.isoformat()} for i, name, score, day in ROWS]


def compressed_zst(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def workbook(path):
    book = openpyxl.Workbook()
    for row in [COLUMNS, *ROWS]:
        book.active.append(row)
    book.save(path)


def zipped(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)


def write(path, kind):
    """One file of every kind with the same three rows."""
    document = json.dumps(records())
    lines = "".join(json.dumps(record) + "\n" for record in records())
    match kind:
        case "csv":
            path.write_text(TEXT)
        case "tsv":
            with path.open("w", newline="") as file:
                csv.writer(file, delimiter="\t", lineterminator="\n").writerows([COLUMNS, *ROWS])
        case "csv.gz":
            path.write_bytes(gzip.compress(TEXT.encode()))
        case "csv.zst":
            path.write_bytes(compressed_zst(TEXT.encode()))
        case "json":
            path.write_text(document)
        case "ndjson" | "jsonl":
            path.write_text(lines)
        case "json.gz":
            path.write_bytes(gzip.compress(document.encode()))
        case "ndjson.zst":
            path.write_bytes(compressed_zst(lines.encode()))
        case "parquet":
            pq.write_table(arrow(), path)
        case "xlsx":
            workbook(path)
        case "zip":
            zipped(path, inner__csv=TEXT)
    return path


KINDS = "csv tsv csv.gz csv.zst json ndjson jsonl json.gz ndjson.zst parquet xlsx zip".split()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_rows(lake, tmp_path, kind):
    receipt = lake.ingest(write(tmp_path / f"data.{kind}", kind), "t")
    assert (receipt.table, receipt.rows, receipt.duplicate) == ("t", 3, False)
    assert rows(lake) == ROWS
    table = lake.catalog.table("t")
    assert [column.name for column in table.schema] == COLUMNS
    assert table.row_count == 3
    assert receipt.snapshot == lake.catalog.current_snapshot().id


def test_semicolons_and_decimal_commas(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id;price\n1;1,5\n2;22,75\n")
    lake.ingest(tmp_path / "a.csv", "t", options={"decimal_separator": ","})
    assert rows(lake) == [(1, 1.5), (2, 22.75)]


def test_quoted_newlines_stay_inside_their_value(lake, tmp_path):
    (tmp_path / "a.csv").write_text('id,text\n1,"two\nlines"\n2,"and ""quotes"""\n')
    lake.ingest(tmp_path / "a.csv", "t")
    assert rows(lake) == [(1, "two\nlines"), (2, 'and "quotes"')]


def test_windows_line_ends_and_byte_order_mark(lake, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfid,name\r\n1,\xc3\xa9\r\n2,b\r\n")
    lake.ingest(tmp_path / "a.csv", "t")
    assert rows(lake) == [(1, "é"), (2, "b")]


def test_utf_16_with_byte_order_mark(lake, tmp_path):
    (tmp_path / "a.csv").write_bytes("id,name\n1,é漢字\n2,b\n".encode("utf-16"))
    lake.ingest(tmp_path / "a.csv", "t")
    assert rows(lake) == [(1, "é漢字"), (2, "b")]


def test_latin_1_when_said(lake, tmp_path):
    (tmp_path / "a.csv").write_bytes("id,name\n1,café\n".encode("latin-1"))
    lake.ingest(tmp_path / "a.csv", "t", options={"encoding": "latin-1"})
    assert rows(lake) == [(1, "café")]


def test_text_only_files_keep_their_header(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id,city\nann,rome\nbob,paris\n")
    lake.ingest(tmp_path / "a.csv", "t")
    assert rows(lake) == [("ann", "rome"), ("bob", "paris")]


def test_two_thousand_columns(lake, tmp_path):
    names = [f"a_rather_long_column_name_{i}" for i in range(2000)]
    (tmp_path / "a.csv").write_text(
        "\n".join([",".join(names), *(",".join(map(str, range(r, r + 2000))) for r in (0, 5))])
    )
    assert lake.ingest(tmp_path / "a.csv", "t").rows == 2
    assert [column.name for column in lake.catalog.table("t").schema] == names
    assert rows(lake, order=names[0]) == [tuple(range(2000)), tuple(range(5, 2005))]


def test_a_wide_table_goes_on_as_others_do(lake):
    wide = pa.table({f"c{i}": [i] for i in range(2000)})
    first = lake.ingest(wide, "wide")
    assert first.snapshot == lake.catalog.current_snapshot().id
    lake.sql("INSERT INTO wide SELECT * FROM wide")
    assert lake.ingest(wide, "wide", force=True).rows == 1
    assert lake.catalog.table("wide").row_count == 3
    # Small inserts into other tables still go into the catalog, not into files of their own.
    lake.sql("CREATE TABLE narrow AS SELECT 1 AS x")
    assert (lake.catalog.table("narrow").row_count, lake.catalog.table("narrow").bytes) == (1, 0)
    lake.sql("CREATE VIEW v AS SELECT 1 AS x")  # with one DuckLake would end the process on its way back
    assert lake.ingest(wide, "wider").rows == 1
    lake.sql(f"CREATE TABLE w ({', '.join(f'c{i} INTEGER' for i in range(2000))})")
    lake.sql("INSERT INTO w SELECT * FROM wide; CREATE TABLE more AS SELECT {'a': 'it''s'} AS s")
    assert lake.sql("SELECT s.a FROM more").fetchall() == [("it's",)]
    assert [table.row_count for table in lake.catalog.tables()] == [1, 1, 3, 3, 1]


def test_the_order_of_a_large_file_is_kept(lake, tmp_path):
    lines = "".join(f"{i},{(i * 7919) % 300_007},text {i}\n" for i in range(300_000))
    (tmp_path / "a.csv").write_text("id,shuffled,text\n" + lines)
    assert lake.ingest(tmp_path / "a.csv", "t").rows == 300_000
    found = lake.sql("SELECT id, shuffled, text FROM t").arrow()
    assert found["id"].to_pylist() == list(range(300_000))
    assert found["shuffled"].to_pylist() == [(i * 7919) % 300_007 for i in range(300_000)]
    assert found["text"][299_999].as_py() == "text 299999"


@pytest.mark.parametrize("name", ["a[1].csv", "a*b.csv", "a?b.csv", "it's.csv", "sp ace.csv", "ünï.csv", "x=1.csv"])
def test_odd_file_names_mean_that_file_only(lake, tmp_path, name):
    (tmp_path / "a1.csv").write_text("id\n98\n")
    (tmp_path / "aXb.csv").write_text("id\n99\n")
    (tmp_path / name).write_text("id\n1\n2\n")
    assert lake.ingest(tmp_path / name, "t").rows == 2
    assert rows(lake) == [(1,), (2,)]


def test_odd_names_of_other_formats(lake, tmp_path):
    for kind in ("json", "parquet", "xlsx"):
        write(tmp_path / f"aXb.{kind}", kind)
        write(tmp_path / f"a*b.{kind}", kind)
        assert lake.ingest(tmp_path / f"a*b.{kind}", f"t_{kind}").rows == 3


def test_a_lake_in_a_folder_with_an_odd_name(tmp_path):
    import lakehouse

    with lakehouse.open(tmp_path / "year=2024" / "it's [a] la*ke?") as lake:
        (tmp_path / "a.csv").write_text("id,x\n1,2\n2,3\n")
        lake.ingest(tmp_path / "a.csv", "small")
        lake.ingest(pa.table({"id": range(1000)}), "large")
        assert rows(lake, "small") == [(1, 2), (2, 3)]
        assert lake.sql("SELECT count(*), sum(id) FROM large").fetchall() == [(1000, 499500)]


def test_glob_and_folder_and_zip_put_files_together(lake, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "b.csv").write_text("id,name\n3,c\n")
    (folder / "a.csv").write_text("id,name\n1,a\n2,b\n")
    (folder / ".hidden.csv").write_text("id,name\n99,z\n")
    (folder / "notes.pdf").write_text("not data")
    zipped(tmp_path / "two.zip", a__csv="id,name\n1,a\n2,b\n", b__csv="id,name\n3,c\n")
    expected = [(1, "a"), (2, "b"), (3, "c")]
    for number, source in enumerate([folder, folder / "*.csv", tmp_path / "two.zip"]):
        assert lake.ingest(str(source), f"t{number}").rows == 3
        assert rows(lake, f"t{number}") == expected


def test_files_with_their_columns_in_another_order(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id,name\n1,a\n")
    (tmp_path / "b.csv").write_text("name,id\nb,2\n")
    lake.ingest(tmp_path / "*.csv", "t")
    assert rows(lake) == [(1, "a"), (2, "b")]


def test_json_keys_that_appear_late_are_kept(lake, tmp_path):
    lines = [json.dumps({"id": i}) for i in range(30_000)] + [json.dumps({"id": 30_000, "late": "here"})]
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    assert lake.ingest(tmp_path / "a.ndjson", "t").rows == 30_001
    assert lake.sql("SELECT id FROM t WHERE late = 'here'").fetchall() == [(30_000,)]


def test_nested_json(lake, tmp_path):
    (tmp_path / "a.json").write_text('[{"id": 1, "tags": ["a", "b"], "place": {"x": 1.5, "y": null}}]')
    lake.ingest(tmp_path / "a.json", "t")
    assert lake.sql("SELECT tags, place.x FROM t").fetchall() == [(["a", "b"], 1.5)]


def test_excel_reads_beyond_an_empty_row(lake, tmp_path):
    book = openpyxl.Workbook()
    for row in [["id", "name"], [1, "a"], [None, None], [2, None], [3, "c"]]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert lake.ingest(tmp_path / "a.xlsx", "t").rows == 3
    assert rows(lake) == [(1, "a"), (2, None), (3, "c")]


def test_excel_sheet_and_range(lake, tmp_path):
    book = openpyxl.Workbook()
    sheet = book.create_sheet("second")
    for row in [["id", "name"], [1, "a"], [2, "b"]]:
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    assert lake.ingest(tmp_path / "a.xlsx", "t", options={"sheet": "second"}).rows == 2
    assert lake.ingest(tmp_path / "a.xlsx", "r", options={"sheet": "second", "range": "A1:B2"}).rows == 1


def frames():
    table = arrow()
    return {
        "pandas": table.to_pandas(),
        "arrow": table,
        "batch": table.combine_chunks().to_batches()[0],
        "reader": pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2)),
        "polars": pl.from_arrow(table),
        "lazy": pl.from_arrow(table).lazy(),
    }


@pytest.mark.parametrize("kind", frames())
def test_every_kind_of_frame_gives_the_same_rows(lake, kind):
    receipt = lake.ingest(frames()[kind], "t")
    assert (receipt.rows, receipt.duplicate) == (3, False)
    assert rows(lake) == ROWS
    assert lake.ingest(frames()[kind], "t").duplicate is True
    assert lake.catalog.table("t").row_count == 3


def test_a_named_index_is_a_column_and_a_plain_one_is_not(lake):
    frame = pd.DataFrame({"id": [7, 8], "x": ["a", "b"]})
    lake.ingest(frame.set_index("id"), "named")
    lake.ingest(frame[frame.id == 8], "filtered")
    assert rows(lake, "named") == [(7, "a"), (8, "b")]
    assert rows(lake, "filtered") == [(8, "b")]


def test_categories_and_columns_of_nothing(lake):
    frame = pd.DataFrame({"id": [1, 2], "kind": pd.Categorical(["b", "a"]), "none": [None, None]})
    lake.ingest(frame, "t")
    assert rows(lake) == [(1, "b", None), (2, "a", None)]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    lake.ingest(table.to_reader(), "r")
    assert rows(lake, "r") == rows(lake)


def test_values_of_every_type_are_exact(lake):
    moment = datetime(2024, 2, 29, 23, 59, 59, 999999)
    table = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "big": pa.array([2**63 - 1, -(2**63), None], pa.int64()),
            "unsigned": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "real": pa.array([float("inf"), float("nan"), None], pa.float64()),
            "small": pa.array([0.1, -0.0, None], pa.float32()),
            "money": pa.array(
                [Decimal("12345678901234567890.123456789"), Decimal("-0.000000001"), None], pa.decimal128(38, 9)
            ),
            "text": pa.array(["", "日本語 🦆 \x00 \n", None], pa.string()),
            "raw": pa.array([b"\x00\xff", b"", None], pa.binary()),
            "flag": pa.array([True, False, None], pa.bool_()),
            "day": pa.array([date(1, 1, 1), date(9999, 12, 31), None], pa.date32()),
            "at": pa.array([moment, datetime(1, 1, 1), None], pa.timestamp("us")),
            "zoned": pa.array([moment.replace(tzinfo=UTC), None, None], pa.timestamp("us", tz="Etc/UTC")),
            "list": pa.array([[1, None, 3], [], None], pa.list_(pa.int32())),
            "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int32())),
            "struct": pa.array(
                [{"x": 1, "y": "z"}, {"x": None, "y": None}, None], pa.struct({"x": pa.int8(), "y": pa.string()})
            ),
        }
    )
    # Once with the nested columns (DuckLake writes the rows) and once without (ingest writes the file itself).
    for name, part in {"nested": table, "flat": table.drop_columns(["list", "map", "struct"])}.items():
        large = pa.concat_tables([part] * 20)
        lake.ingest(large, name)
        lake.sql("SET TimeZone = 'Etc/UTC'")
        found = lake.sql(f"SELECT * FROM {name} ORDER BY id").arrow()
        expected = large.sort_by("id")
        for column in part.column_names:
            want, have = expected[column].to_pylist(), found[column].to_pylist()
            assert [repr(value) for value in have] == [repr(value) for value in want], column


def test_time_zones_mean_the_same_moment(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id,moment\n1,2024-07-01T12:00:00+02:00\n2,2024-07-01T10:00:00Z\n")
    lake.ingest(tmp_path / "a.csv", "t")
    assert lake.sql("SELECT count(DISTINCT moment), epoch(min(moment)) FROM t").fetchall() == [(1, 1719828000.0)]


def test_null_strings(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,NA\n2,5\n3,\n")
    lake.ingest(tmp_path / "a.csv", "t", options={"nullstr": ["", "NA"]})
    assert rows(lake) == [(1, None), (2, 5), (3, None)]


def test_append_is_by_name_and_keeps_the_tables_types(lake, tmp_path):
    lake.sql("CREATE TABLE t (id INTEGER, code VARCHAR, price DECIMAL(10,2), day DATE)")
    (tmp_path / "a.csv").write_text("DAY,price,Code,id\n2024-01-31,1.10,007,1\n2024-02-01,2,08,2\n")
    lake.ingest(tmp_path / "a.csv", "t")
    lake.ingest(pd.DataFrame({"code": ["9"], "id": [3], "price": [3.5], "day": [pd.Timestamp("2024-02-02")]}), "t")
    (tmp_path / "b.json").write_text('[{"id": 4, "code": "x", "price": 4.25, "day": "2024-02-03"}]')
    lake.ingest(tmp_path / "b.json", "t")
    assert [column.type for column in lake.catalog.table("t").schema] == ["INTEGER", "VARCHAR", "DECIMAL(10,2)", "DATE"]
    assert rows(lake) == [
        (1, "007", Decimal("1.10"), date(2024, 1, 31)),
        (2, "08", Decimal("2.00"), date(2024, 2, 1)),
        (3, "9", Decimal("3.50"), date(2024, 2, 2)),
        (4, "x", Decimal("4.25"), date(2024, 2, 3)),
    ]


def test_types_asked_for_are_used(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id,code\n1,007\n")
    lake.ingest(tmp_path / "a.csv", "t", options={"types": {"code": "VARCHAR"}})
    assert rows(lake) == [(1, "007")]


def test_whole_numbers_with_a_point_stay_whole(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n" + "".join(f"{i},{i}\n" for i in range(25_000)) + "25000,7.0\n")
    lake.ingest(tmp_path / "a.csv", "t")
    assert lake.sql("SELECT x FROM t WHERE id = 25000").fetchall() == [(7,)]
    assert lake.catalog.table("t").schema[1].type == "BIGINT"


def test_not_null_partitions_and_odd_names_are_loaded_by_ducklake(lake):
    lake.sql("CREATE TABLE p (id BIGINT, k BIGINT); ALTER TABLE p SET PARTITIONED BY (k)")
    lake.sql("CREATE TABLE n (id BIGINT NOT NULL, k BIGINT)")
    table = pa.table({"id": range(1000), "k": [i % 3 for i in range(1000)]})
    for name in ("p", "n", '"odd ""name"""'):
        assert lake.ingest(table, name).rows == 1000
        assert lake.sql(f"SELECT count(*), sum(id), sum(k) FROM {name}").fetchall() == [(1000, 499500, 999)]
    assert lake.sql("SELECT count(*) FROM p WHERE k = 1").fetchall() == [(333,)]


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        ("9007199254740993", 9007199254740993),  # more digits than a float keeps
        ("1445000000000000001", 1445000000000000001),
        ("0x1F", 31),
        ("15e3", 15000),
        ("-0", 0),
    ],
)
def test_whole_numbers_beside_fractions_are_kept_to_the_last_digit(lake, tmp_path, last, kept):
    lines = "".join(f"{i},1.5\n" for i in range(30_000))
    (tmp_path / "a.csv").write_text(f"id,x\n{lines}{last},2.5\n")
    assert lake.ingest(tmp_path / "a.csv", "t").rows == 30_001
    assert lake.sql("SELECT id FROM t WHERE x = 2.5").fetchall() == [(kept,)]
    assert [c.type for c in lake.catalog.table("t").schema] == ["BIGINT", "DOUBLE"]


@pytest.mark.parametrize("part", [1, 2, 5, 1 << 20])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
def test_the_signs_of_values_that_a_reader_would_cut_are_found_wherever_they_stand(tmp_path, monkeypatch, chunk, part):
    """Also across two chunks, or the parts of two threads; a colon in a text is no sign of a time."""
    monkeypatch.setattr(signs, "_CHUNK", chunk)
    monkeypatch.setattr(signs, "_PART", part)
    file = tmp_path / "a.csv"
    for text, found in {
        "n,s\n1,note: see b:c, 7: x\n": set(),
        "n,s\n1,at 10:30\n": {":"},
        "d\n2024-01-01\n": {"-"},
        "n\n1e-3\n": {".", "-"},
        "n\n1E-3\n": {".", "-"},
        "n\n1\n2.5": {"."},
    }.items():
        file.write_text(text)
        assert signs.look([str(file)]) == found, text


def test_a_late_time_among_dates_is_seen_behind_texts_with_colons(lake, tmp_path):
    file = tmp_path / "late.csv"
    file.write_text("d,s\n" + "2024-01-01,note: a\n" * 30_000 + "2024-01-02 10:30:00,b\n")
    with pytest.raises(errors.SourceUnreadable, match="10:30:00"):
        lake.ingest(file, "t")
