"""A journal under several processes, some of them killed: acknowledged records are there, in order, unbroken."""

import random
import time

import msgspec

from lakehouse.journal import Journal
from lakehouse.records import Entry

APPEND = """
    from pathlib import Path
    from lakehouse.journal import Journal
    journal = Journal(Path(args[0]))
    for number in range(int(args[2])):
        journal.append({"writer": args[1], "n": number})
        say([int(args[1]), number])
"""
COMPACT = """
    from pathlib import Path
    from lakehouse.journal import Journal
    import msgspec
    journal = Journal(Path(args[0]))
    say("ready")
    while True:
        journal.compact(lambda entries: (entry.data for entry in entries))
        say([-1, 0])
"""

FLAT = """
    import resource
    from pathlib import Path
    from lakehouse.journal import Journal
    from lakehouse.records import Entry
    journal = Journal(Path(args[0]), sync="never")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (128 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        bytearray(140 << 20)
        say("there is no limit")
    except MemoryError:
        pass
    say(journal.append("first").seq)
    say(journal.verify().records)
    seen = []
    journal.replay(lambda entry: seen.append(entry.seq))
    say(len(seen))
    journal.compact(lambda entries: (entry.data for entry in entries))
    say(sum(isinstance(found, Entry) for found in journal.read()))
"""


def records(journal):
    found = [entry for entry in journal.read() if isinstance(entry, Entry)]
    return [(int(d["writer"]), d["n"]) for d in (msgspec.json.decode(entry.data) for entry in found)]


def test_processes_append_side_by_side_and_nothing_is_lost(tmp_path, child):
    path = tmp_path / "a.jsonl"
    for writer in [child(APPEND, path, number, 200) for number in range(4)]:
        writer.end()
    journal = Journal(path)
    assert sorted(records(journal)) == [(writer, n) for writer in range(4) for n in range(200)]
    assert journal.verify().sound
    assert journal.verify().records == 800


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path, child):
    path = tmp_path / "a.jsonl"
    acknowledged = set()
    chance = random.Random(4)
    for round_number in range(15):
        writers = [child(APPEND, path, round_number * 3 + number, 100_000) for number in range(3)]
        for writer in writers:
            writer.hear()
        time.sleep(chance.random() * 0.05)
        for writer in writers:
            acknowledged |= {tuple(said) for said in writer.kill()}
    found = records(Journal(path))
    assert len(set(found)) == len(found)
    assert acknowledged <= set(found)
    for writer in {writer for writer, _ in found}:
        numbers = [n for who, n in found if who == writer]
        assert numbers == list(range(len(numbers)))
    assert Journal(path).append({"writer": 99, "n": 0}).seq == len(found) + 1
    verified = Journal(path).verify()
    assert verified.chain_breaks == 0
    assert not verified.torn


def test_a_killed_compaction_leaves_the_old_file_or_the_new_one_and_writers_go_on(tmp_path, child):
    path = tmp_path / "a.jsonl"
    chance = random.Random(5)
    acknowledged = set()
    for round_number in range(8):
        writer = child(APPEND, path, round_number, 100_000)
        writer.hear()
        compactor = child(COMPACT, path)
        compactor.hear()
        time.sleep(chance.random() * 0.1)
        compactor.kill()
        acknowledged |= {tuple(said) for said in writer.kill()}
        found = records(Journal(path))
        assert acknowledged <= set(found)
        assert len(set(found)) == len(found)
    verified = Journal(path).verify()
    assert verified.corrupt <= 8
    assert verified.chain_breaks == 0
    assert verified.generation >= 1


def test_memory_stays_flat_on_a_journal_that_does_not_fit_into_it(tmp_path, child):
    journal = Journal(tmp_path / "a.jsonl", sync="never")
    for number in range(400):
        journal.append(*({"n": number, "text": "x" * 10_000} for _ in range(50)))
    assert journal.path.stat().st_size > 200_000_000
    with journal.path.open("ab") as file:  # and a line that is longer than a record can be
        file.write(b"y" * 40_000_000 + b"\n")
    assert child(FLAT, journal.path).end() == [20_001] * 4
