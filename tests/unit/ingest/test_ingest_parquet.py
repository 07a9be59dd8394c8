"""How the files of a table are written: by the lake's options, whoever writes them."""

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


def test_every_file_of_a_new_lake_is_of_the_second_version(lake, numbers):
    second = {"DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY"}
    lake.ingest(numbers, "loaded")
    lake.sql("CREATE TABLE made AS FROM loaded")
    lake.sql("CREATE TABLE parts AS FROM loaded; INSERT INTO parts FROM loaded")
    lake.maintenance.compact("parts")
    assert len(lake.catalog.table("parts").files()) == 1
    for name in ("loaded", "made", "parts"):
        assert _written(lake, name)[0] >= second, name


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
