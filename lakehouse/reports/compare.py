"""Two runs of reports beside each other."""

from __future__ import annotations

import difflib
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import msgspec

from lakehouse.errors import ReportInvalid
from lakehouse.reports.model import ReportRun

if TYPE_CHECKING:
    from lakehouse.reports.records import Records

_MOST = 200  # lines of difference that are kept of one output


class Changed(msgspec.Struct, frozen=True):
    """Two values that differ; None: there is none."""

    before: Any
    after: Any


class OutputDiff(msgspec.Struct, frozen=True):
    """One output that differs."""

    cell: int
    """Number of the cell, counted from 1."""
    kind: str
    """`table`, `text`, or the media type of what cannot be compared by line."""
    removed: list[str]
    """Rows or lines that are only in the first run; cells of a row are separated by ` | `."""
    added: list[str]


class Comparison(msgspec.Struct, frozen=True):
    """What differs from one run to another."""

    run_a: str
    run_b: str
    parameters: dict[str, Changed]
    snapshot: Changed | None
    code: bool
    """Whether the report's cells differ."""
    outputs: list[OutputDiff]

    @property
    def same(self) -> bool:
        """Whether the outputs are the same."""
        return not self.outputs


def compared(records: Records, a: ReportRun, b: ReportRun) -> Comparison:
    """See `Reports.compare`."""
    first, second = _notebook(records, a), _notebook(records, b)
    parameters = {
        name: Changed(a.parameters.get(name), b.parameters.get(name))
        for name in {**a.parameters, **b.parameters}
        if a.parameters.get(name) != b.parameters.get(name)
    }
    snapshot = None if a.snapshot == b.snapshot else Changed(a.snapshot, b.snapshot)
    outputs = []
    for number in range(max(len(first.cells), len(second.cells))):
        left, right = _outputs(first, number), _outputs(second, number)
        for index in range(max(len(left), len(right))):
            one = left[index] if index < len(left) else ("nothing", [])
            two = right[index] if index < len(right) else ("nothing", [])
            if one != two:
                outputs.append(_difference(number + 1, one, two))
    return Comparison(a.id, b.id, parameters, snapshot, a.code != b.code, outputs)


def _difference(cell: int, one: tuple[str, list[str]], two: tuple[str, list[str]]) -> OutputDiff:
    kind = one[0] if one[0] != "nothing" else two[0]
    lines = [line for line in difflib.ndiff(one[1], two[1]) if line[0] in "+-"][:_MOST]
    return OutputDiff(
        cell, kind, [line[2:] for line in lines if line[0] == "-"], [line[2:] for line in lines if line[0] == "+"]
    )


def _notebook(records: Records, run: ReportRun) -> Any:
    import nbformat

    if "notebook" not in run.artefacts:
        raise ReportInvalid(f"the run {run.id} left no notebook to compare", hint=f"it is {run.status}")
    return nbformat.reads(records.storage.get(run.artefacts["notebook"]).decode(), as_version=4)


def _outputs(notebook: Any, number: int) -> list[tuple[str, list[str]]]:
    """What a cell gave: the kind of each output, and its rows or lines."""
    if number >= len(notebook.cells) or notebook.cells[number].cell_type != "code":
        return []
    found = []
    for output in notebook.cells[number].outputs:
        if output.output_type == "stream":
            found.append(("text", output.text.splitlines()))
        elif output.output_type == "error":
            found.append(("text", [f"{output.ename}: {output.evalue}"]))
        else:
            found.append(_data(output.data))
    return found


def _data(data: Any) -> tuple[str, list[str]]:
    if "text/html" in data and "<table" in data["text/html"]:
        return "table", rows(data["text/html"])
    for kind in ("text/plain", "text/markdown", "text/html"):
        if kind in data and not any(other.startswith("image/") for other in data):
            return "text", data[kind].splitlines()
    kind = next((kind for kind in data if kind.startswith("image/")), next(iter(data), "nothing"))
    value = data.get(kind, "")
    return kind, (value if isinstance(value, str) else str(value)).splitlines()


def rows(text: str) -> list[str]:
    """The rows of the tables in HTML, each as its cells' texts with ` | ` between them."""
    reader = _Rows()
    reader.feed(text)
    return reader.rows


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str] = []
        self._row: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self._row = []
        elif tag in ("td", "th"):
            self._row.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False
        elif tag == "tr" and self._row:
            self.rows.append(" | ".join(cell.strip() for cell in self._row))

    def handle_data(self, data: str) -> None:
        if self._inside and self._row:
            self._row[-1] += data
