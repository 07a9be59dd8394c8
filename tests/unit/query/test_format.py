"""SQL laid out: every comment kept, nothing changed, the same the second time."""

import duckdb
import pytest

from lakehouse.errors import FormatRefused, SyntaxFault
from lakehouse.query import format as layout
from lakehouse.query.format import formatted

SCRIPTS = {
    "plain": "select A,b , c from T where x=1 -- keep me\n and y=2 /* block */ order by 1",
    "around": "-- first\n/* second\n multi */\nselect 1 -- tail\n-- end",
    "from first": "from flights select origin, count(*) group by all -- why\n",
    "exclude": "select * exclude (a,b) replace (c+1 as c) from t qualify row_number() over (partition by a order by b)=1",
    "lambda": "select list_transform([1,2,3], x -> x+1), list_filter(l, lambda x: x>2) from t",
    "parameters": "select * from t where a=$name and c = ANY($names) and d % 2 = 0",
    "literals": "select {'a':1,'b':[1,2]}.a, l[1:2], a::int, 1_000, 'it''s', $$dol--lar$$, $x$ a\n b $x$, E'a\\nb\\'', x'ff'",
    "ctes": "with a as (select 1 /* one */ as x), b as materialized (from a) select * from a join b using(x)",
    "pivot": "pivot t on year using sum(x) group by name",
    "ddl": "create or replace table t as select 1 as a; create table x (a int default 5, b varchar not null -- note\n)",
    "merge": "merge into t using s on t.id=s.id when matched then update set x=s.x",
    "copy": "copy (select * from t) to 'a.parquet' (format parquet)",
    "past": "select * from t at (version => 3) where a=1",
    "case": "select case when a>1 then 'x' when b then /*c*/ 'y' end as \"Odd Name\", count(*) filter (where a>1) from t",
    "operators": "select a->>'$.x', a->'b', a ** b, a // b, a ^@ 'x', a ~~ 'b', a ~~~ 'c', a <> b, not a, - a, b & c | d, @a from t",
    "words": "select 'é—😀' as ünïcode, \"ß\" from täble -- ümlaut 😀",
    "templates": "select '{{x}}' , '{% y %}', {'a': {'b':{'c':1}}}, '{#no#}'",
    "positions": "select #1, a from t order by #1",
    "others": "summarize t; describe select 1; show tables; pragma table_info('t'); set threads=1",
    "nested comment": "select /* a /* b */ c */ 1",
    "remarks": "select 1; -- one\n;/* lone */;\n\nselect 2 -- two\n;\n-- tail",
    "text with semicolons": "select ';' as a; select $$;$$ -- ;\n, 2",
    "off": "select 1 -- fmt: off\n , 2   ,3\n-- fmt: on\n",
    "windows": "select sum(x) over (partition by a,b order by c desc rows between 1 preceding and current row) from t",
    "crlf": "select 1,\r\n 2 -- x\r\nfrom t",
    "as keyword": "SELECT 1 AS Year, 2 AS Date, x AS VALUES FROM T",
    "set": "update t /* a */ set -- b\n a=1,b=x->y where c -- why\n and d",
    "made": "create table t as -- note\n select a,b from u; create table x as from u; create macro f(x) as table select x",
    "set in a query": "update t set a=(select 1 where b in (1,2)), c=default from u where t.i=u.i returning a,b",
    "odd heads": 'create table "set" ("as" int); insert into "select" select 1; insert into t default values',
    "insert": "insert into T by name SELECT 1 AS Ab on conflict do nothing returning *",
}


def words(sql):
    """All that is not space or comment, as DuckDB's tokenizer finds it; comments, without their spaces."""
    raw = sql.encode()
    offsets = [offset for offset, _ in duckdb.tokenize(sql)]
    return [raw[offset : offset + 4].decode(errors="replace").split()[0][:1] for offset in offsets]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_stays_the_same_sql(name):
    sql = SCRIPTS[name]
    done = formatted(sql)
    assert formatted(done) == done
    assert done.endswith("\n")
    comments = [
        comment
        for comment in ("keep me", "/* block */", "second", "why", "note", "/* lone */", "tail")
        if comment in sql
    ]
    for comment in comments:
        assert done.count(comment) == sql.count(comment)
    plain = [word.lower() for word in words(sql) if word != ";"]
    assert [word.lower() for word in words(done) if word != ";"] == plain
    before, after = (
        [(str(one.type), sorted(one.named_parameters)) for one in duckdb.extract_statements(text)]
        for text in (sql, done)
    )
    assert before == after


def test_how_it_looks():
    assert formatted(SCRIPTS["plain"]) == (
        "select A, b, c\nfrom T\nwhere\n    x = 1  -- keep me\n    and y = 2  /* block */\norder by 1\n"
    )
    assert formatted("SELECT Sum(X) AS Total FROM MyTable") == "select Sum(X) as Total from MyTable\n"
    assert formatted("select 1;select 2") == "select 1;\n\nselect 2\n"
    assert formatted("select 1; -- one\nselect 2 -- two\n;") == "select 1;  -- one\n\nselect 2  -- two\n;\n"


def test_statements_with_a_query_in_them():
    assert formatted("insert into t by name select a,b from u where a>1 -- why") == (
        "insert into t by name\nselect a, b from u where a > 1  -- why\n"
    )
    assert formatted("insert into t (a,b) values (1,'x'),(2,'y')") == "insert into t (a,b)\nvalues (1, 'x'), (2, 'y')\n"
    assert formatted("CREATE OR REPLACE VIEW v AS WITH c AS (SELECT 1 b) SELECT b FROM c") == (
        "CREATE OR REPLACE VIEW v AS\nwith c as (select 1 b) select b from c\n"
    )
    assert formatted("update t set a=1,b='2' where a in (select a from u)") == (
        "update t set a = 1, b = '2' where a in (select a from u)\n"
    )
    several = "update t set a=b+1 -- one\n, c=(select max(x) from u where y=t.y) from u where t.id=u.id and c>2"
    assert formatted(several) == (
        "update t set\n    a = b + 1,  -- one\n    c = (select max(x) from u where y = t.y)\nfrom u\n"
        "where t.id = u.id and c > 2\n"
    )


def test_names_keep_their_case():
    assert "as Year" in formatted(SCRIPTS["as keyword"])
    assert "VALUES" in formatted(SCRIPTS["as keyword"])
    assert formatted("create view V as select 1 as Year") == "create view V as\nselect 1 as Year\n"


@pytest.mark.parametrize("sql", ["selec 1", "select (1", "select 1; from", ""])
def test_wrong_sql_is_told(sql):
    with pytest.raises(SyntaxFault):
        formatted(sql)


NOTED = "select b as Ab, 'Text', (1 + 2) * 3, E'x' -- note\nfrom t\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("b as", "c as"),
        ("-- note", ""),
        ("-- note", "-- not"),
        ("'Text'", "'Txt'"),
        ("from t", "from t limit 1"),
        ("(1 + 2)", "1 + 2"),
        ("E'x'", "E 'x'"),
        ("E'x'", "'x'"),
        ("from t", "from t;"),
    ],
)
def test_a_formatter_that_changes_anything_is_not_believed(monkeypatch, old, new):
    monkeypatch.setattr(layout, "_once", lambda text, what: text.replace(old, new))
    with pytest.raises(FormatRefused, match="the statement would not stay the same") as refused:
        formatted(NOTED)
    assert "left as it is" in refused.value.hint


@pytest.mark.parametrize(("old", "new"), [("'Text'", "'text'"), ("Ab", "ab"), ("from t", "from T")])
def test_the_case_of_texts_and_names_is_put_back(monkeypatch, old, new):
    monkeypatch.setattr(layout, "_once", lambda text, what: text.replace(old, new).strip())
    assert formatted(NOTED) == NOTED


def test_what_the_library_cannot_lay_out_is_refused(monkeypatch):
    def fails(*_, **__):
        raise RecursionError("too deep")

    monkeypatch.setattr("sqlfmt.api.format_string", fails)
    with pytest.raises(FormatRefused, match="statement 1 cannot be laid out") as refused:
        formatted("select 1; select 2")
    assert "too deep" in refused.value.message
