"""`kill -9` of processes that write one pathway memory: a thousand rounds of what the tests do fifty of."""

from __future__ import annotations

import sys

from _report import ROOT, Report, main, scratch

sys.path.insert(0, str(ROOT / "tests" / "integration"))

from remembering import Remembering

TOGETHER = 50  # rounds on one memory


def measure(quick: bool) -> Report:
    """1,000 rounds (50 quick): two writers, in every second round one that compacts, all killed; then all is compared."""
    count = 50 if quick else 1000
    summaries = []
    for seed in range(count // TOGETHER):
        with scratch() as folder:
            rounds = Remembering(folder, seed)
            try:
                summaries.append(rounds.run(TOGETHER))
            finally:
                rounds.close()

    def total(name: str) -> float:
        return sum(getattr(summary, name) for summary in summaries)

    report = Report(f"Pathway memory: {count} times all its writers killed", "nothing may be lost")
    report.add("rounds", total("rounds"), "", at_least=count)
    report.add("acknowledged pieces of work", total("acknowledged"), "")
    report.notes.append(
        "after each round all is compared: the first piece that is lost or damaged ends the run with an error"
    )
    report.add("traces under way that were whole afterwards", total("finished"), "")
    report.add("lines that a kill left unfinished", total("torn"), "")
    report.add("compactions", total("compactions"), "")
    report.add("times the journal alone told the same as the index", total("rebuilt"), "", at_least=count // 10)
    report.add("time of one round", total("seconds") / count * 1000, "ms")
    return report


if __name__ == "__main__":
    main(measure)
