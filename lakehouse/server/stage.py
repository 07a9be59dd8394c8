"""What is served: copies of published notebooks in a folder, warm kernels for each, and who has which kernel."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from lakehouse.auth import is_loopback
from lakehouse.errors import LakehouseError
from lakehouse.reports.dashboards import Published

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse

_STALE = 60.0  # seconds that a warm page may be behind the lake
_LOOK = 20.0  # seconds between two looks whether warm pages are
_FORSAKEN = 60.0  # seconds after its opening that a page nobody is connected to gives its place to who asks
log = logging.getLogger("lakehouse.dashboards")


class Viewer(NamedTuple):
    """Who has a page open."""

    name: str
    """Of the pass that its kernel belongs to."""
    address: str
    known: bool
    """Whether the pass came with the request; else it is new, and pages are counted by the address instead."""

    @property
    def counted(self) -> str:
        """Whose pages count as one viewer's."""
        return self.name if self.known else self.address


class Stage:
    """The dashboards of a server.

    Args:
        root: the folder of the copies.
        lake: what they are dashboards of.
        most: pages that may be open at once.
        each: of these, those of one viewer; all viewers at one address, other than this machine's, leave as many to
            the others.
    """

    def __init__(self, root: Path, lake: Lakehouse, most: int, each: int) -> None:
        self.root, self.lake, self.most, self.each = root, lake, most, min(each, most)
        self.manager: Any = None
        """Voila's kernel manager, with its pools of warm kernels; set when it is made."""
        self._owners: dict[str, tuple[Viewer, float]] = {}
        self._placed: dict[str, str] = {}
        self._warmed: WeakKeyDictionary[asyncio.Task[Any], tuple[int, float]] = WeakKeyDictionary()
        self._opening: list[Viewer] = []
        self._ending: set[asyncio.Task[None]] = set()

    def published(self) -> list[Published]:
        """What is served now."""
        found = []
        for one in self.lake.dashboards.list():
            if one.state == "published":
                try:
                    found.append(self.lake.dashboards.served(one.name)[0])
                except LakehouseError as error:
                    log.warning("%s", error.message)
        return found

    def place_all(self) -> None:
        """Copy everything that is published, before kernels are warmed for it."""
        for one in self.published():
            record, content = self.lake.dashboards.served(one.name)
            self._write(record, content)

    async def refusal(self, viewer: Viewer) -> str | None:
        """Why there is no place for one more page of a viewer; None: there is one.

        Pages that nobody is connected to any more, because their browser went without a word, make room first.
        """
        said = self._no_place(viewer)
        if said is not None:
            now = time.monotonic()
            for kernel, (_, opened) in list(self._owners.items()):
                if now - opened >= _FORSAKEN and not self.manager._kernel_connections.get(kernel):
                    await self.give_back(kernel)
            said = self._no_place(viewer)
        return said

    def _no_place(self, viewer: Viewer) -> str | None:
        self._owners = {kernel: owner for kernel, owner in self._owners.items() if kernel in self.manager}
        taken = [*(owner for owner, _ in self._owners.values()), *self._opening]
        if len(taken) >= self.most:
            return f"{self.most} pages are open, which is the most. Try again in a few minutes."
        if sum(one.counted == viewer.counted for one in taken) >= self.each:
            return f"You have {self.each} pages open, which is the most for one viewer. Close one, and load this again."
        nearby = sum(one.address == viewer.address for one in taken)
        if self.each <= nearby >= self.most - self.each and not is_loopback(viewer.address, lambda _: ()):
            return f"{nearby} pages are open at your address, which is the most for one. Try again in a few minutes."
        return None

    def owns(self, viewer: str | None, kernel: str) -> bool:
        """Whether a kernel is that viewer's."""
        return viewer is not None and kernel in self._owners and self._owners[kernel][0].name == viewer

    async def ready(self, name: str) -> str:
        """The file of a dashboard that may be served as it is now; warm kernels of anything else are ended.

        Raises:
            ReportNotFound: it is not published, or was changed since.
        """
        file = f"{name}.ipynb"
        loop = asyncio.get_running_loop()
        try:
            record, content = await loop.run_in_executor(None, self.lake.dashboards.served, name)
        except LakehouseError:
            if self._placed.pop(name, None) is not None:
                (self.root / file).unlink(missing_ok=True)
                self._discard(file)
            raise
        if self._placed.get(name) != record.sha256:
            self._write(record, content)
            self._discard(file)
        await self._freshen(file)
        return file

    async def take(self, file: str, viewer: Viewer) -> tuple[Any, list[str], str]:
        """A page that a warm kernel has made, or is making; the kernel is the viewer's from now on.

        Returns:
            the task that makes it, the pieces made so far, and the id of the kernel.
        """
        self._opening.append(viewer)
        try:
            for _ in range(3):
                self._fill(file)
                try:
                    task, made, kernel = await self.manager.get_rendered_notebook(notebook_name=file)
                except Exception:
                    log.exception("a kernel of %s did not start", file)
                    continue
                self._mark(file)
                if kernel in self.manager:
                    self._owners[kernel] = (viewer, time.monotonic())
                    return task, made, kernel
            raise LakehouseError(f"no kernel starts for {file}")
        finally:
            self._opening.remove(viewer)

    async def give_back(self, kernel: str) -> None:
        """End the kernel of a page that is closed."""
        self._owners.pop(kernel, None)
        if kernel in self.manager:
            await self.manager.shutdown_kernel(kernel, now=True)

    async def keep_fresh(self) -> None:
        """Make warm pages anew when the lake has changed, for as long as the server runs."""
        while True:
            for file in list(self.manager._pools):
                self._mark(file)
                try:
                    await self._freshen(file, age=0.0)
                except LakehouseError as error:
                    log.warning("%s", error.message)
            await asyncio.sleep(_LOOK)

    async def _freshen(self, file: str, age: float = _STALE) -> None:
        self._fill(file)
        snapshot = await asyncio.get_running_loop().run_in_executor(None, self._snapshot)
        for task in list(self.manager._pools.get(file, ())):
            seen, then = self._warmed.get(task, (snapshot, time.monotonic()))
            if seen != snapshot and time.monotonic() - then >= age:
                self.manager._pools[file].remove(task)
                self._end(task)
        self._fill(file)

    def _snapshot(self) -> int:
        return self.lake.catalog.current_snapshot().id

    def _fill(self, file: str) -> None:
        if not self.manager._pools.get(file):
            self.manager.fill_if_needed(delay=0, notebook_name=file)
        self._mark(file)

    def _mark(self, file: str) -> None:
        for task in self.manager._pools.get(file, ()):
            if task not in self._warmed:
                self._warmed[task] = (self._snapshot(), time.monotonic())

    def _discard(self, file: str) -> None:
        for task in self.manager._pools.pop(file, ()):
            self._end(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        ending = asyncio.get_running_loop().create_task(self._put_away(task))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _put_away(self, task: asyncio.Task[Any]) -> None:
        try:
            content = await task
        except Exception:
            return
        content["task"].cancel()
        if content["kernel_id"] in self.manager:
            await self.manager.shutdown_kernel(content["kernel_id"], now=True)

    def _write(self, record: Published, content: bytes) -> None:
        (self.root / f"{record.name}.ipynb").write_bytes(content)
        self._placed[record.name] = record.sha256
