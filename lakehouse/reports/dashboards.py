"""Which notebooks are dashboards, and which of them are published: copied, and pinned by their hash.

What is published stands in the lake folder and not among its objects: whoever may write objects over HTTP must not
thereby write what the server of dashboards executes.
"""

from __future__ import annotations

import getpass
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from lakehouse import config
from lakehouse.durable import make_folder, sync_folder
from lakehouse.errors import LakeReadOnly, ReportInvalid, ReportNotFound
from lakehouse.reports.model import NAME, check_name
from lakehouse.reports.shelf import DASHBOARDS, Shelf

_PUBLISHED = "published"

State = Literal["published", "changed", "not published"]


class Published(msgspec.Struct, frozen=True):
    """A notebook as it was published."""

    name: str
    title: str
    description: str
    sha256: str
    """Of its copy, which has no outputs."""
    time: datetime
    by: str


class Dashboard(msgspec.Struct, frozen=True):
    """A notebook that is one, and how it stands."""

    name: str
    title: str
    description: str
    state: State
    """`changed`: since it was published; it is not served until it is published again."""
    published: datetime | None = None
    by: str | None = None


class Dashboards:
    """The dashboards of a lake (`lake.dashboards`).

    Args:
        folder: the lake folder; notebooks in its `dashboards` come first, then those that ship.
        settings: those of the lake; the author of commits is who publishes.
        read_only: nothing may be published.
    """

    def __init__(self, folder: Path, settings: config.Settings, *, read_only: bool) -> None:
        self._shelf = Shelf(folder, None, DASHBOARDS)
        self._kept = folder / DASHBOARDS / _PUBLISHED
        self._author = settings.catalog.author
        self._read_only = read_only

    def list(self) -> list[Dashboard]:
        """Every dashboard there is; one whose notebook went away stays as `changed`."""
        kept = {path.stem for path in self._kept.glob("*.json") if NAME.fullmatch(path.stem)}
        return [self._standing(name) for name in sorted({*self._shelf.names(), *kept})]

    def publish(self, name: str) -> Published:
        """Let a notebook be served as it is now.

        Raises:
            ReportNotFound: there is none of that name.
            ReportInvalid: it is no notebook.
            LakeReadOnly: the lake was opened for reading.
        """
        self._writable()
        content = self._content(name)
        about = self._shelf.report(name)
        record = Published(
            name=name,
            title=about.title,
            description=about.description,
            sha256=_hash(content),
            time=datetime.now(UTC),
            by=self._author or getpass.getuser(),
        )
        make_folder(self._kept)
        self._write(f"{name}.ipynb", content)
        self._write(f"{name}.json", msgspec.json.format(msgspec.json.encode(record)))
        return record

    def unpublish(self, name: str) -> None:
        """Serve it no longer.

        Raises:
            ReportNotFound: it is not published.
            LakeReadOnly: the lake was opened for reading.
        """
        self._writable()
        if self._record(name) is None:
            raise ReportNotFound(f"the dashboard '{name}' is not published")
        for ending in ("json", "ipynb"):
            (self._kept / f"{name}.{ending}").unlink(missing_ok=True)
        sync_folder(self._kept)

    def served(self, name: str) -> tuple[Published, bytes]:
        """What may be served under a name, and the notebook itself.

        Raises:
            ReportNotFound: it is not published, was changed since, or its copy is not what was published.
        """
        record = self._record(name)
        if record is None:
            raise ReportNotFound(f"the dashboard '{name}' is not published")
        if self._standing(name).state != "published":
            raise ReportNotFound(
                f"the dashboard '{name}' was changed since it was published",
                hint=f"lakehouse dashboards publish {name}",
            )
        content = (self._kept / f"{name}.ipynb").read_bytes()
        if _hash(content) != record.sha256:
            raise ReportNotFound(f"the copy of the dashboard '{name}' is not what was published")
        return record, content

    def _standing(self, name: str) -> Dashboard:
        record = self._record(name)
        try:
            now: str | None = _hash(self._content(name))
        except (ReportNotFound, ReportInvalid):
            now = None
        if record is None:
            if now is None:
                return Dashboard(name, name, "this is no notebook", "not published")
            about = self._shelf.report(name)
            return Dashboard(name, about.title, about.description, "not published")
        state: State = "published" if now == record.sha256 else "changed"
        return Dashboard(name, record.title, record.description, state, record.time, record.by)

    def _record(self, name: str) -> Published | None:
        check_name(name, "dashboard")
        try:
            record = msgspec.json.decode((self._kept / f"{name}.json").read_bytes(), type=Published)
        except (OSError, msgspec.DecodeError):
            return None
        return record if record.name == name else None

    def _content(self, name: str) -> bytes:
        """The notebook without what it gave when somebody ran it, so that running it is no change."""
        import nbformat

        notebook: Any = self._shelf.notebook(name)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
        notebook.metadata.pop("widgets", None)
        notebook.metadata["title"] = self._shelf.report(name, notebook).title
        return str(nbformat.writes(notebook)).encode()

    def _write(self, name: str, content: bytes) -> None:
        path = self._kept / name
        temporary = path.with_name(f".{name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(self._kept)

    def _writable(self) -> None:
        if self._read_only:
            raise LakeReadOnly


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
