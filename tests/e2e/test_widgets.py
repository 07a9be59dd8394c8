"""The widgets as a person sees them: JupyterLab in a browser, no network, light and dark."""

import os
from pathlib import Path

import nbformat
from accessible import accessible
from test_jupyterlab import ANSWERS, CONNECTED

LAKE = """
import lakehouse, os
%load_ext lakehouse
lake = lakehouse.open(os.environ["LAKEHOUSE_PATH"] + "-widgets", settings={"query": {"max_rows": 1000}})
lake.sql("CREATE TABLE trips AS SELECT range AS trip_id, range % 7 AS wheels FROM range(1000)")
%lake $lake
"""
GRID = """
%%sql
SELECT range AS n FROM range(100000000)
"""
SMALL = """
lake.sql("SELECT range AS n, range * 7919 % 1003 AS spread, CASE WHEN range % 3 = 0 THEN NULL ELSE 'row ' || range END AS name FROM range(5000) ORDER BY n")
"""
PANEL = """
from lakehouse_widgets import QueryPanel
panel = QueryPanel(lake, "SELECT count(*) FROM range(100000000000) a, range(1000) b", height=250)
panel
"""


def notebook(folder, *cells):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, folder / "notebooks" / "widgets-test.ipynb")


def opened(lab, page):
    page.goto(f"{lab}/lab/tree/widgets-test.ipynb?reset")
    page.wait_for_function(CONNECTED, timeout=120_000)
    page.evaluate(ANSWERS)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")


def ready(grid, text):
    grid.locator(".lw-count", has_text=text).wait_for(timeout=120_000)
    return grid


def cell(grid, row, column=0):
    return grid.locator(f"[aria-rowindex='{row + 2}'] .lw-cell").nth(column)


def filtered(grid, column, operator, value):
    grid.get_by_label("Add a filter").click()
    grid.get_by_label("Column", exact=True).select_option(column)
    grid.get_by_label("Operator").select_option(operator)
    grid.get_by_label("Value").fill(value)
    grid.get_by_label("Value").press("Enter")


def theme(page, name):
    page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {name}'}})")
    page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(name == 'Light').lower()}'")
    page.locator("#jupyterlab-splash").wait_for(state="detached")


def test_results_are_grids_and_a_panel_runs_and_cancels_sql(lab, page, tmp_path):
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    notebook(tmp_path, LAKE, GRID, SMALL, PANEL)
    opened(lab, page)
    large = ready(page.locator(".lw-grid").nth(0), "100,000,000 rows")
    check_large(page, large)
    small = ready(page.locator(".lw-grid").nth(1), "5,000 rows")
    check_small(page, small)
    page.screenshot(path=shots / "grid-light.png")
    panel = page.locator(".lw-panel")
    check_panel(page, panel, shots)
    page.screenshot(path=shots / "panel-light.png")
    accessible(page, ".lw-grid")
    accessible(page, ".lw-panel")
    theme(page, "Dark")
    page.screenshot(path=shots / "panel-dark.png")
    accessible(page, ".lw-grid")
    accessible(page, ".lw-panel")
    small.scroll_into_view_if_needed()
    page.screenshot(path=shots / "grid-dark.png")
    page.set_viewport_size({"width": 400, "height": 800})
    page.evaluate("jupyterapp.shell.collapseLeft()")
    panel.scroll_into_view_if_needed()
    page.screenshot(path=shots / "panel-phone.png")


def check_large(page, large):
    cell(large, 0).filter(has_text="0").wait_for()
    large.locator(".lw-jump").fill("50,000,001")
    large.locator(".lw-jump").press("Enter")
    cell(large, 50_000_000).filter(has_text="50000000").wait_for(timeout=120_000)
    large.locator(".lw-scroller").focus()
    page.keyboard.press("End")
    cell(large, 99_999_999).filter(has_text="99999999").wait_for(timeout=120_000)
    middle = "s => { s.scrollTop = (s.scrollHeight - s.clientHeight) / 2; }"
    large.locator(".lw-scroller").evaluate(middle)
    page.wait_for_function("Math.abs(document.querySelector('.lw-grid').dataset.top - 50000000) < 20", timeout=120_000)
    top = int(large.get_attribute("data-top"))
    cell(large, top).filter(has_text=str(top)).wait_for(timeout=120_000)
    large.locator(".lw-scroller").hover()
    page.mouse.wheel(0, 240)
    page.wait_for_function(f"document.querySelector('.lw-grid').dataset.top == {top + 10}")

    filtered(large, "n", "≥", "50000000")
    ready(large, "50,000,000 rows")
    filtered(large, "n", "<", "50300000")
    ready(large, "300,000 rows")
    large.locator(".lw-name", has_text="n").click()
    cell(large, 0).filter(has_text="50000000").wait_for()
    large.locator(".lw-name", has_text="n").click()
    cell(large, 0).filter(has_text="50299999").wait_for()


def check_small(page, small):
    small.locator(".lw-name", has_text="spread").click()
    cell(small, 0, 1).filter(has_text="0").wait_for()
    small.locator(".lw-name", has_text="spread").click()
    cell(small, 0, 1).filter(has_text="1002").wait_for()
    filtered(small, "name", "contains", "ROW 499")
    ready(small, "8 rows")
    assert small.locator("[role=row][aria-rowindex]").count() == 8
    filtered(small, "n", "=", "many")
    small.locator(".lw-note", has_text="'many' is not a BIGINT").wait_for()
    for _ in range(2):
        small.locator(".lw-chip").last.click()
    ready(small, "5,000 rows")
    small.locator(".lw-name", has_text="spread").click()
    cell(small, 0, 2).filter(has_text="NULL").wait_for()
    cell(small, 0, 0).click()
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Control+c")
    assert small.get_attribute("data-copied") == "0\n1"


def check_panel(page, panel, shots):
    panel.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.lw-panel').dataset.editor === 'ace'")
    panel.get_by_role("button", name="Run").click()
    panel.locator(".lw-said", has_text="s").wait_for()
    # The kernel goes on meanwhile.
    assert (
        page.evaluate(
            "async () => (await jupyterapp.shell.currentWidget.sessionContext.session.kernel"
            ".requestExecute({code: 'assert lake.running()'}).done).content.status"
        )
        == "ok"
    )
    panel.get_by_role("button", name="Cancel").click()
    panel.locator(".lw-note", has_text="was cancelled").wait_for(timeout=20_000)
    panel.get_by_role("button", name="Run").wait_for()

    panel.get_by_label("SQL").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("SELECT t.whe FROM trips t")
    for _ in range(len(" FROM trips t")):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.locator(".ace_autocomplete", has_text="wheels").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "document.querySelector('.lw-panel .ace_content').innerText.includes('t.wheels FROM trips t')"
    )
    page.keyboard.press("Control+End")
    page.keyboard.type(" ORDER BY trip_id")
    page.keyboard.press("Shift+Enter")
    grid = ready(page.locator(".lw-grid").nth(2), "1,000 rows")
    cell(grid, 1).filter(has_text="1").wait_for()
    panel.get_by_role("button", name="Chart", exact=True).click()
    panel.get_by_label("x", exact=True).select_option("wheels")
    panel.get_by_role("button", name="Draw").click()
    page.locator(".lw-card svg").wait_for(timeout=30_000)
    page.screenshot(path=shots / "panel-chart.png")
    panel.get_by_role("button", name="History").click()
    panel.locator(".lw-query", has_text="ORDER BY trip_id").wait_for()
    panel.locator(".lw-query[data-status=cancelled]", has_text="range(1000) b").wait_for()
    panel.get_by_role("button", name="Rows", exact=True).click()
    ready(grid, "1,000 rows")
    panel.get_by_role("button", name="History").click()
    panel.locator(".lw-past").wait_for(state="hidden")
