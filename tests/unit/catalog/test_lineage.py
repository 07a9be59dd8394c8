"""Where a table came from and what was made of it: ids, time, views, files, gaps, drawings."""

import hashlib
import json
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from click.testing import CliRunner

import lakehouse
from lakehouse.catalog.lineage.recording import Recorder
from lakehouse.cli import main
from lakehouse.errors import LakehouseError

CSV = "id,customer,amount\n" + "".join(f"{i},c{i % 3},{i}.5\n" for i in range(20))


@pytest.fixture
def orders(lake, tmp_path):
    """A lake with a derivation in three steps: file, table, view, table."""
    (tmp_path / "orders.csv").write_text(CSV)
    lake.ingest(tmp_path / "orders.csv", "raw")
    lake.catalog.create_view("clean", "SELECT id, upper(customer) AS customer, amount FROM raw WHERE amount > 3")
    lake.sql(
        "CREATE TABLE summary AS SELECT customer, count(*) AS n, sum(amount) AS total FROM clean GROUP BY customer"
    )
    return lake


def of(lake, name, **how):
    return lake.catalog.table(name).lineage(**how)


def sources(found):
    """What it came from, without the scripts that ran."""
    return {(node.kind, node.name) for node in found.upstream() if node.kind not in ("script", "notebook")}


def made(found):
    return {(node.kind, node.name) for node in found.downstream()}


def note(lake, snapshot=None):
    found = lake.catalog.snapshots()
    return json.loads(next(s.note for s in found if snapshot in (None, s.id)))


def edge(found, source, target):
    names = {node.id: node.name for node in found.nodes}
    (only,) = [e for e in found.edges if (names[e.source], names[e.target]) == (source, target)]
    return only


def test_three_steps(orders, tmp_path):
    found = of(orders, "summary")
    path = str(tmp_path / "orders.csv")
    assert sources(found) == {("view", "clean"), ("table", "raw"), ("file", path)}
    file = next(node for node in found.nodes if node.kind == "file")
    assert file.sha256 == hashlib.sha256(CSV.encode()).hexdigest()
    raw = next(node for node in found.nodes if node.name == "raw")
    assert raw.snapshots == (2,)
    assert edge(found, path, "raw").operation == "ingest"
    assert edge(found, path, "raw").snapshot == 1
    create = edge(found, "clean", "summary")
    assert (create.operation, create.snapshot) == ("create", 3)
    assert create.sql.startswith("CREATE TABLE summary AS")
    assert found.columns == {"customer": (("clean", "customer"),), "n": (), "total": (("clean", "amount"),)}
    assert found.complete
    assert made(of(orders, "raw")) == {("view", "clean"), ("table", "summary")}
    assert of(orders, "clean").columns["customer"] == (("raw", "customer"),)
    assert of(orders, "raw").columns["amount"] == ((path, "amount"),)


def test_direction_and_depth(orders):
    assert sources(of(orders, "summary", direction="down")) == set()
    assert made(of(orders, "clean", direction="up")) == set()
    assert sources(of(orders, "summary", depth=1)) == {("view", "clean")}
    assert sources(of(orders, "summary", depth=2)) == {("view", "clean"), ("table", "raw")}
    assert made(of(orders, "raw", depth=1)) == {("view", "clean")}
    for wrong in ({"depth": 0}, {"depth": "1"}, {"depth": True}, {"direction": "left"}):
        with pytest.raises(LakehouseError):
            of(orders, "summary", **wrong)


def test_a_rename_changes_nothing_and_a_new_table_of_the_name_is_another(orders):
    orders.sql("ALTER TABLE summary RENAME TO totals")
    orders.sql("CREATE TABLE report AS SELECT total FROM totals")
    orders.sql("CREATE TABLE summary AS SELECT 1 AS x")
    assert ("table", "raw") in sources(of(orders, "totals"))
    assert sources(of(orders, "summary")) == {("query", "CREATE TABLE summary AS SELECT 1 AS x")}
    assert made(of(orders, "raw")) == {("view", "clean"), ("table", "totals"), ("table", "report")}


def test_a_dropped_table_stays_in_between(orders):
    orders.sql("CREATE TABLE report AS SELECT total FROM summary")
    orders.sql("DROP TABLE summary")
    orders.sql("CREATE TABLE summary AS SELECT 1 AS x")
    found = of(orders, "report")
    assert [node.dropped for node in found.nodes if node.name == "summary"] == [True]
    assert ("table", "raw") in sources(found)
    assert "summary (table, dropped, read at 3)" in found.tree()


def test_only_what_was_there_when_it_was_read(orders, tmp_path):
    (tmp_path / "late.csv").write_text(CSV.replace(",c", ",d").replace(",dustomer", ",customer"))
    orders.ingest(tmp_path / "late.csv", "raw")
    assert ("file", str(tmp_path / "late.csv")) in sources(of(orders, "raw"))
    assert ("file", str(tmp_path / "late.csv")) not in sources(of(orders, "summary"))
    assert ("table", "summary") not in made(orders.catalog.table("raw").at(2).lineage())


def test_a_load_that_replaces_all_rows_is_where_they_come_from(lake, tmp_path):
    for name in ("old", "new"):
        (tmp_path / f"{name}.csv").write_text(CSV.replace("c", name))
        lake.ingest(tmp_path / f"{name}.csv", "t", mode="replace")
    assert sources(of(lake, "t")) == {("file", str(tmp_path / "new.csv"))}


@pytest.mark.parametrize(
    "query",
    [
        "WITH other AS (SELECT * FROM raw) SELECT id FROM other",
        "WITH raw AS (SELECT * FROM raw) SELECT id FROM raw",
        "SELECT other.id FROM raw AS other",
        "SELECT id FROM (SELECT * FROM raw) AS other WHERE id >= $low",
        "SELECT (SELECT max(id) FROM RAW) AS id FROM range(3) AS other",
        "FROM lake.main.raw SELECT id",
        "SELECT id FROM lake.raw UNION ALL SELECT length('other')",
    ],
)
def test_names_that_are_no_tables_are_no_sources(orders, query):
    orders.sql("CREATE TABLE other AS SELECT 7 AS id")
    orders.sql(f"CREATE TABLE t AS {query}", {"low": 2} if "$low" in query else None)
    assert {n.name for n in of(orders, "t", depth=1).nodes if n.kind in ("table", "view")} == {"t", "raw"}


def test_time_travel_names_the_snapshot_that_was_read(orders):
    orders.sql("INSERT INTO raw SELECT * FROM raw LIMIT 1")
    orders.sql("CREATE TABLE old AS SELECT id FROM raw r AT (VERSION => 1)")
    found = of(orders, "old")
    assert next(node for node in found.nodes if node.name == "raw").snapshots == (1,)
    assert not any(e.operation == "insert" for e in found.edges), "that came later than what was read"
    assert made(of(orders, "raw")) >= {("table", "old")}


def test_temporary_tables_pass_on_what_they_were_made_from(orders):
    orders.sql("CREATE TEMP TABLE part AS SELECT id FROM raw")
    orders.sql("INSERT INTO part SELECT n FROM summary")
    orders.sql("CREATE TABLE t AS SELECT * FROM part")
    assert {node.name for node in of(orders, "t", depth=1).nodes if node.kind == "table"} == {"t", "raw", "summary"}


def test_files_that_sql_reads(lake, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("x\n1\n")
    digest = hashlib.sha256(b"x\n1\n").hexdigest()
    lake.sql(f"CREATE TABLE a AS FROM read_csv('{file}')")
    lake.sql("CREATE TABLE b AS FROM read_csv($file)", {"file": str(file)})
    lake.sql(f"CREATE TABLE c AS FROM '{file}'")
    lake.sql(f"COPY c FROM '{file}'")
    for name in "abc":
        found = of(lake, name)
        assert [(n.name, n.sha256) for n in found.nodes if n.kind == "file"] == [(str(file), digest)]
    assert {e.operation for e in of(lake, "c").edges} == {"create", "copy", "ran"}
    assert of(lake, "a").columns == {"x": ((str(file), "x"),)}
    (tmp_path / "large.csv").write_text("x\n" + "1\n" * 600_000)
    lake.sql(f"CREATE TABLE large AS FROM read_csv('{tmp_path / 'large.csv'}')")
    (read,) = note(lake)["lineage"][0]["reads"]
    assert "sha256" not in read
    assert read["size"] == 1_200_002


def test_frames_and_results(orders):
    orders.ingest(pd.DataFrame({"x": [1]}), "loaded")
    assert {kind for kind, _ in sources(of(orders, "loaded"))} == {"frame"}
    orders.sql("CREATE TABLE a AS SELECT * FROM df", tables={"df": pd.DataFrame({"x": [1], "kind": ["read"]})})
    assert sources(of(orders, "a")) == {("frame", "df")}
    result = orders.sql("SELECT id FROM raw")
    orders.sql("CREATE TABLE b AS SELECT * FROM earlier", tables={"earlier": result})
    assert sources(of(orders, "b")) >= {("frame", "earlier"), ("table", "raw")}
    assert ("table", "b") in made(of(orders, "raw"))


def test_a_statement_that_is_not_understood_is_a_gap_and_does_no_harm(orders):
    orders.sql("PREPARE more AS INSERT INTO raw SELECT * FROM raw LIMIT 2")
    orders.sql("EXECUTE more")
    assert note(orders)["lineage"] == "unknown"
    assert orders.catalog.table("raw").row_count == 22
    found = of(orders, "raw")
    assert not found.complete
    assert ("unknown", "EXECUTE more") in sources(found)
    assert "not known from what" in found.tree()
    assert found.columns["id"] is None


def test_a_fault_in_the_recording_never_fails_the_write(orders, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(Recorder, "_entries", broken)
    orders.sql("INSERT INTO raw SELECT * FROM raw LIMIT 2")
    assert note(orders)["lineage"] == "unknown"
    assert not of(orders, "raw").complete


def test_what_reads_nothing_is_not_parsed(tmp_path, child):
    code = """
        import sys, lakehouse
        lake = lakehouse.open(args[0])
        lake.sql("CREATE TABLE t (a INT, b TEXT)")
        lake.sql("INSERT INTO t VALUES (1, 'select from x'), (2, NULL)")
        lake.sql("INSERT INTO main.t (a) VALUES (1)")
        lake.sql("UPDATE t SET a = 3 WHERE b IS NULL")
        lake.sql("DELETE FROM t WHERE a = 1")
        lake.sql("SELECT * FROM t").fetchall()
        say("sqlglot" in sys.modules)
        lake.sql("CREATE TABLE u AS SELECT * FROM t")
        say("sqlglot" in sys.modules)
    """
    assert child(code, tmp_path / "lake").end() == [False, True]
    with lakehouse.open(tmp_path / "lake") as lake:
        assert {e.operation for e in of(lake, "t", direction="up").edges} == {"create", "insert", "update", "delete"}
        assert sources(of(lake, "u")) >= {("table", "t")}


def test_commits_made_before_lineage_was_noted(orders, monkeypatch):
    script = [
        "CREATE TABLE a AS SELECT id FROM raw JOIN summary ON true",
        "INSERT INTO a SELECT n FROM summary",
        "BEGIN; CREATE TABLE b AS SELECT * FROM a; INSERT INTO b SELECT id FROM clean; COMMIT",
        "UPDATE a SET id = b.id FROM b WHERE a.id = b.id",
        "DROP TABLE a",
    ]
    monkeypatch.setattr(Recorder, "record", lambda *_: None)
    for statement in script:
        orders.sql(statement)
    assert "lineage" not in note(orders)
    assert sources(of(orders, "b")) >= {("table", "a"), ("view", "clean"), ("table", "summary"), ("table", "raw")}
    assert {("table", "a"), ("table", "b")} <= made(of(orders, "summary"))
    assert {("table", "a"), ("table", "b")} <= made(of(orders, "clean"))
    assert [node.dropped for node in of(orders, "b").nodes if node.name == "a"] == [True]


def test_several_statements_in_one_commit(orders):
    orders.sql("BEGIN; CREATE TABLE a AS SELECT id FROM raw; CREATE TABLE b AS SELECT n FROM summary; COMMIT")
    with orders.transaction():
        orders.sql("CREATE TABLE c AS SELECT id FROM a")
        orders.sql("CREATE TABLE d AS SELECT id FROM c")
        orders.sql("INSERT INTO b VALUES (1)")
    assert {name for kind, name in sources(of(orders, "a", depth=1))} == {"raw"}
    assert {name for kind, name in sources(of(orders, "b", depth=1)) if kind == "table"} == {"summary"}
    assert [name for kind, name in sources(of(orders, "d", depth=1))] == ["c"]
    assert edge(of(orders, "d"), "a", "c").sql == "CREATE TABLE c AS SELECT id FROM a"
    assert made(of(orders, "a")) == {("table", "c"), ("table", "d")}


def test_circles_end(orders):
    orders.sql("CREATE TABLE a AS SELECT 1 AS x")
    orders.sql("CREATE TABLE b AS SELECT * FROM a")
    for _ in range(3):
        orders.sql("INSERT INTO a SELECT * FROM b")
        orders.sql("INSERT INTO b SELECT * FROM a")
    orders.sql("INSERT INTO a SELECT x + 1 FROM a")
    found = of(orders, "a")
    assert ("table", "b") in sources(found)
    assert ("table", "b") in made(found)
    assert edge(found, "a", "a").operation == "insert"
    assert edge(found, "b", "a").snapshots == (6, 8, 10)
    assert "(itself)" in found.tree()
    ET.fromstring(found.svg())


def test_expired_snapshots_are_remembered_by_their_notes(orders):
    orders.sql("CREATE TABLE report AS SELECT total FROM summary")
    orders.sql("DROP TABLE summary")
    before = of(orders, "report")
    kept = [(s.id, s.time.isoformat(), s.author, s.message, s.note, s.changes) for s in orders.catalog.snapshots()]
    with orders.catalog.state.write() as state:
        state.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?, ?)", kept)
    versions = ", ".join(str(row[0]) for row in kept[1:])
    orders._database.root.execute(f"CALL ducklake_expire_snapshots('lake', versions => [{versions}])")
    assert len(orders.catalog.snapshots()) == 1
    after = of(orders, "report")
    assert sources(after) == sources(before)
    assert [node.dropped for node in after.nodes if node.name == "summary"] == [True]
    assert made(of(orders, "raw")) == {("view", "clean"), ("table", "report"), ("table", "summary")}


def test_a_rollback_takes_the_later_sources_away(orders):
    orders.sql("INSERT INTO summary SELECT 'x', id, 1 FROM raw")
    assert any(e.operation == "insert" for e in of(orders, "summary", direction="up").edges)
    orders.catalog.table("summary").rollback(3)
    found = of(orders, "summary", direction="up")
    assert not any(e.operation == "insert" for e in found.edges)
    assert edge(found, "summary", "summary").operation == "rollback"
    assert {("view", "clean"), ("table", "raw")} <= sources(found)
    assert found.columns["n"] == ()
    orders.catalog.table("summary").drop_column("n")
    orders.catalog.table("summary").rollback(3, allow_schema_change=True)
    assert {("view", "clean"), ("table", "raw")} <= sources(of(orders, "summary")), "it was made anew, with a new id"


def test_a_published_branch_brings_its_lineage(orders, tmp_path):
    (tmp_path / "more.csv").write_text("id,tag\n1,a\n")
    with orders.branch("staging") as branch:
        branch.ingest(tmp_path / "more.csv", "tags")
        branch.sql("CREATE TABLE tagged AS SELECT raw.*, tag FROM raw JOIN tags USING (id)")
        branch.sql("INSERT INTO summary SELECT tag, id, 0 FROM tagged")
        branch.publish()
    assert sources(of(orders, "tagged", depth=1)) == {("table", "raw"), ("table", "tags")}
    assert sources(of(orders, "tags")) == {("file", str(tmp_path / "more.csv"))}
    assert {("table", "tagged"), ("view", "clean")} == sources(of(orders, "summary", depth=1))
    assert ("table", "summary") in made(of(orders, "tags"))


def test_rejected_rows_that_are_loaded_later(lake, tmp_path):
    (tmp_path / "good.csv").write_text("id\n1\n")
    (tmp_path / "bad.csv").write_text("id\n2\nx\n")
    lake.ingest(tmp_path / "good.csv", "t", contract="quarantine")
    lake.ingest(tmp_path / "bad.csv", "t", contract="quarantine")
    lake.sql("UPDATE t__rejects SET raw = '3'")
    lake.ingest.retry("t")
    found = of(lake, "t", direction="up")
    assert lake.catalog.table("t").row_count == 3
    assert edge(found, "t__rejects", "t").operation == "retry"
    assert edge(found, str(tmp_path / "bad.csv"), "t__rejects").operation == "ingest"


def test_compaction_is_no_source(orders):
    before = of(orders, "raw").edges
    for _ in range(3):
        orders.sql("INSERT INTO raw VALUES (1, 'x', 2)")
    inserted = of(orders, "raw").edges
    orders.maintenance.compact()
    assert len(inserted) == len(before) + 1
    assert of(orders, "raw").edges == inserted


def test_who_ran_it(orders, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "reports/monthly.ipynb")
    orders.sql("INSERT INTO summary SELECT 'x', 1, 2 FROM raw")
    monkeypatch.delenv("JPY_SESSION_NAME")
    found = of(orders, "summary")
    ran = [node for node in found.nodes if node.kind == "notebook"]
    assert [node.name for node in ran] == ["reports/monthly.ipynb"]
    assert "monthly.ipynb (notebook) · ran, snapshot 4" in found.tree()
    assert any(node.kind == "script" for node in found.nodes)


def test_views_say_what_they_read_now(orders):
    orders.sql("CREATE VIEW top AS SELECT * FROM clean JOIN summary USING (customer)")
    assert sources(of(orders, "top")) >= {("view", "clean"), ("table", "summary"), ("table", "raw")}
    orders.catalog.create_view("top", "SELECT 1 AS x", replace=True)
    assert sources(of(orders, "top")) == set()
    assert ("view", "top") not in made(of(orders, "raw")), "the view that was is gone and made nothing"


def test_columns(orders):
    orders.sql(
        "CREATE TABLE t AS WITH c AS (SELECT * FROM clean) SELECT c.*, s.n + c.id AS both, 1 AS one FROM c"
        " JOIN summary s USING (customer)"
    )
    orders.sql("INSERT INTO t BY NAME SELECT total AS one FROM summary")
    orders.catalog.table("t").rename_column("both", "sum")
    assert of(orders, "t").columns == {
        "id": (("clean", "id"),),
        "customer": (("clean", "customer"),),
        "amount": (("clean", "amount"),),
        "sum": (("clean", "id"), ("summary", "n")),
        "one": (("summary", "total"),),
    }
    orders.sql("UPDATE t SET one = raw.id FROM raw WHERE raw.id = t.id")
    assert of(orders, "t").columns["one"] == (("raw", "id"), ("summary", "total"))
    assert of(orders, "t").columns["id"] == (("clean", "id"),)
    orders.sql("CREATE TABLE star AS SELECT COLUMNS('c.*') FROM clean")
    assert set(of(orders, "star").columns.values()) == {None}


ODD = 'a "b" <c>&\n]; n1 --> n2 `x` %%'


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("UPDATE t SET a = s.x + s.y, b = 1 FROM s WHERE s.id = t.id", {"a": {("s", "x"), ("s", "y")}}),
        ("UPDATE t AS u SET a = z.x FROM s AS z WHERE z.id = u.id", {"a": {("s", "x")}}),
        ("UPDATE t SET a = a + 1, b = a", {"b": {("t", "a")}}),
        ("UPDATE t SET a = (SELECT max(y) FROM s), b = id + 1", {"a": {("s", "y")}, "b": {("t", "id")}}),
        (
            "WITH q AS (SELECT id, x * y AS z FROM s) UPDATE t SET a = q.z FROM q WHERE q.id = t.id",
            {"a": {("s", "x"), ("s", "y")}},
        ),
        (
            (
                "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = s.x, b = t.b + s.y"
                " WHEN NOT MATCHED THEN INSERT (id, a) VALUES (s.id, s.y)"
            ),
            {"id": {("s", "id")}, "a": {("s", "x"), ("s", "y")}, "b": {("s", "y")}},
        ),
        (
            (
                "MERGE INTO t USING (SELECT id, x + y AS w FROM s) AS q ON t.id = q.id"
                " WHEN MATCHED THEN UPDATE SET a = q.w WHEN NOT MATCHED THEN INSERT (id) VALUES (q.id)"
            ),
            {"id": {("s", "id")}, "a": {("s", "x"), ("s", "y")}},
        ),
        ("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", {}),
    ],
)
def test_columns_that_update_and_merge_write(lake, statement, wanted):
    lake.sql("CREATE TABLE s AS SELECT 1 AS id, 2 AS x, 3 AS y")
    lake.sql("CREATE TABLE t (id INTEGER, a INTEGER, b INTEGER); INSERT INTO t VALUES (1, 0, 0), (2, 0, 0)")
    lake.sql(statement)
    found = of(lake, "t").columns
    assert {name: set(pairs) for name, pairs in found.items()} == {"id": set(), "a": set(), "b": set()} | wanted
    assert of(lake, "t").complete


def test_columns_that_copy_fills_and_what_is_not_written_down(lake, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("p,q\n1,2\n")
    lake.sql(f"CREATE TABLE t (a INTEGER, b INTEGER, c INTEGER); COPY t (b, a) FROM '{path}'")
    assert of(lake, "t").columns == {"a": ((str(path), "a"),), "b": ((str(path), "b"),), "c": ()}
    lake.sql("CREATE TABLE s AS SELECT 1 AS a, 2 AS b, 9 AS c")
    lake.sql("MERGE INTO t USING s ON t.c = s.c WHEN NOT MATCHED THEN INSERT")
    assert of(lake, "t").columns == {"a": None, "b": None, "c": None}


def test_macros_lead_to_the_tables_that_they_read(lake):
    lake.sql("CREATE TABLE s AS SELECT 1 AS id, 2 AS x")
    lake.sql(
        "CREATE MACRO up_to(n) AS TABLE SELECT id, x FROM s WHERE id < n; CREATE MACRO all_of() AS TABLE FROM up_to(9)"
    )
    lake.sql("CREATE MACRO most(v) AS v + (SELECT max(x) FROM s); CREATE MACRO twice(v) AS 2 * v")
    lake.sql("CREATE TABLE a AS FROM up_to(3); CREATE TABLE b AS FROM all_of(); CREATE TABLE c AS SELECT most(1) AS m")
    lake.sql("CREATE TABLE d AS SELECT twice(2) AS two; CREATE VIEW v AS SELECT most(id) AS m FROM all_of()")
    assert sources(of(lake, "a")) == {("function", "up_to(3)"), ("table", "s"), *made_of_s()}
    assert sources(of(lake, "b")) == {("function", "all_of()"), ("function", "up_to(9)"), ("table", "s"), *made_of_s()}
    assert sources(of(lake, "c")) == {("function", "most"), ("table", "s"), *made_of_s()}
    assert ("table", "s") in sources(of(lake, "v"))
    assert not {("table", "s"), ("function", "twice")} & sources(of(lake, "d"))
    assert {("table", "a"), ("table", "b"), ("table", "c"), ("view", "v")} <= made(of(lake, "s"))
    lake.sql("DROP MACRO TABLE up_to")  # what it read then stands in the note
    assert ("table", "s") in sources(of(lake, "a"))


def made_of_s():
    return {("query", "CREATE TABLE s AS SELECT 1 AS id, 2 AS x")}


def test_a_dropped_table_is_found_by_its_last_name(orders, tmp_path):
    orders.sql("ALTER TABLE summary RENAME TO totals; CREATE TABLE best AS SELECT max(total) AS m FROM totals")
    columns = of(orders, "totals").columns
    orders.catalog.drop("totals")
    found = orders.catalog.lineage("totals")
    assert found.root.dropped
    assert found.columns == columns
    assert {("view", "clean"), ("table", "raw"), ("file", str(tmp_path / "orders.csv"))} <= sources(found)
    assert made(found) == {("table", "best")}
    orders.sql("DROP VIEW clean")
    assert ("table", "raw") in sources(orders.catalog.lineage("clean", "up", 1))
    orders.sql("CREATE TABLE totals AS SELECT 1 AS new")
    assert not orders.catalog.lineage("totals").root.dropped  # what has the name now comes first
    with pytest.raises(LakehouseError, match="no table or view 'nothing'"):
        orders.catalog.lineage("nothing")
    orders.catalog.drop("best")
    path = str(tmp_path / "lake")
    orders.close()
    shown = CliRunner().invoke(main, ["--lake", path, "lineage", "best"])
    assert shown.exit_code == 0
    assert shown.output.startswith("best (table, dropped)")
    assert CliRunner().invoke(main, ["--lake", path, "lineage", "never"]).exit_code == 1


def test_schemas(lake):
    lake.catalog.create_schema("sales")
    lake.sql("CREATE TABLE raw AS SELECT 1 AS a; CREATE TABLE sales.raw AS SELECT 2 AS a")
    lake.sql("USE lake.sales")
    lake.sql("CREATE TABLE t AS SELECT a FROM raw")
    lake.sql("USE lake.main")
    lake.sql("CREATE TABLE t AS SELECT a FROM raw")
    assert ("table", "sales.raw") in sources(of(lake, "sales.t"))
    assert ("table", "raw") in sources(of(lake, "t"))
    assert of(lake, "sales.t").columns == {"a": (("sales.raw", "a"),)}
    assert made(of(lake, "sales.raw")) == {("table", "sales.t")}


def test_whatever_a_name_holds_stays_text(lake, tmp_path, monkeypatch):
    name = '"' + ODD.replace('"', '""') + '"'
    monkeypatch.setenv("JPY_SESSION_NAME", '<script>alert(1)</script>\x1b"]')
    lake.sql(f"CREATE TABLE {name} AS SELECT 1 AS x")
    lake.sql(f"CREATE TABLE t AS SELECT * FROM {name}")
    found = of(lake, "t")
    assert any(ODD in node.name.replace('""', '"') for node in found.nodes)
    picture = ET.fromstring(found.svg())
    texts = ["".join(element.itertext()) for element in picture.iter() if element.tag.endswith(("title", "text"))]
    assert any("<c>&" in text for text in texts)
    assert {element.tag.rsplit("}", 1)[-1] for element in picture.iter()} == {
        *("svg", "defs", "marker", "path", "rect", "g", "title", "text", "tspan")
    }
    lines = found.mermaid().splitlines()
    assert lines[0] == "flowchart LR"
    for line in lines[1:]:
        label = line[line.find('"') + 1 : line.rfind('"')].replace("<br/>", "") if '"' in line else ""
        assert not set(label) & set('"<>[]{}|`&;%') - {";"}
        assert "script>" not in line
    assert all(line.isprintable() for line in found.tree().splitlines())
    assert len(found.tree().splitlines()) == len(found.edges) + 3


def test_many_alike_are_counted(lake):
    lake.sql("CREATE TABLE base AS SELECT 1 AS x")
    for number in range(12):
        lake.sql(f"CREATE TABLE t{number:02} AS SELECT * FROM base")
    found = of(lake, "base", direction="down")
    assert len(found.downstream()) == 12
    lines = found.tree().splitlines()
    assert len(lines) == 2 + 8
    assert "5 more tables" in lines[-1]
    assert "t11" in found.svg()
    assert "t00" not in found.svg()
    assert len(found.to_dict()["nodes"]) == 13


def test_a_notebook_shows_the_picture(orders):
    found = of(orders, "summary")
    shown = found._repr_mimebundle_()
    assert shown["text/plain"] == repr(found) == found.tree()
    assert "<svg" in shown["text/html"]
    assert found._repr_svg_() == found.svg()
    assert "http" not in found.svg().replace("http://www.w3.org/2000/svg", "")
    assert json.loads(json.dumps(found.to_dict()))["root"] == found.root.id


def test_a_pinned_lake_and_a_past_table(orders):
    orders.sql("INSERT INTO summary SELECT 'x', id, 1 FROM raw")
    then = orders.catalog.table("summary").at(3).lineage()
    assert not any(e.operation == "insert" for e in then.edges)
    with lakehouse.open(orders.path, at=3) as pinned:
        assert of(pinned, "summary").edges == then.edges


def test_the_command(orders):
    path = str(orders.path)
    orders.close()

    def run(*args):
        return CliRunner().invoke(main, ["--lake", path, "lineage", *args])

    tree = run("summary", "--direction", "up")
    assert tree.exit_code == 0, tree.output
    assert tree.output.startswith("summary (table)\n└─ made from\n")
    assert "orders.csv (file" in tree.output
    assert run("summary", "--format", "mermaid").output.startswith("flowchart LR")
    assert ET.fromstring(run("summary", "--format", "svg").output).tag.endswith("svg")
    answer = json.loads(run("summary", "--format", "json", "--depth", "1").output)
    assert {node["name"] for node in answer["nodes"] if node["kind"] == "view"} == {"clean"}
    assert json.loads(run("summary", "--json").output)["complete"] is True
    assert run("nothing").exit_code == 1
    assert run("summary", "--depth", "0").exit_code == 2
