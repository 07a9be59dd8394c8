"""The pathway memory under many processes: one trace of a racing key, and nothing acknowledged is lost."""

import random
import threading
import time

from lakehouse.pathway.store import Pathway

RACE = """
    from pathlib import Path
    from lakehouse.pathway.store import Pathway
    pathway = Pathway(Path(args[0]))
    say("ready")
    sys.stdin.readline()
    for _ in range(25):
        pathway.add_idempotent({"q": "why"}, uid="one")
        pathway.add_idempotent({"n": [1, 2]})
"""
WORK = """
    import random
    from pathlib import Path
    from lakehouse.pathway.store import Pathway
    pathway = Pathway(Path(args[0]))
    chance = random.Random(int(args[1]))
    for number in range(100_000):
        uid = f"{args[1]}-{number}"
        pathway.add({"n": number}, uid=uid)
        say({"uid": uid, "did": "add"})
        if number % 3 == 0:
            pathway.update(uid, {"n": -number})
            say({"uid": uid, "did": "update"})
        if number % 4 == 0:
            pathway.retire(uid)
            say({"uid": uid, "did": "retire"})
"""

READ = """
    from pathlib import Path
    from lakehouse.pathway.store import Pathway
    pathway = Pathway(Path(args[0]))
    before, first = 0, None
    while True:
        then = [found.trace.content for found in pathway.search("evening", as_of=30, limit=100)]
        now = len(pathway.get_all())
        first = first or then
        assert then == first and sorted(then) == sorted(f"evening flights {n}" for n in range(30)), then
        assert now >= before, (before, now)
        before = now
        say([now])
"""
COMPACT = """
    from pathlib import Path
    from lakehouse.pathway.store import Pathway
    pathway = Pathway(Path(args[0]))
    for number in range(40):
        pathway.add(f"evening flights and more {number}")
        pathway.compact()
"""


def test_eight_processes_race_on_one_key_and_on_one_content(tmp_path, child):
    racers = [child(RACE, tmp_path) for _ in range(8)]
    for racer in racers:
        racer.hear()
    for racer in racers:
        racer.go()
    for racer in racers:
        racer.end()
    pathway = Pathway(tmp_path)
    traces = pathway.get_all()
    assert sorted(trace.replay_count for trace in traces) == [199, 199]
    assert [trace.content for trace in traces if trace.uid == "one"] == [{"q": "why"}]
    assert pathway.stats().records == 400
    assert pathway.verify().sound


def test_what_killed_processes_were_told_is_done_is_done(tmp_path, child):
    said = []
    chance = random.Random(6)
    for round_number in range(10):
        workers = [child(WORK, tmp_path, round_number * 2 + number) for number in range(2)]
        for worker in workers:
            worker.hear()
        time.sleep(chance.random() * 0.2)
        for worker in workers:
            said += worker.kill()
    pathway = Pathway(tmp_path)
    for one in said:
        trace = pathway.get(one["uid"])
        assert one["did"] != "update" or trace.version == 2
        assert one["did"] != "retire" or trace.retired
    assert len(said) > 20
    assert not pathway.journal.quarantine.exists() or not pathway.verify().chain_breaks
    pathway.close()
    before = pathway.get_all(include_retired=True)
    pathway._index.rebuild()
    assert pathway.get_all(include_retired=True) == before


def test_readers_go_on_while_others_compact_and_add(tmp_path, child):
    pathway = Pathway(tmp_path)
    for number in range(30):
        pathway.add(f"evening flights {number}")
    readers = [child(READ, tmp_path) for _ in range(2)]
    for reader in readers:
        reader.hear()
    compactors = [child(COMPACT, tmp_path) for _ in range(2)]
    for compactor in compactors:
        compactor.end()
    for reader in readers:
        assert reader.process.poll() is None, reader.process.stderr.read()
        assert reader.kill()[-1][0] > 30
    assert pathway.verify().generation == 80
    assert len(pathway.get_all()) == 110


def test_a_reader_that_finds_damage_waits_for_no_writer(tmp_path):
    """The writer may be waiting for the index, which the reader has."""
    pathway = Pathway(tmp_path)
    pathway.add("one", uid="one")
    with pathway.journal.path.open("ab") as file:
        file.write(b"damage\n")
    found = []
    with pathway.journal.writing() as writing:
        reader = threading.Thread(target=lambda: found.extend(Pathway(tmp_path).get_all()), daemon=True)
        reader.start()
        reader.join(20)
        assert [trace.uid for trace in found] == ["one"]
        writing.append({"op": "replay", "uid": "one"})
    assert pathway.journal.quarantine.exists()
    assert pathway.get("one").replay_count == 1
