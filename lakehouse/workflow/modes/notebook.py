"""Mode `notebook`: executed as a report is; what came out is kept as an object."""

from __future__ import annotations

import ast
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from lakehouse.errors import LakehouseError, NodeFailed
from lakehouse.observer.model import Data
from lakehouse.storage.base import check_key
from lakehouse.workflow.model import Node, bound

if TYPE_CHECKING:
    from lakehouse.workflow.site import Site
    from lakehouse.workflow.work import Work

LAKE = "lake_path"
"""The parameter that a notebook is given the lake's folder in, when its parameters cell has it."""
# Scripts that the page template would fetch from elsewhere.
_NO_CDN = dict.fromkeys(
    ("jquery_url", "mathjax_url", "mermaid_js_url", "mermaid_layout_elk_js_url", "require_js_url"), ""
)


class Notebook(Node, frozen=True, kw_only=True):
    """A notebook with a cell tagged `parameters`; only names that are assigned there can be given."""

    mode: ClassVar[str] = "notebook"
    notebook: str
    """Its path, relative to the workflow's file."""
    object: str | None = None
    """The key under which it is kept as it was executed; one that ends in `.html` is a page."""
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    inputs: tuple[str, ...] | None = None
    """Tables that it reads; None: not said, so it is never skipped as unchanged."""
    outputs: tuple[str, ...] = ()
    """Tables that it makes: they must be there afterwards."""

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        try:
            declared = parameters(site.path(self.notebook))
        except NodeFailed as error:
            yield "notebook", error.message
            return
        for name in self.args:
            if name not in declared:
                known = ", ".join(sorted(declared)) or "none"
                yield f"args.{name}"[:100], f"the notebook's parameters cell has no such name (it has: {known})"
        for table in self.outputs:
            if why := site.target(table):
                yield "outputs", why
        if self.object is not None:
            if not self.object.endswith((".ipynb", ".html")):
                yield "object", "a key that ends in .ipynb or .html says what is kept"
            try:
                check_key(self.object)
            except LakehouseError as error:
                yield "object", error.message

    def reads(self, site: Site) -> tuple[str, ...] | None:
        return self.inputs

    def writes(self, site: Site) -> tuple[str, ...]:
        return self.outputs

    def files(self, site: Site) -> tuple[Path, ...]:
        return (site.path(self.notebook),)

    def run(self, work: Work) -> None:
        import nbformat
        from papermill.iorw import load_notebook_node

        from lakehouse.reports import parameters as reported
        from lakehouse.reports.execute import EXECUTED, INPUT, execute

        source = work.site.path(self.notebook).absolute()
        given = dict(bound(self.args, work.params))
        if LAKE in parameters(source) and LAKE not in given:
            given[LAKE] = str(work.lake.path)
        if self.inputs:
            work.read_tables([work.site.table(table) for table in self.inputs])
        # Sockets in a folder of their own: by default all kernels in one folder would take the same names; and not in
        # the lake, whose path may be longer than a socket's can be.
        with (
            tempfile.TemporaryDirectory(prefix="tmp-notebook-", dir=work.temporary()) as folder,
            tempfile.TemporaryDirectory(prefix="lh-") as sockets,
            contextlib.chdir(folder),  # papermill formats the paths that it is given: a name has no braces
        ):
            notebook = load_notebook_node(str(source))
            nbformat.write(reported.written(notebook, given) if given else notebook, INPUT)
            executed = Path(folder, EXECUTED)
            fault = execute(
                most=work.lake.settings.reports.max_output_bytes,
                stands=source.parent,
                sockets=sockets,
                patience=600,  # on a busy machine; how long it may take is the node's `timeout`
            )
            if fault is not None:
                work.keep(executed, ".ipynb")
                where = source.name if fault.cell is None else f"cell {fault.cell} of {source.name}"
                raise NodeFailed(
                    f"{where} failed: {fault.type}: {fault.message}",
                    hint="the notebook up to there is kept with the run, with the parameters in a cell of their own",
                )
            work.stage("middle")
            if self.object is not None:
                content = executed if self.object.endswith(".ipynb") else _page(executed, source.stem)
                work.stage("write")
                receipt = work.lake.storage.put(self.object, content)
                work.outputs.append(Data(receipt.key, "object", hash=receipt.sha256, bytes=receipt.size))
            else:
                work.stage("write")
        work.made(self.outputs)


def parameters(path: Path) -> set[str]:
    """The names that a notebook's parameters cell assigns.

    Raises:
        NodeFailed: it cannot be read, or is no notebook.
    """
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        sources = [
            "".join(cell["source"]) for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", ())
        ]
        trees = [ast.parse(source) for source in sources]
    except OSError as error:
        raise NodeFailed(f"the notebook {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError):
        raise NodeFailed(f"{path} is no notebook whose parameters can be read") from None
    targets = [
        target
        for tree in trees
        for statement in tree.body
        for target in (
            statement.targets
            if isinstance(statement, ast.Assign)
            else [statement.target]
            if isinstance(statement, ast.AnnAssign)
            else []
        )
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _page(executed: Path, title: str) -> bytes:
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True, **_NO_CDN)
    body, _ = exporter.from_notebook_node(
        nbformat.read(executed, as_version=4), resources={"metadata": {"name": title}}
    )
    return str(body).encode()
