"""Quarantine of JSON: a broken line, or an element of an array that does not fit, costs itself alone."""

import gzip

import pytest

from lakehouse import errors

LINES = [
    '{"id": 1, "name": "a", "x": 1.5}',
    "",
    '{"id": 2, "name": "b"',
    "   ",
    "[3]",
    "7",
    '{"id": "many", "name": "d", "x": 4}',
    '{"x": 12345678901234567890.5, "id": 5, "name": "é"}',
    'no "JSON" at all',
    '{"id": 6, "name": null}',
    '{"id": 7, "name": "cut of',
]


@pytest.fixture
def table(lake):
    lake.sql("CREATE TABLE t (id INTEGER, name VARCHAR, x DECIMAL(25,2))")
    return lake


def rejected(lake, table="t"):
    return lake.sql(f"SELECT line, field, reason, raw FROM {table}__rejects ORDER BY line").fetchall()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_broken_lines_are_set_aside_and_loaded_once_they_are_mended(table, tmp_path, end, packed):
    data = end.join(LINES).encode()
    source = tmp_path / ("a.ndjson.gz" if packed else "a.ndjson")
    source.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(errors.SourceUnreadable):
        table.ingest(source, "t")
    before = table.catalog.current_snapshot().id
    receipt = table.ingest(source, "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected, receipt.snapshot) == (3, 6, before + 1)
    rows = table.sql("SELECT id, name, x::VARCHAR FROM t ORDER BY id").fetchall()
    assert rows == [(1, "a", "1.50"), (5, "é", "12345678901234567890.50"), (6, None, None)]
    found = rejected(table)
    assert [(line, raw) for line, _, _, raw in found] == [(n, LINES[n - 1]) for n in (3, 5, 6, 7, 9, 11)]
    assert [field for _, field, _, _ in found] == [None, None, None, "id", None, None]
    assert found[1][2] == found[2][2] == "the text is not a JSON object with id, name, x"
    assert found[3][2] == "the value many does not fit INTEGER"
    assert all(found[n][2].startswith("the text is not JSON: ") for n in (0, 4, 5))
    assert table.ingest(source, "t", contract="quarantine").duplicate is True
    table.sql("UPDATE t__rejects SET raw = raw || '}' WHERE line = 3")
    table.sql("UPDATE t__rejects SET raw = raw || 'f\"}' WHERE line = 11")
    table.sql("""UPDATE t__rejects SET raw = '{"id": 3, "nmae": 1}' WHERE line = 5""")
    receipt = table.ingest.retry("t")
    assert (receipt.rows, receipt.rejected) == (2, 4)
    assert table.sql("SELECT id, name, x FROM t WHERE id IN (2, 7) ORDER BY id").fetchall() == [
        (2, "b", None), (7, "cut off", None),
    ]  # fmt: skip
    assert rejected(table)[0][2] == "the text is not a JSON object with id, name, x only: it has nmae"


def test_elements_of_an_array(table, tmp_path):
    (tmp_path / "a.json").write_text(
        '\ufeff[\n{"id": 1,\n "name": "a"},\n\n{"id": "x"}, {"id": 2, "x": null, "name": "[,]\\n"},\n 5,\n{"id": 2.5}\n]\n'
    )
    receipt = table.ingest(tmp_path / "a.json", "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (2, 3)
    assert table.sql("FROM t ORDER BY id").fetchall() == [(1, "a", None), (2, "[,]\n", None)]
    assert [(line, raw) for line, _, _, raw in rejected(table)] == [(5, '{"id": "x"}'), (6, "5"), (7, '{"id": 2.5}')]
    before = table.catalog.snapshots()
    (tmp_path / "b.json").write_text('[{"id": 1, "name": "a", "x": 1},\n{"id": 2, "na')
    with pytest.raises(errors.SourceUnreadable, match=r"array of .*b\.json breaks off or is damaged at line 2"):
        table.ingest(tmp_path / "b.json", "t", contract="quarantine")
    assert table.catalog.snapshots() == before


def test_a_new_table_gets_the_types_of_its_good_records(lake, tmp_path):
    good = '{"id": %d, "when": "2024-01-31", "code": "007", "tags": ["a"], "place": {"x": 1.5}}\n'
    text = "".join(good % i for i in range(50)) + "broken\n" + '{"id": 50, "place": {"x": 2}, "tags": ["b", "c"]}\n'
    (tmp_path / "a.jsonl").write_text(text + '{"id": 52, "\\ud800": 1}\n{"id": NaN}\n')
    receipt = lake.ingest(tmp_path / "a.jsonl", "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (51, 3)
    assert {column.name: column.type for column in lake.catalog.table("t").schema} == {
        "id": "BIGINT", "when": "DATE", "code": "VARCHAR", "tags": "VARCHAR[]", "place": "STRUCT(x DOUBLE)",
    }  # fmt: skip
    assert lake.sql("SELECT tags, place.x, code FROM t WHERE id IN (1, 50) ORDER BY id").fetchall() == [
        (["a"], 1.5, "007"), (["b", "c"], 2.0, None),
    ]  # fmt: skip


def test_what_is_no_matter_of_single_records(table, tmp_path):
    before = table.catalog.snapshots()
    for text, code in [
        ("nothing\nof it\n", "source_unreadable"),
        ('{"id": 1, "nmae": "x"}\nbroken\n', "schema_mismatch"),
        ('{"id": 1, "name": "a", "x": 1, "ID": 2}\nbroken\n', "source_unreadable"),
    ]:
        (tmp_path / "a.ndjson").write_text(text)
        with pytest.raises(errors.IngestError) as caught:
            table.ingest(tmp_path / "a.ndjson", "t", contract="quarantine")
        assert caught.value.code == code, text
    assert table.catalog.snapshots() == before


def test_a_key_that_stands_in_an_object_twice(table, tmp_path):
    (tmp_path / "a.ndjson").write_text('{"id": 1, "id": 2}\n{"id": 3, "name": "c", "x": 3}\n')
    assert table.ingest(tmp_path / "a.ndjson", "t", contract="quarantine").rejected == 1
    assert [row[2] for row in rejected(table)] == ["a key stands in the object more than once"]


def test_several_files_and_another_encoding(table, tmp_path):
    (tmp_path / "a.ndjson").write_text('{"id": 1, "name": "a", "x": 1}\n{"id": \n')
    (tmp_path / "b.ndjson").write_bytes(b'{"id": 2, "name": "caf\xe9"}\n{"id": 3, "name": "c"}\n')
    receipt = table.ingest(tmp_path / "*.ndjson", "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (2, 2)
    assert table.sql("SELECT source, line, reason FROM t__rejects ORDER BY source").fetchall()[1] == (
        "b.ndjson", 1, "the line is not UTF-8 text",
    )  # fmt: skip
