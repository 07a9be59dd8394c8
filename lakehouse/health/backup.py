"""`lake.backup()`: the whole lake at one moment in another place, while others go on writing.

The writer lock is held only while the catalog and the state file are copied. Data files never change, so they are
copied afterwards; what the catalog's copy names cannot be deleted meanwhile, as cleaning waits (`guard.py`). An
object is copied whole as it is when its turn comes.

Catalog and state file are copied as SQLite shows them (`catalog/copying.py`). DuckDB then opens the catalog's copy and
checks it.
"""

from __future__ import annotations

import time
import tomllib
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import duckdb

from lakehouse import __version__, config, state
from lakehouse.catalog import copying, extensions, faults
from lakehouse.catalog.attach import CATALOG_FILE, DATA_FOLDER, MARKER_FILE, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.inlining import UNFINISHED_FILE
from lakehouse.catalog.lock import LOCK_FILE
from lakehouse.catalog.names import literal
from lakehouse.config import Settings
from lakehouse.errors import BackupUnusable, DiskFull, LakeUnusable, ObjectNotFound
from lakehouse.health import checksums, inventory, journals
from lakehouse.health.guard import guarded
from lakehouse.health.inventory import Known
from lakehouse.health.manifest import FORMAT, INCOMING, Entry, Manifest, Place
from lakehouse.storage.faults import translated
from lakehouse.storage.local import LocalStore

_HELD = (CATALOG_FILE, state.FILE_NAME, config.FILE_NAME, MARKER_FILE, LOCK_FILE)
_TRIES = 3
_RECORDED = 64  # hashes written down at once
_PAGE = 1000  # objects listed at once


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds and what was new in it."""

    place: str
    snapshot: int
    """The newest snapshot in it."""
    files: int
    """Files and objects it holds."""
    bytes: int
    copied: int
    """How many contents were written now; the others were there from before."""
    copied_bytes: int
    left_out: tuple[str, ...]
    """What of the lake is not in it, and why."""
    elapsed: float
    """Seconds."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class Backup:
    """One backup of one lake into one place."""

    def __init__(
        self, database: Database, catalog: Catalog, settings: Settings, objects: LocalStore, place: Path
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._objects = objects
        self._place = Place(place)
        self._copied, self._copied_bytes = 0, 0
        self._left_out: list[str] = []

    def run(self) -> BackupReport:
        """Do it; see `Lakehouse.backup`."""
        started = time.monotonic()
        lake = self._database.folder
        if self._place.folder == lake or lake in self._place.folder.parents:
            raise BackupUnusable(f"{self._place.folder} is in the lake itself", hint="give a folder elsewhere")
        with self._place.opened() as before:
            mark = self._mark()
            if before is not None and before.lake != mark:
                raise BackupUnusable(
                    f"{self._place.folder} holds the backup of another lake", hint="give an empty or a new folder"
                )
            with guarded(self._database.data, self._settings.catalog.lock_timeout, alone=False):
                snapshot, known, files = self._catalog_and_state()
                files += self._data(known, before)
            files += self._small()
            files += [self._add(path.relative_to(lake).as_posix(), path) for path in journals.find(lake)]
            files += [self._add(path.relative_to(lake).as_posix(), path) for path in _definitions(lake)]
            objects = self._all_objects()
            manifest = Manifest(
                FORMAT,
                __version__,
                mark,
                datetime.now(UTC).isoformat(),
                snapshot,
                tuple(files),
                tuple(objects),
                tuple(self._left_out),
            )
            self._place.finish(manifest)
        entries = (*files, *objects)
        size = sum(entry.size for entry in entries)
        return BackupReport(
            str(self._place.folder),
            snapshot,
            len(entries),
            size,
            self._copied,
            self._copied_bytes,
            tuple(self._left_out),
            time.monotonic() - started,
        )

    def _mark(self) -> str:
        self._catalog.metadata.current()
        rows = self._catalog.metadata.rows("s", "SELECT schema_uuid FROM ducklake_schema ORDER BY schema_id LIMIT 1")
        return str(rows[0][0])

    def _add(self, name: str, file: Path) -> Entry:
        with translated(f"reading {file.name}", file.parent), file.open("rb") as stream:
            return self._counted(name, *self._place.add(stream))

    def _counted(self, name: str, sha256: str, size: int) -> Entry:
        self._copied += 1
        self._copied_bytes += size
        return Entry(name, sha256, size)

    def _catalog_and_state(self) -> tuple[int, list[Known], list[Entry]]:
        """The newest snapshot, the files it and the older ones need, and the copies of catalog and state file."""
        lake, incoming = self._database.folder, self._place.folder / INCOMING
        for left in range(_TRIES, 0, -1):
            for old in (*incoming.glob(f"{CATALOG_FILE}*"), *incoming.glob(f"{state.FILE_NAME}*")):
                old.unlink()
            with self._catalog.writer.plain():
                metadata = self._catalog.metadata
                snapshot = metadata.current()
                known = inventory.take(metadata, self._database.data).known
                names = [name for name in (CATALOG_FILE, state.FILE_NAME) if (lake / name).exists()]
                copying.copy(*((lake / name, incoming / name) for name in names))
            if _whole(incoming / CATALOG_FILE, snapshot):
                break
            if left == 1:  # somebody writes without asking for the lock, or the catalog is damaged
                raise LakeUnusable("the catalog could not be copied whole", hint="lakehouse doctor looks at it")
        return snapshot, known, [self._add(name, incoming / name) for name in names]

    def _data(self, known: list[Known], before: Manifest | None) -> list[Entry]:
        """The data files: what is there from before is not read again."""
        data, entries = self._database.data, []
        hashes = checksums.known(self._catalog.state)
        hashes.update(
            {e.name.removeprefix(f"{DATA_FOLDER}/"): (e.sha256, e.size) for e in before.files} if before else {}
        )
        fresh: dict[str, tuple[str, int]] = {}
        for file in known:
            if not file.path.is_relative_to(data):
                self._left_out.append(f"{file.path}: outside the lake folder")
                continue
            name = file.path.relative_to(data).as_posix()
            sha256, size = hashes.get(name, ("", -1))
            if size == file.bytes and self._place.has(sha256, size):
                entries.append(Entry(f"{DATA_FOLDER}/{name}", sha256, size))
                continue
            entry = self._add(f"{DATA_FOLDER}/{name}", file.path)
            if entry.size != file.bytes or (sha256 and entry.sha256 != sha256):
                raise LakeUnusable(
                    f"the data file {file.path} is damaged: it is not what was written",
                    hint="lakehouse doctor --checksums",
                )
            entries.append(entry)
            fresh[name] = (entry.sha256, entry.size)
            if len(fresh) >= _RECORDED:  # a backup that breaks off and goes on need not read them again
                self._record(fresh)
                fresh = {}
        self._record(fresh)
        return entries

    def _record(self, fresh: dict[str, tuple[str, int]]) -> None:
        if not self._database.read_only:
            checksums.record(self._catalog.state, fresh)

    def _small(self) -> list[Entry]:
        """The lake's mark and its settings, these without secrets."""
        lake = self._database.folder
        entries = [self._add(MARKER_FILE, lake / MARKER_FILE)]
        if self._database.read_only and (lake / UNFINISHED_FILE).exists():  # else the lock's holder has finished it
            entries.append(self._add(UNFINISHED_FILE, lake / UNFINISHED_FILE))
        settings = lake / config.FILE_NAME
        if settings.is_file():
            text = without_secrets(settings.read_text("utf-8"))
            if text is None:
                self._left_out.append(f"{config.FILE_NAME}: it holds secrets that could not be told apart")
            else:
                copy = self._place.folder / INCOMING / config.FILE_NAME
                with translated("writing a backup", self._place.folder):
                    copy.write_text(text, "utf-8")
                entries.append(self._add(config.FILE_NAME, copy))
        for path in sorted(lake.iterdir()):
            if not path.is_dir() and not path.name.startswith((*_HELD, ".")):
                self._left_out.append(f"{path.name}: it belongs to this place, or is none of the lake's files")
        return entries

    def _all_objects(self) -> list[Entry]:
        entries: list[Entry] = []
        after: str | None = None
        while page := self._objects.list("", _PAGE, after):
            for info in page:
                if info.sha256 is not None and self._place.has(info.sha256, info.size):
                    entries.append(Entry(info.key, info.sha256, info.size))
                    continue
                try:
                    with self._objects.open(info.key) as stream:
                        entries.append(self._counted(info.key, *self._place.add(stream)))
                except ObjectNotFound:
                    continue  # deleted meanwhile
            after = page[-1].key
        return entries


def without_secrets(text: str) -> str | None:
    """The text of a settings file with the lines of secrets taken out; None when that cannot be done by lines."""
    secret = {
        (section, key)
        for section, struct in get_type_hints(Settings).items()
        for key, hint in get_type_hints(struct).items()
        if "Secret" in str(hint)
    }
    document = tomllib.loads(text)
    given = {(s, k) for s, table in document.items() if isinstance(table, dict) for k in table} & secret
    if not given:
        return text
    names = {key for _, key in given}
    lines = [line for line in text.splitlines() if line.split("=")[0].strip().strip("\"'").split(".")[-1] not in names]
    for section, key in given:
        del document[section][key]
    try:
        same = tomllib.loads("\n".join(lines)) == document
    except tomllib.TOMLDecodeError:
        same = False
    return "\n".join(lines) + "\n" if same else None


def _whole(catalog: Path, snapshot: int) -> bool:
    """Whether DuckDB's SQLite finds a copied catalog sound and up to a snapshot."""
    try:
        with closing(extensions.connect({"threads": 1})) as connection:
            connection.execute(f"ATTACH {literal(str(catalog))} AS copy (TYPE sqlite)")
            found = connection.execute("FROM sqlite_query('copy', 'PRAGMA integrity_check')").fetchall()
            newest = connection.execute("SELECT max(snapshot_id) FROM copy.ducklake_snapshot").fetchone()
            connection.execute("DETACH copy")
    except duckdb.Error as error:
        fault = faults.translate(error)
        if isinstance(fault, DiskFull):
            raise fault from error
        return False
    return found == [("ok",)] and newest is not None and int(newest[0]) == snapshot


def _definitions(lake: Path) -> list[Path]:
    """The stored workflows, with what lies beside them; their runs are journals."""
    folder = lake / "workflows"
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
