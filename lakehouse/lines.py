"""The lines of an open journal file: forward from a position in flat memory, and backward to the last record."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec.structs import replace

from lakehouse.records import SLACK, Entry, Fault, Line, Position, generation_of, hash_of, parse

_CHUNK = 1 << 20
_TAIL = 1 << 16


def generation(file: int, longest: int) -> int:
    """The generation of a file: how often the journal was compacted.

    Args:
        file: its descriptor.
        longest: bytes that a line may have.
    """
    line = parse(os.pread(file, 4096, 0).split(b"\n", 1)[0], 0, longest)
    return generation_of(line) if isinstance(line, Line) else 0


def lines(file: int, after: Position | None, longest: int) -> Iterator[Entry | Fault]:
    """The whole lines behind a position; from the beginning when it is of another generation."""
    begun = generation(file, longest)
    end = after if after is not None and after.generation == begun else Position(begun)
    offset, rest, oversize = end.offset, b"", 0
    while chunk := os.pread(file, _CHUNK, offset + len(rest) + oversize):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            size = len(line) + oversize
            parsed = f"longer than {longest - SLACK} bytes" if oversize else parse(line, end.seq, longest)
            begin, offset, oversize = offset, offset + size + 1, 0
            if isinstance(parsed, str):
                end = replace(end, offset=offset)
                if size:
                    yield Fault(begin, size, parsed, end)
                continue
            # The first record of a compacted file names one that is gone with the old file.
            chained = parsed.prev == end.hash or (begin == 0 and begun > 0)
            end = Position(begun, offset, parsed.seq, hash_of(line))
            if begin == 0 and generation_of(parsed):
                continue
            yield Entry(parsed.seq, parsed.time, parsed.data, end, chained)
        if len(rest) > longest:  # it will not be a record: let go of it, only count
            oversize, rest = oversize + len(rest), b""


def end_of(file: int, start: Position | None, longest: int) -> tuple[Position, bool]:
    """Behind the last record, sought from `start` or from the back, and whether the file ends with a newline."""
    size = os.fstat(file).st_size
    end = start or _last(file, size, longest)
    for found in lines(file, end, longest):
        end = found.end
    if end.offset == size:
        return end, True
    # What follows was torn; but if only its newline is missing it is a record, acknowledged or not.
    rest = os.pread(file, min(size - end.offset, longest + 1), end.offset)
    if isinstance(line := parse(rest, end.seq, longest), Line):
        return replace(end, offset=size, seq=line.seq, hash=hash_of(rest)), False
    return replace(end, offset=size), False


def _last(file: int, size: int, longest: int) -> Position:
    """Behind the last line that is a record, found from the back: a journal of gigabytes is open at once."""
    begun = generation(file, longest)
    tail, start = b"", size
    while start > 0:
        step = min(_CHUNK if tail else _TAIL, start)
        start -= step
        tail = os.pread(file, step, start) + tail
        pieces = tail.split(b"\n")
        end = start + len(tail) - len(pieces.pop())  # the last piece has no newline
        first = 0 if start == 0 else 1  # the first piece may have begun earlier
        found: Position | None = None
        for line in reversed(pieces[first:]):
            if isinstance(parsed := parse(line, 0, longest), Line):
                if found is not None and parsed.seq >= found.seq:
                    return Position(begun)  # out of order: only reading from the beginning tells the number
                found = found or Position(begun, end, parsed.seq, hash_of(line))
            end -= len(line) + 1
        if found:
            return found
        tail = tail if len(tail) <= longest + _CHUNK else tail[:longest]
    return Position(begun)
