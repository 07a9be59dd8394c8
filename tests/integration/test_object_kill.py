"""Real processes on one object store: killed at any moment, racing for a key, deleting what others put."""

import hashlib
import json
import random
import time

import pytest

from lakehouse.storage.local import LocalStore

SIZE = 300_000
HEAD = """
import pathlib
from lakehouse.errors import PreconditionFailed
from lakehouse.storage.local import LocalStore
store = LocalStore(pathlib.Path(args[0]))
def content(n): return (f"{n:08d}".encode() * 1000 for _ in range(SIZE // 8000 + 1))
say({"ready": 1})
sys.stdin.readline()
""".replace("SIZE", str(SIZE))


def number(content):
    """Which put a content is of; it must be one whole put."""
    assert len(content) == (SIZE // 8000 + 1) * 8000
    assert content == content[:8] * (len(content) // 8)
    return int(content[:8])


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "objects")


def started(child, code, store, *args):
    process = child(HEAD + code, store.folder, *args)
    assert process.hear() == {"ready": 1}
    return process


def test_kill_at_random_moments(store, child):
    """Rounds of puts, new keys and deletes in one process that dies: old or new, and all that was said is there."""
    chance = random.Random(11)
    code = """
for n in range(int(args[1]), 10**6):
    receipt = store.put("a/k", content(n))
    say({"put": n, "sha256": receipt.sha256})
    store.put(f"new/{n}", content(n), if_absent=True)
    say({"new": n})
    if n % 3 == 0:
        store.delete(f"new/{n}")
        say({"deleted": n})
"""
    first, there = 0, set()
    for _ in range(12):
        writer = started(child, code, store, first)
        writer.go()
        said = [writer.hear()]  # it is really writing
        time.sleep(chance.uniform(0, 0.12))
        said += writer.kill()
        last = said[-1]
        put = max(one["put"] for one in said if "put" in one)
        current = number(store.get("a/k"))
        assert current in (put, put + 1)
        if current == put:
            [sha256] = [one["sha256"] for one in said if one.get("put") == put]
            assert store.head("a/k").etag == sha256
        assert hashlib.sha256(store.get("a/k")).hexdigest() == store.head("a/k").etag
        there |= {one["new"] for one in said if "new" in one}
        there -= {one["deleted"] for one in said if "deleted" in one}
        found = {int(info.key.removeprefix("new/")) for info in store.list("new/")}
        assert all(number(store.get(f"new/{n}")) == n for n in found)
        under_way = found ^ there
        if "put" in last:  # the next thing was new
            assert under_way <= {last["put"]}
        elif "new" in last and last["new"] % 3 == 0:  # was deleted
            assert under_way <= {last["new"]}
        else:
            assert under_way == set()
        there = found
        store.clean()
        assert store.clean().files == 0
        files = [path for path in store.folder.rglob("*") if path.is_file()]
        assert len(files) == len(found) + 1
        first = current + 1
        assert store.put("a/k", b"after").size == 5
        store.delete("a/k")


def test_puts_killed_at_every_step(store, child):
    """A put that is stopped for good just before each of its changes to the file system, one after another."""
    code = """
import os
left = int(args[1])
def stopping(call):
    def stop(*given, **named):
        global left
        left -= 1
        if left == 0:
            say({"stopped": call.__name__})
            os.kill(os.getpid(), 9)
        return call(*given, **named)
    return stop
for name in ("mkdir", "write", "fsync", "rename", "unlink", "rmdir"):
    setattr(os, name, stopping(getattr(os, name)))
store.put("a/k", b"new")
say({"put": 1})
store.put("a/n", b"new")
say({"put": 2})
store.delete("a/gone")
say({"put": 3})
"""
    steps, left_behind = [], []
    for left in range(1, 100):
        for key in ("a/k", "a/gone"):
            store.put(key, b"old")
        store.delete("a/n")
        process = started(child, code, store, left)
        process.go()
        out = [json.loads(line) for line in process.process.stdout]
        done = max([one["put"] for one in out if "put" in one], default=0)
        objects = {info.key: store.get(info.key) for info in store.list()}
        assert objects["a/k"] in ((b"old", b"new") if done == 0 else (b"new",))
        assert objects.get("a/n") in ((None,) if done == 0 else (None, b"new") if done == 1 else (b"new",))
        assert objects.get("a/gone") in ((b"old",) if done < 2 else (b"old", None) if done == 2 else (None,))
        dry = store.clean(dry_run=True)
        assert store.clean() == dry
        left_behind.append(dry.files)
        assert {info.key: store.get(info.key) for info in store.list()} == objects
        assert len([path for path in store.folder.rglob("*") if path.is_file()]) == len(objects)
        if done == 3:
            break
        steps += [one["stopped"] for one in out if "stopped" in one]
    assert {"mkdir", "write", "fsync", "rename", "unlink"} <= set(steps)
    assert len(steps) == left - 1
    assert max(left_behind) == 1  # a stream or an old file, never more
    assert left_behind[-1] == 0


def test_one_of_four_processes_wins(store, child):
    code = """
for n in range(30):
    try:
        receipt = store.put(f"race/{n}", content(int(args[1])), if_absent=True)
        say({"n": n, "etag": receipt.etag})
    except PreconditionFailed:
        pass
"""
    racers = [started(child, code, store, racer) for racer in range(4)]
    for racer in racers:
        racer.go()
    won = [one for racer in racers for one in racer.end()]
    assert sorted(one["n"] for one in won) == list(range(30))
    assert all(store.head(f"race/{one['n']}").etag == one["etag"] for one in won)
    assert store.clean().files == 0


def test_counting_with_if_match_loses_no_step(store, child):
    """Four processes add one to an object 25 times each, each time with the etag that was read."""
    store.put("count", b"0")
    code = """
done = 0
while done < 25:
    info = store.head("count")
    value = int(store.get("count"))
    try:
        store.put("count", str(value + 1).encode(), if_match=info.etag)
        done += 1
    except PreconditionFailed:
        pass
"""
    counters = [started(child, code, store) for _ in range(4)]
    for counter in counters:
        counter.go()
    for counter in counters:
        counter.end()
    assert store.get("count") == b"100"


def test_puts_deletes_cleaning_and_listing_at_once(store, child):
    """Folders come and go under every process's feet, and nobody stumbles."""
    code = """
import random
chance = random.Random(int(args[1]))
what = args[2]
for n in range(150):
    key = chance.choice(["a/b/c", "a/b", "a/b/d", "a"])
    if what == "put": store.put(key, content(n))
    elif what == "delete": store.delete(key)
    elif what == "clean": assert store.clean().bytes >= 0
    else: assert len(store.list("a")) <= 4
store.put(f"mine/{args[1]}", b"1")
"""
    workers = [
        started(child, code, store, seed, what)
        for seed, what in enumerate(["put", "put", "delete", "delete", "clean", "list"])
    ]
    for worker in workers:
        worker.go()
    for worker in workers:
        worker.end()
    assert len(store.list("mine/")) == 6
    for info in store.list("a"):
        number(store.get(info.key))
    assert store.clean().files == 0
