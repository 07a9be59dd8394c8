"""The widgets as a person sees them: JupyterLab in a browser, no network, light and dark."""

import os
from pathlib import Path

import nbformat
from test_jupyterlab import ANSWERS, CONNECTED

GRID = """
import lakehouse, os
%load_ext lakehouse_widgets
lake = lakehouse.open(os.environ["LAKEHOUSE_PATH"] + "-widgets", settings={"query": {"max_rows": 1000}})
lake.sql("SELECT range AS n FROM range(100000000)")
"""
SMALL = """
lake.sql("SELECT range AS n, range * 7919 % 1003 AS spread, CASE WHEN range % 3 = 0 THEN NULL ELSE 'row ' || range END AS name FROM range(5000) ORDER BY n")
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


def test_a_grid_scrolls_to_row_50_million_and_orders_and_filters(lab, page, tmp_path):
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    notebook(tmp_path, GRID, SMALL)
    opened(lab, page)
    large = ready(page.locator(".lw-grid").nth(0), "100,000,000 rows")
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

    small = ready(page.locator(".lw-grid").nth(1), "5,000 rows")
    small.locator(".lw-name", has_text="spread").click()
    cell(small, 0, 1).filter(has_text="0").wait_for()
    small.locator(".lw-name", has_text="spread").click()
    cell(small, 0, 1).filter(has_text="1002").wait_for()
    small.get_by_label("Add a filter").click()
    small.get_by_label("Column", exact=True).select_option("name")
    small.get_by_label("Operator").select_option("contains")
    small.get_by_label("Value").fill("ROW 499")
    small.get_by_label("Value").press("Enter")
    ready(small, "8 rows")
    assert small.locator("[role=row][aria-rowindex]").count() == 8
    small.get_by_label("Add a filter").click()
    small.get_by_label("Column", exact=True).select_option("n")
    small.get_by_label("Operator").select_option("=")
    small.get_by_label("Value").fill("many")
    small.get_by_label("Value").press("Enter")
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
    page.screenshot(path=shots / "grid-light.png")
    page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    small.scroll_into_view_if_needed()
    page.screenshot(path=shots / "grid-dark.png")
