"""What the benchmarks share: interleaved rounds, fresh processes, and one shape of table.

A claim is a figure of ours beside the limit's or a peer's from the same run, so that a slow machine
or a busy neighbour hits both. Timings are printed and never decide anything.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".bench"
"""Generated data stays here between runs; it may be deleted at any time."""

HEADER = ("what", "ours", "theirs", "ratio", "target", "met")


@dataclass(frozen=True)
class Line:
    """One claim, or one figure that explains a claim."""

    what: str
    ours: float
    unit: str
    """`s`, `ms`, `/s`, `MB` or empty for a plain count."""
    theirs: float | None = None
    """The limit's or the peer's figure; None when the claim stands alone."""
    at_most: float | None = None
    """The target: the ratio (ours : theirs) may be this large, or ours itself when there is no theirs."""
    at_least: float | None = None
    """The target: it must be this large."""
    inverse: bool = False
    """The ratio is theirs : ours, for claims of the kind '50 times faster'."""

    @property
    def ratio(self) -> float | None:
        """Ours against theirs; None when the claim stands alone."""
        if self.theirs is None:
            return None
        over, under = (self.theirs, self.ours) if self.inverse else (self.ours, self.theirs)
        return over / under if under else None

    @property
    def target(self) -> str:
        """The target as it is printed; empty when there is none."""
        bound, sign = (self.at_most, "≤") if self.at_most is not None else (self.at_least, "≥")
        if bound is None:
            return ""
        return f"{sign} {_factor(bound)}" if self.theirs is not None else f"{sign} {_figure(bound, self.unit)}"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        value = self.ours if self.theirs is None else self.ratio
        if not self.target or value is None:
            return None
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0.0)

    def cells(self) -> tuple[str, ...]:
        """The line as the table prints it."""
        theirs = "" if self.theirs is None else _figure(self.theirs, self.unit)
        ratio = "" if self.ratio is None else _factor(self.ratio)
        met = {True: "yes", False: "NO", None: ""}[self.met]
        return (self.what, _figure(self.ours, self.unit), theirs, ratio, self.target, met)


@dataclass
class Report:
    """What one script found out."""

    title: str
    theirs: str
    """What stands in the column `theirs`."""
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, ours: float, unit: str, theirs: float | None = None, **target: Any) -> None:
        """One more line; `target` as in `Line`."""
        self.lines.append(Line(what, ours, unit, theirs, **target))

    def show(self) -> None:
        """Print the table and its notes."""
        print(f"\n{self.title}\n(theirs: {self.theirs})")
        print(table(self.lines))
        for note in self.notes:
            print(f"  {note}")


def table(lines: Sequence[Line]) -> str:
    """Lines under their header, in aligned columns."""
    rows = [HEADER, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    texts = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def main(measure: Callable[[bool], Report]) -> None:
    """The command line of a script: `--quick` for small sizes, `--json FILE` for the summary of run.py."""
    parser = argparse.ArgumentParser(description=(measure.__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds instead of minutes")
    parser.add_argument("--json", type=Path, help="also write the lines to this file")
    arguments = parser.parse_args()
    # Processes started from here find their bytecode, as they do on any machine after the first start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(KEPT / "bytecode")
    report = measure(arguments.quick)
    report.show()
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(line) for line in report.lines]), "utf-8")


def timed(work: Callable[[], Any]) -> float:
    """The seconds that one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds(count: int, **works: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of every piece of work in every round; who goes first changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for _ in range(count):
        for name in order:
            seconds[name].append(timed(works[name]))
        order.reverse()
    return seconds


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def fresh(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a module-level function returns in a process of its own, and that process's peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_with_peak, work, arguments).result()


def _with_peak(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    value = work(*arguments)
    # Not ru_maxrss: that one is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text("utf-8")
    return value, int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder on the disk that the kept data is on; gone afterwards."""
    KEPT.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=KEPT))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def kept(name: str) -> Iterator[Path | None]:
    """A folder to be filled once: None when it is there already; it appears whole or not at all."""
    target = KEPT / name
    if target.is_dir():
        yield None
        return
    with scratch() as folder:
        part = folder / name
        part.mkdir()
        yield part
        part.rename(target)


def plain(**config: Any) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own without the progress bar that it prints into a script's output."""
    import duckdb

    connection = duckdb.connect(config=config)
    connection.execute("SET enable_progress_bar = false")
    return connection


def sync() -> None:
    """Let the disk finish what was written before, so that nobody pays for somebody else."""
    os.sync()


def _figure(value: float, unit: str) -> str:
    if unit == "":
        return f"{value:,.0f}"
    if unit == "s":
        return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"
    if unit == "ms":
        return f"{value:.3f} ms" if value < 1 else f"{value:,.1f} ms"
    return f"{value:,.0f} {unit}"


def _factor(value: float) -> str:
    if value >= 10:
        return f"{value:,.0f}×"
    return f"{value:.2f}×" if value >= 0.1 else f"{value:.2g}×"
