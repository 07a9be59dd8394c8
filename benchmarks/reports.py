"""A report beside papermill alone on the same notebook, one that is kept already, and a batch."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import nbformat
from _report import Report, main, scratch

import lakehouse
from lakehouse import demo
from lakehouse.reports.shelf import Shelf

NAME = "daily_operations"


def measure(quick: bool) -> Report:
    """Seconds of one report each way, taking turns, and reports a minute of a batch of twenty."""
    rounds, many = (2, 4) if quick else (5, 20)
    with scratch() as folder, lakehouse.open(folder / "lake") as lake:
        demo.load(lake, lambda _: None)
        notebook = folder / "notebook.ipynb"
        nbformat.write(Shelf(lake.path, None).notebook(NAME), notebook)
        ours, theirs, kept = [], [], []
        for day in range(1, rounds + 1):
            values = {"start": f"2013-03-{day:02d}"}
            started = time.perf_counter()
            lake.reports.run(NAME, values)
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            lake.reports.run(NAME, values)
            kept.append(time.perf_counter() - started)
            command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-p", "start", values["start"]]
            started = time.perf_counter()
            subprocess.run(
                [*command, notebook, folder / "out.ipynb"],
                check=True,
                capture_output=True,
                env={**os.environ, "LAKEHOUSE_PATH": str(lake.path)},
            )
            theirs.append(time.perf_counter() - started)
        started = time.perf_counter()
        done = lake.reports.batch(NAME, [{"start": f"2013-04-{day:02d}"} for day in range(1, many + 1)])
        batch = time.perf_counter() - started
        assert not done.failed
    report = Report("One report of a day of flights", "papermill, the command, on the same notebook")
    report.add("executed, with page and record", statistics.median(ours), "s", statistics.median(theirs))
    report.add("asked again on the same snapshot", statistics.median(kept), "s", statistics.median(theirs))
    report.add(f"a batch of {many}, two at once, each", batch / many, "s", statistics.median(theirs))
    return report


if __name__ == "__main__":
    main(measure)
