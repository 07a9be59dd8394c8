"""`lake.ingest`: one source into one table in one commit, recognised when it comes again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any, get_args

import duckdb

from lakehouse.catalog import faults
from lakehouse.catalog.attach import Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.names import quote, split
from lakehouse.catalog.running import Runner
from lakehouse.catalog.writer import Transaction
from lakehouse.config import Settings
from lakehouse.errors import IngestError, LakehouseError, SourceEmpty, SourceUnreadable, TableNotFound
from lakehouse.ingest import contract as contracts
from lakehouse.ingest import csvfile, objects, sift, types
from lakehouse.ingest.place import Work, placed
from lakehouse.ingest.receipt import Contract, Counts, Mode, Receipt, Target, earlier, fingerprint, loads, named
from lakehouse.ingest.sources import Reading, Source, open_source
from lakehouse.ingest.write import written
from lakehouse.storage.base import ObjectStore

__all__ = ["Ingest", "Receipt"]

_LARGE = 64 << 20  # bytes of a source that fills row groups
_CHANGES = 5  # times that a table is changed before one load
_Attempt = Callable[[Work], Counts]


class Ingest:
    """Loads files, objects and frames into tables; `lake.ingest` is one."""

    def __init__(
        self, database: Database, catalog: Catalog, settings: Settings, runner: Runner, store: ObjectStore
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._runner = runner
        self._store = store

    def __call__(
        self,
        source: Any,
        table: str,
        *,
        mode: Mode = "append",
        key: str | Sequence[str] | None = None,
        contract: Contract | None = None,
        format: str | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
        once: str | None = None,
        name: str | None = None,
    ) -> Receipt:
        """Load a source into a table, which is created when missing.

        The same content (by SHA-256) with the same format, mode, key and options is loaded once: a second
        call, from any process and also after a crash, returns the first receipt with `duplicate=True`.
        After rows were deleted from the table, what was loaded before is no longer taken to be in it; of
        `replace` and `upsert` only the last change of the table counts.

        Args:
            source: a path, glob pattern or folder of CSV, TSV, JSON, NDJSON, Parquet or Excel
                files, also gzipped, zstd-compressed or zipped; an object (`"object:KEY"`, or what
                `lake.storage.put` or `head` gave); or a pandas, Arrow or Polars object.
            table: `table` or `schema.table`.
            mode: `append` adds the rows; `replace` makes them the whole table; `upsert` puts them in the
                place of the rows with the same key and adds the others.
            key: the column or columns of the key, for `upsert`. Of rows with the same key in the source
                the last one counts.
            contract: None: columns and types must fit the table. `evolve` adds columns and widens types;
                `freeze` refuses every difference; `quarantine` sets rows that do not fit aside, see `retry`.
            format: `csv`, `json`, `parquet` or `excel`; None: by the file name.
            options: options of DuckDB's reader for the format, such as `{"nullstr": ["", "NA"]}`. `types`,
                a mapping of columns to types, is taken for every format and remembered for the table.
            force: load even if the same content was loaded before.
            once: a name for this very load, kept with its commit: of several calls with the same name one loads,
                also after a crash and with `force`, and the others get its receipt with `duplicate=True`.
            name: how the source is called in the receipt, the note of the commit and errors; None: by its path.

        Raises:
            SourceNotFound: nothing is there.
            ObjectNotFound: no object under that key.
            SourceEmpty: there are no rows.
            SourceUnreadable: damaged, ragged, binary or in another encoding; says where.
            SchemaMismatch: the columns do not fit the table.
            Conflict: a key of an upsert stands in the table more than once.
            LockTimeout: another writer held the lake too long.
        """
        keys = _keys(mode, key)
        contracts.check(contract)
        if options is not None and not isinstance(options, Mapping):
            raise IngestError("options is not a mapping", hint="such as options={'delim': ';'}")
        self._check_alone("a load", "load before or after it; INSERT INTO … FROM read_csv('…') may stand inside")
        target = Target(*self._place(table), mode, keys, contract)
        started = time.monotonic()
        if once is not None and (first := named(self._catalog, target, once)):
            return replace(first, elapsed=time.monotonic() - started)
        given = {str(name): value for name, value in (options or {}).items()}
        with faults.interruptible(), ExitStack() as stack:
            if objects.is_object(source):
                name, source = stack.enter_context(objects.fetched(self._store, source, self._database.temp))
            opened = open_source(
                source,
                self._database,
                format=format,
                options=given,
                temp_limit=self._settings.storage.max_temp_size,
                name=name,
                contract=contract,
            )
            stack.enter_context(closing(opened))
            target = replace(target, options=fingerprint(opened.format, given, keys))
            if not force and (first := self._known(target, opened)):
                return replace(first, elapsed=time.monotonic() - started)
            receipt = self._load_somehow(opened, target, force=force, once=once)
        return replace(receipt, elapsed=time.monotonic() - started)

    def retry(self, table: str) -> Receipt:
        """Load the rejected rows of a table that fit by now, and take them out of `<table>__rejects`; one commit.

        Mend them first: `UPDATE orders__rejects SET raw = … WHERE id = …`, or change the table's columns.
        Rows that still do not fit stay, with the reason of today. Rows are loaded in the mode of the load
        that rejected them.

        When a table is renamed its rejects stay its own, and are renamed with the next retry or load that sets rows
        aside. When it is dropped they stay as they are, and are those of the next table with its name.

        Args:
            table: `table` or `schema.table`: the table itself, not that of its rejects.

        Returns:
            A receipt: `rows` that were loaded, `rejected` that are left.

        Raises:
            TableNotFound: nothing of this table was ever rejected.
        """
        self._check_alone("a retry", "retry before or after it")
        target = Target(*self._place(table), "append")
        started = time.monotonic()
        with (
            faults.interruptible(),
            ExitStack() as undo,
            self._catalog.writer.transaction("retry", f"retry {target.rejects}", table=target.full_name) as transaction,
        ):
            with self._working(transaction, target, {}, f"retry {target.rejects}", undo) as work:
                counts = sift.again(work)
                transaction.note.update(_figures(counts))
        rows, left = counts.rows, counts.rejected
        return Receipt(
            target.full_name,
            rows,
            transaction.committed,
            "",
            False,
            target.rejects,
            "retry",
            time.monotonic() - started,
            inserted=counts.inserted,
            updated=counts.updated,
            deduplicated=counts.deduplicated,
            rejected=left,
        )

    def _check_alone(self, what: str, hint: str) -> None:
        if self._catalog.writer.active is not None:
            raise IngestError(f"{what} is a commit of its own and cannot be part of lake.transaction()", hint=hint)

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

    def _known(self, target: Target, source: Source) -> Receipt | None:
        """The receipt of an earlier load of the same content; hashing is waited for only if sizes agree."""
        if not source.early or not any(note.get("size") == source.size for _, note in loads(self._catalog, target)):
            return None
        return earlier(self._catalog, target, source.digest())

    def _load_somehow(self, source: Source, target: Target, **how: Any) -> Receipt:
        """Load in the first of the ways that works; what a failed one wrote is undone."""
        attempts: list[_Attempt] = [_reading(source, reading) for reading in source.readings]
        if target.contract == "quarantine":
            attempts.append(_sifting(source))
        *fast, last = attempts
        for attempt in fast:
            try:
                return self._load_evolved(source, attempt, target, **how)
            except SourceUnreadable:
                continue  # the next way takes it, or says better what is wrong
        return self._load_evolved(source, last, target, **how)

    def _load_evolved(self, source: Source, attempt: _Attempt, target: Target, **how: Any) -> Receipt:
        """Load; what the contract changes of the table is done first, and again if another writer was faster."""
        for _ in range(_CHANGES):
            try:
                return self._load(source, attempt, target, **how)
            except contracts.Evolution as wanted:
                contracts.change(self._catalog, self._database, target, wanted.changes)
        return self._load(source, attempt, target, **how)

    def _load(self, source: Source, attempt: _Attempt, target: Target, *, force: bool, once: str | None) -> Receipt:
        note: dict[str, Any] = {
            "source": source.name,
            "table": target.full_name,
            "mode": target.mode,
            "options": target.options,
        }
        if target.key:
            note["key"] = target.key
        if once is not None:
            note["once"] = once
        message = f"ingest {os.path.basename(source.name)} into {target.full_name}"
        undo = ExitStack()
        try:
            with (
                undo,
                self._catalog.writer.transaction("ingest", message, size=source.size, **note) as transaction,
            ):
                fixed = types.remembered(self._catalog, target, source.types)
                with (
                    _registered(transaction.connection, source),
                    self._working(transaction, target, fixed, f"ingest {source.name}", undo) as work,
                ):
                    counts = attempt(work)
                digest = source.digest()
                if once is not None and (first := named(self._catalog, target, once)):
                    raise _Duplicate(first)
                if not force and (first := earlier(self._catalog, target, digest)):
                    raise _Duplicate(first)  # another process was faster while we read
                if not source.unchanged():
                    raise SourceUnreadable(f"{source.name} changed while it was read", hint="load it again")
                if counts.rows == 0 and counts.rejected == 0:
                    raise SourceEmpty(f"{source.name} holds no rows", hint="nothing was written")
                transaction.note.update(sha256=digest, **_figures(counts))
        except _Duplicate as duplicate:
            return duplicate.receipt
        types.remember(self._catalog, target, fixed)
        return Receipt(
            target.full_name,
            counts.rows,
            transaction.committed,
            digest,
            False,
            source.name,
            target.mode,
            inserted=counts.inserted,
            updated=counts.updated,
            deduplicated=counts.deduplicated,
            rejected=counts.rejected,
        )

    @contextmanager
    def _working(
        self, transaction: Transaction, target: Target, fixed: Mapping[str, str], what: str, undo: ExitStack
    ) -> Iterator[Work]:
        """What a load needs while it runs; it can be cancelled meanwhile."""
        connection = transaction.connection
        with self._runner.query(what, connection, None) as running:

            def run(sql: str) -> duckdb.DuckDBPyConnection:
                return self._runner.wait(running, lambda: connection.execute(sql))

            with faults.translated():
                yield Work(self._database, self._catalog, connection, run, target, fixed, undo)


def _reading(source: Source, reading: Reading) -> _Attempt:
    """Load all rows, or none when one does not fit."""

    def attempt(work: Work) -> Counts:
        with _explained(source, last=reading is source.readings[-1]):
            landing, sql = placed(work, source, reading)
            large = source.size is not None and source.size >= _LARGE
            return written(work, replace(landing, large=large), sql, source.name)

    return attempt


def _sifting(source: Source) -> _Attempt:
    """Load the rows that fit, and set the others aside."""

    def attempt(work: Work) -> Counts:
        with _explained(source, last=True):
            return sift.rows(work, source)

    return attempt


def _keys(mode: str, key: str | Sequence[str] | None) -> tuple[str, ...]:
    """The key columns of an upsert.

    Raises:
        IngestError: no such mode, a key where none belongs, or none where one is needed.
    """
    if mode not in get_args(Mode):
        raise IngestError(f"'{mode}' is not a mode", hint="append, replace or upsert")
    names = (key,) if isinstance(key, str) else tuple(key or ())
    if mode != "upsert" and names:
        raise IngestError(f"a key has no meaning with mode='{mode}'", hint="use mode='upsert'")
    if mode == "upsert" and not names:
        raise IngestError("an upsert needs the columns that tell rows apart", hint="such as key='id' or key=['a', 'b']")
    if not all(isinstance(name, str) for name in names) or len({name.lower() for name in names}) < len(names):
        raise IngestError(f"{key!r} is not a list of different column names", hint="such as key=['day', 'shop']")
    return names


def _figures(counts: Counts) -> dict[str, int]:
    """What the note of a commit keeps of the counts."""
    named = {name: getattr(counts, name) for name in Counts.__slots__}
    return {"rows": counts.rows, **{name: value for name, value in named.items() if value or name == "inserted"}}


@contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, source: Source) -> Iterator[None]:
    if source.frame is None:
        yield
        return
    with _explained(source, last=True):
        connection.register("source", source.frame)
    try:
        yield
    finally:
        connection.unregister("source")


@contextmanager
def _explained(source: Source, *, last: bool) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        fault = faults.translate(error)
        if fault.code == LakehouseError.code or fault.code in ("query_failed", "sql_syntax"):
            fault = (
                csvfile.explain(error, source.name)
                or (source.locate() if last else None)
                or SourceUnreadable(f"{source.name} cannot be loaded: {fault.message}", hint="nothing was written")
            )
        raise fault from error


class _Duplicate(Exception):
    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
