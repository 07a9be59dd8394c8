"""Start: `import lakehouse`, `lakehouse --help` and the first query of a process, against a bare Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from _report import Report, main, median, rounds, scratch

_IMPORT = "import time; t = time.perf_counter(); import lakehouse; print(time.perf_counter() - t)"
_OPEN = "import sys, lakehouse; lakehouse.open(sys.argv[1]).close()"
_QUERY = "import sys, lakehouse; lakehouse.open(sys.argv[1]).sql('SELECT count(*) FROM t').fetchall()"
_RAW = """
import sys, duckdb, pyarrow
from lakehouse.catalog import extensions
connection = duckdb.connect()
extensions.load(connection, *extensions.CORE)
connection.execute(f"ATTACH 'ducklake:sqlite:{sys.argv[1]}/catalog.sqlite' AS lake (READ_ONLY); USE lake")
connection.sql('SELECT count(*) FROM t').to_arrow_table()
"""
_FILL = "import sys, lakehouse; lakehouse.open(sys.argv[1]).sql('CREATE TABLE t AS FROM range(1000)')"


def measure(quick: bool) -> Report:
    """Fresh processes, medians; the bytecode is there, as it is after a first start."""
    count = 5 if quick else 15
    report = Report(
        f"Start, median of {count} interleaved rounds of fresh processes, bytecode compiled",
        "`python -c pass`; for the last two lines plain DuckDB and pyarrow with the same lake attached",
    )
    with scratch() as folder:
        lake = folder / "lake"
        _run("-c", _FILL, lake)
        script = Path(sys.executable).with_name("lakehouse")
        imports: list[float] = []
        works = {
            "bare": lambda: _run("-c", "pass"),
            "module": lambda: imports.append(float(_run("-c", _IMPORT))),
            "help": lambda: _run(script, "--help"),
            "open": lambda: _run("-c", _OPEN, lake),
            "query": lambda: _run("-c", _QUERY, lake),
            "shell": lambda: _run(script, "--lake", lake, "sql", "SELECT count(*) FROM t"),
            "raw": lambda: _run("-c", _RAW, lake),
        }
        rounds(1, **works)  # compiles the bytecode and fills the page cache
        imports.clear()
        seconds = {name: median(values) * 1000 for name, values in rounds(count, **works).items()}
    report.add("import lakehouse, measured inside", median(imports) * 1000, "ms", at_most=100.0)
    report.add("python -c 'import lakehouse'", seconds["module"], "ms", seconds["bare"])
    report.add("lakehouse --help, whole process", seconds["help"], "ms", at_most=200.0)
    report.add("lakehouse --help, against bare Python", seconds["help"], "ms", seconds["bare"])
    report.add("open a lake and close it, whole process", seconds["open"], "ms", seconds["bare"])
    report.add("first query, whole process", seconds["query"], "ms", seconds["raw"])
    report.add("lakehouse sql 'SELECT …', whole process", seconds["shell"], "ms", seconds["raw"])
    return report


def _run(program: str | Path, *arguments: str | Path) -> str:
    command = [str(argument) for argument in (program, *arguments)]
    if program == "-c":
        command.insert(0, sys.executable)
    return subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout


if __name__ == "__main__":
    main(measure)
