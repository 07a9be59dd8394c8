"""`lake.ingest`: one source into one table in one commit, recognised when it comes again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import duckdb
import msgspec

from lakehouse.catalog import faults
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Snapshot
from lakehouse.catalog.names import quote, shown, split
from lakehouse.catalog.running import Runner
from lakehouse.catalog.writer import Transaction
from lakehouse.config import Settings
from lakehouse.errors import IngestError, LakehouseError, SchemaMismatch, SourceEmpty, SourceUnreadable, TableNotFound
from lakehouse.ingest import csvfile
from lakehouse.ingest.land import Landing, land, narrow
from lakehouse.ingest.sources import Reading, Source, open_source

Mode = Literal["append", "replace"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a load wrote."""

    table: str
    """`schema.table`, or the bare name in the schema `main`."""
    rows: int
    """Rows that were loaded (by the first load, when this is a duplicate)."""
    snapshot: int
    """The snapshot that holds them."""
    sha256: str
    """Hash of the source's content."""
    duplicate: bool
    """True: the same content was there already and nothing was written."""
    source: str = ""
    mode: str = "append"
    elapsed: float = 0.0
    """Seconds."""


class Ingest:
    """Loads files and frames into tables; `lake.ingest` is one."""

    def __init__(self, database: Database, catalog: Catalog, settings: Settings, runner: Runner) -> None:
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._runner = runner

    def __call__(
        self,
        source: Any,
        table: str,
        *,
        mode: Mode = "append",
        format: str | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> Receipt:
        """Load a source into a table, which is created when missing.

        The same content (by SHA-256) with the same format, mode and options is loaded once: a second
        call, from any process and also after a crash, returns the first receipt with `duplicate=True`.
        After rows were deleted from the table, what was loaded before is no longer taken to be in it.

        Args:
            source: a path, glob pattern or folder of CSV, TSV, JSON, NDJSON, Parquet or Excel
                files, also gzipped, zstd-compressed or zipped; or a pandas, Arrow or Polars object.
            table: `table` or `schema.table`.
            mode: `append` adds the rows; `replace` makes them the whole table.
            format: `csv`, `json`, `parquet` or `excel`; None: by the file name.
            options: options of DuckDB's reader for the format, such as `{"nullstr": ["", "NA"]}`.
            force: load even if the same content was loaded before.

        Raises:
            SourceNotFound: nothing is there.
            SourceEmpty: there are no rows.
            SourceUnreadable: damaged, ragged, binary or in another encoding; says where.
            SchemaMismatch: the columns do not fit the table.
            LockTimeout: another writer held the lake too long.
        """
        if mode not in get_args(Mode):
            raise IngestError(f"'{mode}' is not a mode", hint="append or replace")
        if options is not None and not isinstance(options, Mapping):
            raise IngestError("options is not a mapping", hint="such as options={'delim': ';'}")
        if self._catalog.writer.active is not None:
            raise IngestError(
                "a load is a commit of its own and cannot be part of lake.transaction()",
                hint="load before or after it; INSERT INTO … FROM read_csv('…') may stand inside",
            )
        target = _Target(*self._place(table), mode, "")
        started = time.monotonic()
        fixed = {str(key): value for key, value in (options or {}).items()}
        with (
            faults.interruptible(),
            closing(
                open_source(
                    source,
                    self._database,
                    format=format,
                    options=fixed,
                    temp_limit=self._settings.storage.max_temp_size,
                )
            ) as opened,
        ):
            target = replace(target, options=_fingerprint(opened.format, fixed))
            if not force and (first := self._known(target, opened)):
                return replace(first, elapsed=time.monotonic() - started)
            receipt = self._load_somehow(opened, target, force=force)
        return replace(receipt, elapsed=time.monotonic() - started)

    def _place(self, table: str) -> tuple[str, str]:
        """Schema and name of a table, spelled as the catalog spells them.

        Raises:
            SchemaNotFound: there is no such schema.
        """
        schema, name = split(table)
        try:
            relation = self._catalog.find(quote(schema, name))
        except TableNotFound:
            return self._catalog.schema(schema), name
        return relation.schema, relation.name

    def _known(self, target: _Target, source: Source) -> Receipt | None:
        """The receipt of an earlier load of the same content; hashing is waited for only if sizes agree."""
        if not source.early or not any(note.get("size") == source.size for _, note in self._loads(target)):
            return None
        return self._earlier(target, source.digest())

    def _load_somehow(self, source: Source, target: _Target, *, force: bool) -> Receipt:
        *fast, last = source.readings
        for reading in fast:
            try:
                return self._load(source, reading, target, force=force)
            except SourceUnreadable:
                continue  # nothing was written; the next way takes it, or says better what is wrong
        return self._load(source, last, target, force=force)

    def _load(self, source: Source, reading: Reading, target: _Target, *, force: bool) -> Receipt:
        note: dict[str, Any] = {
            "source": source.name,
            "table": target.full_name,
            "mode": target.mode,
            "options": target.options,
        }
        undo = ExitStack()
        try:
            with (
                undo,
                self._catalog.writer.transaction(
                    "ingest",
                    f"ingest {os.path.basename(source.name)} into {target.full_name}",
                    size=source.size,
                    **note,
                ) as transaction,
            ):
                rows = self._run(transaction, source, reading, target, undo)
                digest = source.digest()
                if not force and (first := self._earlier(target, digest)):
                    raise _Duplicate(first)  # another process was faster while we read
                if not source.unchanged():
                    raise SourceUnreadable(f"{source.name} changed while it was read", hint="load it again")
                if rows == 0:
                    raise SourceEmpty(f"{source.name} holds no rows", hint="nothing was written")
                transaction.note.update(sha256=digest, rows=rows)
        except _Duplicate as duplicate:
            return duplicate.receipt
        return Receipt(target.full_name, rows, transaction.committed, digest, False, source.name, target.mode)

    def _run(self, transaction: Transaction, source: Source, reading: Reading, target: _Target, undo: ExitStack) -> int:
        connection = transaction.connection
        with (
            self._explained(source, reading),
            self._registered(connection, source),
            self._runner.query(f"ingest {source.name}", connection, None) as running,
        ):
            landing, relation = self._landing(connection, source, reading, target)
            if landing.create and landing.wide:
                undo.callback(narrow, self._catalog.writer, landing)

            def run(sql: str) -> duckdb.DuckDBPyConnection:
                return self._runner.wait(running, lambda: connection.execute(sql))

            return land(self._database, self._catalog.metadata, run, landing, relation, undo)

    def _landing(
        self, connection: duckdb.DuckDBPyConnection, source: Source, reading: Reading, target: _Target
    ) -> tuple[Landing, str]:
        """Where the rows go, and the SQL that reads them."""
        try:
            relation = self._catalog.find(quote(target.schema, target.name))
        except TableNotFound:
            relation = None
        if relation is not None and relation.kind == "view":
            raise IngestError(f"{target.full_name} is a view", hint="give the name of a table")
        known = self._catalog.describe(relation) if relation is not None else []
        append = target.mode == "append"
        sql = reading({name.lower(): kind for name, kind in known} if append else {})
        found = [(row[0], row[1]) for row in connection.execute(f"DESCRIBE FROM {sql}").fetchall()]
        source.check([name for name, _ in found])
        if relation is not None and append:
            _check_columns(source.name, target.full_name, found, known)
            return Landing(relation.schema, relation.name, known, found, relation, create=False, empty=False), sql
        if relation is not None and found == known:  # the table keeps its identity: comments, history, partitions
            return Landing(relation.schema, relation.name, known, found, relation, create=False, empty=True), sql
        if relation is not None:
            connection.execute(f"DROP TABLE {quote(ALIAS, relation.schema, relation.name)}")
        return Landing(target.schema, target.name, found, found, None, create=True, empty=False), sql

    def _loads(self, target: _Target) -> Iterator[tuple[int, dict[str, Any]]]:
        """Snapshot and note of the loads that made what is in the table now, newest first.

        A table is known by its id: it keeps its loads when it is renamed, and one of the same name that was
        dropped and made again has none.
        """
        try:
            relation = self._catalog.find(quote(target.schema, target.name))
        except TableNotFound:
            return
        for snapshot in self._catalog.table_snapshots(relation):
            if _deleted(snapshot, relation.id):
                return
            note = _decoded(snapshot.note)
            loaded = note.get("operation") == "ingest"
            if loaded:
                yield snapshot.id, note
            if target.mode == "replace" or (loaded and note.get("mode") == "replace"):
                return  # what came before is gone; and a table that was changed since is not what was loaded

    def _earlier(self, target: _Target, digest: str) -> Receipt | None:
        for snapshot, note in self._loads(target):
            same = (note.get("sha256"), note.get("options"), note.get("mode"))
            if same == (digest, target.options, target.mode):
                return Receipt(
                    target.full_name, int(note["rows"]), snapshot, digest, True, str(note["source"]), target.mode
                )
        return None

    @contextmanager
    def _registered(self, connection: duckdb.DuckDBPyConnection, source: Source) -> Iterator[None]:
        if source.frame is None:
            yield
            return
        connection.register("source", source.frame)
        try:
            yield
        finally:
            connection.unregister("source")

    @contextmanager
    def _explained(self, source: Source, reading: Reading) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            fault = faults.translate(error)
            if fault.code == LakehouseError.code or fault.code in ("query_failed", "sql_syntax"):
                fault = (
                    csvfile.explain(error, source.name)
                    or (source.locate() if reading is source.readings[-1] else None)
                    or SourceUnreadable(f"{source.name} cannot be loaded: {fault.message}", hint="nothing was written")
                )
            raise fault from error


@dataclass(frozen=True, slots=True)
class _Target:
    schema: str
    name: str
    mode: str
    options: str
    """Fingerprint of format and reader options: other options may mean other rows."""

    @property
    def full_name(self) -> str:
        return shown(self.schema, self.name)


class _Duplicate(Exception):
    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt


def _fingerprint(format: str, options: Mapping[str, Any]) -> str:
    text = json.dumps([format, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _check_columns(source: str, table: str, found: list[tuple[str, str]], known: list[tuple[str, str]]) -> None:
    have, want = {name.lower(): name for name, _ in found}, {name.lower(): name for name, _ in known}
    extra = [have[key] for key in have if key not in want]
    missing = [want[key] for key in want if key not in have]
    if not extra and not missing:
        return
    parts = []
    if extra:
        parts.append(f"the source has {', '.join(extra[:8])}, which the table has not")
    if missing:
        parts.append(f"the table has {', '.join(missing[:8])}, which the source has not")
    raise SchemaMismatch(
        f"the columns of {source} do not fit {table}: {'; '.join(parts)}",
        hint="add or rename columns, load into another table, or use mode='replace'",
    )


def _deleted(snapshot: Snapshot, table: int) -> bool:
    """Whether a commit took rows out of a table; an update, which puts as many in, does not."""
    changes = set(snapshot.changes.split(","))
    if not changes & {f"deleted_from_table:{table}", f"inlined_delete:{table}"}:
        return False
    return not changes & {f"inserted_into_table:{table}", f"inlined_insert:{table}"}


def _decoded(note: str | None) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(note or "{}")
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
