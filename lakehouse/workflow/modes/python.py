"""Mode `python`: a function, called in a process of its own."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from lakehouse.errors import NodeFailed
from lakehouse.workflow.model import Node, bound

if TYPE_CHECKING:
    from lakehouse.workflow.site import Site
    from lakehouse.workflow.work import Work

_CALL = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
_LONGEST = 64 << 10  # bytes of a returned value that is kept


class Python(Node, frozen=True, kw_only=True):
    """`module:function`, found in the workflow's folder or where Python finds modules.

    The function gets `args`; when it has parameters called `lake` or `work`, also the lake and this run's `Work`. What
    it returns is kept with the event, or written to `table`. An exception, and any exit of the process, is a failure.
    """

    mode: ClassVar[str] = "python"
    call: str
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    table: str | None = None
    """Where the frame goes that it returns, in one commit."""
    write: Literal["replace", "append"] = "replace"
    inputs: tuple[str, ...] | None = None
    """Tables that it reads; None: not said, so it is never skipped as unchanged."""
    outputs: tuple[str, ...] = ()
    """Tables that it makes by itself: they must be there afterwards."""

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        match = _CALL.fullmatch(self.call)
        if match is None:
            yield "call", "expected module:function"
        elif not self.files(site) and not site.installed(match[1].partition(".")[0]):
            yield "call", f"there is no module '{match[1]}'"
        for key, tables in (("table", (self.table,) if self.table else ()), ("outputs", self.outputs)):
            for table in tables:
                if why := site.target(table):
                    yield key, why

    def reads(self, site: Site) -> tuple[str, ...] | None:
        return self.inputs

    def writes(self, site: Site) -> tuple[str, ...]:
        return (*((self.table,) if self.table else ()), *self.outputs)

    def files(self, site: Site) -> tuple[Path, ...]:
        if match := _CALL.fullmatch(self.call):
            here = site.path(match[1].replace(".", "/"))
            return tuple(file for file in (here.with_suffix(".py"), here / "__init__.py") if file.is_file())
        return ()

    def run(self, work: Work) -> None:
        if work.site.workflow.folder not in sys.path:
            sys.path.insert(0, work.site.workflow.folder)
        module, _, name = self.call.partition(":")
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        args = bound(self.args, work.params)
        wanted = inspect.signature(function).parameters
        if "lake" in wanted and "lake" not in args:
            args["lake"] = work.lake
        if "work" in wanted and "work" not in args:
            args["work"] = work
        if self.inputs:
            work.read_tables([work.site.table(table) for table in self.inputs])
        if self.table is not None and work.found() is not None:
            work.write_query(
                self.table, "", {}, append=False, reads=None
            )  # it was written before the last attempt died
            return
        returned = function(**args)
        work.stage("middle")
        if inspect.isawaitable(returned) or inspect.isgenerator(returned) or inspect.isasyncgen(returned):
            raise NodeFailed(f"{self.call} gave a {type(returned).__name__}, of which nothing has run yet")
        if self.table is not None:
            if returned is None:
                raise NodeFailed(f"{self.call} returned nothing that could be written to '{self.table}'")
            frames = {"_returned": returned}
            append = self.write == "append"
            work.write_query(self.table, "SELECT * FROM _returned", {}, append=append, reads=None, tables=frames)
        else:
            work.stage("write")
            if returned is not None:
                work.fields["result"] = _kept(returned)
        work.made(self.outputs)


def _kept(value: Any) -> Any:
    try:
        if len(msgspec.json.encode(value)) <= _LONGEST:
            return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        pass
    return repr(value)[:1000]
