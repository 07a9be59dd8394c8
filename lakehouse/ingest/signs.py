"""Signs in the bytes of a CSV file that DuckDB's reader might round a number or cut a date of it.

The sniffer types columns by the first rows only; of what comes later the reader makes whole numbers and dates by
rounding and cutting. A file without such signs can be read as fast as it goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

FRACTION, TIME, DATE = ".", ":", "-"
ALL = frozenset({FRACTION, TIME, DATE})
_CHUNK = 1 << 20
_PART = 32 << 20  # bytes that are worth a thread of their own
_MANY = 1000  # colons in a chunk: to look for them one by one is fastest when they are few
_TIME = re.compile(rb":(?<=[0-9]:)[0-9]")  # begins with the colon, because that is found fastest
_BEFORE = 2  # a sign with its neighbours is three bytes long, and may lie across two chunks


def look(files: Sequence[str]) -> frozenset[str]:
    """Which signs plain files hold: of fractions, of times (a colon between two digits) and of dates (a minus).

    Args:
        files: paths of files that are not compressed, in an encoding that writes ASCII as one byte each.

    Raises:
        OSError: a file cannot be read.
    """
    parts = []
    for file in files:
        size = os.stat(file).st_size
        parts += [(file, start, min(start + _PART, size)) for start in range(0, size, _PART)]
    found: set[str] = set()
    if len(parts) < 2:
        for part in parts:
            _look(found, *part)
    else:
        with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1), thread_name_prefix="lakehouse-signs") as pool:
            for seen in [pool.submit(_look, found, *part) for part in parts]:
                seen.result()
    return frozenset(found)


def _look(found: set[str], file: str, start: int, end: int) -> None:
    """Add the signs in a part of a file to those that were found."""
    buffer = bytearray(_BEFORE + _CHUNK)
    free = memoryview(buffer)[_BEFORE:]
    with open(file, "rb", buffering=0) as plain:
        at = max(0, start - _BEFORE)
        plain.seek(at)
        while at < end and len(found) < len(ALL) and (size := plain.readinto(free)):
            found.update(sign for sign, shows in _SIGNS.items() if sign not in found and shows(buffer, _BEFORE + size))
            buffer[:_BEFORE] = buffer[size : size + _BEFORE]
            at += size


def _fraction(buffer: bytearray, end: int) -> bool:
    return any(buffer.find(sign, 0, end) >= 0 for sign in (b".", b"e-", b"E-"))


def _time(buffer: bytearray, end: int) -> bool:
    """Whether a colon stands between two digits."""
    at = 0
    for _ in range(_MANY):
        if (at := buffer.find(b":", at + 1, end - 1)) < 0:
            return False
        if buffer[at - 1 : at].isdigit() and buffer[at + 1 : at + 2].isdigit():
            return True
    return bool(_TIME.search(buffer, at, end))


def _date(buffer: bytearray, end: int) -> bool:
    return buffer.find(b"-", 0, end) >= 0


_SIGNS: dict[str, Callable[[bytearray, int], bool]] = {FRACTION: _fraction, TIME: _time, DATE: _date}
