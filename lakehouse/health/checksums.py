"""The SHA-256 of data files, kept in the state file from the first time that somebody computed it.

A data file never changes. Its hash is written down by the first backup or the first `doctor --checksums` that reads
it, and whoever reads it later can tell whether it is still the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from lakehouse.state import State


def known(state: State) -> dict[str, tuple[str, int]]:
    """Hash and size by path in the data folder."""
    rows = state.read("SELECT path, sha256, size FROM checksum")
    return {str(path): (str(sha256), int(size)) for path, sha256, size in rows}


def record(state: State, found: Mapping[str, tuple[str, int]]) -> None:
    """Write down hashes; one that is there already stays."""
    if not found:
        return
    now = datetime.now(UTC).isoformat()
    with state.write() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO checksum VALUES (?, ?, ?, ?)",
            [(path, sha256, size, now) for path, (sha256, size) in found.items()],
        )


def forget(state: State, paths: list[str]) -> None:
    """Drop the hashes of files that are gone."""
    with state.write() as connection:
        connection.executemany("DELETE FROM checksum WHERE path = ?", [(path,) for path in paths])
