"""Where the notebooks of reports stand: the lake's own folder first, then those that ship with the package."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lakehouse.errors import ReportInvalid, ReportNotFound
from lakehouse.reports.model import NAME, Report, check_name
from lakehouse.reports.parameters import declared

FOLDER = "reports"
"""The folder of a lake's own reports, in the lake."""
DASHBOARDS = "dashboards"
"""The folder of its own dashboards."""


class Shelf:
    """The reports of a lake, or its dashboards.

    Args:
        lake: the lake folder.
        elsewhere: a further folder of the settings, or None.
        folder: which of the two, by the name of their folder.
    """

    def __init__(self, lake: Path, elsewhere: str | None, folder: str = FOLDER) -> None:
        here = Path(__file__).parent.parent
        given = [Path(elsewhere).expanduser()] if elsewhere else []
        self.folders = [*given, lake / folder, here / "notebooks" / folder, here.parent / "notebooks" / folder]
        self._kind = folder.removesuffix("s")

    def names(self) -> list[str]:
        """Every report there is; a name that is there twice is the first's."""
        found = {path.stem for folder in self.folders for path in folder.glob("*.ipynb") if NAME.fullmatch(path.stem)}
        return sorted(found)

    def notebook(self, name: str) -> Any:
        """The notebook of a report, an nbformat node.

        Raises:
            ReportInvalid: the name is none, or the file is no notebook.
            ReportNotFound: there is no report of that name.
        """
        import nbformat

        check_name(name, self._kind)
        for folder in self.folders:
            path = folder / f"{name}.ipynb"
            if not path.is_file():
                continue
            try:
                notebook = nbformat.read(path, as_version=4)
                nbformat.validate(notebook)
            except (OSError, ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
                raise ReportInvalid(
                    f"the {self._kind} '{name}' is no notebook: {str(error).splitlines()[0]:.200}"
                ) from None
            language = notebook.metadata.get("kernelspec", {}).get("language", "python")
            if language != "python":
                raise ReportInvalid(f"the {self._kind} '{name}' is written in {language}", hint="it must be in Python")
            notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
            notebook.metadata["language_info"] = {"name": "python"}
            for cell in notebook.cells:
                cell.metadata.setdefault("tags", [])  # papermill looks at each cell's
            return notebook
        raise ReportNotFound(
            f"there is no {self._kind} '{name}'", hint=f"there are: {', '.join(self.names()) or 'none'}"
        )

    def report(self, name: str, notebook: Any = None) -> Report:
        """What is known of a report without running it; its title is the first heading."""
        notebook = self.notebook(name) if notebook is None else notebook
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        title = next((line.lstrip("# ") for line in lines if line.startswith("# ")), name)
        about = notebook.metadata.get("lakehouse", {}).get("description", "")
        return Report(name, title, str(about), declared(notebook, f"the report '{name}'"), code(notebook))


def code(notebook: Any) -> str:
    """The hash of what a notebook does: kinds and sources of its cells, and what refines its parameters."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    content = json.dumps([cells, notebook.metadata.get("lakehouse", {})], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
