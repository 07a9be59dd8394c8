"""The corpus of statements from strangers against the gate alone: what it must refuse, and what it must not.

What passes runs here in the lake itself: it must do what its sender meant.
"""

from __future__ import annotations

import duckdb
from strangers import entries, make

import lakehouse
from lakehouse.errors import LakehouseError, NotFound, SqlRefused, SyntaxFault
from lakehouse.query.gate import Gate, names

_ERRORS = {"refused": SqlRefused, "syntax": SyntaxFault, "missing": NotFound}


def test_the_gate_alone(tmp_path):
    place = make(tmp_path)
    wrong, doors = [], {}
    with lakehouse.open(place.lake) as lake, duckdb.connect(config={"threads": 1}) as parser:
        metadata = lake.catalog.metadata
        for entry in entries():
            sql = place.put(entry.sql)
            for door in ("read", "write") if entry.door == "both" else (entry.door,):
                gate = doors.get(snapshot := metadata.current()) or Gate(parser, names(metadata, snapshot))
                doors = {snapshot: gate}
                outcome = _outcome(lake, gate, door, sql, run=entry.must in ("passes", "fails"))
                wanted = "passes" if entry.must == "held" else entry.must
                if outcome.split(":")[0] != wanted:
                    wrong.append(f"{entry.where}, {door}: must be {wanted}, is {outcome}: {sql[:200]!r} ({entry.why})")
    assert not wrong, "\n".join(wrong)


def _outcome(lake, gate, door, sql, *, run):
    try:
        passed = getattr(gate, door)(sql)
    except LakehouseError as error:
        return next((f"{name}: {error}" for name, kind in _ERRORS.items() if isinstance(error, kind)), repr(error))
    assert passed.kind == door
    if run:
        try:
            lake.sql(passed.sql)
        except LakehouseError as error:
            return f"fails: {error}"
    return "passes"


def test_there_are_enough():
    found = entries()
    assert len(found) >= 250
    assert {entry.must for entry in found} == {*_ERRORS, "passes", "fails", "held"}
    assert all(entry.why for entry in found)
    assert len({entry.sql for entry in found}) == len(found)
