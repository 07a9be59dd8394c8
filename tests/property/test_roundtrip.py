"""What goes in comes out: generated frames through every way in, and every filter as DuckDB itself answers it."""

import csv
import math
import uuid
from datetime import date, datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)
KINDS = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "real": (pa.float64(), st.floats(allow_nan=True, width=64)),
    "text": (pa.string(), WORDS),
    "flag": (pa.bool_(), st.booleans()),
    "day": (pa.date32(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "moment": (pa.timestamp("us"), st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))),
    "money": (pa.decimal128(18, 4), st.decimals(-(10**13), 10**13, places=4, allow_nan=False)),
    "raw": (pa.binary(), st.binary(max_size=8)),
}


@st.composite
def tables(draw, kinds=tuple(KINDS), rows=(1, 40)):
    """An Arrow table with a running number and columns of several types, NULLs among them."""
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4, unique=True))
    count = draw(st.integers(*rows))
    columns = {"n": pa.array(range(count), pa.int64())}
    for kind in chosen:
        type_, values = KINDS[kind]
        columns[kind] = pa.array(draw(st.lists(st.none() | values, min_size=count, max_size=count)), type_)
    return pa.table(columns)


def same(left, right):
    """Equal values, NaN equal to NaN, -0.0 apart from 0.0."""
    assert left.column_names == right.column_names
    for name in left.column_names:
        for a, b in zip(left[name].to_pylist(), right[name].to_pylist(), strict=True):
            if isinstance(a, float) and isinstance(b, float):
                assert (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
            else:
                assert a == b
                assert type(a) is type(b)


def fresh(lake):
    """A name no example has used."""
    return f"t_{uuid.uuid4().hex}"


@given(table=tables())
def test_parquet_and_frames(lake, tmp_path, table):
    pq.write_table(table, tmp_path / "a.parquet")
    for source in (table, tmp_path / "a.parquet", table.to_reader(7)):
        name = fresh(lake)
        assert lake.ingest(source, name).rows == table.num_rows
        found = lake.sql(f"SELECT * FROM {name} ORDER BY n").arrow()
        same(found, table)
        assert [str(f.type).removeprefix("large_") for f in found.schema] == [str(f.type) for f in table.schema]


@given(table=tables(kinds=("whole", "text", "flag", "day", "moment")))
def test_csv(lake, tmp_path, table):
    # An empty CSV value is NULL, and so is "" (DuckDB, pandas and most others agree): none of those here.
    texts = {name for name in table.column_names if name == "text"}
    rows = [{k: (v or "-" if k in texts and v is not None else v) for k, v in row.items()} for row in table.to_pylist()]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([_written(value) for value in row.values()] for row in rows)
    types = {f.name: {"int64": "BIGINT", "string": "VARCHAR", "bool": "BOOLEAN"}.get(str(f.type)) for f in table.schema}
    types |= {"day": "DATE", "moment": "TIMESTAMP"}
    types = {name: kind for name, kind in types.items() if name in table.column_names}
    options = {"types": types, "delim": ",", "quote": '"', "escape": '"', "header": True}
    name = fresh(lake)
    assert lake.ingest(tmp_path / "a.csv", name, options=options).rows == len(rows)
    same(lake.sql(f"SELECT * FROM {name} ORDER BY n").arrow(), pa.Table.from_pylist(rows, schema=table.schema))


def _written(value):
    if isinstance(value, datetime | date):
        return value.isoformat()
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value


CONDITIONS = st.one_of(
    st.builds("a {} {}".format, st.sampled_from(["<", ">", "=", "<>", "<=", ">="]), st.integers(-5, 105)),
    st.builds(
        "f {} {}".format, st.sampled_from(["<", ">", "="]), st.sampled_from(["0", "2.5", "'NaN'", "'Infinity'", "-1"])
    ),
    st.builds(
        "s {} '{}'".format, st.sampled_from(["<", ">=", "="]), st.sampled_from(["", "a", "m", "zz", "é", "a" * 300])
    ),
    st.sampled_from(["s IS NULL", "f IS NULL", "NOT (a > 3)", "s LIKE 'a%'", "isnan(f)", "a IS NOT NULL AND f > a"]),
)
VALUES = st.tuples(
    st.none() | st.integers(0, 100),
    st.none() | st.sampled_from([0.0, -0.0, 2.5, -1.0, math.nan, math.inf, -math.inf, 1e300]),
    st.none() | st.sampled_from(["", "a", "ab", "m", "z", "é", "\U0001f986", "a" * 299 + "b", "a" * 301]),
)
SCHEMA = pa.schema({"a": pa.int64(), "f": pa.float64(), "s": pa.string()})


def frame(rows):
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(SCHEMA.names)}, schema=SCHEMA)


@settings(max_examples=8)
@given(
    parts=st.lists(st.lists(VALUES, min_size=1, max_size=60), min_size=1, max_size=3),
    conditions=st.lists(CONDITIONS, min_size=3, max_size=5),
    change=CONDITIONS,
    removal=CONDITIONS,
)
def test_filters_answer_as_plain_duckdb_does(lake, parts, conditions, change, removal):
    """Statistics in the files and the catalog must never hide a row, before, after and behind changes."""
    name = fresh(lake)
    plain = duckdb.connect()
    plain.execute(f"CREATE TABLE {name} (a BIGINT, f DOUBLE, s VARCHAR)")
    states = []

    def check(version=None):
        for condition in [*conditions, "true"]:
            query = f"SELECT * FROM {{}} WHERE {condition} ORDER BY ALL"
            table = name if version is None else f"state_{version}"
            want = plain.execute(query.format(table)).fetchall()
            have = lake.sql(query.format(name), at=version).fetchall()
            assert repr(have) == repr(want), condition

    def remember():
        version = lake.catalog.current_snapshot().id
        plain.execute(f"CREATE OR REPLACE TABLE state_{version} AS FROM {name}")
        states.append(version)

    for rows in parts:
        source = frame(rows)
        lake.ingest(source, name, force=True)
        plain.register("source", source)
        plain.execute(f"INSERT INTO {name} FROM source")
        check()
    remember()
    for statement in (
        f"UPDATE {name} SET a = a + 1, s = s || 'x' WHERE {change}",
        f"DELETE FROM {name} WHERE {removal}",
    ):
        lake.sql(statement)
        plain.execute(statement)
        check()
    remember()
    for version in dict.fromkeys(states):
        check(version)
    plain.close()
