"""Saved queries: kept by name, built upon as common table expressions."""

import pytest

import lakehouse
from lakehouse.errors import AlreadyExists, LakehouseError, LakeReadOnly, NotFound, QueryError, SyntaxFault


@pytest.fixture
def saved(lake):
    lake.sql("CREATE TABLE t AS SELECT i, i % 3 AS part FROM range(30) r(i)")
    return lake.saved


def run(saved, lake, sql, *names, params=None):
    return lake.sql(saved.compose(sql, names), params).fetchall()


def test_a_saved_query_is_read_like_a_table(lake, saved):
    saved.add("small", "SELECT * FROM t WHERE i < 5 -- the small ones")
    assert run(saved, lake, "SELECT count(*) FROM small", "small") == [(5,)]
    assert run(saved, lake, "FROM small SELECT max(i)", "SMALL") == [(4,)]
    assert saved["small"].sql == "SELECT * FROM t WHERE i < 5 -- the small ones"
    assert saved.compose("SELECT 1") == "SELECT 1"


def test_what_it_was_saved_upon_comes_with_it_once_and_before(lake, saved):
    saved.add("a", "SELECT i FROM t WHERE part = 0;")
    saved.add("b", "SELECT i + 1 AS i FROM a", with_=["a"])
    saved.add("c", "SELECT * FROM a UNION ALL FROM b", with_=["a", "b"])
    text = saved.compose("SELECT count(*) FROM c JOIN b USING (i)", ["c", "b", "c"])
    assert [text.count(f"{name} AS (") for name in "abc"] == [1, 1, 1]
    assert text.index("a AS (") < text.index("b AS (") < text.index("c AS (")
    assert run(saved, lake, "SELECT count(*) FROM c", "c") == [(20,)]
    assert saved["c"].uses == ("a", "b")


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("WITH mine AS (SELECT i FROM few WHERE i > 1) SELECT count(*) FROM mine", 3),
        ("-- a\n/* b */ with recursive n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 4) FROM n, few SELECT count(*)", 20),
        ("SELECT count(*) FROM few WHERE i < $most", 3),
    ],
)  # fmt: skip
def test_it_goes_before_what_the_query_has_itself(lake, saved, sql, rows):
    saved.add("few", "SELECT i FROM t WHERE i < 5")
    params = {"most": 3} if "$most" in sql else None
    assert run(saved, lake, sql, "few", params=params) == [(rows,)]


def test_writes_can_build_on_it(lake, saved):
    saved.add("few", "SELECT i, part FROM t WHERE i < 5")
    run(saved, lake, "INSERT INTO t SELECT i + 100, part FROM few", "few")
    run(saved, lake, "DELETE FROM t WHERE i IN (SELECT i FROM few)", "few")
    assert lake.sql("SELECT count(*), max(i) FROM t").fetchone() == (30, 104)
    with pytest.raises(QueryError, match="before CREATE"):
        saved.compose("CREATE TABLE u AS FROM few", ["few"])
    with pytest.raises(QueryError, match="one statement"):
        saved.compose("SELECT 1; SELECT 2", ["few"])


def test_every_process_sees_it(lake, saved):
    saved.add("mine", "SELECT 1 AS one")
    with lakehouse.open(lake.path) as other:
        assert [query.name for query in other.saved] == ["mine"]
        other.saved.add("MINE", "SELECT 2 AS two")
    assert saved["mine"].sql == "SELECT 2 AS two"
    assert len(saved) == 1
    assert "Mine" in saved
    with lakehouse.open(lake.path, read_only=True) as reader:
        assert reader.sql(reader.saved.compose("FROM mine", ["mine"])).fetchall() == [(2,)]
        for attempt in (lambda: reader.saved.add("x", "SELECT 1"), lambda: reader.saved.delete("mine")):
            with pytest.raises(LakeReadOnly):
                attempt()


def test_it_never_reads_itself(saved):
    saved.add("a", "SELECT 1 AS x")
    saved.add("b", "SELECT * FROM a", with_=["a"])
    with pytest.raises(QueryError, match="would read itself"):
        saved.add("a", "SELECT * FROM b", with_=["b"])
    with pytest.raises(QueryError, match="would read itself"):
        saved.add("A", "SELECT * FROM a", with_=["a"])
    assert saved["a"].uses == ()


def test_deleting(saved):
    saved.add("a", "SELECT 1 AS x")
    saved.add("b", "SELECT * FROM a", with_=["a"])
    with pytest.raises(QueryError, match="is read by b"):
        saved.delete("a")
    saved.delete("b")
    saved.delete("A")
    assert list(saved) == []
    with pytest.raises(NotFound, match="no saved query 'a'"):
        saved.delete("a")
    saved.add("a", "SELECT 1")
    saved.add("b", "FROM a", with_="a")
    saved.delete("a", force=True)
    with pytest.raises(NotFound, match="no saved query 'a'"):
        saved.compose("FROM b", ["b"])


def test_what_cannot_be_saved(saved):
    for name in ("", "1a", "a b", "a-b", "naïve", 'a"b', None):
        with pytest.raises(LakehouseError, match="cannot be the name"):
            saved.add(name, "SELECT 1")
    for name in ("select", "WHERE", "table"):
        with pytest.raises(QueryError, match="word of SQL"):
            saved.add(name, "SELECT 1")
    for sql in ("DELETE FROM t", "SELECT 1; SELECT 2", "CREATE TABLE x (i INTEGER)", "COPY t TO 'x.csv'"):
        with pytest.raises(QueryError, match="one SELECT"):
            saved.add("x", sql)
    with pytest.raises(SyntaxFault):
        saved.add("x", "SELEC 1")
    with pytest.raises(NotFound) as raised:
        saved.add("x", "FROM y", with_=["y"])
    assert "nothing is saved yet" in raised.value.hint
    saved.add("late", "SELECT 1")
    with pytest.raises(NotFound) as raised:
        saved.compose("FROM lat", ["lat"])
    assert "late" in raised.value.hint
    with pytest.raises(AlreadyExists):
        saved.add("late", "SELECT 2", replace=False)
    assert [query.sql for query in saved] == ["SELECT 1"]
