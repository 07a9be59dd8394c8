"""What a report may be given: declared names and fitting values, and exactly those reach the notebook."""

import ast
import datetime as dt
import math

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.errors import ReportInvalid, ReportNotFound
from lakehouse.reports.model import Parameter, check_name
from lakehouse.reports.parameters import check, declared, filled, parsed, written
from lakehouse.reports.shelf import Shelf, code

CELL = """
day = "2013-01-01"  # the day
n: int = 3
share = 0.5
deep = False
names = ["a", "b"]
nothing = None
"""


def notebook(cell=CELL, refined=None, **metadata):
    """A notebook with a parameters cell, as the shelf gives it."""
    found = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Title", metadata={"tags": []}),
            nbformat.v4.new_code_cell(cell, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("1", metadata={"tags": []}),
        ]
    )
    found.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    found.metadata["language_info"] = {"name": "python"}
    if refined is not None:
        found.metadata["lakehouse"] = nbformat.from_dict({"parameters": refined})
    return found


def test_parameters_are_inferred_and_refined():
    found = declared(notebook(refined={"day": {"kind": "date"}, "n": {"minimum": 1, "maximum": 9}}), "r")
    assert [(p.name, p.kind, p.default) for p in found] == [
        ("day", "date", "2013-01-01"),
        ("n", "int", 3),
        ("share", "float", 0.5),
        ("deep", "bool", False),
        ("names", "list", ["a", "b"]),
        ("nothing", "str", None),
    ]
    assert found[0].help == "the day"
    assert (found[1].minimum, found[1].maximum) == (1, 9)


@pytest.mark.parametrize(
    ("cell", "refined", "says"),
    [
        ("x = open('/etc/passwd')", None, "no plain value"),
        ("x = 3", {"y": {}}, "'y'"),
        ("x = 3", {"x": {"kind": "poem"}}, "poem"),
        ("x = 3", {"x": {"colour": 1}}, "colour"),
        ("x = 3", {"x": {"maximum": 2}}, "outside"),
        ("x = 3", {"x": {"maximum": "z"}}, "another type"),
        ("x = 'a'", {"x": {"choices": ["b"]}}, "no choice"),
    ],
)
def test_a_notebook_that_declares_them_wrongly_is_refused(cell, refined, says):
    with pytest.raises(ReportInvalid, match=says):
        declared(notebook(cell, refined), "r")


@pytest.mark.parametrize(
    "name",
    ["", "x; import os", "n ", "__class__", "n=1\nimport os", "n, m", "N", "{day}", "lambda", "ｎ"],
)
def test_a_name_that_is_not_declared_is_refused(name):
    with pytest.raises(ReportInvalid, match="has no parameter"):
        filled(declared(notebook(), "r"), {name: 1}, "r")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", True), ("int", 1.0), ("int", "1"), ("int", 2**63), ("int", None),
        ("float", math.nan), ("float", math.inf), ("float", "1"), ("float", True),
        ("bool", 1), ("bool", "true"),
        ("str", 1), ("str", b"a"), ("str", "a\0b"), ("str", "\ud800"), ("str", "x" * 100_001),
        ("date", "2013-02-30"), ("date", "yesterday"), ("date", 20130201), ("date", "2013-02-08; x"),
        ("list", "ab"), ("list", [[1]]), ("list", [{"a": 1}]), ("list", [math.nan]), ("list", [object()]),
        ("secret", "hunter2"), ("secret", "env:A B"), ("secret", "env:"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(kind, value):
    with pytest.raises(ReportInvalid) as caught:
        check(Parameter("x", kind, None), value, "r")
    assert "hunter2" not in str(caught.value)


@given(
    day=st.dates(),
    n=st.integers(-(2**63) + 1, 2**63 - 1),
    share=st.floats(allow_nan=False, allow_infinity=False),
    deep=st.booleans(),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200),
    names=st.lists(st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text("ab'\"\\\n{}%$")), max_size=5),
)
def test_what_is_given_is_what_the_notebook_is_told(day, n, share, deep, text, names):
    values = filled(
        declared(notebook(refined={"day": {"kind": "date"}}), "r"),
        {"day": day, "n": n, "share": share, "deep": deep, "names": names, "nothing": text},
        "r",
    )
    ready = written(notebook(), values)
    cell = next(c for c in ready.cells if "injected-parameters" in c.metadata.tags)
    space = {}
    exec(compile(ast.parse(cell.source), "cell", "exec"), {"__builtins__": {}}, space)
    assert space == {"day": day.isoformat(), "n": n, "share": share, "deep": deep, "nothing": text, "names": names}


@given(st.text(max_size=60))
def test_no_text_breaks_out_of_its_quotes(text):
    try:
        value = check(Parameter("x", "str", ""), text, "r")
    except ReportInvalid:
        return
    cell = written(notebook('x = ""'), {"x": value}).cells[2]
    body = ast.parse(cell.source).body
    assert len(body) == 1
    assert ast.literal_eval(body[0].value) == text


def test_texts_from_a_shell_become_values():
    parameters = declared(notebook(refined={"day": {"kind": "date"}}), "r")
    given = {"day": "2013-02-08", "n": "7", "share": "1e-3", "deep": "true", "names": '["x"]'}
    assert parsed(parameters, given, "r") == {
        "day": "2013-02-08", "n": 7, "share": 0.001, "deep": True, "names": ["x"],
    }  # fmt: skip
    with pytest.raises(ReportInvalid, match="whole number"):
        parsed(parameters, {"n": "seven"}, "r")


def test_a_date_may_be_one_of_python():
    assert check(Parameter("x", "date", None), dt.datetime(2013, 2, 8, 9), "r") == "2013-02-08"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/etc/passwd", "a.ipynb", "s3://x/y", "{0}", "a b", "x" * 65, "ä"])
def test_a_report_is_named_never_a_path(name, tmp_path):
    with pytest.raises(ReportInvalid):
        check_name(name)
    with pytest.raises(ReportInvalid):
        Shelf(tmp_path, None).notebook(name)


def test_the_lakes_own_report_comes_before_one_that_ships(tmp_path):
    shelf = Shelf(tmp_path, None)
    assert shelf.names() == ["daily_operations", "table_quality"]
    shipped = shelf.report("table_quality")
    (tmp_path / "reports").mkdir()
    nbformat.write(notebook("x = 1"), tmp_path / "reports" / "table_quality.ipynb")
    own = shelf.report("table_quality")
    assert (own.title, shipped.title) == ("Title", "Table quality")
    with pytest.raises(ReportNotFound, match="daily_operations"):
        shelf.notebook("missing")
    (tmp_path / "reports" / "broken.ipynb").write_text("{")
    with pytest.raises(ReportInvalid, match="no notebook"):
        shelf.notebook("broken")


def test_the_code_of_a_report_is_its_cells_and_not_what_they_gave():
    one, two = notebook(), notebook()
    two.cells[2].outputs = [nbformat.v4.new_output("stream", text="7")]
    two.cells[2].execution_count = 3
    assert code(one) == code(two)
    two.cells[2].source = "2"
    assert code(one) != code(two)
