"""CSV read strictly: what DuckDB's sniffer would skip, merge or rename in silence is an error here."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.catalog.attach import Database
from lakehouse.catalog.names import exactly, literal
from lakehouse.errors import IngestError, SourceEmpty, SourceUnreadable
from lakehouse.ingest import exact, signs

OPTIONS = frozenset(
    "all_varchar comment dateformat decimal_separator delim encoding escape header max_line_size names"
    " new_line nullstr quote sample_size skip thousands timestampformat types".split()
)
_DELIMITERS = ",;\t|"
_HEAD = 1 << 16
_BUFFER = 8 << 20  # bytes; of DuckDB's own 32 MB less stays in the processor's cache, which costs 5 % of a load
_LITTLE_ENDIAN = b"\xff\xfe"
_COMPRESSED = (".gz", ".zst")
_UNIT = "\x1f"  # the unit separator of ASCII, which nobody writes into names
_LINE = re.compile(r"CSV Error on Line: (\d+)\s*\n(?:Original Line:\s*(.*?)\n)?(.*?)(?:\n\s*\n|\nPossible|$)", re.S)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one file is written, as the sniffer saw it."""

    delimiter: str
    quote: str
    escape: str
    skipped: int
    header: bool
    columns: tuple[str, ...]
    types: tuple[str, ...]
    date_format: str | None
    time_format: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """Files that are one table."""

    readings: tuple[Callable[[Mapping[str, str]], str], ...]
    """SQL of the FROM clause, given the column types that are wanted already: the fastest way to read first,
    then a slower one that takes and explains more."""
    locate: Callable[[], SourceUnreadable | None]
    """Reads everything again to find the line that does not fit, after a load failed."""
    dialect: Dialect
    """How the first file is written."""


def reader(files: Sequence[str], options: Mapping[str, Any], database: Database) -> Table:
    """Look at every file and make it known how they are all read, or say what is wrong with one.

    Args:
        files: paths of the files, one or more.
        options: options of DuckDB's `read_csv`.
        database: where the sniffer runs.

    Raises:
        SourceUnreadable: binary, in another encoding, ragged, with repeated or differing headers.
        SourceEmpty: only white space.
    """
    fixed = dict(options)
    _check_options(fixed)
    head = _head(files[0])
    if "encoding" not in fixed and head.startswith(_LITTLE_ENDIAN):
        fixed["encoding"] = "utf-16"
    for file in files:
        check_bytes(file, fixed)
    fixed.setdefault("quote", '"')
    fixed.setdefault("escape", '"')
    cursor = database.cursor()
    dialects = [_sniff(cursor, file, fixed, guessed="quote" not in options) for file in files]
    first = dialects[0]
    for file, dialect in zip(files, dialects, strict=True):
        _check_dialect(cursor, file, dialect, fixed)
        if {c.lower() for c in dialect.columns} != {c.lower() for c in first.columns}:
            missing = sorted(set(first.columns) ^ set(dialect.columns))
            raise SourceUnreadable(
                f"{Path(file).name} has other columns than {Path(files[0]).name}: {', '.join(missing[:8])}",
                hint="load the two kinds of files separately",
            )

    marks = _marks(files, fixed)
    agreed = {
        name: kind
        for name, kind in zip(first.columns, first.types, strict=True)
        if all(kind == dict(zip(other.columns, other.types, strict=True)).get(name, kind) for other in dialects)
    }

    def read(types: Any) -> str:
        shape = {"delim": first.delimiter, "header": first.header, "strict_mode": True}
        if "max_line_size" not in fixed:
            shape["buffer_size"] = _BUFFER
        extra = {"types": types} if types else {}
        paths = [exactly(file) for file in files]
        return call("read_csv", paths, {**shape, **fixed, **extra, "union_by_name": len(files) > 1})

    def doubtful(kind: str) -> bool:
        """Whether DuckDB's reader might round or cut a value of this type, as far as the bytes tell."""
        if kind == "DATE":
            return signs.TIME in marks and all(dialect.date_format in (None, "%Y-%m-%d") for dialect in dialects)
        return exact.guarded(kind) and (signs.DATE if kind == "TIME" else signs.FRACTION) in marks

    def relation(types: Mapping[str, str], *, fast: bool = False) -> str:
        asked = fixed.get("types") or {}
        if isinstance(asked, list | tuple) or "all_varchar" in fixed:
            return read(asked)
        table = {name: types[name.lower()] for name in first.columns if name.lower() in types}
        said = {name.lower() for name in asked}
        kinds = {name: kind for name, kind in {**agreed, **table}.items() if name.lower() not in said}
        texts = {name: kind for name, kind in kinds.items() if doubtful(kind)}
        floats = {name for name, kind in texts.items() if fast and exact.whole(kind)}
        read_as = {name: "DOUBLE" if name in floats else "VARCHAR" for name in texts}
        reading = read({**{n: k for n, k in kinds.items() if n in table}, **read_as, **asked})
        if not texts:
            return reading
        casts = ", ".join(
            exact.cast_float(name, kind) if name in floats else exact.cast(name, "VARCHAR", kind)
            for name, kind in texts.items()
        )
        return f"(SELECT * REPLACE ({casts}) FROM {reading})"

    def locate() -> SourceUnreadable | None:
        with closing(database.cursor()) as reading:
            try:
                reading.execute(f"SELECT count(COLUMNS(*)) FROM {read(fixed.get('types'))}")
            except duckdb.Error as error:
                return explain(error, Path(files[0]).name if len(files) == 1 else "one of the files")
        return None

    return Table((partial(relation, fast=True), relation) if signs.FRACTION in marks else (relation,), locate, first)


def call(function: str, files: Any, options: Mapping[str, Any]) -> str:
    """The SQL of a table function call with every option as a literal."""
    arguments = [value(files), *(f"{key} = {value(option)}" for key, option in options.items())]
    return f"{function}({', '.join(arguments)})"


def value(option: Any) -> str:
    """A Python value as an SQL literal: text, number, truth value, list or mapping.

    Raises:
        IngestError: another kind of value.
    """
    if isinstance(option, bool):
        return "true" if option else "false"
    if isinstance(option, int | float):
        return str(option)
    if isinstance(option, str):
        return literal(option)
    if isinstance(option, list | tuple):
        return f"[{', '.join(value(item) for item in option)}]"
    if isinstance(option, Mapping):
        return f"{{{', '.join(f'{literal(str(key))}: {value(item)}' for key, item in option.items())}}}"
    raise IngestError(f"an option cannot be a {type(option).__name__}", hint="text, number, true/false, list, mapping")


def explain(error: duckdb.Error, name: str) -> SourceUnreadable | None:
    """DuckDB's CSV error with its line, in a form a person can act on; None when it is another error."""
    text = str(error)
    if "Invalid unicode" in text or "not utf-8" in text:
        return SourceUnreadable(
            f"{name} is not UTF-8 text{_at(text)}", hint="give its encoding: options={'encoding': 'latin-1'}"
        )
    if match := _LINE.search(text):
        line, original, reason = (
            match[1],
            (match[2] or "").strip(),
            " ".join(match[3].split()).split(" Possible fixes")[0],
        )
        shown = f": {original[:120]}" if original else ""
        reason = reason.replace("Column with name:", "column").strip(". ")
        hint = "mend that line; nothing was loaded"
        if "converting column" in reason:
            column = re.search(r'converting column "([^"]+)"', reason)
            named = column[1] if column else "…"
            hint = f"mend the line, or load the column as text: options={{'types': {{'{named}': 'VARCHAR'}}}}"
        return SourceUnreadable(f"{name}, line {line}{shown}\n{reason}", hint=hint)
    if "sniffing file" in text:
        return SourceUnreadable(
            f"{name} does not look like a CSV file: its lines do not split into columns",
            hint="give options such as delim, quote, skip or header",
        )
    return None


def _head(file: str) -> bytes:
    try:
        if file.lower().endswith(_COMPRESSED):
            with pa.input_stream(file, compression="gzip" if file.lower().endswith(".gz") else "zstd") as stream:
                return bytes(stream.read(_HEAD))
        with open(file, "rb") as plain:
            return plain.read(_HEAD)
    except OSError as error:
        raise SourceUnreadable(f"{file} cannot be read: {error.strerror or error}") from None


def _marks(files: Sequence[str], options: Mapping[str, Any]) -> frozenset[str]:
    """Which signs of fractions, times and dates the files may hold: without them nothing can be lost."""
    if "decimal_separator" in options or "thousands" in options:
        return frozenset()  # then numbers are not written as SQL writes them
    if "encoding" in options or any(file.lower().endswith(_COMPRESSED) for file in files):
        return signs.ALL
    try:
        return signs.look(files)
    except OSError as error:
        raise SourceUnreadable(f"{error.filename} cannot be read: {error.strerror or error}") from None


def check_bytes(file: str, options: Mapping[str, Any]) -> None:
    """Refuse files without content and those that are no text.

    Raises:
        SourceEmpty: nothing but white space.
        SourceUnreadable: binary, or big-endian UTF-16.
    """
    head = _head(file)
    name = Path(file).name
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise SourceEmpty(f"{name} holds nothing but white space")
    wide = str(options.get("encoding", "")).lower().startswith("utf-16")
    if head.startswith(b"\xfe\xff"):
        raise SourceUnreadable(
            f"{name} is big-endian UTF-16, which cannot be read", hint="save it as UTF-8: iconv -f utf-16 -t utf-8"
        )
    if b"\0" in head and not wide:
        raise SourceUnreadable(f"{name} is a binary file, not CSV", hint="give format= if it is another format")


def _sniff(cursor: duckdb.DuckDBPyConnection, file: str, options: Mapping[str, Any], *, guessed: bool) -> Dialect:
    try:
        row = cursor.execute(
            "SELECT Delimiter, Quote, Escape, SkipRows, HasHeader, list_transform(Columns, lambda c: c.name),"
            " list_transform(Columns, lambda c: c.type), DateFormat, TimestampFormat"
            f" FROM {call('sniff_csv', exactly(file), options)}"
        ).fetchone()
    except duckdb.Error as error:
        name = Path(file).name
        if guessed and not isinstance(error, duckdb.IOException):
            if fault := _locate(cursor, file, options):
                raise fault from None
        raise explain(error, name) or SourceUnreadable(f"{name} cannot be read: {error}") from None
    assert row is not None
    blank = {"(empty)": ""}
    mark, quote, escape, skipped, header, columns, types, date_format, time_format = row
    return Dialect(
        mark,
        blank.get(quote, quote),
        blank.get(escape, escape),
        int(skipped),
        bool(header),
        tuple(columns),
        tuple(types),
        date_format,
        time_format,
    )


def _check_dialect(cursor: duckdb.DuckDBPyConnection, file: str, dialect: Dialect, options: Mapping[str, Any]) -> None:
    name = Path(file).name
    if dialect.skipped and "skip" not in options:
        raise SourceUnreadable(
            f"{name} begins with {dialect.skipped} line(s) that are not part of the table",
            hint=f"say so to leave them out: options={{'skip': {dialect.skipped}}}",
        )
    if len(dialect.columns) == 1 and "delim" not in options:
        if any(mark in dialect.columns[0] for mark in _DELIMITERS):
            # The sniffer gave up on splitting: the header has delimiters, so some line does not fit it.
            raise _locate(cursor, file, options) or SourceUnreadable(f"{name}: the lines do not fit the header")
    if dialect.columns[0].startswith("\ufeff"):
        raise SourceUnreadable(f"{name} begins with two byte order marks", hint="remove the first three bytes")
    if dialect.header and "names" not in options:
        repeated = _repeated(file, dialect, options)
        if repeated:
            raise SourceUnreadable(
                f"{name} has the column '{repeated}' more than once",
                hint="name the columns: options={'names': […], 'header': True}",
            )


def _repeated(file: str, dialect: Dialect, options: Mapping[str, Any]) -> str | None:
    lines = _text(file, options).splitlines(keepends=True)[options.get("skip", 0) :]
    if comment := options.get("comment"):
        lines = [line for line in lines if not line.startswith(comment)]
    rows = _rows(lines, dialect.delimiter or ",", dialect.quote or '"')
    try:
        header = next((row for row in rows if row), [])
    except csv.Error:
        return None
    seen: set[str] = set()
    for column in header[: len(dialect.columns)]:
        key = column.strip().lower()
        if key and key in seen:
            return column
        seen.add(key)
    return None


def _locate(cursor: duckdb.DuckDBPyConnection, file: str, options: Mapping[str, Any]) -> SourceUnreadable | None:
    """Read the file with the header's own width and let DuckDB name the first line that does not fit."""
    lines = _text(file, options).splitlines()[options.get("skip", 0) :]
    header = next((line for line in lines if line.strip()), "")
    counts = {mark: header.count(mark) for mark in _DELIMITERS}
    delimiter = str(options.get("delim") or max(counts, key=lambda mark: counts[mark]))
    if not header.count(delimiter):
        return None
    width = len(next(_rows([header], delimiter)))
    columns = {f"c{number}": "VARCHAR" for number in range(width)}
    shape = {"delim": delimiter, "quote": '"', "escape": '"', "header": True, "auto_detect": False}
    kept = {key: options[key] for key in ("encoding", "comment", "skip") if key in options}
    try:
        cursor.execute(
            f"SELECT count(COLUMNS(*)) FROM {call('read_csv', exactly(file), {**shape, **kept, 'columns': columns})}"
        )
    except duckdb.Error as error:
        return explain(error, Path(file).name)
    return None


def _text(file: str, options: Mapping[str, Any]) -> str:
    """The beginning of a file; names of encodings that only DuckDB knows are read byte by byte."""
    encoding = options.get("encoding", "utf-8").replace("utf-8", "utf-8-sig")
    try:
        return _head(file).decode(encoding, "replace")
    except LookupError:
        return _head(file).decode("latin-1")


def _rows(lines: list[str], delimiter: str, quote: str = '"') -> Iterator[list[str]]:
    """The lines split into fields, at a delimiter of any length."""
    if len(delimiter) > 1:
        lines, delimiter = [line.replace(delimiter, _UNIT) for line in lines], _UNIT
    return csv.reader(lines, delimiter=delimiter, quotechar=quote)


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse values that could not even be looked at; the others are for DuckDB to judge."""
    for key in ("comment", "delim", "encoding", "escape", "quote"):
        if not isinstance(options.get(key, ""), str):
            raise IngestError(f"the option {key} is text, not {options[key]!r}")
    skip = options.get("skip", 0)
    if not isinstance(skip, int) or isinstance(skip, bool) or skip < 0:
        raise IngestError(f"the option skip is a number of lines, not {skip!r}")
    if not isinstance(options.get("types") or {}, Mapping | list | tuple):
        raise IngestError(f"the option types is a mapping or a list, not {options['types']!r}", hint="{'id': 'BIGINT'}")


def _at(text: str) -> str:
    match = re.search(r"CSV Error on Line: (\d+)", text)
    return f" (line {match[1]})" if match else ""
