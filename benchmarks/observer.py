"""The observer: events beside a bare write, over HTTP, heard by who follows, and rounds of `kill -9`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from _report import ROOT, Report, main, median, percentile, rounds, scratch, sync, timed

sys.path.insert(0, str(ROOT / "tests" / "integration"))

import httpx
from observing import Observing
from serving import PRIMARY, TOKENS, V1, Server, bearer

import lakehouse
from lakehouse.config import ObserverSettings
from lakehouse.observer.model import Data, Event
from lakehouse.observer.observer import Observer

BATCH = 100
TOGETHER = 50  # rounds of kill -9 on one journal


def measure(quick: bool) -> Report:
    """Events a second in process at each sync level and over HTTP, latency of following, reading a large journal."""
    report = Report("The observer", "a bare loop of write, with fdatasync where the line says so")
    _recording(report, 5 if quick else 15, 200)
    _reading(report, 20_000 if quick else 300_000)
    _following(report, 50 if quick else 300)
    _over_http(report, 100 if quick else 500)
    _killed(report, 50 if quick else 500)
    return report


def event(number: int) -> Event:
    """An event as a workflow records it."""
    return Event(
        run=f"run-{number // 20}", workflow="flights", node=f"node-{number % 20}", mode="sql", status="done",
        elapsed=number % 100 / 10, inputs=(Data("main.flights", snapshot=number),),
        outputs=(Data("main.daily", snapshot=number + 1, rows=365),), principal="bench",
    )  # fmt: skip


def _recording(report: Report, count: int, events: int) -> None:
    """Rounds of so many events: in memory alone, at each sync level one by one, and in batches."""
    given = [event(number) for number in range(events)]
    with scratch() as folder:
        observers = {
            name: Observer(folder / name, ObserverSettings(sync=how, persist=name != "memory"))
            for name, how in (("memory", "never"), ("never", "never"), ("interval", "interval"), ("always", "always"))
        }
        observers["always"].record(given[0])
        line = b"x" * (observers["always"].journal.path.stat().st_size - 1) + b"\n"
        bare = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def one_by_one(name: str) -> None:
            for one in given:
                observers[name].record(one)

        def written(*, synced: bool) -> None:
            for _ in given:
                os.write(bare, line)
                if synced:
                    os.fdatasync(bare)

        def batches() -> None:
            for start in range(0, events, BATCH):
                observers["always"].record_many(given[start : start + BATCH])

        sync()
        seconds = rounds(
            count,
            memory=lambda: one_by_one("memory"),
            never=lambda: one_by_one("never"),
            interval=lambda: one_by_one("interval"),
            always=lambda: one_by_one("always"),
            batches=batches,
            bare=lambda: written(synced=False),
            bare_synced=lambda: written(synced=True),
        )
        os.close(bare)
        for observer in observers.values():
            observer.close()
    rate = {name: events / median(values) for name, values in seconds.items()}
    report.add("record, in memory alone", rate["memory"], "/s")
    report.add("record, sync = never", rate["never"], "/s", rate["bare"])
    report.add("record, sync = interval", rate["interval"], "/s", rate["bare"])
    report.add("record, sync = always (theirs: with fdatasync)", rate["always"], "/s", rate["bare_synced"])
    report.add(f"record_many of {BATCH}, sync = always", rate["batches"], "/s")


def _reading(report: Report, count: int) -> None:
    with scratch() as folder:
        writer = Observer(folder, ObserverSettings(sync="never"))
        for start in range(0, count, 1000):
            writer.record_many(event(number) for number in range(start, start + 1000))
        reader = Observer(folder, ObserverSettings())
        report.add("index made anew", count / timed(lambda: reader.events(limit=1)), "/s")
        other = Observer(folder, ObserverSettings())
        report.add(f"first newest 100 of {count:,} by another observer", timed(other.events) * 1000, "ms")
        report.add("newest 100", median([timed(other.events) for _ in range(20)]) * 1000, "ms")
        asked = [timed(lambda n=n: other.events(run=f"run-{n * 7}")) for n in range(20)]
        report.add("the events of one run", median(asked) * 1000, "ms")
        report.add(f"stats of {count:,}", timed(other.stats) * 1000, "ms")
        report.add("verify", count / timed(other.verify), "/s")
        before = writer.journal.path.stat().st_size
        report.add("compact", count / timed(writer.compact), "/s")
        report.notes.append(f"an event in the journal has {before / count:.0f} bytes")
        for one in (writer, reader, other):
            one.close()


def _following(report: Report, count: int) -> None:
    """From record() to the one who follows, in the same process and in another observer of the same journal."""
    with scratch() as folder:
        ours, theirs = (Observer(folder, ObserverSettings(sync="never")) for _ in range(2))
        for name, follower in (("the same observer", ours), ("another process's observer", theirs)):
            heard: list[float] = []
            events = follower.follow(run=name)
            thread = threading.Thread(
                target=lambda events=events, heard=heard: [
                    heard.append(time.monotonic() - e.fields["at"]) for e in events
                ]
            )
            thread.start()
            for _ in range(count):
                ours.record(Event(run=name, status="done", fields={"at": time.monotonic()}))
                time.sleep(0.017)
            time.sleep(0.2)
            follower.close()
            thread.join()
            report.add(f"heard by {name}, p50", median(heard) * 1000, "ms")
            report.add(f"heard by {name}, p99", percentile(heard, 99) * 1000, "ms")
            if len(heard) != count:
                raise AssertionError(f"{len(heard)} of {count} were heard")
            ours = Observer(folder, ObserverSettings(sync="never"))
        ours.close()


def _over_http(report: Report, count: int) -> None:
    """Posts one by one and in batches on one connection, and how long until a listener of the stream hears."""
    with scratch() as folder:
        lakehouse.open(folder / "lake").close()
        server = Server(folder, ["lakehouse.cli", "serve"], TOKENS).ready()
        client = httpx.Client(base_url=server.url + V1, headers=bearer(PRIMARY), trust_env=False, timeout=60)
        try:

            def post(events: list[dict]) -> None:
                assert client.post("/observer/events", json={"events": events}).status_code == 202

            one = {"run": "r", "workflow": "w", "node": "n", "mode": "sql", "status": "done", "elapsed": 1.5}
            post([one])
            seconds = timed(lambda: [post([one]) for _ in range(count)])
            report.add("POST one event, one connection, sync = always", count / seconds, "/s")
            many = [one] * 1000
            seconds = timed(lambda: [post(many) for _ in range(max(1, count // 50))])
            report.add("POST 1,000 events at a time", 1000 * max(1, count // 50) / seconds, "/s")
            heard = _heard(server, post, one, count // 5)
            report.add("heard on the stream after POST, p50", median(heard) * 1000, "ms")
            report.add("heard on the stream after POST, p99", percentile(heard, 99) * 1000, "ms")
        finally:
            client.close()
            server.stop()


def _heard(server: Server, post, one: dict, count: int) -> list[float]:
    heard: list[float] = []
    ready = threading.Event()

    def listen() -> None:
        with httpx.Client(base_url=server.url + V1, headers=bearer(PRIMARY), trust_env=False, timeout=60) as client:
            with client.stream("GET", "/observer/stream?run=heard") as answer:
                for line in answer.iter_lines():
                    ready.set()
                    if line.startswith("data: "):
                        heard.append(time.monotonic() - json.loads(line[6:])["fields"]["at"])
                        if len(heard) == count:
                            return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    ready.wait(30)
    for _ in range(count):
        post([{**one, "run": "heard", "fields": {"at": time.monotonic()}}])
        time.sleep(0.017)
    thread.join(30)
    return heard


def _killed(report: Report, count: int) -> None:
    totals = {"rounds": 0, "acknowledged": 0, "recovered": 0}
    for seed in range(count // TOGETHER):
        with scratch() as folder:
            work = Observing(Path(folder), seed)
            try:
                summary = work.run(TOGETHER)
            finally:
                work.close()
            for name in totals:
                totals[name] += getattr(summary, name)
    report.add("rounds of kill -9 of all writers, nothing lost", totals["rounds"], "", at_least=count)
    report.add("events acknowledged in them", totals["acknowledged"], "")
    report.add("events recovered (some had not been acknowledged yet)", totals["recovered"], "")


if __name__ == "__main__":
    main(measure)
