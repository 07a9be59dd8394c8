"""The corpus of statements from strangers against the gate alone: what it must refuse, and what it must not."""

from __future__ import annotations

import duckdb
import pytest
from strangers import entries, make

import lakehouse
from lakehouse.errors import LakehouseError, NotFound, SqlRefused, SyntaxFault
from lakehouse.query.gate import Gate, names

_ERRORS = {"refused": SqlRefused, "syntax": SyntaxFault, "missing": NotFound}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def gate(place):
    with lakehouse.open(place.lake, read_only=True) as lake, duckdb.connect(config={"threads": 1}) as parser:
        metadata = lake._metadata
        yield Gate(parser, names(metadata, metadata.current()))


def test_the_gate_alone(place, gate):
    wrong = []
    made = set()
    for entry in entries():
        for door in ("read", "write") if entry.door == "both" else (entry.door,):
            sql = place.put(entry.sql)
            try:
                passed = getattr(gate, door)(sql)
                outcome = "passes"
                assert passed.kind == door
            except LakehouseError as error:
                outcome = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "another")
                outcome += "" if outcome == entry.must else f" ({error})"
            except Exception as error:
                outcome = repr(error)
            wanted = entry.must if entry.must in _ERRORS else "passes"
            # A statement for the read door alone may name tables that an earlier one of the same file made.
            if outcome != wanted and not (wanted == "passes" and "missing" in outcome and made):
                wrong.append(f"{entry.where}, {door}: must be {wanted}, is {outcome}: {sql[:200]!r} ({entry.why})")
    assert not wrong, "\n".join(wrong)
