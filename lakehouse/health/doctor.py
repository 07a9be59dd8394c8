"""`lake.doctor()`: does everything hold that the lake promises? Also for a lake that `open` refuses.

It changes nothing (but writes down hashes that it was asked to compute); `repair` fixes what loses nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from lakehouse import config, state
from lakehouse.catalog import extensions, faults, foreign
from lakehouse.catalog.attach import CATALOG_FILE, DATA_FOLDER, MARKER_FILE, Database
from lakehouse.catalog.lock import LOCK_FILE, WriterLock
from lakehouse.catalog.metadata import Metadata
from lakehouse.catalog.names import literal
from lakehouse.config import Settings, parse_age
from lakehouse.errors import ConfigError, LakehouseError, LakeReadOnly
from lakehouse.health import checksums, datacheck, inventory, journals, leftovers
from lakehouse.health.findings import Book, Diagnosis
from lakehouse.health.guard import guarded
from lakehouse.storage.local import LocalStore
from lakehouse.wording import counted

_LITTLE, _NOTHING = 1 << 30, 16 << 20  # bytes free: worth a note; no commit is safe to fit
_BACKUP = "restore the lake from a backup"


class Doctor:
    """Looks at one lake folder.

    Args:
        folder: the lake folder, in whatever state.
        objects: the name of the folder of its objects.
        format: the newest layout of a lake folder that this version knows.
        protection: what holds SQL from strangers on this machine, under a setting: its level, and why.
    """

    def __init__(
        self, folder: Path, *, objects: str, format: int, protection: Callable[[str], tuple[str, str]]
    ) -> None:
        self._folder = folder
        self._format = format
        self._protection = protection
        self._objects = LocalStore(folder / objects, lock_timeout=5.0)
        self._state = state.State(folder / state.FILE_NAME, state.SCHEMA)
        self._book = Book()
        self._repaired: list[str] = []
        self._ours = foreign.writable(folder)

    def examine(self, *, checksums: bool = False, repair: bool = False) -> Diagnosis:
        """Look at everything; see `Lakehouse.doctor`."""
        if not self._folder.is_dir():
            self._book.fault("there is no such folder", str(self._folder), "lakehouse init makes a lake")
            return self._diagnosis()
        if repair and not self._ours:
            raise LakeReadOnly(f"nothing can be repaired in {self._folder}")
        settings = self._settings()
        marker = self._marker()
        self._space()
        self._sandbox(settings)
        self._lock()
        state_is_sound = self._state_file()
        sound = self._catalog(settings, hashes=checksums and state_is_sound, repair=repair, tags=state_is_sound)
        self._all_objects(content=checksums)
        journals.examine(self._folder, self._book)
        if repair and marker == "missing" and sound:
            self._mark()
        self._temporary(settings, repair=repair)
        return self._diagnosis()

    def _diagnosis(self) -> Diagnosis:
        return Diagnosis(str(self._folder), tuple(self._book.findings), tuple(self._repaired))

    def _settings(self) -> Settings:
        try:
            found = config.load(self._folder)
        except ConfigError as error:
            self._book.fault(error.message, config.FILE_NAME, error.hint or "correct it")
            return Settings()
        self._book.ok("the settings can be read", config.FILE_NAME)
        return found

    def _marker(self) -> str:
        """`ok`, `missing` or `wrong`."""
        try:
            found = int(json.loads((self._folder / MARKER_FILE).read_text("utf-8"))["format"])
        except FileNotFoundError:
            self._book.fault("it is missing, so the folder does not count as a lake", MARKER_FILE, "doctor --repair")
            return "missing"
        except OSError as error:
            self._book.fault(f"it cannot be read: {error.strerror}", MARKER_FILE, "check its permissions")
            return "wrong"
        except (ValueError, KeyError, TypeError):
            self._book.fault("it is damaged", MARKER_FILE, "doctor --repair writes it again")
            return "missing"
        if found > self._format:
            self._book.fault(f"a newer version wrote it (format {found})", MARKER_FILE, "upgrade lakehouse-workbench")
            return "wrong"
        self._book.ok(f"format {found}", MARKER_FILE)
        return "ok"

    def _mark(self) -> None:
        temporary = self._folder / f".{MARKER_FILE}.part"
        try:
            temporary.write_text(json.dumps({"format": self._format}) + "\n", "utf-8")
            temporary.replace(self._folder / MARKER_FILE)
        except OSError as error:
            self._book.fault(f"it could not be written: {error.strerror}", MARKER_FILE, "check the disk")
            return
        self._repaired.append(f"{MARKER_FILE} was written again: the catalog is sound")

    def _space(self) -> None:
        free = shutil.disk_usage(self._folder).free
        text = f"{free:,} bytes free"
        if free < _NOTHING:
            self._book.fault(f"{text}: writes will fail", "disk", "free some space")
        elif free < _LITTLE:
            self._book.note(text, "disk", "lakehouse maintenance run may free some")
        else:
            self._book.ok(text, "disk")

    def _sandbox(self, settings: Settings) -> None:
        level, why = self._protection(settings.query.sandbox)
        if level == "full":
            self._book.ok(f"full protection: {why}", "SQL from strangers")
        elif level == "gate-only":
            self._book.note(why, "SQL from strangers", "let only those send SQL whom you trust")
        else:
            self._book.note(f"it is refused: {why}", "SQL from strangers", "Linux 6.2 or later can hold it")

    def _lock(self) -> None:
        path = self._folder / LOCK_FILE
        if not path.exists():
            self._book.ok("nobody has written yet", LOCK_FILE)
            return
        if not self._ours:
            self._book.ok("you may read here and not write; nobody can be asked for the lock", LOCK_FILE)
            return
        if not os.access(path, os.R_OK | os.W_OK):
            self._book.fault("it cannot be opened for writing, so nobody can write", LOCK_FILE, "check its permissions")
            return
        lock = WriterLock(path)
        try:
            with lock.hold(0.5):
                self._book.ok("it is free; a lock of a dead process frees itself", LOCK_FILE)
        except LakehouseError:
            self._book.note(
                f"it is held by {lock.holder() or 'another process'}", LOCK_FILE, "wait, or end that process"
            )

    def _state_file(self) -> bool:
        try:
            rows = self._state.read("PRAGMA integrity_check")
        except LakehouseError as error:
            self._book.fault(
                error.message, state.FILE_NAME, "restore it from a backup; tags and saved queries are in it"
            )
            return False
        if rows in ([], [("ok",)]):
            self._book.ok("SQLite finds it sound" if rows else "nothing was written to it yet", state.FILE_NAME)
            return True
        self._book.faults(((str(row[0]), state.FILE_NAME) for row in rows), "restore it from a backup")
        return False

    def _catalog(self, settings: Settings, *, hashes: bool, repair: bool, tags: bool) -> bool:
        """Look at catalog and data files; whether the catalog can be used."""
        if not (self._folder / DATA_FOLDER).is_dir():
            self._book.fault("the folder is missing", DATA_FOLDER, _BACKUP)
            return False
        file = self._folder / CATALOG_FILE
        if not file.is_file() or file.stat().st_size == 0:
            self._book.fault("it is empty" if file.is_file() else "it is missing", CATALOG_FILE, _BACKUP)
            self._unclaimed()
            return False
        try:
            # Nothing may be deleted between asking the catalog for a file and looking for it.
            wait = settings.catalog.lock_timeout
            with (
                guarded(self._folder / DATA_FOLDER, wait, alone=False),
                closing(Database(self._folder, settings, read_only=True)) as database,
            ):
                with closing(Metadata(database)) as metadata:
                    self._versions(database, metadata)
                    there = datacheck.examine(database, metadata, self._book)
                    lost = datacheck.tags(metadata, self._state, self._book) if tags else []
                    if hashes:
                        datacheck.hashes(database, there, self._state, self._book)
            if repair:
                self._repair(settings, lost)
        except LakehouseError as error:
            self._book.fault(error.message, CATALOG_FILE, error.hint or _BACKUP)
            self._raw(settings)
            return False
        except duckdb.Error as error:
            self._book.fault(faults.translate(error).message, CATALOG_FILE, _BACKUP)
            self._raw(settings)
            return False
        return True

    def _versions(self, database: Database, metadata: Metadata) -> None:
        found = {
            r[0]: r[1] for r in metadata.rows("ss", "SELECT key, value FROM ducklake_metadata WHERE key = 'version'")
        }
        ours = database.root.execute(
            "SELECT extension_version FROM duckdb_extensions() WHERE extension_name = 'ducklake'"
        )
        row = ours.fetchone()
        self._book.ok(
            f"DuckDB {duckdb.__version__}, DuckLake extension {row[0] if row else '?'},"
            f" catalog version {found.get('version', '?')}, {len(inventory.snapshots(metadata)):,} snapshots",
            "versions",
        )

    def _raw(self, settings: Settings) -> None:
        """What plain SQLite says of a catalog that DuckLake cannot open."""
        try:
            with closing(extensions.connect({"threads": 1})) as connection:
                place = None if self._ours else foreign.Place(settings.storage.temp_directory)
                path = self._folder / CATALOG_FILE
                path = (place and foreign.copied(path, place)) or path
                connection.execute(f"ATTACH {literal(str(path))} AS raw (TYPE sqlite, READ_ONLY)")
                rows = connection.execute("FROM sqlite_query('raw', 'PRAGMA integrity_check')").fetchall()
        except (duckdb.Error, LakehouseError) as error:
            self._book.fault(f"SQLite cannot read it: {str(error).splitlines()[0]}", CATALOG_FILE, _BACKUP)
        else:
            text = "SQLite finds it sound, so it is DuckLake that cannot use it"
            self._book.note(text if rows == [("ok",)] else f"SQLite says: {rows[0][0]}", CATALOG_FILE, _BACKUP)
        self._unclaimed()

    def _unclaimed(self) -> None:
        files = inventory.footprint(s.st_size for _, s in inventory.on_disk(self._folder / DATA_FOLDER))
        if files.files:
            self._book.note(f"without the catalog nobody knows which table they are of: {files}", DATA_FOLDER, _BACKUP)

    def _repair(self, settings: Settings, lost: list[str]) -> None:
        """Remove what nobody can miss: files that no catalog entry names, tags of nothing, hashes of nothing."""
        if lost:
            with self._state.write() as connection:
                connection.executemany("DELETE FROM snapshot_tag WHERE name = ?", [(name,) for name in lost])
            self._repaired.append(f"tags of snapshots that are gone were removed: {', '.join(lost)}")
        limit = datetime.now(UTC) - parse_age(settings.maintenance.keep_files)
        data = self._folder / DATA_FOLDER
        wait = settings.catalog.lock_timeout
        with guarded(data, wait, alone=True), WriterLock(self._folder / LOCK_FILE).hold(wait):
            with closing(Database(self._folder, settings, read_only=True)) as database:
                with closing(Metadata(database)) as metadata:
                    known = inventory.take(metadata, data).paths()
            gone = [
                (file, stat.st_size)
                for file, stat in inventory.on_disk(data)
                if file not in known and stat.st_mtime < limit.timestamp()
            ]
            for file, _ in gone:
                file.unlink(missing_ok=True)
        if gone:
            self._repaired.append(f"files of writes that did not end: {inventory.footprint(s for _, s in gone)}")
        names = {file.relative_to(data).as_posix() for file in known if file.is_relative_to(data)}
        if stale := [name for name in checksums.known(self._state) if name not in names]:
            checksums.forget(self._state, stale)

    def _all_objects(self, *, content: bool) -> None:
        try:
            wrong = list(self._objects.check(content=content))
            left = self._objects.clean(dry_run=True)
        except LakehouseError as error:
            self._book.fault(error.message, "objects", error.hint or "check the folder")
            return
        if not self._book.faults(wrong, "put the object again, or restore it from a backup"):
            self._book.ok("all can be read" + (" and are what was put" if content else ""), "objects")
        if left.files:
            self._book.note(
                f"{counted(left.files, 'file')} ({left.bytes:,} bytes) of puts that did not end",
                "objects",
                "lakehouse maintenance clean removes them",
            )

    def _temporary(self, settings: Settings, *, repair: bool) -> None:
        folder = Path(settings.storage.temp_directory or self._folder / "tmp")
        limit = datetime.now(UTC) - parse_age(settings.maintenance.keep_files)
        found = leftovers.remove(folder, limit, dry_run=not repair)
        branches = leftovers.branches(self._folder, dry_run=not repair)
        if repair and branches:
            self._repaired.append(f"branches of processes that died: {', '.join(branches)}")
        elif branches:
            text = f"branches of processes that died: {', '.join(branches)}"
            self._book.note(text, "branches", "lakehouse maintenance clean removes them")
        if repair and found.files:
            self._repaired.append(f"temporary files of processes that died: {found}")
        elif found.files:
            self._book.note(f"{found} of processes that died", str(folder), "lakehouse maintenance clean removes them")
        if repair:
            try:
                cleaned = self._objects.clean()
            except LakehouseError:
                return  # told before
            if cleaned.files:
                self._repaired.append(
                    f"puts of objects that did not end: {counted(cleaned.files, 'file')}, {cleaned.bytes:,} bytes"
                )
