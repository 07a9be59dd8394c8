"""The kernel's side of a grid: what it answers, and to what it gives no answer."""

import ast
import csv
import io
import sys
import threading
from pathlib import Path

import pytest

import lakehouse
import lakehouse_widgets
from lakehouse_widgets import Grid

SQL = """
SELECT range i, range * 7919 % 1003 j, CASE WHEN range % 3 = 0 THEN NULL ELSE 'x' || range END s,
       range::HUGEINT h, 1.5::DECIMAL(9, 2) i, 'é' || chr(9) || '"' odd
FROM range(1000) ORDER BY range"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    with lakehouse.open(tmp_path_factory.mktemp("grid") / "lake") as lake:
        grid = Grid(lake.sql(SQL))
        yield grid
        grid.close()


def ask(grid, **asked):
    return grid.answer({"kind": "rows", "request": 1, "first": 0, "count": 5, **asked})[0]


def test_a_window_has_its_rows_and_the_count(grid):
    answer = ask(grid, first=997, count=100)
    assert answer["total"] == 1000
    assert [row[0] for row in answer["rows"]] == ["997", "998", "999"]
    assert answer["rows"][2] == ("999", "420", None, "999", "1.50", 'é\t"')
    assert [(c["name"], c["type"]) for c in grid.columns][3:5] == [("h", "HUGEINT"), ("i_2", "DECIMAL(9,2)")]


def test_order_and_filter_are_those_of_duckdb(grid):
    answer = ask(
        grid,
        count=500,
        sort=[{"column": "j", "direction": "desc"}],
        filter=[
            {"column": "s", "operator": "contains", "value": "X9"},
            {"column": "i", "operator": "≥", "value": "900"},
        ],
    )
    expected = sorted((i for i in range(900, 1000) if i % 3), key=lambda i: -(i * 7919 % 1003))
    assert [int(row[0]) for row in answer["rows"]] == expected
    assert answer["total"] == len(expected)
    nulls = ask(grid, filter=[{"column": "s", "operator": "is null", "value": None}])
    assert nulls["total"] == 334
    assert ask(grid)["total"] == 1000


def test_nulls_come_last_and_rows_that_are_equal_keep_their_order(grid):
    answer = ask(grid, sort=[{"column": "s", "direction": "desc"}], first=999 - 333, count=500)
    assert [int(row[0]) for row in answer["rows"]] == list(range(0, 1000, 3))


def test_a_window_behind_the_end_and_a_huge_one_give_what_there_is(grid):
    assert ask(grid, first=10**12)["rows"] == []
    assert len(ask(grid, count=500)["rows"]) == 500
    assert ask(grid, count=501)["code"] == "message_invalid"


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        "rows",
        [],
        {},
        {"kind": "sql", "sql": "DROP TABLE t"},
        {"kind": "rows"},
        {"kind": "rows", "request": 1, "first": -1, "count": 1},
        {"kind": "rows", "request": 1, "first": 1.5, "count": 1},
        {"kind": "rows", "request": 1, "first": True, "count": 1},
        {"kind": "rows", "request": 1, "first": 10**30, "count": 1},
        {"kind": "rows", "request": 1, "first": 0, "count": 10**9},
        {"kind": "rows", "request": 1, "first": 0, "count": 1, "sort": "i"},
        {
            "kind": "rows",
            "request": 1,
            "first": 0,
            "count": 1,
            "sort": [{"column": "i; DROP TABLE rows", "direction": "asc"}],
        },
        {"kind": "rows", "request": 1, "first": 0, "count": 1, "sort": [{"column": "i", "direction": "asc, 1"}]},
        {"kind": "rows", "request": 1, "first": 0, "count": 1, "sort": [{"column": ["i"], "direction": "asc"}]},
        {"kind": "rows", "request": 1, "first": 0, "count": 1, "sort": [{"column": "i", "direction": "asc"}] * 21},
        {
            "kind": "rows",
            "request": 1,
            "first": 0,
            "count": 1,
            "filter": [{"column": "i", "operator": "= 1 OR 1 =", "value": "1"}],
        },
        {
            "kind": "rows",
            "request": 1,
            "first": 0,
            "count": 1,
            "filter": [{"column": "i", "operator": "=", "value": 1}],
        },
        {
            "kind": "rows",
            "request": 1,
            "first": 0,
            "count": 1,
            "filter": [{"column": "i", "operator": "=", "value": "1 OR 1=1"}],
        },
        {
            "kind": "rows",
            "request": 1,
            "first": 0,
            "count": 1,
            "filter": [{"column": "s", "operator": "=", "value": "x" * 10_001}],
        },
        {"kind": "rows", "request": {"a": 1}, "first": 0, "count": 1},
    ],
)
def test_a_message_that_is_none_of_ours_is_refused(grid, content):
    answer, buffers = grid.answer(content)
    assert (answer["kind"], answer["code"], buffers) == ("error", "message_invalid", [])
    assert ask(grid)["total"] == 1000


def test_a_value_is_a_value(grid):
    hostile = "x1' OR '1'='1"
    assert ask(grid, filter=[{"column": "s", "operator": "=", "value": hostile}])["total"] == 0
    assert ask(grid, filter=[{"column": "s", "operator": "contains", "value": "%"}])["total"] == 0


def test_an_export_has_the_rows_of_the_view(grid):
    answer, [text] = grid.answer(
        {"kind": "export", "request": 4, "filter": [{"column": "i", "operator": "<", "value": "2"}]}
    )
    assert answer == {"kind": "export", "request": 4}
    assert list(csv.reader(io.StringIO(text.decode()))) == [
        ["i", "j", "s", "h", "i_2", "odd"],
        ["0", "0", "", "0", "1.50", 'é\t"'],
        ["1", "898", "x1", "1", "1.50", 'é\t"'],
    ]


def test_the_newest_question_is_answered_and_those_before_it_are_not(grid, monkeypatch):
    sent = []
    monkeypatch.setattr(grid, "send", lambda content, buffers: sent.append(content))
    monkeypatch.setattr(grid, "_working", True)  # the thread is busy with an earlier one
    for request in range(1, 4):
        grid._heard(grid, {"kind": "rows", "request": request, "first": request, "count": 1}, [])
    grid._work()
    assert [(one["request"], one["first"]) for one in sent] == [(3, 3)]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """300,000 rows of a lake that keeps little in memory, and the folder for what it keeps on disk."""
    settings = {"query": {"buffer_size": "1MB"}, "storage": {"max_temp_size": "100MB"}}
    with lakehouse.open(tmp_path_factory.mktemp("large") / "lake", settings=settings) as lake:
        lake.sql("CREATE TABLE t AS SELECT range i, hash(range) AS h, hash(range)::VARCHAR AS s FROM range(300000)")
        yield lake.sql("FROM t ORDER BY i"), lake.path / "tmp"


def test_a_large_result_is_kept_in_a_file_that_goes_with_the_grid(large):
    result, folder = large
    grid = Grid(result)
    assert ask(grid, first=299_999)["rows"][0][0] == "299999"
    assert len(list(folder.glob("grid-*/rows.duckdb"))) == 1
    grid.close()
    assert list(folder.glob("grid-*")) == []


def test_what_a_grid_keeps_on_disk_has_the_limit_of_the_lake(large, monkeypatch):
    result, folder = large
    by_s = [{"column": "s", "direction": "asc"}]
    grid = Grid(result)
    assert ask(grid, count=1)["total"] == 300_000
    loaded = grid._pages._kept.loaded
    assert loaded > 1_000_000
    monkeypatch.setattr(result._database, "max_temp_size", loaded * 3 // 2)
    refused = ask(grid, sort=by_s)
    assert (refused["kind"], refused["code"]) == ("error", "no_room")
    assert "storage.max_temp_size" in refused["message"]
    assert ask(grid, first=7, count=1)["rows"][0][0] == "7"  # the rows as they came are there all the same
    monkeypatch.setattr(result._database, "max_temp_size", loaded * 20)
    assert ask(grid, sort=by_s)["total"] == 300_000
    grid._pages.rest()
    monkeypatch.setattr(result._database, "max_temp_size", 300_000)
    assert ask(grid)["code"] == "no_room"
    assert list(folder.glob("grid-*")) == []


def test_a_newer_order_stops_the_one_being_made(large, monkeypatch):
    result, _ = large
    grid = Grid(result)
    ask(grid)
    sent, done = [], threading.Event()

    def send(content, buffers):
        sent.append(content)
        done.set()

    monkeypatch.setattr(grid, "send", send)
    # Ordered as often as it takes to be met in the middle of it: each order is another one.
    kept = grid._pages._kept
    kept.connection.execute(
        "SET threads = 1; INSERT INTO rows SELECT c0 + r * 300000, c1 + r, c2 || r FROM rows, range(1, 9) s(r)"
    )
    long = [{"column": column, "direction": "desc"} for column in ("s", "h", "i")]
    grid._heard(grid, {"kind": "rows", "request": 1, "first": 0, "count": 1, "sort": long}, [])
    while grid._pages._making is None:
        assert not sent
    grid._heard(grid, {"kind": "rows", "request": 2, "first": 5, "count": 1, "sort": long}, [])
    assert not done.is_set()  # another window of the same order lets it go on
    grid._heard(grid, {"kind": "rows", "request": 3, "first": 0, "count": 1}, [])
    assert done.wait(60)
    assert [(one["kind"], one["request"]) for one in sent] == [("rows", 3)]
    grid.close()


def test_an_export_is_made_although_rows_are_asked_for_after_it(grid, monkeypatch):
    sent = []
    monkeypatch.setattr(grid, "send", lambda content, buffers: sent.append(content["kind"]))
    monkeypatch.setattr(grid, "_working", True)
    grid._heard(grid, {"kind": "export", "request": 1}, [])
    grid._heard(grid, {"kind": "rows", "request": 2, "first": 1, "count": 1}, [])
    grid._work()
    assert sent == ["export", "rows"]


def test_only_the_grids_used_last_hold_their_rows(lake, monkeypatch):
    monkeypatch.setattr("lakehouse_widgets.pages.MOST_AWAKE", 2)
    grids = [Grid(lake.sql(f"SELECT {n} AS n")) for n in range(3)]
    for one in grids:
        ask(one)
    assert [one._pages._kept is None for one in grids] == [True, False, False]
    assert ask(grids[0])["rows"] == [("0",)]
    assert [one._pages._kept is None for one in grids] == [False, True, False]


def test_a_result_without_rows(lake):
    assert ask(Grid(lake.sql("SELECT 1 AS one WHERE false")))["total"] == 0


def test_results_show_themselves_as_grids_and_keep_their_html(lake):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    lakehouse_widgets.load_ipython_extension(shell)
    bundle, _ = shell.display_formatter.format(lake.sql("SELECT 1 AS one"))
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/plain", "text/html"}
    lakehouse_widgets.unload_ipython_extension(shell)
    bundle, _ = shell.display_formatter.format(lake.sql("SELECT 1 AS one"))
    assert set(bundle) == {"text/plain", "text/html"}


class _Kernel:
    """What `lakehouse` reads of a kernel: the request that it works on."""

    def __init__(self, **content):
        self.content = content

    def get_parent(self, channel):
        assert channel == "shell"
        return {"content": self.content}


def test_results_with_more_rows_than_a_page_are_grids_for_whoever_sits_there(lake, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    many, few = lake.sql("FROM range(21)"), lake.sql("FROM range(20)")

    def kinds(result):
        return set(shell.display_formatter.format(result)[0])

    plain = {"text/plain", "text/html"}
    assert kinds(many) == plain  # a terminal
    shell.kernel = _Kernel(allow_stdin=False)
    assert kinds(many) == plain  # papermill, nbconvert, nbval, Voila
    shell.kernel = _Kernel(allow_stdin=True)
    assert kinds(many) == plain | {"application/vnd.jupyter.widget-view+json"}
    assert kinds(few) == plain
    assert kinds(lake.sql("CREATE TABLE t (a INTEGER)")) == {"text/plain"}
    with lakehouse.open(lake.path, settings={"query": {"grid": False}}) as quiet:
        assert kinds(quiet.sql("FROM range(21)")) == plain
    monkeypatch.setitem(sys.modules, "lakehouse_widgets.showing", None)
    assert kinds(many) == plain


def test_widgets_import_only_public_names_and_nothing_when_imported():
    public = {"lakehouse"}
    for file in Path(lakehouse_widgets.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lakehouse":
                assert node.module in public, file
                assert {alias.name for alias in node.names} <= set(lakehouse.__all__), file
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("lakehouse.") for alias in node.names), file
    assert "lakehouse_widgets" in sys.modules
