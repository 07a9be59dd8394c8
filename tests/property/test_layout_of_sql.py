"""Whatever is asked of the formatter: it gives the same SQL with every comment, or refuses."""

import duckdb
from hypothesis import event, given, settings
from hypothesis import strategies as st

from lakehouse.catalog.secrets import masked
from lakehouse.errors import FormatRefused
from lakehouse.query.format import formatted

GAPS = st.sampled_from([" ", "\n", "  ", " -- note one\n", " /* note two */ ", "/* a /* nested */ b */", "\n\n"])
VALUES = st.sampled_from(
    [
        "a", "T.b", '"Odd x"', "1_000", "'it''s -- no'", "$$a;b$$", "E'\\n\\''", "{'k': {'j': [1]}}", "[1, 2][1:2]", "a::int",
        "- a", "a ** 2", "a // 2", "@a", "x -> x + 1", "j->>'$.k'", "$name", "count(*)", "Sum(a) over (partition by b)",
        "case when a then b else c end", "a in (select 1)", "'{{x}}'", "interval 3 days", "exists (from t)", "a ~~~ 'x'",
        "a as Year", 'b AS "Q"', "* exclude (a)", "columns('x')",
    ]
)  # fmt: skip
TAILS = st.sampled_from(
    ["from T", "FROM t join u using (a)", "from t where a > 1 AND b", "from t group by all", "from t ORDER BY 1 desc limit 3",
     "from t qualify row_number() over () = 1", "from (values (1, 2)) v(a, b)", "from t at (version => 3)", ""]
)  # fmt: skip
HEADS = st.sampled_from(["select", "SELECT distinct", "with c as (select 1) SELECT", "create view V as select",
                         "insert into t by name select", "explain select", "copy (select 1) to 'x.csv'; select"])  # fmt: skip


@st.composite
def scripts(draw):
    """Statements with comments and spaces between all their parts."""
    statements = []
    for _ in range(draw(st.integers(1, 3))):
        parts = [draw(HEADS)]
        for number, value in enumerate(draw(st.lists(VALUES, min_size=1, max_size=6))):
            parts += [",", value] if number else [value]
        parts.append(draw(TAILS))
        statements.append("".join(piece for part in parts for piece in (part, draw(GAPS))))
    return draw(GAPS) + ";".join(statements) + draw(st.sampled_from(["", ";", ";\n-- note one\n"]))


def _plain(sql):
    """Everything but spaces, semicolons and comments, without the case of words."""
    for comment in ("-- note one\n", "/* note two */", "/* a /* nested */ b */"):
        sql = sql.replace(comment, " ")
    return "".join(sql.split()).replace(";", "").lower()


@settings(max_examples=150)
@given(scripts())
def test_it_stays_the_same(sql):
    try:
        done = formatted(sql)
    except FormatRefused:
        event("refused")
        return
    assert _plain(done + "\n") == _plain(sql + "\n")
    for comment in ("note one", "note two", "nested"):
        assert done.count(comment) == sql.count(comment)
    assert [one.type for one in duckdb.extract_statements(done)] == [one.type for one in duckdb.extract_statements(sql)]


def test_hardly_anything_is_refused():
    """Of DuckDB's own ways of writing, so that the guard is no way out for a formatter that does not work."""
    kept = []

    @settings(max_examples=150)
    @given(scripts())
    def count(sql):
        try:
            kept.append(formatted(sql) is not None)
        except FormatRefused as refused:
            kept.append(False)
            refusals.append((refused.message, sql))

    refusals = []
    count()
    assert sum(kept) > 0.9 * len(kept), refusals[:3]


@settings(max_examples=300)
@given(
    before=st.sampled_from(["", "SELECT 1; ", "-- x\n", "/* ' */ "]),
    name=st.sampled_from(["password", "s3_secret_access_key", "TOKEN", "db_pwd", "api_key"]),
    sign=st.sampled_from(["=", " = ", " := ", " => ", ": ", " TO "]),
    quote=st.sampled_from(["'", '"', "$$"]),
    value=st.text("abc;= ()é\n", min_size=1),
)
def test_what_is_assigned_to_a_secret_name_is_gone(before, name, sign, quote, value):
    text = masked(f"{before}SET {name}{sign}{quote}hidden{value}hidden{quote}")
    assert "hidden" not in text
