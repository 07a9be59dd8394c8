"""How long a grid takes for what a person does: the first page, a far one, an order, a filter; and what it costs."""

from __future__ import annotations

import json
import sys

from _report import ROOT, Report, main, median, scratch, timed

sys.path.insert(0, str(ROOT / "widgets"))

import lakehouse
from lakehouse_widgets import Grid

_PAGES = 9


def measure(quick: bool) -> Report:
    """Results of 10^3 to 10^8 rows (10^6 quick) of three columns, asked as the page asks."""
    report = Report("A grid, as its page asks it", "nobody else")
    most = 6 if quick else 8
    with scratch() as folder, lakehouse.open(folder / "lake", settings={"query": {"progress": False}}) as lake:
        for power in range(3, most + 1):
            rows = 10**power
            sql = f"SELECT i AS n, i * 7919 % 1000003 AS spread, i % 97 AS kind FROM range({rows}) r(i)"
            grid = Grid(lake.sql(sql))
            what = f"10^{power} rows: "
            report.add(f"{what}first page", timed(lambda grid=grid: _ask(grid)) * 1000, "ms")
            pages = []
            for place in range(_PAGES):
                first = rows * (2 * place + 1) // (2 * _PAGES)
                pages.append(timed(lambda grid=grid, first=first: _ask(grid, first=first)) * 1000)
            report.add(f"{what}a far page", median(pages), "ms", at_most=150)
            order = [{"column": "spread", "direction": "desc"}]
            report.add(f"{what}ordered", timed(lambda grid=grid, order=order: _ask(grid, sort=order)) * 1000, "ms")
            middle = rows // 2
            far = timed(lambda grid=grid, order=order, first=middle: _ask(grid, sort=order, first=first)) * 1000
            report.add(f"{what}a far page of that order", far, "ms", at_most=150)
            kind = [{"column": "kind", "operator": "=", "value": "13"}]
            report.add(f"{what}filtered", timed(lambda grid=grid, kind=kind: _ask(grid, filter=kind)) * 1000, "ms")
            if power == most:
                state = grid.get_state()
                code = len(state.pop("_esm")) + len(state.pop("_css"))
                report.add("widget state: its code", code, "B", at_most=40_000)
                report.add("widget state: all else", len(json.dumps(state, default=str)), "B", at_most=4_000)
                report.add("a page on its way", len(json.dumps(_ask(grid, first=middle))), "B")
            grid.close()
    report.notes.append("the first page reads the result once into the grid's own DuckDB; an order copies it")
    return report


def _ask(grid: Grid, *, first: int = 0, **view: object) -> dict[str, object]:
    """A page of 100 rows, as grid.js asks for it."""
    answer, _ = grid.answer({"kind": "rows", "request": 1, "first": first, "count": 100, **view})
    assert answer["kind"] == "rows", answer
    return answer


if __name__ == "__main__":
    main(measure)
