"""CSV record by record, for loads that set bad rows aside: every line is a good record or a bad one with its reason.

It takes a hundredth of the speed of DuckDB's reader and is asked only after that one has refused a file. A quote
that does not fit costs its own line only: reading goes on with the next one.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from lakehouse.errors import SourceUnreadable
from lakehouse.ingest.csvfile import Dialect
from lakehouse.wording import counted

_DELIMITERS = ",;\t|"
_BATCH = 20_000  # records
_LONGEST = 2_000_000  # characters of one record, as DuckDB has it
_SURROGATE = re.compile("[\ud800-\udfff]")

Record = tuple[str, list[str | None] | None, str | None]
"""Raw text, the values, and why there are none: one of the last two is None."""


class Layout(msgspec.Struct, frozen=True):
    """How rejected rows are written, kept beside them so that they can be read again."""

    format: str
    """`csv`, or `json` for a row of anything else."""
    columns: tuple[str, ...]
    mode: str = "append"
    key: tuple[str, ...] = ()
    delim: str = ","
    quote: str = '"'
    escape: str = '"'
    nulls: tuple[str, ...] = ("",)
    date_format: str | None = None
    time_format: str | None = None
    decimal: str = "."
    thousands: str = ""


class Splitter:
    """Splits one record of a layout into fields."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._nulls = frozenset(layout.nulls)
        mark, delim = re.escape(layout.quote), re.escape(layout.delim)
        escape = re.escape(layout.escape or layout.quote)
        inner = f"[^{mark}]|{mark}{mark}" if escape == mark else f"[^{mark}{escape}]|{escape}."
        self._field = re.compile(f"{mark}((?:{inner})*){mark}(?={delim}|$)", re.S) if layout.quote else None
        self._escaped = re.compile(f"{escape}.", re.S) if escape != mark else None

    def open(self, text: str) -> bool:
        """Whether the text ends within quotes, so that the record may go on in the next line."""
        if not self._layout.quote:
            return False
        plain = self._escaped.sub("", text) if self._escaped else text
        return plain.count(self._layout.quote) % 2 == 1

    def split(self, text: str) -> tuple[list[str | None] | None, str | None]:
        """The fields of a record, or why it is none."""
        layout = self._layout
        if _SURROGATE.search(text):
            return None, "the line is not UTF-8 text"
        if self._field is None or layout.quote not in text:
            if "\n" in text:
                return None, "more than one line"
            fields = text.split(layout.delim)
        else:
            quoted = self._quoted(text)
            if quoted is None:
                return None, f"a quote ({layout.quote}) where none can be"
            fields = quoted
        wanted = len(layout.columns)
        if len(fields) == wanted + 1 and not fields[-1]:
            fields.pop()  # a delimiter at the end of the line, which DuckDB's reader takes too
        if len(fields) != wanted:
            return None, f"{counted(len(fields), 'field')} instead of {wanted}"
        return [None if field in self._nulls else field for field in fields], None

    def _quoted(self, text: str) -> list[str] | None:
        assert self._field is not None
        layout, fields, at = self._layout, list[str](), 0
        while True:
            if match := self._field.match(text, at):
                inner = match[1]
                if self._escaped is None:
                    inner = inner.replace(layout.quote * 2, layout.quote)
                else:
                    inner = self._escaped.sub(lambda found: found[0][-1], inner)
                fields.append(inner)
                end = match.end()
            else:
                end = text.find(layout.delim, at)
                end = len(text) if end < 0 else end
                if text.startswith(layout.quote, at) or "\n" in text[at:end]:
                    return None
                fields.append(text[at:end])
            if end >= len(text):
                return fields
            at = end + len(layout.delim)


class Records:
    """The records of CSV files that are one table.

    Args:
        files: paths, with the names they are called by in rejects.
        layout: how they are written, as far as it is known; `columns` empty: as the header says.
        options: the reader's options.
        header: whether the first record is the names of the columns.
    """

    def __init__(
        self, files: Iterable[tuple[str, str]], layout: Layout, options: Mapping[str, Any], *, header: bool
    ) -> None:
        self._files = list(files)
        self._skip = int(options.get("skip", 0))
        self._comment = str(options.get("comment") or "")
        self._encoding = _encoding(self._files[0][0], options)
        self._header = header
        self.layout = layout if layout.columns else msgspec.structs.replace(layout, columns=self._names(layout))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Columns `origin`, `line`, `raw`, `fault` and `c0` … for all records, good and bad."""
        schema = self.schema
        width = len(self.layout.columns)
        records = ((name, *record) for file, name in self._files for record in self._records(file))
        while batch := list(islice(records, _BATCH)):
            origins, lines, raws, values, faults = zip(*batch, strict=True)
            columns = [[None if row is None else row[number] for row in values] for number in range(width)]
            printable = [raw.encode("utf-8", "backslashreplace").decode() for raw in raws]
            arrays = [origins, lines, printable, faults, *columns]
            yield pa.record_batch(
                [pa.array(values, field.type) for values, field in zip(arrays, schema, strict=True)], schema=schema
            )

    @property
    def schema(self) -> pa.Schema:
        """The columns of `batches`."""
        named = [("origin", pa.string()), ("line", pa.int64()), ("raw", pa.string()), ("fault", pa.string())]
        return pa.schema([*named, *((f"c{number}", pa.string()) for number in range(len(self.layout.columns)))])

    def _records(self, file: str) -> Iterator[tuple[int, str, list[str | None] | None, str | None]]:
        splitter = Splitter(self.layout)
        with closing(self._lines(file)) as lines:
            ahead: list[tuple[int, str]] = []
            names = self._header
            while True:
                number, text = ahead.pop(0) if ahead else next(lines, (0, ""))
                if not number:
                    return
                if (not text.strip() and len(self.layout.columns) > 1) or (
                    self._comment and text.startswith(self._comment)
                ):
                    continue
                taken, whole = 0, text
                text = _bare(text)
                while splitter.open(whole) and len(whole) < _LONGEST:
                    if taken == len(ahead):
                        following = next(lines, None)
                        if following is None:
                            break
                        ahead.append(following)
                    whole += ahead[taken][1]
                    taken += 1
                whole = _bare(whole)
                values, fault = splitter.split(whole)
                if fault and taken:
                    whole, (values, fault) = text, splitter.split(text)  # only this line is bad
                    taken = 0
                del ahead[:taken]
                if names:
                    names = False
                    continue
                yield number, whole, values, fault

    def _lines(self, file: str) -> Generator[tuple[int, str], None, None]:
        """Numbered lines with their ends, from 1."""
        with opened(file) as raw, io.TextIOWrapper(raw, self._encoding, "surrogateescape", newline="") as text:
            for number, line in enumerate(text, 1):
                if number > self._skip:
                    yield number, line

    def _names(self, layout: Layout) -> tuple[str, ...]:
        file = self._files[0][0]
        with closing(self._lines(file)) as lines:
            header = next((_bare(line) for _, line in lines if line.strip()), "")
        names = next(csv.reader([header], delimiter=layout.delim), [])
        if _SURROGATE.search(header):
            raise SourceUnreadable(f"the header of {Path(file).name} is not UTF-8 text", hint="give its encoding")
        return tuple(name.strip() or f"column{number}" for number, name in enumerate(names))


def csv_records(
    files: list[tuple[str, str]],
    options: Mapping[str, Any],
    dialect: Dialect | None,
    fault: SourceUnreadable | None,
) -> Records:
    """The records of CSV files; of one that could not be understood the first line is the header.

    Args:
        files: paths, with the names they are called by in rejects.
        options: the reader's options.
        dialect: how they are written; None: it could not be found out.
        fault: why not.

    Raises:
        SourceUnreadable: the first line is no header either.
    """
    nulls = options.get("nullstr", "")
    quote = str(options.get("quote", '"'))
    named = options.get("names")
    columns = tuple(named) if isinstance(named, list | tuple) else dialect.columns if dialect else ()
    layout = Layout(
        "csv",
        columns,
        delim=(dialect.delimiter if dialect else "") or guess_delimiter(files[0][0], options),
        quote=dialect.quote if dialect else quote,
        escape=dialect.escape if dialect else str(options.get("escape", quote)),
        nulls=tuple(nulls) if isinstance(nulls, list | tuple) else (str(nulls),),
        date_format=options.get("dateformat") or (dialect.date_format if dialect else None),
        time_format=options.get("timestampformat") or (dialect.time_format if dialect else None),
        decimal=str(options.get("decimal_separator", ".")),
        thousands=str(options.get("thousands", "")),
    )
    header = dialect.header if dialect else bool(options.get("header", not columns))
    records = Records(files, layout, options, header=header)
    names = [name.lower() for name in records.layout.columns]
    if fault is not None and (len(set(names)) < len(names) or len(names) < 2):
        raise fault
    return records


def _encoding(file: str, options: Mapping[str, Any]) -> str:
    """Python's name of the encoding.

    Raises:
        SourceUnreadable: only DuckDB knows it.
    """
    with opened(file) as raw:
        wide = raw.read(2) == b"\xff\xfe"
    given = str(options.get("encoding") or ("utf-16" if wide else "utf-8"))
    try:
        name = codecs.lookup(given).name
    except LookupError:
        raise SourceUnreadable(
            f"the encoding {given} cannot be read record by record", hint="save the file as UTF-8"
        ) from None
    if name == "utf-16" and not wide:
        return "utf-16-le"  # as DuckDB takes it without a mark
    return "utf-8-sig" if name == "utf-8" else name


def guess_delimiter(file: str, options: Mapping[str, Any]) -> str:
    """The delimiter that the first line has most of."""
    if given := options.get("delim"):
        return str(given)
    with opened(file) as raw:
        head = raw.read(1 << 16).decode("utf-8", "replace")
    header = next((line for line in head.splitlines()[int(options.get("skip", 0)) :] if line.strip()), "")
    return max(_DELIMITERS, key=header.count)


def _bare(line: str) -> str:
    """A line without its end."""
    return line[:-2] if line.endswith("\r\n") else line[:-1] if line.endswith(("\n", "\r")) else line


def opened(file: str) -> Any:
    """A file, unpacked while it is read."""
    if file.lower().endswith(".gz"):
        return gzip.open(file, "rb")
    if file.lower().endswith(".zst"):
        return pa.CompressedInputStream(pa.OSFile(file), "zstd")
    return open(file, "rb")
