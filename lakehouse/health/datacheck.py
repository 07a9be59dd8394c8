"""What the doctor asks of the catalog and the data files: whether they are there, whole, and what it says."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb

from lakehouse.catalog import foreign
from lakehouse.catalog.attach import Database
from lakehouse.catalog.metadata import Metadata, visible
from lakehouse.catalog.names import exactly, literal, shown
from lakehouse.errors import LakehouseError
from lakehouse.health import checksums, inventory
from lakehouse.health.findings import Book
from lakehouse.health.inventory import Inventory, Known
from lakehouse.health.manifest import hash_of
from lakehouse.state import State
from lakehouse.wording import counted

_BATCH = 200  # footers read in one query
_RESTORE = "restore it from a backup, or roll the table back to a snapshot without it"
_UNIQUE = {
    "snapshot": "SELECT snapshot_id FROM ducklake_snapshot GROUP BY 1 HAVING count(*) > 1",
    "data file": "SELECT data_file_id FROM ducklake_data_file GROUP BY 1 HAVING count(*) > 1",
    "delete file": "SELECT delete_file_id FROM ducklake_delete_file GROUP BY 1 HAVING count(*) > 1",
    "table": "SELECT table_id FROM ducklake_table WHERE end_snapshot IS NULL GROUP BY 1 HAVING count(*) > 1",
    "schema": "SELECT schema_id FROM ducklake_schema WHERE end_snapshot IS NULL GROUP BY 1 HAVING count(*) > 1",
}


def examine(database: Database, metadata: Metadata, book: Book) -> Inventory:
    """All that needs no hashing; gives the inventory."""
    _integrity(metadata, book)
    current = metadata.current()
    there = inventory.take(metadata, database.data)
    _ids(metadata, there, current, book)
    whole = _files(metadata, there, book)
    _footers(database, whole, book)
    known = there.paths()
    orphans = [stat.st_size for file, stat in inventory.on_disk(database.data) if file not in known]
    if orphans:
        book.note(
            f"{counted(len(orphans), 'file')} ({sum(orphans):,} bytes) of writes that did not end, or are under way",
            str(database.data),
            "lakehouse maintenance clean removes them",
        )
    return there


def hashes(database: Database, there: Inventory, state: State, book: Book) -> None:
    """Compare the hash of every data file with the one that was written down first; write down the new ones."""
    before, fresh, wrong = checksums.known(state), {}, []
    for file in there.known:
        try:
            name = file.path.relative_to(database.data).as_posix()
            found = hash_of(file.path)
        except (OSError, ValueError):
            continue  # told before
        if name not in before:
            fresh[name] = (found, file.path.stat().st_size)
        elif before[name][0] != found:
            wrong.append(
                (f"its content is not what it was (SHA-256 {found[:12]}…, was {before[name][0][:12]}…)", str(file.path))
            )
    bad = {where for _, where in wrong}
    book.faults(wrong, _RESTORE)
    ours = foreign.writable(state.path.parent)
    if ours:
        checksums.record(state, fresh)
    compared = len([f for f in there.known if str(f.path) not in bad]) - len(fresh)
    book.ok(
        f"{compared} hashes as they were, {len(fresh)} {'written down for the next time' if ours else 'not known before'}",
        "data files",
    )


def _integrity(metadata: Metadata, book: Book) -> None:
    rows = [row[0] for row in metadata.rows("s", "PRAGMA integrity_check")]
    if rows == ["ok"]:
        book.ok("SQLite finds it sound", "catalog")
    else:
        book.faults(((str(row), "catalog") for row in rows), "restore the lake from a backup")


def _ids(metadata: Metadata, there: Inventory, current: int, book: Book) -> None:
    """Ids that stand for two things, and rows that two files claim."""
    wrong = []
    for what, sql in _UNIQUE.items():
        wrong += [(f"two entries for the {what} {row[0]}", "catalog") for row in metadata.rows("i", sql)]
    names = defaultdict(list)
    for row in metadata.rows(
        "ssi",
        "SELECT s.schema_name, o.name, o.id FROM (SELECT schema_id, table_name name, table_id id FROM ducklake_table"
        f" WHERE {visible(current)} UNION ALL SELECT schema_id, view_name, view_id FROM ducklake_view"
        f" WHERE {visible(current)}) o JOIN ducklake_schema s ON s.schema_id = o.schema_id AND {visible(current, 's')}",
    ):
        names[row[0].lower(), row[1].lower()].append(row)
    wrong += [
        (f"{len(rows)} tables of the name {shown(*rows[0][:2])}", "catalog") for rows in names.values() if len(rows) > 1
    ]
    ends: dict[int, Known] = {}
    for file in sorted((f for f in there.known if f.kind == "data" and f.row_start is not None and f.at(current)),
                       key=lambda f: (f.table, f.row_start or 0)):  # fmt: skip
        last = ends.get(file.table)
        if (
            last is not None
            and (last.row_start or 0) + last.rows > (file.row_start or 0)
            and not (last.merged or file.merged)
        ):
            wrong.append((f"its rows have the ids of rows in {last.path.name}", str(file.path)))
        ends[file.table] = file
    paths: dict[Path, int] = defaultdict(int)
    for file in there.known:
        paths[file.path] += file.kind == "data"
    wrong += [(f"{count} entries for one file", str(path)) for path, count in paths.items() if count > 1]
    if not book.faults(wrong, "restore the lake from a backup"):
        book.ok("every snapshot, table, file and row has an id of its own", "catalog")


def _files(metadata: Metadata, there: Inventory, book: Book) -> list[Known]:
    """Missing files and files of another size; gives the others."""
    names = _table_names(metadata)
    whole, wrong = [], []
    for file in there.known:
        owner = f"{'files of deletes' if file.kind == 'delete' else 'rows'} of {names.get(file.table, f'table {file.table}')}"
        seen = f"snapshots {file.begin} to {'now' if file.end is None else file.end - 1}"
        try:
            size = os.stat(file.path).st_size
        except FileNotFoundError:
            wrong.append((f"the file is missing ({owner}, {seen}, {counted(file.rows, 'row')})", str(file.path)))
            continue
        except OSError as error:
            wrong.append((f"the file cannot be read: {error.strerror} ({owner}, {seen})", str(file.path)))
            continue
        if size != file.bytes:
            wrong.append(
                (f"the file has {size:,} bytes, the catalog says {file.bytes:,} ({owner}, {seen})", str(file.path))
            )
            continue
        whole.append(file)
    if not book.faults(wrong, _RESTORE):
        book.ok(f"all {len(there.known):,} files of all snapshots are there", "data files")
    return whole


def _table_names(metadata: Metadata) -> dict[int, str]:
    rows = metadata.rows(
        "iss",
        "SELECT t.table_id, s.schema_name, t.table_name FROM ducklake_table t JOIN"
        " (SELECT schema_id, max(schema_name) schema_name FROM ducklake_schema GROUP BY schema_id) s USING (schema_id)"
        " ORDER BY t.begin_snapshot",
    )
    return {row[0]: shown(row[1], row[2]) for row in rows}


def _footers(database: Database, files: list[Known], book: Book) -> None:
    """Row counts in the files themselves against the catalog's."""
    wrong = []
    with database.lent(schema=False) as connection:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            try:
                found = _rows(connection, batch)
            except duckdb.Error:  # one of them cannot be read: which?
                found = {}
                for file in batch:
                    try:
                        found.update(_rows(connection, [file]))
                    except duckdb.Error as error:
                        reason = str(error).splitlines()[0][:200]
                        wrong.append((f"no Parquet file can be read from it: {reason}", str(file.path)))
                        found[str(file.path)] = file.rows
            for file in batch:
                rows = found.get(str(file.path))
                if rows != file.rows:
                    wrong.append((f"it holds {rows} rows, the catalog says {file.rows:,}", str(file.path)))
    if not book.faults(wrong, _RESTORE):
        book.ok(f"{len(files):,} files hold as many rows as the catalog says", "data files")


def _rows(connection: duckdb.DuckDBPyConnection, files: list[Known]) -> dict[str, Any]:
    paths = ", ".join(literal(exactly(str(file.path))) for file in files)
    found = connection.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata([{paths}])").fetchall()
    return {str(name): int(rows) for name, rows in found}


def tags(metadata: Metadata, state: State, book: Book) -> list[str]:
    """The names of snapshots that are gone."""
    try:
        there = set(inventory.snapshots(metadata))
        rows = state.read("SELECT name, snapshot FROM snapshot_tag")
    except LakehouseError:
        return []  # told before
    lost = [str(name) for name, snapshot in rows if snapshot not in there]
    for name in lost:
        book.fault(f"the tag '{name}' stands for a snapshot that is gone", "state file", "doctor --repair removes it")
    return lost
