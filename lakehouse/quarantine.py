"""The lines of a journal that are no records, kept aside: each once, with where it was and why.

A line of `<name>.quarantine` is `{"time":…,"generation":…,"offset":…,"size":…,"reason":…,"line":…}`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lakehouse import lines
from lakehouse.durable import explained, opened, write_all
from lakehouse.records import Fault


def isolate(path: Path, quarantine: Path, faults: Sequence[Fault], longest: int) -> None:
    """Copy lines of a journal into its quarantine file, unless they are there or the journal has been replaced.

    Args:
        path: of the journal.
        quarantine: where to.
        faults: of one generation, in the order of the file.
        longest: bytes that a line may have; of a longer one only so many are kept.

    Raises:
        JournalError, DiskFull: it cannot be written.
    """
    places = range(faults[0].offset, faults[-1].offset + 1)
    # Its own lock: who waits here may hold the index, and who holds the journal may wait for the index.
    with opened(quarantine, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known, last = set(), b"\n"
        with quarantine.open("rb") as entries:
            for last in entries:
                with suppress(msgspec.DecodeError, KeyError, TypeError):
                    entry = msgspec.json.decode(last)
                    if entry["offset"] in places:
                        known.add((entry["generation"], entry["offset"], hash(entry["line"])))
        block = bytearray(b"" if last.endswith(b"\n") else b"\n")
        with opened(path, os.O_RDONLY) as journal:
            for fault in faults if lines.generation(journal, longest) == faults[0].end.generation else ():
                bad = os.pread(journal, min(fault.size, longest), fault.offset)
                entry = {
                    "time": datetime.now(UTC),
                    "generation": fault.end.generation,
                    "offset": fault.offset,
                    "size": fault.size,
                    "reason": fault.reason,
                    "line": bad.decode("utf-8", "backslashreplace"),
                }
                if (entry["generation"], entry["offset"], hash(entry["line"])) not in known:
                    block += msgspec.json.encode(entry) + b"\n"
                    write_all(file, block, quarantine)
                    block.clear()
        with explained(quarantine):
            os.fsync(file)
        fcntl.flock(file, fcntl.LOCK_UN)
