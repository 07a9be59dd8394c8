"""Mode `ingest`: a file, an object, or a file of an installed package into a table; the same content only once."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from lakehouse.errors import NodeFailed
from lakehouse.ingest.receipt import Contract, Mode
from lakehouse.observer.model import Data
from lakehouse.workflow.model import Node, bound

if TYPE_CHECKING:
    from lakehouse.workflow.site import Site
    from lakehouse.workflow.work import Work

_PACKAGE, _OBJECT = "package:", "object:"


class Ingest(Node, frozen=True, kw_only=True):
    """`lake.ingest`, with its arguments."""

    mode: ClassVar[str] = "ingest"
    reusable: ClassVar[bool] = True
    source: str
    """A path (relative to the workflow's file), `object:KEY`, `package:NAME/path/in/it`, or `$name`."""
    table: str
    write: Mode = "append"
    key: tuple[str, ...] = ()
    contract: Contract | None = None
    format: str | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if why := site.target(self.table):
            yield "table", why
        if bool(self.key) is not (self.write == "upsert"):
            yield "key", "an upsert has a key, and only an upsert"
        source = str(bound(self.source, site.params) if self.source[1:] in site.params else self.source)
        if source.startswith((_OBJECT, "$")) or any(char in source for char in "*?["):
            return  # an earlier node may make it
        try:
            if not self._place(source, site.path(source)).exists():
                yield "source", f"there is nothing at {source}"
        except (NodeFailed, OSError, ValueError) as error:
            yield "source", str(error)

    def writes(self, site: Site) -> tuple[str, ...]:
        return (self.table,)

    def run(self, work: Work) -> None:
        source = str(bound(self.source, work.params))
        given: str | Path = source if source.startswith(_OBJECT) else self._place(source, work.site.path(source))
        work.stage("middle")
        receipt = work.lake.ingest(
            given,
            self.table,
            mode=self.write,
            key=list(self.key) or None,
            contract=self.contract,
            format=self.format,
            options=bound(self.options, work.params) or None,
        )
        work.stage("write")
        kind = "object" if source.startswith(_OBJECT) else "file"
        work.inputs.append(Data(source.removeprefix(_OBJECT), kind, hash=receipt.sha256))  # type: ignore[arg-type]
        work.outputs.append(Data(work.site.table(self.table), snapshot=receipt.snapshot, rows=receipt.rows))
        if receipt.rejected:
            work.fields["rejected"] = receipt.rejected
        if receipt.duplicate:
            work.unchanged = "the same content was loaded before"

    @staticmethod
    def _place(source: str, path: Path) -> Path:
        if not source.startswith(_PACKAGE):
            return path
        name, _, inside = source.removeprefix(_PACKAGE).partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None  # the package itself is not run
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            return Path(folder, inside)
        raise NodeFailed(f"the package '{name}' is not installed")
