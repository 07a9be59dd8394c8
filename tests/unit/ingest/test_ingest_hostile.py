"""What an unkind source must not do: round in silence, change a table for nothing, or end in an error of the engine's."""

from decimal import Decimal

import pyarrow as pa
import pytest

from lakehouse import errors


def types(lake, table="t"):
    return {column.name: column.type for column in lake.catalog.table(table).schema}


@pytest.mark.parametrize("contract", [None, "evolve", "quarantine"])
def test_upper_case_of_other_letters_is_another_name_and_said_so(lake, tmp_path, contract):
    (tmp_path / "a.csv").write_text("id,новый\n1,2\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("ID,НОВЫЙ\n1,2\n", encoding="utf-8")
    lake.ingest(tmp_path / "a.csv", "t")
    with pytest.raises(errors.SchemaMismatch, match="has the column НОВЫЙ, and t calls it новый"):
        lake.ingest(tmp_path / "b.csv", "t", contract=contract)


def test_a_source_without_rows_changes_no_table(lake, tmp_path):
    lake.sql("CREATE TABLE t (id INTEGER)")
    (tmp_path / "a.csv").write_text("id,more\n")
    before = lake.catalog.snapshots()
    with pytest.raises(errors.SourceEmpty):
        lake.ingest(tmp_path / "a.csv", "t", contract="evolve")
    assert (lake.catalog.snapshots(), types(lake)) == (before, {"id": "INTEGER"})


def test_whole_numbers_beyond_64_bits_are_not_rounded(lake, tmp_path):
    (tmp_path / "a.csv").write_text("x\n12345678901234567890123\n" + "6\n" * 20)
    with pytest.raises(errors.IngestError, match="cannot keep the type HUGEINT"):
        lake.ingest(tmp_path / "a.csv", "t", options={"types": {"x": "HUGEINT"}})
    with pytest.raises(errors.QueryError, match="cannot keep the column x"):
        lake.sql("CREATE TABLE h (x HUGEINT)")
    lake.sql("CREATE TABLE b (x BIGINT)")
    lake.ingest(tmp_path / "a.csv", "b", contract="evolve")
    assert types(lake, "b") == {"x": "DECIMAL(38,0)"}
    assert lake.sql("SELECT max(x) FROM b").fetchall() == [(Decimal(12345678901234567890123),)]
    lake.ingest(pa.table({"x": pa.array([2**64 - 1], pa.uint64())}), "u")
    lake.ingest(pa.table({"x": [-5]}), "u", contract="evolve")
    assert lake.sql("SELECT min(x), max(x) FROM u").fetchall() == [(Decimal(-5), Decimal(2**64 - 1))]


@pytest.mark.parametrize("contract", [None, "evolve", "quarantine"])
def test_nothing_is_rounded_inside_of_nested_values(lake, tmp_path, contract):
    lake.sql("CREATE TABLE t (s STRUCT(x BIGINT), l INTEGER[], f FLOAT[])")
    (tmp_path / "good.ndjson").write_text('{"s": {"x": 1}, "l": [1, 2], "f": [0.1]}\n')
    assert lake.ingest(tmp_path / "good.ndjson", "t", contract=contract).rows == 1
    for text in ('{"s": {"x": 1.5}, "l": [1], "f": [1]}', '{"s": {"x": 1}, "l": [1.5], "f": [1]}'):
        (tmp_path / "a.ndjson").write_text(text + "\n")
        if contract == "quarantine":
            assert lake.ingest(tmp_path / "a.ndjson", "t", contract=contract).rejected == 1
        else:
            with pytest.raises(errors.IngestError, match="does not fit"):
                lake.ingest(tmp_path / "a.ndjson", "t", contract=contract)
    assert lake.sql("SELECT s.x, l FROM t").fetchall() == [(1, [1, 2])]


def test_upsert_and_replace_with_keys_that_become_wider(lake, tmp_path):
    lake.ingest(pa.table({"id": pa.array([1, 2], pa.int32()), "v": [1, 2]}), "t")
    frame = pa.table({"id": [2, 5_000_000_000], "v": [2.5, 3.0]})
    receipt = lake.ingest(frame, "t", mode="upsert", key="id", contract="evolve")
    assert (receipt.inserted, receipt.updated) == (1, 1)
    receipt = lake.ingest(
        pa.table({"id": [2.5, 2.0], "v": [7.0, 8.0]}), "t", mode="upsert", key="id", contract="evolve"
    )
    assert (receipt.inserted, receipt.updated, types(lake)) == (1, 1, {"id": "DOUBLE", "v": "DOUBLE"})
    rows = [(1.0, 1.0), (2.0, 8.0), (2.5, 7.0), (5e9, 3.0)]
    assert lake.sql("FROM t ORDER BY id").fetchall() == rows
    (tmp_path / "a.csv").write_text("id,v\n2.5,9\n2.5,x\n,1\n")
    receipt = lake.ingest(tmp_path / "a.csv", "t", mode="upsert", key="id", contract="quarantine")
    assert (receipt.updated, receipt.rejected) == (1, 2)
    before = lake.catalog.snapshots()
    (tmp_path / "b.csv").write_text("id,v,new\n1,abc,1\n")
    with pytest.raises(errors.SchemaMismatch, match=r"the value abc of column v .* does not fit DOUBLE"):
        lake.ingest(tmp_path / "b.csv", "t", mode="replace", contract="evolve")
    assert lake.catalog.snapshots() == before
