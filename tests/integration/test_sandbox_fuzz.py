"""A short run of statements that nobody wrote; `make bench` does the long one."""

from __future__ import annotations

from fuzzing import gate_alone, worker_alone


def test_the_gate_lets_nothing_through_that_it_must_not():
    said = gate_alone(1500, seed=1)
    assert said["passed"] > 100
    assert said["sql_refused"] > 500


def test_the_worker_holds_without_the_gate():
    ended = worker_alone(30, seed=1)
    assert sum(ended.values()) == 30
    assert ended["worker_died"] == 0
