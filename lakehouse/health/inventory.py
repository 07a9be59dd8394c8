"""The files of a lake as its catalog knows them, and as they lie on the disk."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lakehouse.catalog.metadata import Metadata
from lakehouse.wording import counted


@dataclass(frozen=True, slots=True)
class Footprint:
    """A number of files and their bytes."""

    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{counted(self.files, 'file')}, {self.bytes:,} bytes"


@dataclass(frozen=True, slots=True)
class Known:
    """A data file or a file of deletes that some snapshot reads."""

    id: int
    kind: str
    """`data` or `delete`."""
    table: int
    path: Path
    begin: int
    end: int | None
    """The first snapshot that no longer reads it; None while the newest does."""
    rows: int
    bytes: int
    row_start: int | None
    """The id of its first row; None where the rows carry their ids themselves."""
    merged: bool
    """Its rows came with several snapshots."""

    def at(self, snapshot: int) -> bool:
        """Whether a snapshot reads it."""
        return self.begin <= snapshot and (self.end is None or snapshot < self.end)


@dataclass(frozen=True, slots=True)
class Inventory:
    """All files that the catalog knows, at one moment."""

    known: list[Known]
    scheduled: list[Path]
    """Files that no snapshot reads any more and that may be deleted when they are old enough."""

    def paths(self) -> set[Path]:
        """Where all of them are."""
        return {file.path for file in self.known} | set(self.scheduled)

    def needed(self, snapshots: Sequence[int]) -> Footprint:
        """What these snapshots read; the ids are sorted."""
        return footprint(
            file.bytes
            for file in self.known
            if (at := bisect_left(snapshots, file.begin)) < len(snapshots) and file.at(snapshots[at])
        )


def take(metadata: Metadata, data: Path) -> Inventory:
    """What the catalog knows now about the files in the folder `data`."""
    metadata.current()
    schemas = {row[0]: row[1] for row in metadata.rows("is", "SELECT schema_id, path FROM ducklake_schema")}
    folders = {
        row[0]: data / schemas.get(row[1], "") / row[2]
        for row in metadata.rows("iis", "SELECT table_id, schema_id, path FROM ducklake_table")
    }
    known = []
    both = "table_id, path, begin_snapshot, end_snapshot"
    sources = {
        "data": f"data_file_id, {both}, record_count, file_size_bytes, row_id_start, partial_max FROM ducklake_data_file",
        "delete": f"delete_file_id, {both}, delete_count, file_size_bytes, NULL, partial_max FROM ducklake_delete_file",
    }
    for kind, sql in sources.items():
        for row in metadata.rows("iisiiiiii", f"SELECT {sql}"):
            id, table, path, begin, end, rows, size, start, partial = row
            place = folders.get(table, data) / path
            known.append(Known(id, kind, table, place, begin, end, rows, size, start, partial is not None))
    scheduled = metadata.rows("s", "SELECT path FROM ducklake_files_scheduled_for_deletion")
    return Inventory(known, [data / row[0] for row in scheduled])


def snapshots(metadata: Metadata) -> list[int]:
    """The ids of all snapshots, sorted."""
    metadata.current()
    return sorted(row[0] for row in metadata.rows("i", "SELECT snapshot_id FROM ducklake_snapshot"))


def on_disk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder with its facts; one that goes away meanwhile is left out."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from on_disk(Path(entry.path))
            else:
                yield Path(entry.path), entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue


def footprint(sizes: Iterable[int]) -> Footprint:
    """The sum of some files' sizes."""
    found = list(sizes)
    return Footprint(len(found), sum(found))
