"""How the files of loads are written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def numbers(tmp_path):
    file = tmp_path / "numbers.csv"
    file.write_text("n,s\n" + "".join(f"{i},text {i}\n" for i in range(20_000)))
    return file


def _written(lake, name):
    """Encodings and compressions of the newest file of a table, and the rows of its first row group."""
    meta = pq.ParquetFile(lake.catalog.table(name).files()[-1].path).metadata
    columns = [meta.row_group(0).column(at) for at in range(meta.num_columns)]
    encodings = {encoding for column in columns for encoding in column.encodings}
    return encodings, {column.compression for column in columns}, meta.row_group(0).num_rows


def test_a_load_writes_the_second_version(lake, numbers):
    lake.ingest(numbers, "loaded")
    assert _written(lake, "loaded")[0] >= {"DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"}


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE"])
def test_fractions_are_written_as_every_spark_reads_them(lake, tmp_path, kind):
    """Spark reads BYTE_STREAM_SPLIT, the second version's way, from 4.3 on only."""
    file = tmp_path / "fractions.csv"
    file.write_text("n,x\n" + "".join(f"{i},{i / 7}\n" for i in range(20_000)))
    lake.ingest(file, "t", options={"types": {"x": kind}})
    assert _written(lake, "t")[0] <= {"PLAIN", "RLE", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
    lake.sql("CALL lake.set_option('parquet_version', 2)")
    lake.ingest(file, "t", mode="replace", force=True)
    assert "BYTE_STREAM_SPLIT" in _written(lake, "t")[0]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 40])
def test_a_few_rows_of_lists_of_texts_are_written(lake, rows):
    """DuckDB cannot write all of them in the second version."""
    table = pa.table({"id": range(rows), "words": [["k"]] * rows, "one": ["k"] * rows})
    lake.ingest(table, "t")
    lake.sql("CREATE TABLE made AS FROM t; INSERT INTO made FROM t")
    lake.maintenance.compact("made")
    assert lake.sql("SELECT * FROM t ORDER BY id").arrow().to_pylist() == table.to_pylist()
    assert lake.sql("SELECT count(*) FROM made WHERE words = ['k']").fetchone() == (2 * rows,)


def test_loads_follow_the_options_of_the_table_its_schema_and_the_lake(lake, numbers):
    """The nearest one counts."""
    lake.sql("CREATE SCHEMA cold")
    lake.sql("CALL lake.set_option('parquet_compression', 'gzip')")
    lake.sql("CALL lake.set_option('parquet_compression', 'zstd', schema => 'cold')")
    lake.sql("CALL lake.set_option('parquet_row_group_size', 4096, schema => 'cold')")
    lake.ingest(numbers, "plain")
    lake.ingest(numbers, "cold.t")
    assert _written(lake, "plain")[1:] == ({"GZIP"}, 20_000)
    assert _written(lake, "cold.t")[1:] == ({"ZSTD"}, 4096)
    lake.sql("CALL lake.set_option('parquet_compression', 'snappy', schema => 'cold', table_name => 't')")
    lake.sql("CALL lake.set_option('parquet_version', 1, schema => 'cold', table_name => 't')")
    lake.ingest(numbers, "cold.t", mode="replace", force=True)
    encodings, compressions, _ = _written(lake, "cold.t")
    assert compressions == {"SNAPPY"}
    assert not encodings & {"DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"}


def test_a_schema_that_was_dropped_leaves_no_options_to_the_next_of_its_name(lake, numbers):
    lake.sql("CREATE SCHEMA s; CALL lake.set_option('parquet_compression', 'zstd', schema => 's')")
    lake.sql("DROP SCHEMA s; CREATE SCHEMA s")
    lake.ingest(numbers, "s.t")
    assert _written(lake, "s.t")[1] == {"SNAPPY"}
