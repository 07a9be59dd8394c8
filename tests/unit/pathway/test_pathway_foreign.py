"""Records that no operation of ours would write: each costs only itself, whatever is in it."""

import json

import pytest

from lakehouse.pathway.store import Pathway

FOREIGN = [
    "text",
    [1, 2],
    3,
    None,
    {},
    {"batch": 3},
    {"batch": ["text"]},
    {"op": "add", "content": 1},
    {"op": "add", "uid": ["x"], "content": 1},
    {"op": "add", "uid": "x"},
    {"op": "add", "uid": "x", "content": 1, "snapshot": 2**70},
    {"op": "add", "uid": "x", "content": 1, "predecessor": {"a": 1}},
    {"op": "add", "uid": "x", "content": 1, "tags": 5},
    {"op": "add", "uid": "x", "content": 1, "scope": [1]},
    {"op": "retire", "uid": "a", "reason": ["x"]},
    {"op": "feedback", "uid": "a", "score": 2**70},
    {"op": "feedback", "uid": "a"},
    {"op": "update", "uid": "a"},
    {"op": "dance", "uid": "a"},
]


@pytest.mark.parametrize("record", FOREIGN, ids=json.dumps)
def test_a_foreign_record_costs_only_itself(tmp_path, record):
    memory = Pathway(tmp_path / "pathway", sync="never")
    one = memory.add("one", uid="a")
    memory.journal.append(record)
    two = memory.add("two", uid="b")
    for _ in range(2):
        assert [trace.uid for trace in memory.get_all()] == ["b", "a"]
        assert (memory.get("a"), memory.get("b")) == (one, two)
        assert len(memory.journal.quarantine.read_bytes().splitlines()) == 1
        memory._index.rebuild()


def test_a_compaction_keeps_what_stands_beside_a_record_that_cannot_be_applied(tmp_path):
    memory = Pathway(tmp_path, sync="never")
    for number in range(10):
        memory.add(number, uid=f"t{number}")
        memory.journal.append({"op": "dance", "uid": "t0"})
    traces = memory.get_all()
    assert len(traces) == 10
    memory.compact()
    assert memory.get_all() == traces
    memory._index.rebuild()
    assert memory.get_all() == traces
