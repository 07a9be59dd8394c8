"""What every object store promises, run against each of them."""

import hashlib
import io
import os
import threading
from array import array
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.errors import KeyInvalid, LakehouseError, NotFound, ObjectNotFound, PreconditionFailed
from lakehouse.storage.base import CHUNK, ObjectReceipt
from lakehouse.storage.caps import CappedStore
from lakehouse.storage.local import LocalStore
from lakehouse.storage.memory import MemoryStore

STORES = {
    "remote": None,
    "local": LocalStore,
    "memory": lambda _folder: MemoryStore(),
    "capped local": lambda folder: CappedStore(LocalStore(folder), {"small/": 10}, 50 << 20),
    "capped memory": lambda _folder: CappedStore(MemoryStore(), {"small/": 10}, 50 << 20),
}


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    if request.param != "remote":
        return STORES[request.param](tmp_path / "objects")
    remote = request.getfixturevalue("client").storage
    for info in remote.list():
        remote.delete(info.key)
    return remote


def keys(store, *args, **kwargs):
    return [info.key for info in store.list(*args, **kwargs)]


def test_put_and_get(store):
    content = b"a,b\n1,2\n"
    sha256 = hashlib.sha256(content).hexdigest()
    before = datetime.now(UTC) - timedelta(seconds=5)
    receipt = store.put("landing/a.csv", content)
    assert receipt == ObjectReceipt("landing/a.csv", 8, sha256, receipt.etag)
    assert store.get("landing/a.csv") == content
    info = store.head("landing/a.csv")
    assert (info.key, info.size, info.sha256, info.etag) == ("landing/a.csv", 8, sha256, receipt.etag)
    assert before <= info.modified <= datetime.now(UTC) + timedelta(seconds=5)
    with store.open("landing/a.csv") as file:
        assert file.read(3) == b"a,b"
        assert file.seek(4) == 4
        assert file.read() == b"1,2\n"


def test_the_etag_follows_the_content(store):
    one, two = store.put("k", b"1").etag, store.put("k", b"2").etag
    assert one != two
    assert store.put("k", b"1").etag == one
    assert '"' not in one


def test_everything_that_can_be_put(store, tmp_path):
    content = os.urandom(2 * CHUNK + 17)
    (tmp_path / "file").write_bytes(content)

    class Dribble(io.RawIOBase):
        """A stream that gives less than it is asked for."""

        def __init__(self):
            self.rest = io.BytesIO(content)

        def read(self, size=-1):
            return self.rest.read(min(size, 70_001))

    for data in (
        content,
        bytearray(content),
        memoryview(content),
        tmp_path / "file",
        io.BytesIO(content),
        Dribble(),
        (content[i : i + 99_999] for i in range(0, len(content), 99_999)),
        [b"", content[:5], bytearray(content[5:]), b""],
    ):
        receipt = store.put("k", data)
        assert receipt.sha256 == hashlib.sha256(content).hexdigest()
        assert store.get("k") == content
    for view in (memoryview(content)[::-2], memoryview(array("i", range(1000))), memoryview(array("i"))):
        store.put("k", view)
        assert store.get("k") == view.tobytes()
    for nothing in (b"", io.BytesIO(), [], iter(())):
        assert store.put("empty", nothing).size == 0
        assert store.get("empty") == b""


def test_what_cannot_be_put_leaves_the_old_object(store, tmp_path):
    store.put("k", b"old")

    class Impatient:
        def read(self, size):
            return None

    for data, error in (
        ("text", LakehouseError),
        (str(tmp_path), LakehouseError),
        (tmp_path, LakehouseError),
        (tmp_path / "missing", NotFound),
        (io.StringIO("text"), LakehouseError),
        (Impatient(), LakehouseError),
        (["text"], LakehouseError),
        ([b"x" * 100, 7], LakehouseError),
        (7, LakehouseError),
        (None, LakehouseError),
    ):
        with pytest.raises(error) as caught:
            store.put("k", data)
        assert caught.value.hint
        assert store.get("k") == b"old"
        with pytest.raises(error):
            store.put("new", data)
        assert keys(store) == ["k"]


def test_a_buffer_that_changes_while_it_is_put_is_hashed_as_it_is_written(store):
    buffer = bytearray(b"a" * (3 * CHUNK))
    stop = threading.Event()

    def scribble():
        while not stop.is_set():
            for letter in b"bcd":
                buffer[::4096] = bytes([letter]) * len(buffer[::4096])

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(5):
            receipt = store.put("k", buffer)
            assert hashlib.sha256(store.get("k")).hexdigest() == receipt.sha256
    finally:
        stop.set()
        thread.join()


def test_a_source_that_breaks_leaves_the_old_object_and_its_own_error(store):
    store.put("k", b"old")

    def broken():
        yield b"x" * (CHUNK + 1)
        raise OSError(5, "the cable is out")

    for key in ("k", "new"):
        with pytest.raises(OSError, match="cable"):
            store.put(key, broken())
    assert keys(store) == ["k"]
    assert store.get("k") == b"old"


def test_what_is_not_there(store):
    store.put("a/b", b"")
    for key in ("a", "A/b", "a/b/c", "b", "a/b "):
        for ask in (store.get, store.open, store.head):
            with pytest.raises(ObjectNotFound) as caught:
                ask(key)
            assert key in caught.value.message
            assert caught.value.hint
        assert store.delete(key) is False
    assert keys(store) == ["a/b"]


def test_an_empty_store(store, tmp_path):
    assert store.list() == []
    assert store.delete("k") is False
    with pytest.raises(ObjectNotFound):
        store.head("k")
    with pytest.raises(PreconditionFailed):
        store.put("k", b"", if_match="0" * 64)
    assert store.list() == []
    assert not (tmp_path / "objects").exists()


def test_delete(store):
    for key in ("a", "a/b", "a/b/c"):
        store.put(key, key.encode())
    with pytest.raises(PreconditionFailed, match="its etag is"):
        store.delete("a/b", if_match="another")
    assert store.delete("a/b", if_match=store.head("a/b").etag) is True
    for gone in ("a/b", "never/there"):
        with pytest.raises(PreconditionFailed, match="it is gone"):
            store.delete(gone, if_match="another")
    store.put("a/b", b"again")
    assert store.delete("a/b") is True
    assert store.delete("a/b") is False
    with pytest.raises(ObjectNotFound):
        store.get("a/b")
    assert keys(store) == ["a", "a/b/c"]
    assert store.put("a/b", b"again", if_absent=True).size == 5
    assert store.get("a/b") == b"again"


def test_keys_that_start_with_each_other(store):
    names = ["a", "a/a", "a/a/a", "a/aa", "aa", "aa/a", "a.b", "a+", "a@", "a~", "a%", "a+/b@/c~/%61", "-", "~"]
    for name in names:
        store.put(name, name.encode())
    assert keys(store) == sorted(names)
    assert [store.get(name) for name in names] == [name.encode() for name in names]


def test_case_and_unicode_are_exact(store):
    names = [
        "a",
        "A",
        "é",
        "e\u0301",
        "ß",
        "SS",
        "\uff21",
        "ａ",
        "日本/データ.csv",
        "\U0001f986",
        "\ufffd",
        "İ",
        "i\u0307",
    ]
    for number, name in enumerate(names):
        store.put(name, bytes([number]))
    assert keys(store) == sorted(names, key=str.encode)
    assert [store.get(name)[0] for name in names] == list(range(len(names)))


def test_long_keys(store):
    names = [
        "x" * 1024,
        "x" * 1023,
        "É" * 512,
        "a/" * 511 + "aa",
        "x" * 80,
        "x" * 79,
        "x" * 80 + "/y",
        "x" * 160,
        "x" * 81,
    ]
    names += ["x" * 80 + "-", "x" * 80 + "0", "x" * 300 + "/" + "y" * 300, "\U0001f986" * 256]
    for number, name in enumerate(names):
        store.put(name, bytes([number]))
    assert keys(store) == sorted(names, key=str.encode)
    assert [store.get(name)[0] for name in names] == list(range(len(names)))
    assert all(store.delete(name) for name in names)
    assert keys(store) == []


@pytest.mark.parametrize(
    "key",
    [
        *["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a/../b", "C:\\x", "a\\b", "\\"],
        *["a\x00b", "a\nb", "\x7f", "a\x85b", "\ud800", "x" * 1025, "É" * 513, "file:///etc/passwd", b"a", None, 7],
    ],
)
def test_keys_that_cannot_be(store, tmp_path, key):
    for act in (store.get, store.open, store.head, store.delete, lambda k: store.put(k, b"x")):
        with pytest.raises(KeyInvalid) as caught:
            act(key)
        assert caught.value.hint
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 200
    assert store.list() == []
    assert not (tmp_path / "objects").exists()


def test_listing(store):
    names = [f"{folder}/{number:02}" for folder in ("a", "a-", "a0", "b") for number in range(5)]
    for name in reversed(names):
        store.put(name, name.encode())
    ordered = sorted(names, key=str.encode)
    assert keys(store) == ordered
    assert keys(store, "a/") == [f"a/{n:02}" for n in range(5)]
    assert keys(store, "a") == [name for name in ordered if name[0] == "a"]
    assert keys(store, "a/0") == [f"a/{n:02}" for n in range(5)]
    assert keys(store, "a/03") == ["a/03"]
    assert keys(store, "A") == keys(store, "a/03/") == keys(store, "c") == keys(store, "\\") == []
    assert keys(store, limit=0) == []
    assert keys(store, "b", limit=2) == ["b/00", "b/01"]
    for after in ["", "a", "a/", "a/02", "a/02x", "a-", "a/zz", "zz", "b/04"]:
        assert keys(store, after=after) == [name for name in ordered if name > after]
        assert keys(store, "a/", after=after) == [name for name in ordered if name > after and name.startswith("a/")]
    read, after = [], None
    while page := keys(store, limit=3, after=after):
        read += page
        after = page[-1]
    assert read == ordered
    assert store.list("a/03") == [store.head("a/03")]
    with pytest.raises(LakehouseError):
        store.list(limit=-1)
    with pytest.raises(KeyInvalid):
        store.list("\ud800")


def test_if_absent(store):
    receipt = store.put("k", b"first", if_absent=True)
    with pytest.raises(PreconditionFailed) as caught:
        store.put("k", b"second", if_absent=True)
    assert caught.value.status == 412
    assert store.head("k").etag == receipt.etag
    store.delete("k")
    assert store.put("k", b"third", if_absent=True).size == 5


def test_if_match(store):
    first = store.put("k", b"first").etag
    second = store.put("k", b"second", if_match=first).etag
    for etag in (first, "", "*", f'"{second}"'):
        with pytest.raises(PreconditionFailed):
            store.put("k", b"third", if_match=etag)
    assert store.get("k") == b"second"
    with pytest.raises(PreconditionFailed, match="gone"):
        store.put("other", b"x", if_match=second)
    with pytest.raises(LakehouseError, match="exclude"):
        store.put("k", b"x", if_match=second, if_absent=True)
    assert keys(store) == ["k"]


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
def test_a_condition_is_looked_at_again_when_the_stream_has_ended(store, condition):
    etag = store.put("matched", b"old").etag
    key, how = ("new", {"if_absent": True}) if condition == "if_absent" else ("matched", {"if_match": etag})

    def slow():
        yield b"x"
        store.put(key, b"meanwhile")

    with pytest.raises(PreconditionFailed):
        store.put(key, slow(), **how)
    assert store.get(key) == b"meanwhile"


def test_a_condition_that_fails_reads_nothing(store):
    store.put("k", b"old")
    stream = io.BytesIO(b"new")
    with pytest.raises(PreconditionFailed):
        store.put("k", stream, if_absent=True)
    assert stream.tell() == 0


def test_a_handle_stays_on_its_content(store):
    store.put("k", b"old content")
    with store.open("k") as replaced, store.open("k") as deleted:
        assert replaced.read(4) == b"old "
        store.put("k", b"new")
        assert replaced.read() == b"content"
        store.delete("k")
        assert deleted.read() == b"old content"


def test_nothing_is_seen_before_the_put_is_done(store):
    store.put("k", b"old")

    def watched():
        for _ in range(3):
            yield b"x" * CHUNK
            assert store.get("k") == b"old"
            assert keys(store) == ["k"]

    store.put("k", watched())
    assert store.head("k").size == 3 * CHUNK


def test_readers_and_writers_at_once(store):
    store.put("k", b"0" * 1000)
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            try:
                content = store.get("k")
                info = store.head("k")
                if len(set(content)) != 1 or len(content) != 1000 or info.size != 1000 or keys(store) != ["k"]:
                    wrong.append(content)
            except BaseException as error:
                wrong.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    writers = [
        threading.Thread(target=lambda: [store.put("k", bytes([48 + n % 10]) * 1000) for n in range(60)])
        for _ in range(2)
    ]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert wrong == []


def test_threads_that_race_for_one_key(store):
    results = []

    def race(number):
        try:
            results.append(store.put("k", bytes([number]), if_absent=True).sha256)
        except PreconditionFailed:
            results.append(None)

    for _ in range(5):
        results.clear()
        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 8
        assert [sha256 for sha256 in results if sha256] == [store.head("k").sha256]
        store.delete("k")


def test_fetch_gives_a_file(store, tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    store.put("landing/flights.csv.gz", b"content")
    path = store.fetch("landing/flights.csv.gz", folder)
    assert path == folder / "flights.csv.gz"
    store.put("landing/flights.csv.gz", b"other")
    assert path.read_bytes() == b"content"
    path.unlink()
    assert store.get("landing/flights.csv.gz") == b"other"
    store.put("É" * 500 + ".csv", b"long")
    assert store.fetch("É" * 500 + ".csv", folder).suffix == ".csv"
    with pytest.raises(ObjectNotFound):
        store.fetch("missing", folder)
    for target in (tmp_path / "nowhere", folder):  # no such folder; a file of that name is there
        with pytest.raises(LakehouseError):
            store.fetch("É" * 500 + ".csv", target)
    assert len(list(folder.iterdir())) == 1
