"""The corpus of polluted CSV files: each loads exactly right or is refused with its code."""

import sys
from pathlib import Path

import pytest

import lakehouse
from lakehouse.ingest.records import Layout, Records, guess_delimiter

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
import pollution

CASES = list(pollution.cases())
assert len({case.name for case in CASES}) == len(CASES) >= 80


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One lake for all cases: a table each."""
    folder = tmp_path_factory.mktemp("corpus")
    with lakehouse.open(folder / "lake", settings={"catalog": {"sync": False}}) as lake:
        yield lake, folder


def read(lake, table):
    columns = [column.name for column in lake.catalog.table(table).schema]
    return columns, [list(row) for row in lake.sql(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {table}").fetchall()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_polluted_file_loads_right_or_is_refused(shared, case):
    lake, folder = shared
    number = CASES.index(case)
    file = folder / str(number) / case.file
    file.parent.mkdir()
    file.write_bytes(case.data)
    if case.code is None:
        receipt = lake.ingest(file, f"t{number}", options=case.options)
        assert read(lake, f"t{number}") == (case.columns, case.rows)
        assert receipt.rows == len(case.rows)
    else:
        before = lake.catalog.current_snapshot().id
        with pytest.raises(lakehouse.LakehouseError) as caught:
            lake.ingest(file, f"t{number}", options=case.options)
        assert caught.value.code == case.code
        assert case.file in caught.value.message
        assert lake.catalog.current_snapshot().id == before


@pytest.mark.parametrize("case", [case for case in CASES if case.code is None], ids=lambda case: case.name)
def test_record_by_record_gives_the_same_rows(tmp_path, case):
    """The slow reading, which sets bad rows aside, must agree with DuckDB's about good ones."""
    file = tmp_path / case.file
    file.write_bytes(case.data)
    options = {"quote": '"', **case.options}
    nulls = ("", case.options["nullstr"]) if "nullstr" in case.options else ("",)
    layout = Layout(
        "csv",
        tuple(case.columns),
        delim=guess_delimiter(str(file), options),
        quote=options["quote"],
        escape=options.get("escape", options["quote"]),
        nulls=nulls,
    )
    records = Records([(str(file), "a.csv")], layout, options, header=options.get("header", True))
    batches = list(records.batches())
    rows = [list(row.values())[4:] for batch in batches for row in batch.to_pylist()]
    faults = [row["fault"] for batch in batches for row in batch.to_pylist() if row["fault"]]
    assert faults == []
    assert stripped(rows) == stripped(case.rows)


def stripped(rows):
    """Numbers and dates may have spaces around them in the file."""
    return [[(value and value.strip()) or None for value in row] for row in rows]


BAD_ROWS = [case for case in CASES if case.name[-5:-1] == "row "]


@pytest.mark.parametrize("case", BAD_ROWS, ids=lambda case: case.name)
def test_of_a_file_with_a_bad_row_the_others_land(lake, tmp_path, case):
    (tmp_path / "a.csv").write_bytes(case.data)
    bad = int(case.name[-1])
    receipt = lake.ingest(tmp_path / "a.csv", "t", contract="quarantine")
    assert (receipt.rows, receipt.rejected) == (3, 1)
    expected = [row for number, row in enumerate(pollution.ROWS, 1) if number != bad]
    assert read(lake, "t") == (pollution.HEADER, expected)
    raw = case.data.decode().splitlines()[bad]
    assert lake.sql("SELECT line, field, raw FROM t__rejects").fetchall() == [(bad + 1, None, raw)]


def test_the_bad_rows_are_known():
    assert len(BAD_ROWS) == 12
