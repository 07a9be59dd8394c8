"""JSON record by record, for loads that set bad rows aside: a line, or an element of an array, is good or bad alone.

It is asked only after DuckDB's reader has refused a file. Values stay as they are written, so that no digit is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any

import msgspec
import pyarrow as pa

from lakehouse.errors import SourceUnreadable
from lakehouse.ingest.records import Layout, opened

_BATCH = 20_000  # records
_BLANK = re.compile(r"[ \t\r\n]*")
_PAIRS = json.JSONDecoder(object_pairs_hook=list)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class JsonRecords:
    """The records of JSON files that are one table: lines, or the elements of an array.

    An array is read whole into memory.

    Args:
        files: paths, with the names they are called by in rejects.
        options: the reader's options.
    """

    def __init__(self, files: Iterable[tuple[str, str]], options: Mapping[str, Any]) -> None:
        self._files = list(files)
        self._format = str(options.get("format", "auto"))

    @cached_property
    def layout(self) -> Layout:
        """The columns: all keys that any good record has, in their order.

        Raises:
            SourceUnreadable: there is no good record, or two keys differ in case only.
        """
        columns: dict[str, None] = {}
        for file, _ in self._files:
            for _, raw, fault in self._records(file):
                if fault is None and (found := _decoded(raw)) is not None:
                    columns.update(dict.fromkeys(found))
        name = self._files[0][1]
        if not columns:
            raise SourceUnreadable(f"{name} holds no JSON object that can be read", hint="nothing was written")
        seen: set[str] = set()
        for column in columns:
            if column.lower() in seen:
                raise SourceUnreadable(
                    f"{name} has the column '{column}' more than once: in upper and lower case",
                    hint="rename one of them",
                )
            seen.add(column.lower())
        return Layout("json", tuple(columns))

    @property
    def schema(self) -> pa.Schema:
        """The columns of `batches`."""
        named = [("origin", pa.string()), ("line", pa.int64()), ("raw", pa.string()), ("fault", pa.string())]
        return pa.schema([*named, *((f"c{number}", pa.string()) for number in range(len(self.layout.columns)))])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Columns `origin`, `line`, `raw`, `fault` and `c0` … (JSON) for all records, good and bad."""
        columns, schema = self.layout.columns, self.schema
        records = ((name, *record) for file, name in self._files for record in self._records(file))
        while batch := list(islice(records, _BATCH)):
            rows = []
            for origin, line, raw, fault in batch:
                values, wrong = (None, fault) if fault else members(raw, columns)
                rows.append((origin, line, raw, wrong, *(values or [None] * len(columns))))
            arrays = [pa.array(found, one.type) for found, one in zip(zip(*rows, strict=True), schema, strict=True)]
            yield pa.record_batch(arrays, schema=schema)

    def _records(self, file: str) -> Iterator[tuple[int, str, str | None]]:
        """Line number, raw text, and why it cannot be text at all."""
        with opened(file) as raw:
            head = raw.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
        if self._format in ("auto", "array") and head.startswith(b"["):
            yield from self._elements(file)
            return
        with opened(file) as raw:
            for number, line in enumerate(raw, 1):
                bare = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text := bare.strip(b" \t\r\n"):
                    yield number, *_text(text)

    def _elements(self, file: str) -> Iterator[tuple[int, str, str | None]]:
        with opened(file) as raw:
            data = raw.read()
        text, fault = _text(data.removeprefix(b"\xef\xbb\xbf"))
        decoder, line, at, end = json.JSONDecoder(), 1, 0, 0

        def skipped(start: int) -> int:
            found = _BLANK.match(text, start)
            return found.end() if found else start

        at = skipped(0) + 1
        line += text.count("\n", 0, at)
        while fault is None and (begin := skipped(at)) < len(text):
            line += text.count("\n", at, begin)
            if text[begin] == "]":
                return
            try:
                _, end = decoder.raw_decode(text, begin)
            except (json.JSONDecodeError, RecursionError):
                break
            yield line, text[begin:end], None
            after = skipped(end)
            if text[after : after + 1] not in (",", "]"):
                break
            at = after + (text[after] == ",")
            line += text.count("\n", begin, at)
        raise SourceUnreadable(
            f"the array of {self._files[0][1]} breaks off or is damaged at line {line}",
            hint="in an array nobody can tell where the next element begins: mend it, or write one object a line",
        )


def members(raw: str, columns: tuple[str, ...]) -> tuple[list[str | None] | None, str | None]:
    """The members of a JSON object, each as it is written and None for null, or why there are none."""
    try:
        found = _MEMBERS.decode(raw)
    except msgspec.ValidationError:
        return None, f"the text is not a JSON object with {', '.join(columns[:8])}"
    except (msgspec.DecodeError, RecursionError) as error:
        return None, f"the text is not JSON: {error}"
    if len(_PAIRS.decode(raw)) > len(found):  # DuckDB refuses it too: which of the two is meant?
        return None, "a key stands in the object more than once"
    if extra := [name for name in found if name not in columns]:
        return None, f"the text is not a JSON object with {', '.join(columns[:8])} only: it has {', '.join(extra[:8])}"
    values = [bytes(found[name]).decode() if name in found else None for name in columns]
    return [None if value == "null" else value for value in values], None


def _decoded(raw: str) -> dict[str, msgspec.Raw] | None:
    try:
        return _MEMBERS.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _text(data: bytes) -> tuple[str, str | None]:
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace"), "the line is not UTF-8 text"
