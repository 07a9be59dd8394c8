"""Names: written in SQL, split, shown and guessed at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.catalog.names import literal, nearest, quote, shown, split
from lakehouse.errors import LakehouseError

NAMES = st.text(min_size=1, max_size=20).filter(lambda name: "\0" not in name)


@given(NAMES, NAMES)
def test_what_is_quoted_is_split_again(schema, name):
    assert split(quote(schema, name)) == (schema, name)
    assert split(quote(name)) == ("main", name)
    assert split(quote("lake", schema, name)) == (schema, name)


@given(NAMES, NAMES)
def test_what_is_shown_is_split_again(schema, name):
    assert split(shown(schema, name)) == (schema, name)
    assert split(shown("main", name)) == ("main", name)


@given(st.text(max_size=20).filter(lambda text: "\0" not in text), NAMES)
def test_quotes_and_literals_mean_the_same_to_duckdb(text, name):
    import duckdb

    relation = duckdb.sql(f"SELECT {literal(text)} AS {quote(name)}")
    assert (relation.columns, relation.fetchall()) == ([name], [(text,)])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("t", ("main", "t")),
        (" s . t ", ("s", "t")),
        ('"a.b"', ("main", "a.b")),
        ('s."odd ""name"""', ("s", 'odd "name"')),
        ("lake.s.t", ("s", "t")),
        ("LAKE.s.t", ("s", "t")),
        ("zürich.流量", ("zürich", "流量")),
    ],
)
def test_split(text, parts):
    assert split(text) == parts


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a.", ".a", "a..b", "a.b.c.d", '"a', 'a"b', "other.s.t", '""', "a.b."]
)
def test_what_is_no_name(text):
    with pytest.raises(LakehouseError, match=r"is not a table name|names the catalog 'other'"):
        split(text)


def test_shown_quotes_only_what_must_be():
    assert shown("main", "t") == "t"
    assert shown("sales", "Flights") == "sales.Flights"
    assert shown("main", "a.b") == '"a.b"'
    assert shown("my schema", 'x"y') == '"my schema"."x""y"'


def test_nearest():
    assert nearest("fligths", ["flights", "planes"]) == "did you mean flights?"
    assert nearest("FLIGHT", ["Flights", "planes"]) == "did you mean Flights?"
    assert nearest("zzz", ["flights", "planes"]) is None
