"""64 connections on one server for a minute: what the tests do for twelve seconds, and the server killed thirty times."""

from __future__ import annotations

import random
import sys

from _report import ROOT, Report, main, median, percentile, scratch

sys.path.insert(0, str(ROOT / "tests" / "integration"))

from loading import Loading, flat


def measure(quick: bool) -> Report:
    """A minute (10 s quick) of reads, loads, objects and traces, then 30 rounds (3 quick) that end with `kill -9`."""
    seconds, count = (10, 3) if quick else (60, 30)
    report = Report(f"64 connections for {seconds} s, then the server killed {count} times", "nothing may be lost")
    with scratch() as folder:
        load = Loading(folder, seed=1)
        try:
            load.start()
            outcome = load.run(seconds)
        finally:
            load.stop()
        lost = _lost(load)
    waits = sorted(outcome.waits)
    report.add("answers", len(waits), "")
    report.add("answers a second", len(waits) / seconds, "/s")
    report.add("errors", len(outcome.wrong), "", at_most=0)
    report.add("acknowledged writes", outcome.acknowledged, "")
    report.add("of them lost", lost, "", at_most=0)
    report.add("waiting for an answer, half of them", median(waits) * 1000, "ms")
    report.add("waiting for an answer, 99 of 100", percentile(waits, 99) * 1000, "ms")
    third = outcome.memory[len(outcome.memory) // 3]
    report.add("memory of the server, most", max(outcome.memory), "MB")
    report.add("memory: second half against the second quarter", flat(outcome.memory) * 100, "%", at_most=110)
    report.notes.append(f"memory after a third {third:.0f} MB, at the end {outcome.memory[-1]:.0f} MB")
    report.notes += [f"wrong: {one}" for one in outcome.wrong[:5]]

    dice, sure, cut, there = random.Random(1), 0, 0, 0
    with scratch() as folder:
        load = Loading(folder, connections=32, seed=2)
        try:
            for _ in range(count):
                load.start()
                outcome = load.run(60, kill=dice.randint(1, 150))
                there = load.check()
                load.stop()
        finally:
            load.stop()
        sure = load.all.acknowledged
        cut = sum(not one for kind in (load.all.loads, load.all.objects, load.all.traces) for one in kind.values())
    report.add("times killed", count, "", at_least=count)
    report.add("acknowledged writes, all there afterwards", sure, "")
    report.add("writes that the kill cut off", cut, "")
    report.add("of them there, each of them whole", there, "")
    return report


def _lost(load: Loading) -> int:
    try:
        load.check()
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main(measure)
