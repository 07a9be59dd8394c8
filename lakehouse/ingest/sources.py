"""What can be loaded, and how DuckDB is told to read it.

A source is opened once: its files are found, checked for what DuckDB would pass over in silence,
and hashed; `relation` is then the SQL that reads it.
"""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse.catalog.attach import Database
from lakehouse.catalog.names import exactly
from lakehouse.config import parse_size
from lakehouse.errors import DiskFull, IngestError, SourceEmpty, SourceNotFound, SourceUnreadable
from lakehouse.ingest import csvfile, excelfile

_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".json": "json",
    ".ndjson": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "excel",
}
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_CHUNK = 1 << 20

OPTIONS = {
    "csv": csvfile.OPTIONS,
    "json": frozenset({"columns", "dateformat", "format", "maximum_object_size", "records", "timestampformat"}),
    "parquet": frozenset({"binary_as_string"}),
    "excel": frozenset({"all_varchar", "header", "normalize_names", "range", "sheet"}),
    "frame": frozenset(),
}
"""The reader options of each format; what they mean is DuckDB's documentation of the reader."""


@dataclass
class Source:
    """Something to load, ready to be read."""

    name: str
    """How it is called in receipts, notes and errors."""
    format: str
    size: int | None
    """Bytes before decompression; None when not known without reading."""
    relation: Callable[[Mapping[str, str]], str]
    """SQL of the FROM clause, given the column types that the table already has."""
    digest: Callable[[], str]
    """Its SHA-256 in hex; for a stream only known once it has been read."""
    early: bool = True
    """Whether the digest can be asked for before the source is read."""
    unchanged: Callable[[], bool] = lambda: True
    """Whether the files are still those that were opened."""
    locate: Callable[[], SourceUnreadable | None] = lambda: None
    """After a failed load: what is wrong and on which line, where that can be found out."""
    frame: Any = None
    """What to register under the name `source` while it is read; None for files."""
    stack: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Remove what was unpacked for it."""
        self.stack.close()


def open_source(
    source: Any, database: Database, *, format: str | None, options: Mapping[str, Any], temp_limit: str
) -> Source:
    """Find out what a source is and make it readable.

    Args:
        source: a path, glob pattern or folder; or a pandas, Arrow or Polars object.
        database: where extensions are loaded and CSV files are looked at.
        format: `csv`, `json`, `parquet` or `excel`; None: by the file name.
        options: reader options, see `OPTIONS`.
        temp_limit: most that may be unpacked, such as `50GB`.

    Raises:
        SourceNotFound: nothing is there.
        SourceUnreadable: binary, truncated, ragged, or of an unknown format.
        SourceEmpty: it holds nothing.
        IngestError: an option is unknown.
    """
    if not isinstance(source, str | os.PathLike):
        _check_options("frame", options)
        return _frame(source)
    stack = ExitStack()
    try:
        name = os.fspath(source)
        paths = _find(name)
        outer = _fingerprints(paths)
        digest = _hashing(paths, stack)
        paths = _unpacked(paths, database.temp, parse_size(temp_limit), stack)
        kind = format or _format_of(paths)
        if kind not in OPTIONS or kind == "frame":
            raise IngestError(f"'{kind}' is not a format", hint="one of csv, json, parquet, excel")
        _check_options(kind, options)
        for path in paths:
            _check_content(path, kind)
        relation, locate = _reader(kind, paths, options, database)
    except BaseException:
        stack.close()
        raise
    return Source(
        name=name,
        format=kind,
        size=sum(entry[1] for entry in outer),
        relation=relation,
        locate=locate,
        digest=digest,
        unchanged=lambda: _fingerprints([Path(entry[0]) for entry in outer]) == outer,
        stack=stack,
    )


def _find(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".") and _suffix(p)]
        if not found:
            raise SourceNotFound(f"the folder {name} holds no file of a known format", hint=_known())
        return found
    if path.is_file():
        return [path]
    if any(mark in name for mark in "*?["):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if not found:
            raise SourceNotFound(f"no file matches {name}", hint=f"looked from {Path.cwd()}")
        return found
    if path.exists():
        raise SourceUnreadable(f"{name} is neither a file nor a folder", hint="copy its content to a file first")
    raise SourceNotFound(f"there is no file {name}", hint=f"looked from {Path.cwd()}")


def _fingerprints(paths: list[Path]) -> list[tuple[str, int, int]]:
    try:
        return [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    except OSError as error:
        raise SourceNotFound(f"{error.filename} is gone: {error.strerror}") from None


def _hashing(paths: list[Path], stack: ExitStack) -> Callable[[], str]:
    """Hash in the background: reading a file to load it and to hash it then overlap."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="lakehouse-hash")
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    future: Future[str] = pool.submit(_hash, paths)
    return future.result


def _hash(paths: list[Path]) -> str:
    digests = []
    for path in paths:
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise SourceUnreadable(f"{path} cannot be read: {error.strerror}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _suffix(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes and (suffixes[-1] in _FORMATS or suffixes[-1] == ".zip") else None


def _format_of(paths: list[Path]) -> str:
    kinds: dict[str, Path] = {}
    for path in paths:
        suffix = _suffix(path)
        if suffix is None or suffix == ".zip":
            old = " (old Excel files must be saved as .xlsx)" if path.suffix.lower() == ".xls" else ""
            raise SourceUnreadable(f"the format of {path.name} is not known{old}", hint=_known())
        kinds[_FORMATS[suffix]] = path
    if len(kinds) > 1:
        names = " and ".join(path.name for path in kinds.values())
        raise SourceUnreadable(f"the files are of different formats ({names})", hint="load them separately")
    return next(iter(kinds))


def _known() -> str:
    return f"give format=; known endings: {' '.join(sorted(_FORMATS))}, each also .gz, .zst or in a .zip"


def _unpacked(paths: list[Path], temp: Path, limit: int, stack: ExitStack) -> list[Path]:
    """The same files with every zip archive replaced by the files in it."""
    result: list[Path] = []
    left = limit
    for path in paths:
        if path.suffix.lower() != ".zip":
            result.append(path)
            continue
        temp.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=temp, prefix="unzip-")))
        members, left = _unzip(path, folder, left, limit)
        result.extend(members)
    return result


def _unzip(path: Path, folder: Path, left: int, limit: int) -> tuple[list[Path], int]:
    members: list[Path] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for number, info in enumerate(sorted(archive.infolist(), key=lambda info: info.filename)):
                base = Path(info.filename).name
                if info.is_dir() or base.startswith((".", "__MACOSX")) or info.filename.startswith("__MACOSX"):
                    continue
                target = folder / str(number) / base  # only the last part of the stored name: it cannot escape
                target.parent.mkdir()
                with archive.open(info) as packed, target.open("wb") as file:
                    while chunk := packed.read(_CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise DiskFull(
                                f"{path.name} unpacks to more than {limit:,} bytes (storage.max_temp_size)",
                                hint="raise storage.max_temp_size, or unpack it yourself",
                            )
                        file.write(chunk)
                members.append(target)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise SourceUnreadable(f"{path.name} is not a readable zip archive: {error}") from None
    except OSError as error:
        raise DiskFull(f"{path.name} could not be unpacked into {folder.parent}: {error.strerror}") from None
    if not members:
        raise SourceEmpty(f"the archive {path.name} holds no file")
    return members, left


def _check_content(path: Path, kind: str) -> None:
    """What no reader tells: empty files, and compressed ones that end too early."""
    if path.stat().st_size == 0:
        raise SourceEmpty(f"{path.name} is empty")
    if compression := _COMPRESSED.get(path.suffix.lower()):
        # DuckDB loads a truncated gzip file up to where it breaks and says nothing.
        try:
            with pa.CompressedInputStream(pa.OSFile(str(path)), compression) as stream:
                while stream.read(_CHUNK):
                    pass
        except (OSError, pa.ArrowException) as error:
            raise SourceUnreadable(
                f"{path.name} is damaged or incomplete: {error}", hint="fetch it again; nothing was loaded"
            ) from None
    if kind == "excel" and not zipfile.is_zipfile(path):
        raise SourceUnreadable(f"{path.name} is not an Excel workbook (.xlsx), or is incomplete")


def _reader(
    kind: str, paths: list[Path], options: Mapping[str, Any], database: Database
) -> tuple[Callable[[Mapping[str, str]], str], Callable[[], SourceUnreadable | None]]:
    """How the files are read, and how the line is found that was wrong."""
    if kind == "csv":
        table = csvfile.reader([str(path) for path in paths], options, database)
        return table.relation, table.locate
    if kind == "excel":
        if len(paths) > 1:
            raise SourceUnreadable("several Excel files cannot be loaded at once", hint="load them one by one")
        sql = excelfile.relation(paths[0], options, database)
    else:
        files = [exactly(str(path)) for path in paths]
        if kind == "json":
            # Keys that the sample does not show would be dropped in silence: look at every record.
            sql = csvfile.call("read_json", files, {"sample_size": -1, "union_by_name": True, **options})
        else:
            sql = csvfile.call("read_parquet", files, {"union_by_name": False, **options})
    return lambda _types: sql, lambda: None


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    for key in options:
        if key not in OPTIONS[kind]:
            known = ", ".join(sorted(OPTIONS[kind])) or "none"
            raise IngestError(f"there is no option '{key}' for {kind} sources", hint=f"known: {known}")


def _frame(source: Any) -> Source:
    """A pandas, Arrow or Polars object, or anything else that speaks the Arrow C stream interface."""
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
    table = table.cast(_plain(table.schema))
    digest = hashlib.sha256()
    with pa.ipc.new_stream(_Sink(digest), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return Source(
        name=kind,
        format="frame",
        size=table.nbytes,
        relation=lambda _types: "source",
        digest=digest.hexdigest,
        frame=table,
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
        except Exception as error:
            broken.append(error)  # DuckDB will only speak of a traceback
            raise

    def locate() -> SourceUnreadable | None:
        return SourceUnreadable(f"the stream broke: {broken[0]}", hint="nothing was written") if broken else None

    return Source(
        name="RecordBatchReader",
        format="frame",
        size=None,
        relation=lambda _types: "source",
        digest=digest.hexdigest,
        locate=locate,
        early=False,
        frame=pa.RecordBatchReader.from_batches(schema, batches()),
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
