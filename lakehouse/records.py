"""The records of a journal, one line each, and the places between them.

    {"seq":12,"time":"2026-11-22T10:00:00.000000Z","prev":"<hash>","data":…,"crc":"89abcdef"}

`seq` counts up from 1; `prev` is the SHA-256 (hex) of the line before, without its newline, so that a record that was
changed or removed shows; `crc` is the CRC-32 (zlib, hex) of the line up to `,"crc"`. The first record of a compacted
file has `{"generation": n}` for its data.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from lakehouse.errors import JournalError

_START = "0" * 64  # stands for the hash before the very first record
SLACK = 1024
"""Bytes that a record may be longer after a compaction, which says in it what its line said before."""
_CRC_SIZE = len(b',"crc":"00000000"}')


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in a journal, right behind a line."""

    generation: int = 0
    """How often the journal was compacted."""
    offset: int = 0
    """Bytes from the beginning of the file."""
    seq: int = 0
    """The last record before it; 0: none."""
    hash: str = _START
    """The hash of that record."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record as it was read."""

    seq: int
    time: datetime
    data: msgspec.Raw
    """Its JSON, not yet decoded."""
    end: Position
    chained: bool
    """Whether it names the record before it; False where records were lost, changed or removed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no record, or one that could not be applied."""

    offset: int
    """Where the line begins."""
    size: int
    """Bytes, without the newline."""
    reason: str
    end: Position


class Line(msgspec.Struct):
    """A record as it is written."""

    seq: int
    time: datetime
    prev: str
    data: msgspec.Raw
    crc: str


class Begin(msgspec.Struct, forbid_unknown_fields=True):
    """The data of the record that begins a generation."""

    generation: int


_line = msgspec.json.Decoder(Line)
_begin = msgspec.json.Decoder(Begin)
_encoder = msgspec.json.Encoder()


def parse(line: bytes, after: int, longest: int) -> Line | str:
    """The record in a line that follows record `after`, or why it is none.

    Args:
        line: without its newline.
        after: the last record before it; 0: any.
        longest: bytes that a line may have.
    """
    if len(line) > longest:
        return f"longer than {longest} bytes"
    try:
        parsed = _line.decode(line)
    except (msgspec.DecodeError, ValueError):
        return "not a JSON record"
    if not line.endswith(b'"}') or parsed.crc != f"{zlib.crc32(line[:-_CRC_SIZE]):08x}":
        return "the checksum does not fit"
    if parsed.seq <= after:
        return f"record {parsed.seq} after record {after}"
    return parsed


def stamp(time: datetime) -> str:
    """A time in UTC as a record has it."""
    text = _encoder.encode(time).decode()[1:-1]  # a third of the time of isoformat, but without a fraction of 0
    return text if "." in text else f"{text[:-1]}.000000Z"


def encode(seq: int, time: str, prev: str, value: Any, longest: int) -> bytes:
    """The line of a record, without its newline.

    Args:
        seq: its number.
        time: when it is written, as of `stamp`.
        prev: the hash of the line before.
        value: its data.
        longest: bytes that a line may have.

    Raises:
        JournalError: the value is no JSON, or the line is too long.
    """
    try:
        data = _encoder.encode(value)
    except (TypeError, ValueError, msgspec.EncodeError) as error:
        raise JournalError(f"this cannot be written as JSON: {error}", hint="text, numbers, lists, mappings") from None
    head = f'{{"seq":{seq},"time":"{time}","prev":"{prev}","data":'.encode() + data
    line = b'%b,"crc":"%08x"}' % (head, zlib.crc32(head))
    if len(line) > longest:
        raise JournalError(f"a record of {len(line):,} bytes is longer than {longest:,}")
    return line


def generation_of(line: Line) -> int:
    """The generation that a record begins; 0 when it begins none."""
    try:
        return _begin.decode(line.data).generation
    except msgspec.DecodeError:
        return 0


def hash_of(line: bytes) -> str:
    """What the next record names a line by."""
    return hashlib.sha256(line).hexdigest()
