"""What can be loaded, and how DuckDB is told to read it.

A source is opened once: its files are found, checked for what DuckDB would pass over in silence,
and hashed; `relation` is then the SQL that reads it.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse.catalog import faults
from lakehouse.catalog.attach import Database
from lakehouse.catalog.names import exactly
from lakehouse.config import parse_size
from lakehouse.errors import IngestError, SourceEmpty, SourceUnreadable
from lakehouse.ingest import csvfile, excelfile, files, types
from lakehouse.ingest.jsonlines import JsonRecords
from lakehouse.ingest.records import Records, csv_records

_NUMBERED = re.compile(r"(.+?)(?:_\d+)+$", re.S)

OPTIONS = {
    "csv": csvfile.OPTIONS,
    "json": frozenset({"columns", "dateformat", "format", "maximum_object_size", "records", "timestampformat"}),
    "parquet": frozenset({"binary_as_string"}),
    "excel": frozenset({"all_varchar", "header", "normalize_names", "range", "sheet"}),
    "frame": frozenset(),
}
"""The reader options of each format; what they mean is DuckDB's documentation of the reader."""


Reading = Callable[[Mapping[str, str]], str]
"""SQL of the FROM clause, given the column types that the table already has."""


@dataclass
class Source:
    """Something to load, ready to be read."""

    name: str
    """How it is called in receipts, notes and errors."""
    format: str
    size: int | None
    """Bytes before decompression; None when not known without reading."""
    readings: tuple[Reading, ...]
    """The ways to read it, fastest first; when one fails the next takes or explains more."""
    digest: Callable[[], str]
    """Its SHA-256 in hex; for a stream only known once it has been read."""
    check: Callable[[list[str]], None] = lambda _columns: None
    """Raises what is wrong with the columns that DuckDB makes of it."""
    early: bool = True
    """Whether the digest can be asked for before the source is read."""
    unchanged: Callable[[], bool] = lambda: True
    """Whether the files are still those that were opened."""
    locate: Callable[[], SourceUnreadable | None] = lambda: None
    """After a failed load: what is wrong and on which line, where that can be found out."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Types that were asked for, by lower-cased column."""
    typed: bool = False
    """Whether it says itself of what types its columns are; else they were guessed from its values."""
    texts: bool = False
    """Whether its columns can be read as the text that stands in it, numbers written as SQL writes them."""
    sniffed: list[tuple[str, str]] = field(default_factory=list)
    """Columns and types of a CSV file as its first rows show them; none when it could not be understood."""
    records: Records | JsonRecords | None = None
    """The same record by record, for loads that set bad rows aside; CSV and JSON only."""
    fault: SourceUnreadable | None = None
    """Why there are no readings but only records."""
    frame: Any = None
    """What to register under the name `source` while it is read; None for files."""
    stack: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Remove what was unpacked for it."""
        self.stack.close()


def open_source(
    source: Any,
    database: Database,
    *,
    format: str | None,
    options: Mapping[str, Any],
    temp_limit: str,
    name: str | None = None,
    contract: str | None = None,
) -> Source:
    """Find out what a source is and make it readable.

    Args:
        source: a path, glob pattern or folder; or a pandas, Arrow or Polars object.
        database: where extensions are loaded and CSV files are looked at.
        format: `csv`, `json`, `parquet` or `excel`; None: by the file name.
        options: reader options, see `OPTIONS`.
        temp_limit: most that may be unpacked, such as `50GB`.
        name: how it is called in receipts; None: as the path is written.
        contract: the contract of the load. For `quarantine` a CSV file may have bad lines; for `evolve` and
            `freeze` its types are those of all rows, not of the first ones.

    Raises:
        SourceNotFound: nothing is there.
        SourceUnreadable: binary, truncated, ragged, or of an unknown format.
        SourceEmpty: it holds nothing.
        IngestError: an option is unknown.
    """
    if not (format is None or (isinstance(format, str) and format in OPTIONS and format != "frame")):
        raise IngestError(f"{format!r} is not a format", hint="one of csv, json, parquet, excel")
    asked = types.given(options)
    if not isinstance(source, str | os.PathLike):
        _check_options("frame", _without_types(options))
        if contract is not None and isinstance(source, pa.RecordBatchReader):
            source = source.read_all()  # it is read more than once
        frame = of_frame(source)
        return replace(frame, types=asked, name=name or frame.name)
    stack = ExitStack()
    try:
        path = os.fsdecode(source)
        paths = files.find(path)
        outer = files.fingerprints(paths)
        digest = files.hashing(paths, stack)
        paths = files.unpacked(paths, database.temp, parse_size(temp_limit), stack)
        kind = format or files.format_of(paths)
        options = options if kind == "csv" else _without_types(options)
        _check_options(kind, options)
        for file in paths:
            _check_content(file, kind)
        if kind == "csv" and contract in ("evolve", "freeze"):
            options = {"sample_size": -1, **options}
        called = name or path
        read = (
            _csv(paths, options, database, called, contract)
            if kind == "csv"
            else _reader(kind, paths, options, database)
        )
        if kind == "json" and contract == "quarantine" and not {"columns", "records"} & options.keys():
            read = _by_record(read, paths, options, called)
    except BaseException:
        stack.close()
        raise
    return replace(
        read,
        name=called,
        format=kind,
        size=sum(entry[1] for entry in outer),
        types=asked,
        digest=digest,
        unchanged=lambda: files.fingerprints([Path(entry[0]) for entry in outer]) == outer,
        stack=stack,
    )


def _check_content(path: Path, kind: str) -> None:
    """What no reader tells: empty files, and compressed ones that end too early."""
    if path.stat().st_size == 0:
        raise SourceEmpty(f"{path.name} is empty")
    if compression := files.COMPRESSED.get(path.suffix.lower()):
        # DuckDB loads a truncated gzip file up to where it breaks and says nothing.
        try:
            with pa.CompressedInputStream(pa.OSFile(str(path)), compression) as stream:
                while stream.read(files.CHUNK):
                    pass
        except (OSError, pa.ArrowException) as error:
            raise SourceUnreadable(
                f"{path.name} is damaged or incomplete: {error}", hint="fetch it again; nothing was loaded"
            ) from None
    if kind == "excel" and not zipfile.is_zipfile(path):
        raise SourceUnreadable(f"{path.name} is not an Excel workbook (.xlsx), or is incomplete")


def _reader(kind: str, paths: list[Path], options: Mapping[str, Any], database: Database) -> Source:
    """How files that are not CSV are read, and how their columns are checked."""
    check: Callable[[list[str]], None] = _take_any
    if kind == "excel":
        if len(paths) > 1:
            raise SourceUnreadable("several Excel files cannot be loaded at once", hint="load them one by one")
        sql = excelfile.relation(paths[0], options, database)
    else:
        exact = [exactly(str(path)) for path in paths]
        if kind == "json":
            # Keys that the sample does not show would be dropped in silence: look at every record.
            sql = csvfile.call("read_json", exact, {"sample_size": -1, "union_by_name": True, **options})
            shape = {key: options[key] for key in ("format", "maximum_object_size") if key in options}
            given = f"SELECT unnest(json_keys(json)) FROM {csvfile.call('read_json_objects', exact, shape)}"
        else:
            sql = csvfile.call("read_parquet", exact, {"union_by_name": False, **options})
            given = f"SELECT name FROM {csvfile.call('parquet_schema', exact, {})}"
        if "columns" not in options:
            check = partial(_check_renamed, paths, given, database)
    return Source(readings=(lambda _types: sql,), check=check, typed=kind == "parquet", **_UNKNOWN)


def _take_any(_columns: list[str]) -> None:
    """Columns that a format cannot rename or drop in silence need no look."""


def _by_record(read: Source, paths: list[Path], options: Mapping[str, Any], name: str) -> Source:
    """A JSON source that can also be read record by record."""
    named = [(str(path), name if len(paths) == 1 else path.name) for path in paths]

    def check(columns: list[str]) -> None:
        if columns == ["json"]:  # so DuckDB calls what is no object
            raise SourceUnreadable(f"{name} holds records that are no objects")
        read.check(columns)

    return replace(read, check=check, records=JsonRecords(named, options))


def _csv(paths: list[Path], options: Mapping[str, Any], database: Database, name: str, contract: str | None) -> Source:
    """How CSV files are read: by DuckDB, and for a quarantine also record by record."""
    names = [str(path) for path in paths]
    table, fault = None, None
    try:
        table = csvfile.reader(names, options, database)
    except SourceUnreadable as error:
        if contract != "quarantine":
            raise
        for file in names:
            csvfile.check_bytes(file, options)  # what is no text has no lines
        fault = error
    source = Source(readings=table.readings if table else (), fault=fault, **_UNKNOWN)
    if table is not None:
        sniffed = list(zip(table.dialect.columns, table.dialect.types, strict=True))
        texts = not {"all_varchar", "decimal_separator", "thousands"} & options.keys()
        source = replace(source, locate=table.locate, sniffed=sniffed, texts=texts)
    if contract == "quarantine":
        called = [(file, name if len(names) == 1 else Path(file).name) for file in names]
        source.records = csv_records(called, options, table.dialect if table else None, fault)
    return source


_UNKNOWN: dict[str, Any] = {"name": "", "format": "", "size": None, "digest": str}
"""What only the caller knows of a source."""


def _without_types(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "types"}


def _check_renamed(paths: list[Path], given: str, database: Database, columns: list[str]) -> None:
    """Refuse what DuckDB renames in silence: of the names `a` and `A` it makes the columns `a` and `A_1`.

    Args:
        paths: the files.
        given: the query for the names that stand in them, asked only if the columns look renamed.
        database: where to ask.
        columns: what DuckDB calls them.
    """
    known = {column.lower() for column in columns}
    if not any((match := _NUMBERED.match(column)) and match[1].lower() in known for column in columns):
        return
    with closing(database.cursor()) as cursor, faults.translated():
        names = {str(row[0]) for row in cursor.execute(f"SELECT DISTINCT * FROM ({given})").fetchall()}
    for column in columns:
        if column not in names and (match := _NUMBERED.match(column)):
            raise SourceUnreadable(
                f"{paths[0].name if len(paths) == 1 else 'one of the files'} has the column '{match[1]}' more than once:"
                " in upper and lower case",
                hint="rename one of them",
            )


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    for key in options:
        if key not in OPTIONS[kind]:
            known = ", ".join(sorted(OPTIONS[kind])) or "none"
            raise IngestError(f"there is no option '{key}' for {kind} sources", hint=f"known: {known}")


def of_frame(source: Any) -> Source:
    """A pandas, Arrow or Polars object, or anything else that speaks the Arrow C stream interface.

    Raises:
        IngestError: it is nothing of the kind.
        SourceEmpty, SourceUnreadable: it has no columns, or such as no table can have.
    """
    if isinstance(source, pa.RecordBatchReader):
        return _stream(source)
    kind = type(source).__name__
    try:
        if hasattr(source, "collect") and hasattr(source, "lazy"):
            source = source.collect()  # a Polars LazyFrame
        if hasattr(source, "to_parquet") and hasattr(source, "iloc"):
            if any(name is not None for name in source.index.names):
                source = source.reset_index()  # an index with a name is a column
            table = pa.Table.from_pandas(source, preserve_index=False)
        elif isinstance(source, pa.RecordBatch):
            table = pa.Table.from_batches([source])
        elif hasattr(source, "__arrow_c_stream__"):
            table = pa.table(source)
        else:
            raise IngestError(
                f"a {kind} cannot be loaded",
                hint="give a path, or a pandas, Arrow or Polars object",
            )
    except (pa.ArrowException, ValueError) as error:
        raise SourceUnreadable(f"the {kind} cannot be turned into columns: {error}") from None
    _check_names(kind, table.column_names)
    try:
        table = table.cast(_plain(table.schema))
    except pa.ArrowException as error:
        raise SourceUnreadable(f"the {kind} cannot be turned into columns: {error}") from None
    digest = hashlib.sha256()
    with pa.ipc.new_stream(_Sink(digest), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return Source(
        name=kind,
        format="frame",
        size=table.nbytes,
        readings=(lambda _types: "source",),
        digest=digest.hexdigest,
        frame=table,
        typed=True,
    )


def _check_names(kind: str, names: list[str]) -> None:
    if not names:
        raise SourceEmpty(f"the {kind} has no columns")
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise SourceUnreadable(f"the {kind} has the column '{name}' more than once", hint="rename one of them")
        seen.add(name.lower())


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema without the two types that no table of the lake can have: categories and the type of nothing."""
    fields = []
    for one in schema:
        kind = one.type.value_type if pa.types.is_dictionary(one.type) else one.type
        fields.append(pa.field(one.name, pa.string() if pa.types.is_null(kind) else kind))
    return pa.schema(fields)


def _stream(reader: pa.RecordBatchReader) -> Source:
    _check_names("RecordBatchReader", reader.schema.names)
    digest = hashlib.sha256()
    schema = _plain(reader.schema)

    broken: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            with pa.ipc.new_stream(_Sink(digest), schema) as writer:
                for batch in reader:
                    plain = batch.cast(schema)
                    writer.write_batch(plain)
                    yield plain
        except Exception as error:  # of any kind: the reader is the caller's own
            broken.append(error)  # DuckDB will only speak of a traceback
            raise

    def locate() -> SourceUnreadable | None:
        return SourceUnreadable(f"the stream broke: {broken[0]}", hint="nothing was written") if broken else None

    return Source(
        name="RecordBatchReader",
        format="frame",
        size=None,
        readings=(lambda _types: "source",),
        digest=digest.hexdigest,
        locate=locate,
        early=False,
        frame=pa.RecordBatchReader.from_batches(schema, batches()),
        typed=True,
    )


class _Sink:
    """A file that only hashes what is written to it."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...
