"""The journals in a lake folder: the truth for what is no table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lakehouse.catalog.attach import DATA_FOLDER
from lakehouse.errors import LakehouseError
from lakehouse.health.findings import Book
from lakehouse.journal import Journal

_ELSEWHERE = frozenset({DATA_FOLDER, "objects", "tmp", "branches"})
_QUARANTINE = ".quarantine"


def find(lake: Path) -> Iterator[Path]:
    """Every journal and every file of quarantined lines."""
    for folder in sorted(lake.iterdir()):
        if folder.is_dir() and folder.name not in _ELSEWHERE and not folder.name.startswith("."):
            yield from sorted(folder.rglob("*.jsonl"))
            yield from sorted(folder.rglob(f"*.jsonl{_QUARANTINE}"))


def examine(lake: Path, book: Book) -> None:
    """Look at every record of every journal."""
    for path in find(lake):
        where = path.relative_to(lake).as_posix()
        if path.name.endswith(_QUARANTINE):
            book.note(
                "lines that could not be used are kept in it", where, "look at them; they stay until you remove it"
            )
            continue
        try:
            found = Journal(path).verify()
        except LakehouseError as error:
            book.fault(error.message, where, error.hint or "restore it from a backup")
            continue
        if found.sound:
            book.ok(f"{found.records:,} records, each as it was written", where)
            continue
        advice = "what can be read is used; the rest is in a backup, if anywhere"
        if found.corrupt:
            book.note(f"{found.corrupt} lines are no records: of writers that died, if no record is missing", where)
        if found.chain_breaks:
            book.fault(f"{found.chain_breaks} records do not follow the one before them", where, advice)
        if found.torn:
            book.note(
                "it ends in the middle of a record that was never acknowledged", where, "the next append repairs it"
            )
