"""Runs every benchmark in a process of its own and ends with one table of the claims that have a target.

`make bench` calls this. Timings never decide: the exit code is 0 whatever the figures are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from _report import Line, table

SCRIPTS = (
    "start",
    "auth",
    "api_fuzz",
    "catalog",
    "commits",
    "ingest_csv",
    "tpch",
    "upsert",
    "appends",
    "profile",
    "rollback",
    "scale",
    "crash",
    "pathway",
    "pathway_kill",
    "long_journal",
    "memories",
    "observer",
    "retrieval",
    "sandbox",
    "sandbox_fuzz",
    "reports",
    "dashboards",
    "server",
    "load",
    "grid",
    "workflow",
    "workflow_kill",
)


def main() -> None:
    """Run all scripts, or those that are named."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and print one table of all targets.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(SCRIPTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes: a minute or two instead of ten")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(SCRIPTS)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    started = time.monotonic()
    lines: list[Line] = []
    failed: list[str] = []
    for name in arguments.names or SCRIPTS:
        found = _run(name, quick=arguments.quick)
        if found is None:
            failed.append(name)
        lines.extend(replace(line, what=f"{name}: {line.what}") for line in found or () if line.target)
    print(f"\nAll targets{' (small sizes: the full ones decide)' if arguments.quick else ''}")
    print(table(lines))
    met = sum(bool(line.met) for line in lines)
    print(f"  {met} of {len(lines)} targets met, in {time.monotonic() - started:.0f} s")
    for name in failed:
        print(f"  {name}: it broke off, see above")


def _run(name: str, *, quick: bool) -> list[Line] | None:
    """The lines of one script; None when it broke off."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "lines.json")
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json", str(result)]
        done = subprocess.run([*command, "--quick"] if quick else command, check=False)
        if done.returncode != 0 or not result.is_file():
            return None
        return [Line(**line) for line in json.loads(result.read_text("utf-8"))]


if __name__ == "__main__":
    main()
