"""A small journal cut at every byte and flipped at every byte: what was before the damage stays, work goes on."""

import json

import msgspec
import pytest

from lakehouse.journal import Journal
from lakehouse.pathway.store import Pathway
from lakehouse.records import Entry


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A journal of four acknowledged records; a flipped `J` or `*` makes a newline of its own."""
    memory = Pathway(tmp_path_factory.mktemp("whole"))
    memory.add("J*", uid="a")
    memory.add({"q": "ü"}, uid="b")
    memory.update("a", "J")
    memory.add(1, uid="c")
    memory.close()
    return memory.journal.path.read_bytes()


def damaged(whole):
    """Every damage, with its name."""
    for size in range(len(whole)):
        yield f"cut at {size}", whole[:size]
    for place in range(len(whole)):
        for mask in (0x01, 0x20, 0x40, 0xFF):
            yield f"{place} ^ {mask}", whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :]


def expected(whole, text):
    """The lines of a damaged text that are still those that were written, the others, and what has no newline."""
    *lines, rest = text.split(b"\n")
    there = whole.split(b"\n")[:-1]
    return [line for line in lines if line in there], [line for line in lines if line and line not in there], rest


def data(lines):
    return [json.loads(line)["data"] for line in lines]


def test_every_cut_and_every_flip_of_a_journal(whole, tmp_path):
    path = tmp_path / "a.jsonl"
    written = whole.split(b"\n")[:-1]
    for name, text in damaged(whole):
        for file in tmp_path.iterdir():
            file.unlink()
        path.write_bytes(text)
        journal = Journal(path, sync="never")
        intact, corrupt, rest = expected(whole, text)
        first = next((n for n, line in enumerate(written) if line not in intact), len(written))
        assert intact[:first] == written[:first], name  # all that was acknowledged before the damage

        verified = journal.verify()
        assert (verified.records, verified.corrupt, verified.torn) == (len(intact), len(corrupt), bool(rest)), name
        if text != whole and text not in [whole[: i + 1] for i, byte in enumerate(whole) if byte == 10] and text:
            assert not verified.sound, name

        whole_after_all = rest in written  # only its newline is missing
        assert journal.append("next").seq > max([0, *(json.loads(line)["seq"] for line in intact)]), name
        found = [msgspec.json.decode(entry.data) for entry in journal.read() if isinstance(entry, Entry)]
        assert found == [*data(intact), *(data([rest]) if whole_after_all else []), "next"], name

        bad = corrupt + ([rest] if rest and not whole_after_all else [])
        for _ in range(2):
            seen = []
            _, faults = journal.replay(seen.append)
            assert (len(seen), len(faults)) == (len(found), len(bad)), name
        kept = [json.loads(line) for line in journal.quarantine.read_bytes().splitlines()] if bad else []
        assert [entry["line"] for entry in kept] == [line.decode("utf-8", "backslashreplace") for line in bad], name
        assert all(text[entry["offset"] :].startswith(line) for entry, line in zip(kept, bad, strict=True)), name


def test_some_cuts_and_flips_of_a_memory(whole, tmp_path):
    for number, (name, text) in enumerate(damaged(whole)):
        if number % 11:  # each opens an index of its own; the journal itself is damaged everywhere above
            continue
        for file in tmp_path.iterdir():
            file.unlink()
        (tmp_path / "traces.jsonl").write_bytes(text)
        memory = Pathway(tmp_path, sync="never")
        intact, _, rest = expected(whole, text)
        traces = {}
        for event in data(intact):
            if event["op"] == "add" or event["uid"] in traces:  # else its trace is what was damaged
                traces[event["uid"]] = event["content"]
        assert {trace.uid: trace.content for trace in memory.get_all()} == traces, name
        if text:
            assert memory.verify().sound == (not rest and text == whole[: len(text)]), name
        after = memory.add("after")
        memory.update(after.uid, "after all")
        assert memory.get(after.uid).content == "after all", name
        assert set(traces) <= {trace.uid for trace in memory.get_all()}, name
        memory.close()
