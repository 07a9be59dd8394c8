"""Caps by prefix, and the store that only reads."""

import os

import pytest

from lakehouse.errors import LakeReadOnly, ObjectTooLarge, PreconditionFailed
from lakehouse.storage.base import CHUNK
from lakehouse.storage.caps import CappedStore, ReadOnlyStore
from lakehouse.storage.local import LocalStore
from lakehouse.storage.memory import MemoryStore

CAPS = {"landing/": 100, "landing/big": 1000, "none/": 0, "é": 5}


@pytest.fixture(params=["local", "memory"])
def inner(request, tmp_path):
    return LocalStore(tmp_path / "objects") if request.param == "local" else MemoryStore()


@pytest.mark.parametrize(
    ("key", "cap", "named"),
    [
        ("landing/a", 100, "'landing/'"),
        ("landing/big", 1000, "'landing/big'"),
        ("landing/bigger/x", 1000, "'landing/big'"),
        ("landing/bi", 100, "'landing/'"),
        ("landing", 50, "storage.max_put_bytes"),
        ("Landing/a", 50, "storage.max_put_bytes"),
        ("none/a", 0, "'none/'"),
        ("étage", 5, "'é'"),
        ("x", 50, "storage.max_put_bytes"),
    ],
)
def test_the_longest_prefix_wins(inner, key, cap, named):
    store = CappedStore(inner, CAPS, 50)
    assert store.put(key, b"x" * cap).size == cap
    before = inner.list()
    for data in (b"y" * (cap + 1), (b"y" for _ in range(cap + 1))):
        with pytest.raises(ObjectTooLarge) as caught:
            store.put(key, data)
        assert named in caught.value.message
        assert f"{cap:,} bytes" in caught.value.message
        assert caught.value.hint
        assert caught.value.status == 413
    assert inner.list() == before
    assert inner.get(key) == b"x" * cap


def test_no_default_is_no_limit(inner):
    store = CappedStore(inner, {"a": 1})
    assert store.put("b", b"x" * 3 * CHUNK).size == 3 * CHUNK
    with pytest.raises(ObjectTooLarge):
        store.put("a", b"xx")
    everything = CappedStore(inner, {"": 2, "a": 1}, 100)
    with pytest.raises(ObjectTooLarge, match="from ''"):
        everything.put("b", b"xxx")


def test_the_stream_is_left_where_the_cap_was_passed(inner, tmp_path):
    store = CappedStore(inner, {"landing/": 2 * CHUNK})
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield b"x" * CHUNK

    with pytest.raises(ObjectTooLarge):
        store.put("landing/a", endless())
    assert len(asked) == 3
    assert inner.list() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_that_grows_while_it_is_read_is_capped(inner, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * CHUNK)
    store = CappedStore(inner, {}, 10 * CHUNK)

    class Growing:
        def __init__(self):
            self.file = file.open("rb")

        def read(self, size):
            with file.open("ab") as end:
                end.write(b"x" * CHUNK)
            return self.file.read(size)

    growing = Growing()
    with growing.file, pytest.raises(ObjectTooLarge):
        store.put("a", growing)
    assert file.stat().st_size <= 12 * CHUNK


def test_files_are_closed_when_the_cap_is_passed(inner, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * (3 * CHUNK))
    store = CappedStore(inner, {}, CHUNK)
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        with pytest.raises(ObjectTooLarge):
            store.put("a", tmp_path / "file")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_conditions_pass_through(inner):
    store = CappedStore(inner, {}, 10)
    etag = store.put("a", b"1", if_absent=True).etag
    with pytest.raises(PreconditionFailed):
        store.put("a", b"2", if_absent=True)
    assert store.put("a", b"2", if_match=etag).size == 1


def test_a_store_that_only_reads(inner, tmp_path):
    inner.put("a", b"1")
    store = ReadOnlyStore(CappedStore(inner, {}, 10))
    for act in (lambda: store.put("a", b"2"), lambda: store.delete("a"), lambda: store.put("b", b"2", if_absent=True)):
        with pytest.raises(LakeReadOnly):
            act()
    assert (store.get("a"), store.head("a"), store.list()) == (b"1", inner.head("a"), inner.list())
    folder = tmp_path / "fetched"
    folder.mkdir()
    assert store.fetch("a", folder).read_bytes() == store.open("a").read() == b"1"
