"""The browsers of a lake as a person sees them: by keyboard and pointer, light and dark, on a phone, with no network."""

import os
from pathlib import Path

import nbformat
import pytest
from accessible import accessible
from test_jupyterlab import ANSWERS, CONNECTED

import lakehouse
from lakehouse.workflow.model import Workflow
from lakehouse.workflow.modes import Python, Sql

CELLS = (
    "import lakehouse, lakehouse_widgets as lw",
    "lake = lakehouse.open(read_only=True)\nlw.CatalogBrowser(lake)",
    "lw.PathwayExplorer(lake)",
    "lw.RunMonitor(lake)",
)
WAIT = "import os, time\ndef wait(path):\n    while not os.path.exists(path): time.sleep(0.01)\n"
FAULTS = """() => [...document.querySelectorAll('.lw-explorer')].flatMap((one) => [
    ...[...one.querySelectorAll('[role=treeitem]')].filter((row) => !row.ariaLevel || !row.textContent.trim()),
    ...[...one.querySelectorAll('input')].filter((input) => !input.labels.length && !input.ariaLabel),
    ...[...one.querySelectorAll('button')].filter((button) => !button.textContent.trim()),
    ...(one.querySelectorAll('[role=tree] [tabindex="0"]').length === 1 ? [] : [one]),
]).map((element) => element.outerHTML.slice(0, 200))"""


@pytest.fixture
def going(tmp_path):
    """A lake with a past, traces, a run that failed, and one that goes on until its file is there."""
    (tmp_path / "waiting_here.py").write_text(WAIT)
    with lakehouse.open(tmp_path / "lake") as lake:
        lake.sql("CREATE TABLE flights AS SELECT range AS n, 'EWR' AS origin FROM range(3)")
        lake.catalog.tag_snapshot("before-june")
        with lake.transaction("June"):
            lake.sql("ALTER TABLE flights ADD COLUMN delay DOUBLE")
            lake.sql("INSERT INTO flights SELECT range, 'JFK', range / 7 FROM range(5000)")
            lake.sql("COMMENT ON TABLE flights IS 'Every departure'; COMMENT ON COLUMN flights.delay IS 'in minutes'")
            lake.sql("CREATE SCHEMA many; " + "; ".join(f"CREATE TABLE many.t{n:03} (a INTEGER)" for n in range(110)))
        with lake.pathway.record("why are evening flights late", tags=["delays"]) as recording:
            lake.sql("SELECT origin, avg(delay) FROM flights GROUP BY ALL")
        recording.conclude("aircraft come late from the flights before")
        lake.pathway.retire(lake.pathway.add({"text": "a guess"}, kind="note").uid, "wrong")
        check = {"check": Sql(sql="SELECT * FROM flights WHERE delay IS NULL", expect="no rows")}
        lake.workflows.run(Workflow(name="nightly", nodes=check, folder=str(tmp_path), params={}), check=False)
        free = tmp_path / "free"
        wait = {"wait": Python(call="waiting_here:wait", args={"path": str(free)})}
        lake.workflows.start(Workflow(name="long", nodes=wait, folder=str(tmp_path), params={}))
        yield free
        free.touch()


def test_a_lake_is_browsed(going, lab, page, tmp_path):
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "notebooks" / "browse.ipynb")
    page.goto(f"{lab}/doc/tree/browse.ipynb?reset")
    page.wait_for_function(CONNECTED, timeout=50_000)
    page.evaluate(ANSWERS)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    catalog, traces, runs = (page.locator(".lw-explorer").nth(number) for number in range(3))

    # By keyboard into the schema with many tables, page by page, and back
    row = catalog.get_by_role("treeitem")
    row.filter(has_text="Every departure").wait_for(timeout=50_000)
    row.filter(has_text="main").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    row.filter(has_text="Show 100 more of 10 left").wait_for()
    assert row.filter(has_text="t0").count() == 100
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    row.filter(has_text="t109").wait_for()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert catalog.locator(":focus").get_attribute("aria-expanded") == "false"

    # A table, its rows, and both as of a snapshot
    page.keyboard.press("f")
    page.keyboard.press("Enter")
    detail = catalog.locator(".lw-detail")
    detail.get_by_text("in minutes").wait_for()
    detail.get_by_role("button", name="Preview").click()
    detail.get_by_text("the first 1,000 rows").wait_for()
    detail.locator(".lw-grid [aria-rowindex='2']").wait_for()
    page.screenshot(path=shots / "catalog-light.png")
    row.filter(has_text="Snapshots").click()
    row.filter(has_text="before-june").click()
    detail.get_by_role("button", name="Look at the lake as of this snapshot").click()
    row.filter(has_text="flights").and_(page.locator("[aria-level='2']")).first.click()
    detail.get_by_text("2 columns").wait_for()
    assert detail.get_by_text("in minutes").count() == 0
    assert row.filter(has_text="many").and_(page.locator("[aria-level='1']")).count() == 0
    detail.get_by_role("button", name="Preview").click()
    detail.get_by_text("flights, snapshot 1: 3 rows").wait_for()
    detail.locator(".lw-count", has_text="3 rows").wait_for()
    catalog.get_by_label("As of").fill("no such thing")
    catalog.get_by_label("As of").press("Enter")
    catalog.locator(".lw-note", has_text="'no such thing' is neither a snapshot id nor a time").wait_for()
    catalog.get_by_label("As of").fill("")
    row.filter(has_text="many").wait_for()
    catalog.get_by_label("Search").press_sequentially("minutes")
    row.filter(has_text="column comment").wait_for()

    # Traces: words, the retired one, what was found
    found = traces.get_by_role("treeitem")
    found.filter(has_text="evening flights").click()
    traces.get_by_text("aircraft come late").first.wait_for()
    assert found.filter(has_text="a guess").count() == 0
    traces.get_by_label("Retired too").check()
    found.filter(has_text="retired a guess").wait_for()

    # Runs: the failed one first, and a running one whose end is seen
    run = runs.get_by_role("treeitem")
    run.filter(has_text="running").wait_for()
    assert "failed" in run.nth(1).inner_text()
    run.filter(has_text="nightly").click()
    runs.get_by_role("button", name="check").click()
    runs.get_by_text("NodeFailed: the check expects no rows").wait_for()
    runs.scroll_into_view_if_needed()
    page.screenshot(path=shots / "runs-light.png")
    run.filter(has_text="long").click()
    runs.locator("h3", has_text="long, running").wait_for()
    going.touch()
    runs.locator("h3", has_text="long, done").wait_for(timeout=20_000)
    run.filter(has_text="✓ done").wait_for(timeout=20_000)
    assert page.evaluate(FAULTS) == []
    accessible(page, ".lw-explorer")

    page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    for name, widget in (("catalog", catalog), ("traces", traces), ("runs", runs)):
        widget.scroll_into_view_if_needed()
        page.screenshot(path=shots / f"{name}-dark.png")
    accessible(page, ".lw-explorer")
    page.set_viewport_size({"width": 412, "height": 900})
    for name, widget in (("catalog", catalog), ("runs", runs)):
        widget.scroll_into_view_if_needed()
        assert widget.evaluate("one => one.scrollWidth <= one.clientWidth")
        page.screenshot(path=shots / f"{name}-phone.png")
