"""Thousands of statements that nobody wrote, against the gate alone, and against the worker without its gate."""

from __future__ import annotations

import random
import sys

from _report import ROOT, Report, main

sys.path.insert(0, str(ROOT / "tests" / "integration"))

from fuzzing import gate_alone, worker_alone


def measure(quick: bool) -> Report:
    """20,000 statements for the gate and 500 for the worker (2,000 and 50 quick), other ones each time."""
    seed = random.SystemRandom().randrange(1 << 30)
    gated, held = (2_000, 50) if quick else (20_000, 500)
    report = Report("Statements that nobody wrote, to the gate and to the worker", "nothing may get through")
    report.notes.append(f"seed {seed}; the first statement that gets through ends the run with an error and is shown")
    said = gate_alone(gated, seed)
    report.add("statements to the gate alone", sum(said.values()), "", at_least=gated)
    report.notes.append(f"what the gate said: {dict(said.most_common())}")
    ended = worker_alone(held, seed)
    report.add("statements to the worker without a gate", sum(ended.values()), "", at_least=held)
    report.notes.append(f"how they ended: {dict(ended.most_common())}")
    return report


if __name__ == "__main__":
    main(measure)
