"""A run's notebook as a page that stands alone: no script, nothing from elsewhere, readable on paper and phone."""

from __future__ import annotations

import html
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from lakehouse.errors import LakehouseError
from lakehouse.reports.model import Report, ReportRun

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
_STATUS = {
    "queued": "waiting",
    "running": "running",
    "ok": "complete",
    "failed": "failed",
    "timeout": "ended at its time limit",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
}
_PDF_TIMEOUT = 120.0


def page(report: Report, run: ReportRun, notebook: Any) -> str:
    """The HTML of a run, from its executed notebook (an nbformat node)."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_output_prompt=True, exclude_input_prompt=True
    )
    exporter.embed_images = True
    body = ""
    for number, cell in enumerate(notebook.cells, 1):
        stopped = run.error is not None and run.error.cell == number
        one = notebook.copy()
        one.cells = [_still(cell)]
        if "parameters" in cell.metadata.get("tags", []) or "injected-parameters" in cell.metadata.get("tags", []):
            continue
        exporter.exclude_input = not stopped
        shown, _ = exporter.from_notebook_node(one)
        if "<table" in shown:  # may be wider than the page: then the arrow keys scroll it, too
            shown = shown.replace('<div class="output_area">', '<div class="output_area" tabindex="0">')
        if stopped:
            label = f'<p class="label">The run stopped here, in cell {number}.</p>'
            shown = f'<section class="stopped" id="stopped">{label}{shown}</section>'
        body += shown
    return document(report.title, f"{_fault(run)}{body}<footer>{_facts(run)}</footer>")


def document(title: str, body: str) -> str:
    """A page around its body; it has no script and may load nothing, which a browser is told to see to."""
    style = files("lakehouse.reports").joinpath("page.css").read_text("utf-8")
    return _PAGE.format(policy=_POLICY, title=html.escape(title), style=style, body=body)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _still(cell: Any) -> Any:
    """The cell without outputs that only a script could show."""
    cell = cell.copy()
    if cell.cell_type == "code":
        cell.outputs = [
            output
            for output in cell.outputs
            if output.output_type not in ("display_data", "execute_result")
            or any(kind.startswith(("text/", "image/")) for kind in output.data)
        ]
        for output in cell.outputs:
            if "data" in output:
                output.data.pop("application/javascript", None)
    return cell


def _facts(run: ReportRun) -> str:
    given = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in run.parameters.items()
    )
    when = run.started.strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"<table class=facts><caption>How this report was made</caption>{given}"
        f"<tr><th scope=row>snapshot of the lake</th><td>{run.snapshot}</td></tr>"
        f"<tr><th scope=row>run</th><td>{html.escape(run.id)}, {when}, {_STATUS[run.status]}</td></tr></table>"
    )


def _fault(run: ReportRun) -> str:
    if run.error is None:
        return ""
    where = "" if run.error.cell is None else f' <a href="#stopped">Go to cell {run.error.cell}.</a>'
    return (
        f'<div class="fault" role="alert"><strong>This report is not complete: it {_STATUS[run.status]}.</strong> '
        f"{html.escape(run.error.type)}: {html.escape(run.error.message)}.{where}</div>"
    )


def pdf(content: str) -> bytes:
    """A page printed by headless Chromium.

    Raises:
        LakehouseError: there is no Chromium, or it could not print.
    """
    browser = next((found for name in _CHROMIUM if (found := shutil.which(name))), None)
    if browser is None:
        raise LakehouseError("a PDF needs Chromium, which is not installed", hint="install chromium, or ask for html")
    with tempfile.TemporaryDirectory(prefix="lakehouse-pdf-") as folder:
        source, target = Path(folder, "report.html"), Path(folder, "report.pdf")
        source.write_text(content, "utf-8")
        command = [
            browser,
            "--headless",
            "--no-sandbox",  # the page has no script and may load nothing
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={target}",
            source.as_uri(),
        ]
        try:
            subprocess.run(command, capture_output=True, timeout=_PDF_TIMEOUT, check=True)
            return target.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            raise LakehouseError(f"Chromium could not print the report: {type(error).__name__}") from None
