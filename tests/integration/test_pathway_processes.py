"""The pathway memory under many processes: one trace of a racing key, and nothing acknowledged is lost."""

import random
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
