"""`kill -9` of runners and of nodes' processes at random moments: a thousand rounds of what the tests do fifty of."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from _report import ROOT, Report, main, scratch

SCRIPT = ROOT / "tests" / "integration" / "workflow_killing.py"
TOGETHER = 50  # rounds on one lake


def measure(quick: bool) -> Report:
    """1,000 rounds (50 quick), each compared with its rows; then everything that was killed is resumed to its end."""
    count = 50 if quick else 1000
    totals: dict[str, int] = {}
    started = time.perf_counter()
    for seed in range(count // TOGETHER):
        with scratch() as folder:
            command = [sys.executable, str(SCRIPT), str(folder), str(TOGETHER), str(100 + seed)]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        totals = {name: totals.get(name, 0) + value for name, value in told.items()}
    report = Report(f"Workflows: {count} times somebody killed", "no row may be wrong, no output twice")
    report.add("rounds", count, "", at_least=count)
    report.notes.append("the first row that is not as it is told, and the first output that is there twice, ends it")
    report.add("runners killed", totals["runner"], "")
    report.add("processes of nodes killed", totals["node"], "")
    report.add("runs", totals["runs"], "")
    report.add("runs that were resumed", totals["resumed"], "")
    report.add("runs that came to their end", totals["done"], "", at_least=totals["runs"])
    report.add("time of one round", (time.perf_counter() - started) / count * 1000, "ms")
    return report


if __name__ == "__main__":
    main(measure)
