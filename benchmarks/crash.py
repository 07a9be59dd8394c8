"""`kill -9` at random moments of every kind of write: a thousand rounds of what the tests do fifty of."""

from __future__ import annotations

import sys

from _report import ROOT, Report, main, scratch

sys.path.insert(0, str(ROOT / "tests" / "integration"))

from crashing import KINDS, Crashing


def measure(quick: bool) -> Report:
    """1,000 rounds (50 quick): a process works on a lake, is killed, and the lake is compared with a plain model."""
    count = 50 if quick else 1000
    with scratch() as folder:
        rounds = Crashing(folder, seed=1)
        try:
            summary = rounds.run(count)
        finally:
            rounds.close()
    report = Report(f"Crashes: {count} processes killed in the middle of {', '.join(KINDS)}", "nothing may be lost")
    report.add("rounds", sum(summary.rounds.values()), "", at_least=count)
    report.add("acknowledged pieces of work", summary.acknowledged, "")
    report.notes.append(
        "after each round all is compared: the first piece that is lost or damaged ends the run with an error"
    )
    report.add("pieces under way that were whole afterwards", summary.finished, "")
    report.add("pieces under way of which nothing stayed", summary.undone, "")
    report.add("older snapshots read again, all as they were", summary.snapshots, "")
    report.add("backups restored, all equal", summary.restored, "")
    report.add("time of one round", summary.seconds / count * 1000, "ms")
    report.notes.append(str(summary))
    return report


if __name__ == "__main__":
    main(measure)
