"""A lake's folder: where it is, whether a lake stands there, and how one is made."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lakehouse import config, state
from lakehouse.branch import BRANCHES_FOLDER
from lakehouse.catalog.attach import CATALOG_FILE, DATA_FOLDER, MARKER_FILE, Database
from lakehouse.catalog.lock import LOCK_FILE, WriterLock
from lakehouse.errors import DiskFull, LakeTooNew, LakeUnusable
from lakehouse.query import history
from lakehouse.query.files import written

FORMAT = 1
"""The layout of a lake folder; raised when an older version could no longer read it."""

OBJECTS_FOLDER = "objects"
PATHWAY_FOLDER = "pathway"
OBSERVER_FOLDER = "observer"
REPORTS_FOLDER = "reports"
DASHBOARDS_FOLDER = "dashboards"
WORKFLOWS_FOLDER = "workflows"
_DEFAULT_PATH = "lake"
_OURS = (
    frozenset(
        {MARKER_FILE, CATALOG_FILE, DATA_FOLDER, OBJECTS_FOLDER, LOCK_FILE, config.FILE_NAME, "tmp", state.FILE_NAME}
    )
    | {history.FILE_NAME, PATHWAY_FOLDER, OBSERVER_FOLDER, BRANCHES_FOLDER}
    | {
        REPORTS_FOLDER,
        DASHBOARDS_FOLDER,
        WORKFLOWS_FOLDER,
    }
)


def folder_of(path: str | os.PathLike[str] | None = None) -> Path:
    """The lake folder that a path means: itself, else `$LAKEHOUSE_PATH`, else `./lake`.

    Raises:
        LakeUnusable: no folder can be there: too long a name, a NUL, bytes that are no text, an unknown `~user`.
    """
    given = path or os.environ.get(config.PATH_VARIABLE) or _DEFAULT_PATH
    try:
        folder = Path(given).expanduser().absolute()
        str(folder).encode()
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it may be made, and that says what is wrong
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        shown = str(given).encode("utf-8", "backslashreplace").decode()[:200]
        raise LakeUnusable(f"{shown!r} cannot be a lake folder: {reason}", hint="give the path of a folder") from None
    return folder


def exists(path: str | os.PathLike[str] | None = None) -> bool:
    """Whether a lake stands at a path (the same default as `open`); errors as `open` raises them."""
    return is_lake(folder_of(path))


def is_lake(folder: Path) -> bool:
    """Whether a finished lake stands there.

    Raises:
        LakeUnusable: the path is a file or cannot be read.
        LakeTooNew: a newer version wrote it.
    """
    if folder.exists() and not folder.is_dir():
        raise LakeUnusable(f"{folder} is a file, not a lake folder", hint="give the path of a folder")
    marker = folder / MARKER_FILE
    try:
        content = marker.read_text("utf-8")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LakeUnusable(f"{marker} cannot be read: {error.strerror}", hint="check its permissions") from None
    try:
        found = int(json.loads(content)["format"])
    except (ValueError, KeyError, TypeError):
        raise LakeUnusable(f"{marker} is damaged", hint=f'it should read {{"format": {FORMAT}}}') from None
    if found > FORMAT:
        raise LakeTooNew(
            f"the lake {folder} has format {found}; this version reads up to {FORMAT}",
            hint="upgrade lakehouse-workbench",
        )
    if not (folder / CATALOG_FILE).is_file():
        raise LakeUnusable(f"the lake {folder} has lost its catalog ({CATALOG_FILE})", hint="restore it from a backup")
    return True


def create(folder: Path, settings: config.Settings) -> None:
    """Make a lake folder; two processes that try at once make one lake."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(p.name for p in folder.iterdir() if p.name not in _OURS and not p.name.startswith("."))
    except OSError as error:
        raise LakeUnusable(f"the lake folder {folder} cannot be made: {error.strerror}") from None
    strangers = [name for name in strangers if not name.startswith(CATALOG_FILE)]
    if strangers:
        raise LakeUnusable(
            f"{folder} is not a lake: it holds other things ({', '.join(strangers[:3])})",
            hint="give an empty or a new folder",
        )
    with WriterLock(folder / LOCK_FILE).hold(settings.catalog.lock_timeout):
        if is_lake(folder):
            return
        try:
            (folder / DATA_FOLDER).mkdir(exist_ok=True)
            Database(folder, settings).close()
            with written(folder / MARKER_FILE) as temporary:
                temporary.write_text(json.dumps({"format": FORMAT}) + "\n", "utf-8")
        except OSError as error:
            raise DiskFull(f"the lake {folder} could not be made: {error.strerror}") from None
