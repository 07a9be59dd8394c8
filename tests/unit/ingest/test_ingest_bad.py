"""Bad sources: each a clear error of ours, the table as it was, and no snapshot more than before."""

import gzip
import json
import zipfile

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse import errors

GOOD = "id,name,score\n1,a,1.5\n2,b,2.5\n"


def many(last, first="id,x", rows=30_000):
    return first + "\n" + "".join(f"{i},{i}\n" for i in range(rows)) + last


def parquet_bytes():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": range(1000), "x": [str(i) for i in range(1000)]}), sink)
    return sink.getvalue().to_pybytes()


def zst_bytes(text):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    return sink.getvalue().to_pybytes()


def random_text(rows=3000):
    return "id,x\n" + "".join(f"{i},{(i * 2654435761) % 2**32}\n" for i in range(rows))


def workbook_bytes(tmp_path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "made.xlsx")
    return (tmp_path / "made.xlsx").read_bytes()


def zip_bytes(tmp_path, text):
    with zipfile.ZipFile(tmp_path / "made.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.csv", text)
    return (tmp_path / "made.zip").read_bytes()


UNREADABLE, EMPTY = errors.SourceUnreadable, errors.SourceEmpty
FILES = {
    "empty": ("a.csv", b"", EMPTY, "a.csv is empty"),
    "empty json": ("a.json", b"", EMPTY, "a.json is empty"),
    "empty parquet": ("a.parquet", b"", EMPTY, "a.parquet is empty"),
    "empty gzip": ("a.csv.gz", gzip.compress(b""), EMPTY, "nothing but white space"),
    "white space": ("a.csv", b" \n\t\r\n \n", EMPTY, "a.csv holds nothing but white space"),
    "header only": ("a.csv", b"id,x\n", EMPTY, "a.csv holds no rows"),
    "json without records": ("a.json", b"[]", (EMPTY, UNREADABLE), "a.json"),
    "binary": ("a.csv", bytes(range(256)) * 20, UNREADABLE, "a.csv is a binary file, not CSV"),
    "text as parquet": ("a.parquet", GOOD.encode(), UNREADABLE, "a.parquet"),
    "text as gzip": ("a.csv.gz", GOOD.encode(), UNREADABLE, "a.csv.gz is damaged or incomplete"),
    "text as zip": ("a.zip", GOOD.encode(), UNREADABLE, "a.zip is not a readable zip archive"),
    "text as excel": ("a.xlsx", GOOD.encode(), UNREADABLE, "a.xlsx is not an Excel workbook"),
    "text as json": ("a.json", GOOD.encode(), UNREADABLE, "a.json"),
    "truncated row": ("a.csv", b"id,name,x\n1,a,1\n2,b,2\n3,c", UNREADABLE, "line 4"),
    "truncated gzip": ("a.csv.gz", gzip.compress(random_text().encode())[:-500], UNREADABLE, "damaged or incomplete"),
    "truncated zstd": ("a.csv.zst", zst_bytes(random_text())[:-500], UNREADABLE, "damaged or incomplete"),
    "truncated parquet": ("a.parquet", parquet_bytes()[:-100], UNREADABLE, "a.parquet"),
    "damaged parquet": ("a.parquet", b"PAR1" + b"\x55" * 400 + parquet_bytes()[404:], UNREADABLE, "a.parquet"),
    "truncated json": ("a.json", json.dumps([{"id": i} for i in range(50)]).encode()[:-20], UNREADABLE, "a.json"),
    "truncated ndjson": ("a.ndjson", b'{"id": 1}\n{"id": 2}\n{"id": 3, "x": "ab', UNREADABLE, "a.ndjson"),
    "short row": ("a.csv", b"id,name,x\n1,a,1\n2,b\n3,c,3\n", UNREADABLE, "line 3"),
    "long row": ("a.csv", b"id,name,x\n1,a,1\n2,b,2,9\n3,c,3\n", UNREADABLE, "line 3"),
    "short row late": ("a.csv", many("30000\n").encode(), UNREADABLE, "line 30002"),
    "long row late": ("a.csv", many("30000,1,2\n").encode(), UNREADABLE, "line 30002"),
    "title line": ("a.csv", b"Sales of the year\nid,name,x\n1,a,1\n2,b,2\n", UNREADABLE, "a.csv"),
    "latin-1": ("a.csv", "id,name\n1,caf\xe9\n".encode("latin-1"), UNREADABLE, "not UTF-8 text"),
    "latin-1 late": ("a.csv", many("30000,caf\xe9\n").encode("latin-1"), UNREADABLE, "a.csv"),
    "big-endian": ("a.csv", b"\xfe\xff" + GOOD.encode("utf-16-be"), UNREADABLE, "big-endian UTF-16"),
    "same header twice": ("a.csv", b"id,x,x\n1,2,3\n", UNREADABLE, "column 'x' more than once"),
    "header in two cases": ("a.csv", b"id,Name,NAME\n1,a,b\n", UNREADABLE, "column 'NAME' more than once"),
    "open quote": ("a.csv", b'id,x\n1,"a\n2,b\n3,c\n', UNREADABLE, "a.csv"),
    "open quote late": ("a.csv", many('30000,"a\n').encode(), UNREADABLE, "a.csv"),
    "text among numbers late": ("a.csv", many("30000,abc\n").encode(), UNREADABLE, "line 30002"),
    "fraction among whole numbers late": (
        "a.csv",
        many("30000,1.5\n").encode(),
        UNREADABLE,
        "the value 1.5 of column x",
    ),
    "small fraction late": ("a.csv", many("30000,15e-1\n").encode(), UNREADABLE, "the value 15e-1 of column x"),
    "text and a fraction late": ("a.csv", many("30000,1.0\n30001,abc\n").encode(), UNREADABLE, "line 30003"),
    "time among dates late": (
        "a.csv",
        ("id,d\n" + "1,2024-01-31\n" * 30_000 + "1,2024-01-31 12:30:00\n").encode(),
        UNREADABLE,
        "the value 2024-01-31 12:30:00 of column d",
    ),
    "fraction late, compressed": ("a.csv.gz", gzip.compress(many("30000,1.5\n").encode()), UNREADABLE, "the value 1.5"),
    "unknown ending": ("a.dat", GOOD.encode(), UNREADABLE, "format of a.dat is not known"),
    "old excel": ("a.xls", b"\xd0\xcf\x11\xe0", UNREADABLE, "must be saved as .xlsx"),
}


@pytest.fixture
def unchanged(lake):
    """Run something that fails; afterwards the lake must be as it was."""
    lake.sql("CREATE TABLE t AS SELECT 1 AS id, 'kept' AS name")
    before = (lake.catalog.snapshots(), lake.sql("FROM t").fetchall(), [t.full_name for t in lake.catalog.tables()])

    def fails(kinds, message, work):
        with pytest.raises(kinds) as caught:
            work()
        assert message in str(caught.value)
        assert "Traceback" not in str(caught.value)
        assert len(str(caught.value)) < 1000
        now = (lake.catalog.snapshots(), lake.sql("FROM t").fetchall(), [t.full_name for t in lake.catalog.tables()])
        assert now == before
        assert list((lake.path / "data").rglob("lakehouse-*")) == []
        assert not any((lake.path / "tmp").rglob("*")) if (lake.path / "tmp").exists() else True
        return caught.value

    return fails


@pytest.mark.parametrize("what", FILES)
def test_bad_files(lake, tmp_path, unchanged, what):
    name, data, kinds, message = FILES[what]
    (tmp_path / name).write_bytes(data)
    unchanged(kinds, message, lambda: lake.ingest(tmp_path / name, "new"))
    unchanged(
        errors.IngestError,
        message if "column" not in message else "",
        lambda: lake.ingest(tmp_path / name, "t", mode="replace"),
    )
    (tmp_path / "good.csv").write_text("id,name\n7,after\n")
    assert lake.ingest(tmp_path / "good.csv", "t").rows == 1


@pytest.mark.parametrize("size", [100, 1000, 3000, -30])
def test_a_truncated_workbook_or_archive(lake, tmp_path, unchanged, size):
    rows = [["id", "x"], *([i, f"text {i * 7919}"] for i in range(400))]
    (tmp_path / "a.xlsx").write_bytes(workbook_bytes(tmp_path, rows)[:size])
    (tmp_path / "a.zip").write_bytes(zip_bytes(tmp_path, random_text())[:size])
    unchanged(UNREADABLE, "a.xlsx", lambda: lake.ingest(tmp_path / "a.xlsx", "new"))
    unchanged(UNREADABLE, "a.zip", lambda: lake.ingest(tmp_path / "a.zip", "new"))


def test_a_zip_whose_member_is_damaged(lake, tmp_path, unchanged):
    data = bytearray(zip_bytes(tmp_path, random_text()))
    data[2000] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    unchanged(UNREADABLE, "a.zip is not a readable zip archive", lambda: lake.ingest(tmp_path / "a.zip", "new"))


def test_bad_workbooks(lake, tmp_path, unchanged):
    def book(name, rows):
        (tmp_path / name).write_bytes(workbook_bytes(tmp_path, rows))
        return tmp_path / name

    empty, header = book("e.xlsx", []), book("h.xlsx", [["id", "x"]])
    twice, late = book("d.xlsx", [["id", "ID"], [1, 2]]), book("l.xlsx", [["id"], *([i] for i in range(50)), ["abc"]])
    unchanged(EMPTY, "e.xlsx holds no rows", lambda: lake.ingest(empty, "new"))
    unchanged(EMPTY, "h.xlsx holds no rows", lambda: lake.ingest(header, "new"))
    unchanged(UNREADABLE, "column 'ID' more than once", lambda: lake.ingest(twice, "new"))
    unchanged(UNREADABLE, "A52", lambda: lake.ingest(late, "new"))
    unchanged(UNREADABLE, "nosuch", lambda: lake.ingest(late, "new", options={"sheet": "nosuch"}))


def test_nothing_there(lake, tmp_path, unchanged):
    folder = tmp_path / "folder"
    folder.mkdir()
    unchanged(errors.SourceNotFound, "there is no file", lambda: lake.ingest(tmp_path / "none.csv", "t"))
    unchanged(errors.SourceNotFound, "no file matches", lambda: lake.ingest(tmp_path / "no*.csv", "t"))
    unchanged(errors.SourceNotFound, "holds no file of a known format", lambda: lake.ingest(folder, "t"))
    (folder / "notes.pdf").write_text("x")
    unchanged(errors.SourceNotFound, "holds no file of a known format", lambda: lake.ingest(folder, "t"))
    (folder / "a.csv").write_text(GOOD)
    (folder / "b.parquet").write_bytes(parquet_bytes())
    unchanged(UNREADABLE, "different formats", lambda: lake.ingest(folder, "t"))


def test_files_that_do_not_fit_each_other(lake, tmp_path, unchanged):
    (tmp_path / "a.csv").write_text("id,name\n1,a\n")
    (tmp_path / "b.csv").write_text("id,other\n1,a\n")
    unchanged(
        UNREADABLE, "b.csv has other columns than a.csv: name, other", lambda: lake.ingest(tmp_path / "*.csv", "t")
    )


def test_wrong_arguments(lake, tmp_path, unchanged):
    (tmp_path / "a.csv").write_text(GOOD)
    source = tmp_path / "a.csv"
    unchanged(errors.IngestError, "no option 'delimiter'", lambda: lake.ingest(source, "t", options={"delimiter": ","}))
    unchanged(errors.IngestError, "'avro' is not a format", lambda: lake.ingest(source, "t", format="avro"))
    unchanged(errors.IngestError, "'update' is not a mode", lambda: lake.ingest(source, "t", mode="update"))
    unchanged(errors.IngestError, "'strict' is not a contract", lambda: lake.ingest(source, "t", contract="strict"))
    unchanged(errors.IngestError, "needs the columns", lambda: lake.ingest(source, "t", mode="upsert"))
    unchanged(errors.IngestError, "no meaning with mode='append'", lambda: lake.ingest(source, "t", key="id"))
    unchanged(
        errors.IngestError, "different column names", lambda: lake.ingest(source, "t", mode="upsert", key=["id", "ID"])
    )
    unchanged(errors.IngestError, "no column 'nr'", lambda: lake.ingest(source, "new", mode="upsert", key="nr"))
    unchanged(errors.IngestError, "cannot be a object", lambda: lake.ingest(source, "t", options={"nullstr": object()}))
    unchanged(errors.IngestError, "a int cannot be loaded", lambda: lake.ingest(42, "t"))
    unchanged(errors.LakehouseError, "is not a table name", lambda: lake.ingest(source, "a b c"))
    unchanged(errors.SchemaNotFound, "no schema 'nosuch'", lambda: lake.ingest(source, "nosuch.t"))


def test_a_view_is_no_target(lake, tmp_path):
    lake.catalog.create_view("v", "SELECT 1 AS id")
    (tmp_path / "a.csv").write_text("id\n1\n")
    before = lake.catalog.snapshots()
    for mode in ("append", "replace"):
        with pytest.raises(errors.IngestError, match="v is a view"):
            lake.ingest(tmp_path / "a.csv", "v", mode=mode)
    assert lake.catalog.snapshots() == before


def test_columns_that_do_not_fit_the_table(lake, tmp_path, unchanged):
    (tmp_path / "a.csv").write_text("id,nmae\n1,a\n")
    fault = unchanged(errors.SchemaMismatch, "nmae", lambda: lake.ingest(tmp_path / "a.csv", "t"))
    assert "the source has nmae, which the table has not; the table has name, which the source has not" in fault.message
    (tmp_path / "b.csv").write_text("id\n1\n")
    unchanged(errors.SchemaMismatch, "the table has name", lambda: lake.ingest(tmp_path / "b.csv", "t"))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("INTEGER", 1, 1.5),
        ("DECIMAL(10,2)", 1.25, 1.255),
        ("DATE", "2024-01-31", "2024-01-31 12:00:00"),
        ("TINYINT", 7, 300),
        ("BOOLEAN", True, "perhaps"),
    ],
)
def test_values_that_the_tables_type_cannot_keep(lake, tmp_path, kind, good, bad):
    lake.sql(f"CREATE TABLE t (id INTEGER, x {kind})")
    moments = [pd.Timestamp(good), pd.Timestamp(bad)] if kind == "DATE" else [good, bad]
    for number, value in enumerate((good, bad)):
        (tmp_path / f"{number}.csv").write_text(f"id,x\n1,{value}\n")
        (tmp_path / f"{number}.json").write_text(json.dumps([{"id": 1, "x": value}]))
    for source in (tmp_path / "0.csv", tmp_path / "0.json", pd.DataFrame({"id": [1], "x": [moments[0]]})):
        assert lake.ingest(source, "t").rows == 1
    before = lake.catalog.snapshots()
    for source in (tmp_path / "1.csv", tmp_path / "1.json", pd.DataFrame({"id": [1], "x": [moments[1]]})):
        with pytest.raises(UNREADABLE):
            lake.ingest(source, "t")
    assert lake.catalog.snapshots() == before
    assert lake.sql("SELECT count(*), count(DISTINCT x) FROM t").fetchall() == [(3, 1)]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame(), "has no columns"),
        (pd.DataFrame({"id": []}), "holds no rows"),
        (pa.table([[1], [2]], names=["a", "a"]), "column 'a' more than once"),
        (pa.table([[1], [2]], names=["a", "A"]), "column 'A' more than once"),
        (pd.DataFrame({"a": [1, "x", None, object()]}), "cannot be turned into columns"),
    ],
)
def test_frames_that_are_no_table(lake, unchanged, frame, message):
    unchanged(errors.IngestError, message, lambda: lake.ingest(frame, "new"))


def test_a_stream_that_breaks(lake, unchanged):
    schema = pa.schema({"id": pa.int64()})

    def batches():
        yield pa.record_batch([list(range(5000))], schema=schema)
        raise OSError("the line went dead")

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    unchanged(errors.IngestError, "the line went dead", lambda: lake.ingest(reader, "new"))


def test_a_file_that_changes_while_it_is_read(lake, tmp_path, unchanged, monkeypatch):
    from lakehouse.ingest import write

    (tmp_path / "a.csv").write_text(GOOD)
    land = write.land

    def slow(*args):
        rows = land(*args)
        (tmp_path / "a.csv").write_text(GOOD + "3,c,3.5\n")
        return rows

    monkeypatch.setattr(write, "land", slow)
    unchanged(UNREADABLE, "changed while it was read", lambda: lake.ingest(tmp_path / "a.csv", "new"))


def test_an_archive_larger_than_allowed(tmp_path):
    import lakehouse

    (tmp_path / "a.zip").write_bytes(zip_bytes(tmp_path, random_text()))
    with lakehouse.open(tmp_path / "lake", settings={"storage": {"max_temp_size": "10KB"}}) as lake:
        with pytest.raises(errors.DiskFull, match=r"more than 10,000 bytes \(storage.max_temp_size\)"):
            lake.ingest(tmp_path / "a.zip", "t")
        assert not any((lake.path / "tmp").rglob("*"))
        assert lake.catalog.tables() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"skip": "x"}}, "skip is a number of lines"),
        ({"options": {"encoding": "klingon"}}, "klingon"),
        ({"options": {"encoding": 7}}, "encoding is text"),
        ({"options": {"delim": 7}}, "delim is text"),
        ({"options": {"quote": "abc"}}, "cannot be read"),
        ({"options": {"types": 7}}, "types is a mapping or a list"),
        ({"options": "x"}, "options is not a mapping"),
        ({"format": ["csv"]}, "['csv'] is not a format"),
    ],
)
def test_arguments_of_the_wrong_kind(lake, tmp_path, unchanged, arguments, message):
    (tmp_path / "a.csv").write_text(GOOD)
    unchanged(errors.IngestError, message, lambda: lake.ingest(tmp_path / "a.csv", "t", **arguments))


def test_a_delimiter_of_two_characters(lake, tmp_path):
    (tmp_path / "a.csv").write_text("id||name\n1||a\n2||b\n")
    assert lake.ingest(tmp_path / "a.csv", "new", options={"delim": "||"}).rows == 2
    assert lake.sql("FROM new").fetchall() == [(1, "a"), (2, "b")]
    (tmp_path / "b.csv").write_text("id||ID\n1||2\n")
    with pytest.raises(UNREADABLE, match="more than once"):
        lake.ingest(tmp_path / "b.csv", "u", options={"delim": "||"})


@pytest.mark.parametrize("kind", [pa.float16(), pa.decimal256(60, 2)])
def test_arrow_types_that_no_table_can_have(lake, unchanged, kind):
    table = pa.table({"x": pa.array([None], kind)})
    for source in (table, table.to_reader()):
        unchanged(errors.IngestError, "cannot be loaded", lambda source=source: lake.ingest(source, "new"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "empty text"),
        ("~nosuch/x.csv", "nosuch"),
        ("n" * 300 + ".csv", "cannot be looked for"),
        ("n" * 300 + "*.csv", "n"),
        ("a\0b.csv", "a"),
        ("a\udcff.csv", "not UTF-8"),
    ],
)
def test_paths_that_cannot_be(lake, tmp_path, unchanged, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(GOOD)
    unchanged(errors.IngestError, message, lambda: lake.ingest(source, "new"))


def test_a_file_in_a_folder_whose_name_is_no_text(lake, tmp_path, unchanged):
    with open(bytes(tmp_path) + b"/a\xff.csv", "w") as file:
        file.write(GOOD)
    unchanged(UNREADABLE, "not UTF-8", lambda: lake.ingest(tmp_path, "new"))


def test_a_damaged_archive_member(lake, tmp_path, unchanged):
    packed = bytearray(zip_bytes(tmp_path, random_text()))
    packed[60:90] = b"\xff" * 30
    (tmp_path / "a.zip").write_bytes(packed)
    unchanged(UNREADABLE, "not a readable zip archive", lambda: lake.ingest(tmp_path / "a.zip", "new"))


@pytest.mark.parametrize("text", ['{"a": 1, "A": 2}\n', '{"a": 1}\n{"A": 2}\n', '[{"a": 1, "A": 2}]'])
def test_json_keys_that_differ_only_in_case(lake, tmp_path, unchanged, text):
    (tmp_path / "a.json").write_text(text)
    unchanged(UNREADABLE, "column 'A' more than once", lambda: lake.ingest(tmp_path / "a.json", "new"))
    (tmp_path / "b.json").write_text('{"a": 1, "A_1": 2}\n')
    assert lake.ingest(tmp_path / "b.json", "numbered").rows == 1


def test_parquet_columns_that_differ_only_in_case(lake, tmp_path, unchanged):
    pq.write_table(pa.table([[1], [2]], names=["a", "A"]), tmp_path / "a.parquet")
    unchanged(UNREADABLE, "column 'A' more than once", lambda: lake.ingest(tmp_path / "a.parquet", "new"))


def test_hashing_ends_with_a_refused_load(lake, tmp_path):
    import threading

    with open(tmp_path / "a.csv", "wb") as file:
        file.truncate(60_000_000_000)  # a hole: takes no space, but half a minute to hash
    with pytest.raises(UNREADABLE, match="binary"):
        lake.ingest(tmp_path / "a.csv", "t")
    hashing = [thread for thread in threading.enumerate() if thread.name.startswith("lakehouse-hash")]
    for thread in hashing:
        thread.join(10)
        assert not thread.is_alive()
