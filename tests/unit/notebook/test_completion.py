"""Completion: what may stand at the cursor, for any text."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.notebook import cells, suggestions
from lakehouse.notebook.completion import MOST, RESERVED, Names, Relation, complete


def relation(name: str, *columns: str, schema: str = "main", kind: str = "table") -> Relation:
    return Relation(schema, name, kind, lambda: columns)


TABLES = [
    relation("flights", "id", "origin", "dest", "dep_delay", "carrier", "order"),
    relation("airlines", "carrier", "name"),
    relation("odd name", "odd column", 'quo"te', "plain"),
    relation("late", "id", "minutes", kind="view"),
    relation("daily", "day", "total", schema="stats"),
    relation("Größe", "länge", "höhe"),
]
NAMES = Names(
    relations={(r.schema.lower(), r.name.lower()): r for r in TABLES},
    schemas=["main", "stats"],
    functions=["count", "coalesce", "date_trunc"],
    table_functions=["range", "read_csv"],
    variables=["origin_code", "day_list"],
    frames={"frame": lambda: ["fa", "fb"]},
)


def at(text: str, names: Names = NAMES) -> list[str]:
    """The suggestions where the `|` stands."""
    cursor = text.index("|")
    return [one.text for one in complete(text.replace("|", "", 1), cursor, names).items]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM fl|", ["flights"]),
        ("SELECT * FROM main.fl|", ["flights"]),
        ("SELECT * FROM lake.main.fl|", ["flights"]),
        ("SELECT * FROM lake.fl|", ["flights"]),
        ("SELECT * FROM lake.st|", ["stats"]),
        ("SELECT * FROM st|", ["stats"]),
        ("SELECT * FROM stats.|", ["daily"]),
        ("SELECT * FROM flights f JOIN air|", ["airlines"]),
        ("SELECT * FROM flights, air|", ["airlines"]),
        ("SELECT * FROM la|", ["late", "lateral"]),
        ("SELECT * FROM fra|", ["frame"]),
        ("SELECT * FROM ran|", ["range"]),
        ("INSERT INTO fl|", ["flights"]),
        ("UPDATE fl|", ["flights"]),
        ("DROP TABLE IF EXISTS fl|", ["flights"]),
        ("DESCRIBE fl|", ["flights"]),
        ("SELECT * FROM gr|", ["Größe"]),
        ("SELECT dep| FROM flights", ["dep_delay"]),
        ("SELECT f.dep| FROM flights f", ["dep_delay"]),
        ("SELECT f.dep| FROM flights AS f WHERE f.id = 1", ["dep_delay"]),
        ("SELECT flights.dep| FROM flights", ["dep_delay"]),
        ("SELECT main.flights.dep| FROM main.flights", ["dep_delay"]),
        ("SELECT F.DEP| FROM flights f", ["dep_delay"]),
        ("SELECT a.| FROM flights f JOIN airlines a USING (carrier)", ["carrier", "name"]),
        ("SELECT * FROM flights f JOIN airlines a ON f.carrier = a.|", ["carrier", "name"]),
        ("SELECT * FROM flights JOIN airlines USING (nam|)", ["name"]),
        ("SELECT f.ord| FROM flights f", ['"order"']),
        ("SELECT * FROM flights WHERE dep_delay > 3 AND dep|", ["dep_delay"]),
        ("SELECT count(dep|) FROM flights", ["dep_delay"]),
        ("SELECT origin FROM flights GROUP BY dep|", ["dep_delay"]),
        ("SELECT dep_delay AS departure FROM flights ORDER BY depa|", ["departure"]),
        ("SELECT tot| FROM stats.daily", ["total"]),
        ("SELECT d.tot| FROM stats.daily d", ["total"]),
        ("SELECT fa| FROM frame", ["fa", "false"]),
        ("SELECT l.mi| FROM late l", ["minutes"]),
        ("UPDATE flights SET dep|", ["dep_delay"]),
        ("INSERT INTO flights (dep|", ["dep_delay"]),
        ("INSERT INTO stats.daily (to|)", ["total"]),
        ("ALTER TABLE flights DROP COLUMN dep|", ["dep_delay"]),
        ("MERGE INTO flights f USING airlines a ON a.na|", ["name"]),
        ("SELECT l.län| FROM Größe l", ["länge"]),
        ("SELECT coa|", ["coalesce"]),
        ("SELECT COA|", ["coalesce"]),
        ("SELEC|", ["SELECT"]),
        ("selec|", ["select"]),
        ("SELECT $or|", ["$origin_code"]),
        ("SELECT $|", ["$origin_code", "$day_list"]),
        ("USE st|", ["stats"]),
        ("SELECT flights.dep| FROM lake.main.flights", ["dep_delay"]),
        ("SELECT * FROM flights AT (VERSION => 3) f WHERE f.dep|", ["dep_delay"]),
    ],
)
def test_what_can_be_named(text: str, expected: list[str]) -> None:
    assert at(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WITH big AS (SELECT id, dep_delay * 2 AS twice FROM flights) SELECT big.| FROM big", ["id", "twice"]),
        ("WITH big AS (SELECT id FROM flights) SELECT * FROM bi|", ["big"]),
        ("WITH big(a, b) AS (SELECT 1, 2) SELECT x.| FROM big x", ["a", "b"]),
        ("WITH a AS (SELECT id FROM flights), b AS (SELECT * FROM a) SELECT b.| FROM b", ["id"]),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT r.| FROM r) SELECT n FROM r", ["n"]),
        ("WITH a AS (SELECT f.dep| FROM flights f) SELECT * FROM a", ["dep_delay"]),
        ("SELECT s.| FROM (SELECT id, origin o FROM flights) s", ["id", "o"]),
        ("SELECT s.| FROM (SELECT f.*, 1 AS one FROM late f) AS s", ["id", "minutes", "one"]),
        ("SELECT s.| FROM (VALUES (1, 2)) AS s(x, y)", ["x", "y"]),
        ("SELECT s.| FROM (FROM late) s", ["id", "minutes"]),
        ("SELECT * FROM airlines a WHERE EXISTS (SELECT 1 FROM late l WHERE a.|)", ["carrier", "name"]),
        ("SELECT dest FROM flights UNION SELECT min| FROM late", ["minutes"]),
        ("SELECT 1; SELECT dep| FROM flights; SELECT 2", ["dep_delay"]),
        ("CREATE TABLE x AS SELECT f.dep| FROM flights f", ["dep_delay"]),
    ],
)
def test_subqueries_and_ctes(text: str, expected: list[str]) -> None:
    assert at(text)[: len(expected)] == expected


def test_a_table_in_from_does_not_see_the_tables_beside_it() -> None:
    assert "name" not in at("SELECT * FROM airlines, (SELECT | FROM late) x")
    assert at("SELECT * FROM airlines, (SELECT | FROM late) x")[:2] == ["id", "minutes"]


def test_the_nearest_columns_come_first() -> None:
    found = at("SELECT * FROM airlines a WHERE EXISTS (SELECT | FROM late l)")
    assert found.index("minutes") < found.index("name")


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ('SELECT * FROM "odd na|', 14, ['"odd name"']),
        ('SELECT * FROM "odd na|"', 14, ['"odd name']),  # the closing quote is there already
        ('SELECT * FROM "|', 14, None),
        ('SELECT "dep| FROM flights WHERE "origin" = 1', 7, ['"dep_delay"']),
        ('SELECT o."odd c| FROM "odd name" o', 9, ['"odd column"']),
        ('SELECT "odd name".odd| FROM "odd name"', 18, ['"odd column"']),
        ('SELECT o.qu| FROM "odd name" o', 9, ['"quo""te"']),
        ('SELECT o."quo""| FROM "odd name" o', 9, ['"quo""te"']),
        ("SELECT * FROM odd|", 14, ['"odd name"']),
    ],
)
def test_quoted_names(text: str, start: int, expected: list[str] | None) -> None:
    found = complete(text.replace("|", "", 1), text.index("|"), NAMES)
    assert found.start == start
    if expected is not None:
        assert [one.text for one in found.items] == expected
    else:
        assert '"flights"' in [one.text for one in found.items]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'fl|",
        "SELECT 'it''s fl|' FROM flights",
        "SELECT 'fl'|",
        "SELECT $$ fl|",
        "SELECT $tag$ fl| $tag$",
        "SELECT 1 -- fl|",
        "SELECT 1 /* fl| */",
        "SELECT 12|",
        'SELECT * FROM "odd name"|',
        "SELECT f(x).fl|",
        "SELECT * FROM flights f WHERE f.zz|",
        "SELECT * FROM lake.main.flights.x|",
    ],
)
def test_nothing_where_nothing_can_be_named(text: str) -> None:
    assert at(text) == []


def test_an_untouched_column_list_has_columns_before_functions_and_keywords() -> None:
    found = complete("SELECT  FROM airlines", 7, NAMES).items
    assert [one.kind for one in found[:3]] == ["column", "column", "table"]
    kinds = [one.kind for one in found]
    assert kinds == sorted(kinds, key=["column", "table", "function", "keyword"].index)


def test_the_reserved_words_are_duckdbs() -> None:
    rows = duckdb.sql("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    assert {row[0] for row in rows} == RESERVED


def test_every_written_name_is_read_back_by_duckdb() -> None:
    names = ["plain", "with space", 'quo"te', "order", "UPPER", "größe", "1st", "a.b", "über wald", "select"]
    table = relation("t", *names)
    found = complete("SELECT t. FROM t", 9, Names(relations={("main", "t"): table})).items
    assert len(found) == len(names)
    connection = duckdb.connect()
    for one, name in zip(found, names, strict=True):
        assert connection.execute(f"SELECT * FROM (SELECT 1 AS {one.text})").description[0][0] == name


def test_no_more_than_can_be_used() -> None:
    many = {("main", f"t{i}"): relation(f"t{i}", "c") for i in range(2 * MOST)}
    assert len(complete("SELECT * FROM ", 14, Names(relations=many)).items) == MOST


PIECES = st.sampled_from(
    [
        *(
            "SELECT ",
            " FROM ",
            "WITH ",
            " AS ",
            "(",
            ")",
            "((",
            ",",
            ".",
            ";",
            '"',
            "'",
            "$",
            "$$",
            "--",
            "/*",
            "*/",
            "\n",
        ),
        *(
            "flights",
            "odd name",
            "f",
            "*",
            " JOIN ",
            " UNION ",
            " USING ",
            "INTO ",
            " AT ",
            "ü",
            "🙂",
            "\x00",
            "\t",
            "\\",
        ),
        *(
            " a AS (SELECT * FROM a)",
            "RECURSIVE ",
            "$tag$",
            "''",
            '""',
            "0",
            "%sql ",
            "%%sql",
            "<<",
            "{{",
            "=",
            "-",
            "--at",
        ),
    ]
)
HOSTILE = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=25).map("".join))


@settings(max_examples=300)
@given(HOSTILE, st.integers(min_value=-5, max_value=400))
def test_no_text_and_no_cursor_can_break_it(text: str, cursor: int) -> None:
    found = complete(text, cursor, NAMES)
    inside = max(0, min(cursor, len(text)))
    assert 0 <= found.start <= inside
    assert len(found.items) <= MOST
    typed = text[found.start : inside].replace('"', "").casefold()
    for one in found.items:
        assert one.text.replace('"', "").casefold().startswith(typed)


@settings(max_examples=300)
@given(st.sampled_from(["%%sql ", "%sql ", "x = %sql ", "%lake ", "%%sql\n"]), HOSTILE, st.integers(0, 100))
def test_no_cell_can_break_it(magic: str, text: str, cursor: int) -> None:
    cell = magic + text
    cursor = min(cursor, len(cell))
    here = suggestions.field(cell, cursor, "sql")
    if here is None:
        return
    for inside in (suggestions.in_sql, suggestions.in_lake):
        found = inside(here, cursor, lambda: NAMES)
        assert here.start <= found.start <= cursor


def test_deep_nesting_and_doubling_ctes_end_quickly() -> None:
    for text in (
        "(" * 5000 + "SELECT ",
        "SELECT * FROM " + "(SELECT * FROM " * 300,
        "WITH a0 AS (SELECT 1 AS x), "
        + ", ".join(f"a{i + 1} AS (SELECT * FROM a{i}, a{i} b)" for i in range(18))
        + " SELECT a18. FROM a18",
    ):
        complete(text, len(text), NAMES)
    doubled = text.index(" FROM a18")
    assert [one.text for one in complete(text, doubled, NAMES).items] == ["x"]


def options(text: str, inside=suggestions.in_sql) -> list[str]:
    cursor = text.index("|")
    here = suggestions.field(text.replace("|", "", 1), cursor, "sql")
    assert here is not None
    return [one.text for one in inside(here, cursor, lambda: NAMES).items]


def test_options_of_the_sql_magic() -> None:
    assert options("%%sql --|\nSELECT 1") == [option.name for option in cells.SQL_OPTIONS]
    assert options("%sql --li|") == ["--limit"]
    assert options("%sql SELECT 1 --li|") == ["--limit"]
    assert options("%sql --type |") == list(cells.TYPES)
    assert options("%sql --type a| SELECT 1") == ["arrow"]
    assert options("%sql --output |") == []


def test_sql_behind_options_and_names() -> None:
    assert options("%sql --limit 3 late << SELECT * FROM fl|") == ["flights"]
    assert options("%%sql --type df late <<\nSELECT f.dep|\nFROM flights f") == ["dep_delay"]
    assert options("%%sql\nlate << SELECT dep| FROM flights") == ["dep_delay"]
    assert options("rows = %sql SELECT * FROM fl|") == ["flights"]
    assert options("%%sql\nSELECT 1 -- fl|") == []
    assert options("%%time\n%sql SELECT * FROM fl|\nx = 1") == ["flights"]


def test_what_lake_takes() -> None:
    assert options("%lake |", suggestions.in_lake) == list(cells.LAKE_WORDS)
    assert options("%lake t|", suggestions.in_lake) == ["tables"]
    assert options("%lake columns fl|", suggestions.in_lake) == ["flights"]
    for word in ("profile", "history", "lineage"):
        assert options(f"%lake {word} fl|", suggestions.in_lake) == ["flights"]
    assert options("%lake columns odd|", suggestions.in_lake) == []
    assert options("%lake columns stats.|", suggestions.in_lake) == ["stats.daily"]
    assert options("%lake tables st|", suggestions.in_lake) == ["stats"]
    assert options("%lake --r|", suggestions.in_lake) == ["--read-only"]


def test_python_code_is_left_alone() -> None:
    for text in ("x = sql(|", "%timeit 1\nx|", "print('%sql')\nfl|", "%%time\n%sql|", "%%lakesql\nfl|", "%%sql|"):
        cursor = text.index("|")
        assert suggestions.field(text.replace("|", ""), cursor, "sql") is None
