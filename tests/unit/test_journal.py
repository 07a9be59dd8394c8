"""The journal: every record that was acknowledged is there, whatever happened to the file."""

import errno
import json
import os
import threading

import msgspec
import pytest

from lakehouse import errors
from lakehouse.journal import Journal
from lakehouse.records import Entry, Fault, Position


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "deep" / "traces.jsonl", sync="never")


def data(journal, after=None):
    return [msgspec.json.decode(found.data) for found in journal.read(after) if isinstance(found, Entry)]


def faults(journal):
    return [found.reason for found in journal.read() if isinstance(found, Fault)]


def small(path, count=4):
    journal = Journal(path, sync="never")
    for number in range(count):
        journal.append({"n": number})
    return path.read_bytes()


def test_a_missing_file_reads_as_empty_and_makes_nothing(journal):
    assert list(journal.read()) == []
    assert journal.verify().sound
    assert not journal.path.parent.exists()


def test_the_first_append_makes_file_and_folder(journal):
    end = journal.append({"a": 1}, [2], "drei", None)
    assert end.seq == 4
    assert end.offset == journal.path.stat().st_size
    assert data(journal) == [{"a": 1}, [2], "drei", None]


def test_a_line_is_what_the_format_says(journal):
    journal.append({"a": "ü\n"})
    line = json.loads(journal.path.read_bytes())
    assert list(line) == ["seq", "time", "prev", "data", "crc"]
    assert (line["seq"], line["prev"], line["data"]) == (1, "0" * 64, {"a": "ü\n"})


def test_reading_goes_on_where_it_stopped(journal):
    journal.append(1)
    (first,) = journal.read()
    journal.append(2, 3)
    assert data(journal, first.end) == [2, 3]
    assert data(journal, journal.append(4)) == []


def test_another_journal_object_appends_after_what_is_there(journal):
    journal.append(1)
    other = Journal(journal.path, sync="never")
    assert other.append(2).seq == 2
    assert journal.append(3).seq == 3  # which did not know of the other's
    assert journal.verify() == other.verify()
    assert journal.verify().sound
    assert journal.verify().records == 3


def test_what_is_no_json_is_refused_and_nothing_is_appended(journal):
    journal.append(1)
    with pytest.raises(errors.JournalError, match="cannot be written as JSON"):
        journal.append(2, object())
    assert data(journal) == [1]


def test_a_record_that_is_too_long_is_refused(tmp_path):
    journal = Journal(tmp_path / "a.jsonl", max_line=300)
    with pytest.raises(errors.JournalError, match="longer than 300"):
        journal.append("x" * 300)
    journal.append("short")
    assert data(journal) == ["short"]


def test_a_small_journal_cut_at_every_byte_loses_only_what_was_cut(tmp_path):
    whole = small(tmp_path / "a.jsonl")
    ends = [i for i, byte in enumerate(whole) if byte == 10]
    path = tmp_path / "cut.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        journal = Journal(path, sync="never")
        kept = sum(end < size for end in ends)
        assert data(journal) == [{"n": number} for number in range(kept)], size
        journal.append("new")
        only_newline_missing = size in ends  # then it is whole and stays
        assert data(journal) == [{"n": number} for number in range(kept + only_newline_missing)] + ["new"], size
        assert journal.verify().chain_breaks == 0, size
        assert not journal.verify().torn


def test_every_flipped_byte_costs_one_record_and_shows(tmp_path):
    whole = small(tmp_path / "a.jsonl")
    path = tmp_path / "flipped.jsonl"
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        journal = Journal(path, sync="never")
        verified = journal.verify()
        assert not verified.sound, place
        hit = whole[:place].count(b"\n")
        lost = {hit, hit + 1} if whole[place] == 10 else {hit}  # without the newline two lines are one
        assert data(journal) == [{"n": number} for number in range(4) if number not in lost], place
        journal.append("new")
        assert data(journal)[-1] == "new", place


def test_a_removed_and_a_moved_record_break_the_chain(journal):
    journal.append(1)
    journal.append(2)
    journal.append(3)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[2])
    assert journal.verify().chain_breaks == 1
    journal.path.write_bytes(lines[0] + lines[2] + lines[1])
    assert faults(journal) == ["record 2 after record 3"]


def test_corrupt_lines_are_put_in_quarantine_once_with_offset_and_reason(journal):
    journal.append(1)
    offset = journal.path.stat().st_size
    with journal.path.open("ab") as file:
        file.write(b'{"half\n\xff\xfe not text\n')
    journal.append(2)
    for _ in range(2):
        seen = []
        end, found = journal.replay(lambda entry, seen=seen: seen.append(entry.seq))
        assert (seen, len(found), end.seq) == ([1, 2], 2, 2)
    kept = [json.loads(line) for line in journal.quarantine.read_bytes().splitlines()]
    assert [(entry["offset"], entry["reason"], entry["line"]) for entry in kept] == [
        (offset, "not a JSON record", '{"half'),
        (offset + 7, "not a JSON record", "\\xff\\xfe not text"),
    ]


def test_a_record_that_cannot_be_applied_is_reported_and_the_rest_is_applied(journal):
    journal.append(1)
    journal.append("bad")
    journal.append(3)
    seen = []

    def apply(entry):
        seen.append(int(msgspec.json.decode(entry.data)))

    _, found = journal.replay(apply)
    assert seen == [1, 3]
    assert [fault.reason for fault in found] == [
        "record 2 cannot be applied: invalid literal for int() with base 10: 'bad'"
    ]
    assert json.loads(json.loads(journal.quarantine.read_bytes())["line"])["data"] == "bad"


def test_a_line_longer_than_the_limit_is_skipped_without_being_kept_in_memory(tmp_path):
    journal = Journal(tmp_path / "a.jsonl", max_line=500)
    journal.append(1)
    with journal.path.open("ab") as file:
        file.write(b"x" * 5_000_000 + b"\n")
    journal.append(2)
    assert data(journal) == [1, 2]
    assert faults(journal) == ["longer than 500 bytes"]


def test_a_full_disk_is_said_and_nothing_is_appended(journal, monkeypatch):
    journal.append(1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(errors.DiskFull):
        journal.append(2)
    monkeypatch.undo()
    assert journal.append(3).seq == 2
    assert data(journal) == [1, 3]


def test_a_short_write_is_taken_back_and_never_acknowledged(journal, monkeypatch):
    journal.append(1)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, buffer: write(file, bytes(buffer[: len(buffer) // 2])))
    with pytest.raises(errors.DiskFull, match="only in part"):
        journal.append(2)
    monkeypatch.undo()
    assert journal.verify().sound
    journal.append(3)
    assert data(journal) == [1, 3]


def test_a_sync_that_fails_is_an_error(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "a.jsonl")
    journal.append(1)

    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(errors.JournalError, match="Input/output"):
        journal.append(2)
    monkeypatch.undo()
    journal.append(3)
    assert data(journal) == [1, 3]


def test_syncs_are_as_often_as_was_said(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for sync, count in (("always", 3), ("never", 0), ("interval", 0)):
        synced.clear()
        journal = Journal(tmp_path / f"{sync}.jsonl", sync=sync, interval=1000)
        for number in range(3):
            journal.append(number)
        assert len(synced) == count, sync
    journal.close()
    assert len(synced) == 1
    with pytest.raises(errors.ConfigError):
        Journal(tmp_path / "a.jsonl", sync="sometimes")


def test_compaction_keeps_what_it_is_told_and_numbers_go_on(journal):
    for number in range(10):
        journal.append(number)
    before = journal.verify()
    reader = journal.read()
    next(reader)
    old = next(reader).end

    end = journal.compact(lambda entries: (msgspec.json.decode(e.data) for e in entries if e.seq % 2))
    assert (end.generation, before.generation) == (1, 0)
    assert len(list(reader)) == 8  # who was reading goes on in the old file
    assert data(journal, old) == [0, 2, 4, 6, 8]  # who looks again begins anew
    assert journal.append("next").seq == end.seq + 1 > 10
    assert journal.verify().sound
    assert journal.verify().generation == 1
    assert data(Journal(journal.path)) == [0, 2, 4, 6, 8, "next"]


def test_a_compaction_that_fails_leaves_the_old_file(journal):
    journal.append(1, 2)
    before = journal.path.read_bytes()

    def keep(entries):
        yield next(entries).data
        raise errors.LakehouseError("stop")

    with pytest.raises(errors.LakehouseError, match="stop"):
        journal.compact(keep)
    assert journal.path.read_bytes() == before
    assert sorted(p.name for p in journal.path.parent.iterdir()) == ["traces.jsonl", "traces.jsonl.lock"]


def test_checking_and_appending_is_one_step_for_threads(journal):
    def add(_):
        for _ in range(20):
            with journal.writing() as writing:
                assert writing.end.seq == len(data(journal))
                writing.append(writing.end.seq)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert data(journal) == list(range(80))


def test_the_end_is_found_from_the_back_of_a_long_file(journal):
    journal.append(*({"n": number, "text": "x" * 100} for number in range(20_000)))
    with journal.path.open("ab") as file:
        file.write(b"torn" * 300_000)
    fresh = Journal(journal.path, sync="never")
    assert fresh.append("last").seq == 20_001
    assert data(fresh)[-1] == "last"


def test_a_position_of_the_start_is_before_everything(journal):
    journal.append(1)
    assert data(journal, Position()) == [1]


@pytest.mark.parametrize("again", [b"first", b"all"])
def test_records_that_somebody_copied_behind_the_last_one_do_not_hide_what_is_appended(journal, again):
    journal.append(1)
    journal.append(2)
    journal.append(3)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    with journal.path.open("ab") as file:
        file.writelines(lines[:1] if again == b"first" else lines)
    assert Journal(journal.path).append("next").seq == 4
    assert data(journal) == [1, 2, 3, "next"]


def test_a_record_without_its_newline_survives_a_compaction_and_a_torn_one_goes_into_quarantine(journal):
    journal.append(1, 2)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-1])
    Journal(journal.path).compact(lambda entries: (entry.data for entry in entries))
    assert data(journal) == [1, 2]
    with journal.path.open("ab") as file:
        file.write(b'{"seq":9,"torn')
    Journal(journal.path).compact(lambda entries: (entry.data for entry in entries))
    assert data(journal) == [1, 2]
    (kept,) = journal.quarantine.read_bytes().splitlines()
    assert json.loads(kept)["line"] == '{"seq":9,"torn'


def test_a_compaction_that_reads_nothing_keeps_the_damaged_lines_too(journal):
    journal.append(1)
    with journal.path.open("ab") as file:
        file.write(b"damage\n")
    journal.append(2)
    journal.compact(lambda _: ["all new"])
    assert data(journal) == ["all new"]
    assert json.loads(journal.quarantine.read_bytes())["line"] == "damage"


def test_the_longest_record_can_be_compacted_into_one_that_tells_a_little_more(tmp_path):
    journal = Journal(tmp_path / "a.jsonl", max_line=2000)
    room = 2000 - len(journal_line(tmp_path, ""))
    journal.append("x" * room)
    with pytest.raises(errors.JournalError, match="longer"):
        journal.append("x" * (room + 1))
    journal.compact(lambda entries: ({"seq": entry.seq, "was": entry.data} for entry in entries))
    assert data(journal) == [{"seq": 1, "was": "x" * room}]


def journal_line(folder, value):
    other = Journal(folder / "other.jsonl", sync="never")
    other.append(value)
    return other.path.read_bytes().rstrip()


@pytest.mark.parametrize("value", ["text", [1], {"a": [1]}, 3])
def test_whatever_a_record_makes_apply_do_the_others_are_applied(journal, value):
    journal.append({"a": {"b": 1}}, value, {"a": {"b": 2}})
    seen = []
    _, found = journal.replay(lambda entry: seen.append(msgspec.json.decode(entry.data).get("a").get("b")))
    assert seen == [1, 2]
    assert len(found) == 1
    assert json.loads(journal.quarantine.read_bytes())["reason"].startswith("record 2 cannot be applied")


def test_a_disk_that_is_full_while_applying_is_no_fault_of_the_record(journal):
    journal.append(1)

    def apply(_):
        raise errors.DiskFull("full")

    with pytest.raises(errors.DiskFull):
        journal.replay(apply)
    assert not journal.quarantine.exists()


def test_after_a_write_that_failed_the_same_writer_writes_no_more(journal, monkeypatch):
    journal.append(1)
    with journal.writing() as writing:
        with monkeypatch.context() as patched, pytest.raises(errors.DiskFull):
            patched.setattr(os, "ftruncate", full)
            patched.setattr(os, "write", lambda file, block, write=os.write: write(file, block[:20]))
            writing.append(2)
        with pytest.raises(errors.JournalError, match="before this one failed"):
            writing.append(3)
    journal.append(4)
    assert data(journal) == [1, 4]


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_writer_that_is_interrupted_leaves_a_journal_that_goes_on(journal, monkeypatch):
    journal.append(1)
    write = os.write

    def interrupted(file, block):
        write(file, block)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "write", interrupted)
        journal.append(2)
    journal.append(3)
    assert data(journal) == [1, 3]
    assert journal.verify().sound


def test_a_thread_that_writes_already_is_told_so(journal):
    with journal.writing() as writing:
        writing.append(1)
        with pytest.raises(errors.JournalError, match="by this thread already"):
            journal.append(2)
        writing.append(3)
    assert data(journal) == [1, 3]


def test_new_folders_and_the_new_file_are_known_to_the_disk_before_the_first_record_is_told_of(tmp_path, monkeypatch):
    happened = []
    fsync, fdatasync = os.fsync, os.fdatasync
    name = lambda file: os.path.relpath(os.readlink(f"/proc/self/fd/{file}"), tmp_path)  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append(name(file)), fsync(file)))
    monkeypatch.setattr(os, "fdatasync", lambda file: (happened.append(name(file)), fdatasync(file)))
    journal = Journal(tmp_path / "a" / "b" / "c.jsonl")
    journal.append(1)
    assert happened == [".", "a", "a/b", "a/b/c.jsonl"]
    journal.append(2)
    assert happened[4:] == ["a/b/c.jsonl"]


def test_a_look_that_writes_nothing_does_not_forget_that_the_tail_is_torn(journal):
    journal.append(1)
    with journal.path.open("ab") as file:
        file.write(b'{"seq":2,"torn')
    for _ in range(2):
        with journal.writing():
            pass
    journal.append("next")
    assert data(journal) == [1, "next"]
    assert data(Journal(journal.path)) == [1, "next"]
