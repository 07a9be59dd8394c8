"""The quickstart as a person sees it: JupyterLab in a browser."""

import os
from pathlib import Path

# The status in the toolbar says "idle" before the kernel's connection stands; cells run then are lost.
CONNECTED = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
ANSWERS = "async () => { await jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestKernelInfo() }"


def test_the_quickstart_runs_shows_its_tables_and_completes(lab, page, tmp_path):
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    page.goto(f"{lab}/lab/tree/tutorials/quickstart.ipynb?reset")
    page.wait_for_function(CONNECTED, timeout=120_000)
    page.evaluate(ANSWERS)
    page.evaluate("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output').length === 0")
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector("text=3,166 rows changed, snapshot 8", timeout=60_000)

    page.locator("th", has_text="mean_delay_min").first.scroll_into_view_if_needed()
    text = page.inner_text(".jp-Notebook")
    for seen in ("336,776 rows", "EWR", "120835", "3 rows × 3 columns, snapshot 5"):
        assert seen in text
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    page.screenshot(path=shots / "jupyterlab-quickstart.png")

    page.locator(".jp-Notebook .jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("%sql SELECT f.dep_d FROM flights f")
    for _ in range(len(" FROM flights f")):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.wait_for_selector("code:has-text('%sql SELECT f.dep_delay'), .jp-Completer", timeout=60_000)
    page.screenshot(path=shots / "jupyterlab-completion.png")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "[...document.querySelectorAll('.jp-CodeCell .cm-content')].some("
        "cell => cell.innerText.includes('%sql SELECT f.dep_delay FROM flights f'))",
        timeout=60_000,
    )
