"""The folder of a local store: what is in it, what may not be, what the dead leave and what memory it takes."""

import hashlib
import os
import resource
import signal
import subprocess
import tracemalloc
from contextlib import contextmanager

import pytest

from lakehouse.errors import DiskFull, LakehouseError, LakeUnusable, LockTimeout, ObjectNotFound
from lakehouse.storage import local, names, tree
from lakehouse.storage.base import CHUNK
from lakehouse.storage.local import Cleaned, LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "objects")


def files(store):
    return sorted(str(path.relative_to(store.folder)) for path in store.folder.rglob("*") if not path.is_dir())


def own(store, key):
    """The folder of an object."""
    return store.folder.joinpath("keys", *names.folders(key))


def test_one_file_per_object_whose_name_has_its_hash(store):
    for content in (b"one", b"two", b"three"):
        store.put("landing/A.csv", content)
    sha256 = hashlib.sha256(b"three").hexdigest()
    assert files(store) == [f"keys/landing+/%41.csv@/0000000000000003.{sha256}"]
    store.delete("landing/A.csv")
    assert sorted(path.name for path in store.folder.rglob("*")) == ["incoming", "keys"]


def test_head_and_list_do_not_read_the_content(store):
    store.put("k", b"content")
    file = next(own(store, "k").iterdir())
    file.chmod(0)
    file.write_bytes(b"") if os.geteuid() == 0 else None
    assert store.head("k").etag == hashlib.sha256(b"content").hexdigest()
    assert store.list()[0].sha256 == hashlib.sha256(b"content").hexdigest()


def test_objects_cannot_be_written_to_and_follow_the_umask(store, tmp_path):
    before = os.umask(0o027)
    try:
        store.put("k", b"content")
    finally:
        os.umask(before)
    assert next(own(store, "k").iterdir()).stat().st_mode & 0o777 == 0o440
    fetched = store.fetch("k", tmp_path)
    assert fetched.stat().st_nlink == 2


def test_fetch_copies_where_a_second_name_is_not_to_be_had(store, tmp_path, monkeypatch):
    store.put("k", b"content")

    def refuse(*_args, **_kwargs):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    fetched = store.fetch("k", tmp_path)
    assert fetched.read_bytes() == b"content"
    assert fetched.stat().st_nlink == 1


@pytest.mark.parametrize("where", ["", "keys", "keys/a+", "keys/a+/b@", "incoming"])
def test_links_in_the_folder_lead_nowhere(store, tmp_path, where):
    """A folder of the store replaced by a link to a place outside that looks the same."""
    outside = tmp_path / "outside"
    other = LocalStore(outside)
    other.put("a/b", b"secret")
    store.put("a/b", b"mine")
    place = store.folder / where
    target = outside / where
    subprocess.run(["rm", "-r", str(place)], check=True)
    place.symlink_to(target)
    before = files(other)
    if where == "":  # where the store is, is for its owner to say
        assert store.get("a/b") == b"secret"
        return
    with pytest.raises(LakeUnusable, match="links are not followed"):
        store.put("a/b", b"mine")
    if where != "incoming":
        for act in (
            store.get,
            store.head,
            store.delete,
            lambda key: store.fetch(key, tmp_path),
            lambda _: store.list(),
        ):
            with pytest.raises(LakeUnusable, match="links are not followed"):
                act("a/b")
    with pytest.raises(LakeUnusable):
        store.clean()
    assert files(other) == before
    assert other.get("a/b") == b"secret"


def test_a_link_in_the_place_of_the_content_is_not_read(store, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    store.put("k", b"mine")
    file = next(own(store, "k").iterdir())
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    for act in (store.get, store.head, lambda _: store.list()):
        with pytest.raises(LakeUnusable, match="links are not followed"):
            act("k")
    with pytest.raises(LakehouseError):
        store.fetch("k", tmp_path)
    store.put("k", b"new")
    assert store.get("k") == b"new"
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_what_others_put_into_the_folder_is_no_object(store):
    store.put("a/b", b"1")
    for stray in (".DS_Store", "readme.txt", "A@", "%61@", "..@", "%ff@", "%2f@", "@", "a+/..+/x@", "x@/file"):
        path = store.folder / "keys" / stray
        path.mkdir(parents=True)
        (path / f"{1:016x}.{'0' * 64}").write_bytes(b"")
    (store.folder / "keys" / "note").write_bytes(b"")
    (store.folder / "incoming" / "note").write_bytes(b"")
    assert [info.key for info in store.list()] == ["a/b"]
    assert store.get("a/b") == b"1"
    with pytest.raises(ObjectNotFound):
        store.get("x")
    assert store.clean() == Cleaned(0, 0)
    assert (store.folder / "incoming" / "note").exists()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "objects").write_bytes(b"")
    store = LocalStore(tmp_path / "objects")
    for act in (
        store.get,
        store.delete,
        lambda key: store.put(key, b""),
        lambda _: store.list(),
        lambda _: store.clean(),
    ):
        with pytest.raises(LakeUnusable):
            act("k")


def test_clean_removes_what_the_dead_left_and_nothing_else(store):
    for number in range(3):
        store.put(f"a/{number}", b"x" * number)
    (store.folder / "incoming" / ("0" * 32)).write_bytes(b"x" * 100)
    hidden = own(store, "a/2") / f"{0:016x}.{'0' * 64}"
    hidden.write_bytes(b"x" * 10)
    own(store, "a/dead").mkdir()
    own(store, "b/c/dead").mkdir(parents=True)
    (store.folder / "keys/d+/e+").mkdir(parents=True)
    everything = sorted(store.folder.rglob("*"))
    assert [info.key for info in store.list()] == ["a/0", "a/1", "a/2"]

    def stream():
        yield b"y" * 1000
        assert store.clean(dry_run=True) == Cleaned(2, 110)
        living = [path for path in (store.folder / "incoming").iterdir() if path.name != "0" * 32]
        assert sorted(store.folder.rglob("*")) == sorted([*everything, *living])
        assert store.clean() == Cleaned(2, 110)
        yield b"z"

    store.put("new", stream())
    assert store.get("new") == b"y" * 1000 + b"z"
    assert [store.get(f"a/{number}") for number in range(3)] == [b"", b"x", b"xx"]
    assert [path.name for path in (store.folder / "keys").iterdir() if path.name not in ("a+", "new@")] == []
    assert not own(store, "a/dead").exists()
    assert store.clean() == Cleaned(0, 0)
    assert LocalStore(store.folder / "nowhere").clean() == Cleaned(0, 0)


@pytest.mark.parametrize("act", [lambda store: store.put("k", b"new"), lambda store: store.delete("k")])
def test_an_old_file_behind_the_new_one_never_comes_to_light(store, act):
    store.put("k", b"current")
    (own(store, "k") / f"{0:016x}.{'0' * 64}").write_bytes(b"old")
    assert store.get("k") == b"current"
    act(store)
    assert len(files(store)) <= 1
    assert b"old" not in [store.get(info.key) for info in store.list()]


def test_a_stream_taken_for_dead_at_birth_starts_again(store, monkeypatch):
    """A cleaner that comes between the making of the file and its lock."""
    real, calls = tree.try_lock, []

    def cleaned_first(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            assert store.clean() == Cleaned(1, 0)
        return real(descriptor)

    monkeypatch.setattr(local, "try_lock", cleaned_first)
    store.put("k", b"content")
    assert store.get("k") == b"content"
    assert len(calls) > 1
    assert os.listdir(store.folder / "incoming") == []


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_removed_by_a_delete_while_a_put_waits_for_it(store, monkeypatch, again):
    """And, the second time, made anew by another put."""
    store.put("a/k", b"old")
    real, calls = tree.try_lock, []

    def deleted_first(descriptor):
        if not calls:
            calls.append(descriptor)
            assert store.delete("a/k")
            if again:
                store.put("a/k", b"between")
        return real(descriptor)

    monkeypatch.setattr(tree, "try_lock", deleted_first)
    store.put("a/k", b"new")
    assert calls
    assert store.get("a/k") == b"new"


def test_an_object_that_another_process_holds(store, child):
    store.put("k", b"old")
    code = """
        import fcntl, os
        folder = os.open(args[0], os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        say(1)
        sys.stdin.readline()
    """
    holder = child(code, own(store, "k"))
    assert holder.hear() == 1
    impatient = LocalStore(store.folder, lock_timeout=0.05)
    for act in (lambda: impatient.put("k", b"new"), lambda: impatient.delete("k")):
        with pytest.raises(LockTimeout):
            act()
    assert impatient.get("k") == b"old"
    assert files(store) == files(impatient)
    assert len(files(store)) == 1
    assert impatient.put("other", b"new").size == 3
    holder.kill()
    assert impatient.put("k", b"new").size == 3


def test_a_disk_that_cannot_flush_acknowledges_nothing(store, monkeypatch):
    """Every fsync of a put fails once, in turn: an error, and the old object."""
    store.put("a/k", b"old")
    real = os.fsync
    left = [0]

    def fail(descriptor):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    for number in range(1, 6):  # the content, the store's folder, keys, a+, k@
        left[0] = number
        with pytest.raises(LakeUnusable, match="Input/output error"):
            store.put("a/k", b"new")
        assert store.get("a/k") == b"old"
        assert len(files(store)) == 1
    left[0] = 6
    store.put("a/k", b"new")
    assert left[0] == 1  # there was no sixth
    assert store.get("a/k") == b"new"


def test_memory_stays_flat(store):
    """128 MiB go through; what the process has allocated at its peak is a few pieces."""
    store.put("warm", b"")
    piece = os.urandom(CHUNK)
    (store.folder.parent / "big").write_bytes(piece * 128)
    tracemalloc.start()
    try:
        for data in ((piece * 1 for _ in range(128)), store.folder.parent / "big"):
            tracemalloc.reset_peak()
            assert store.put("big", data).size == 128 * CHUNK
            assert tracemalloc.get_traced_memory()[1] < 6 * CHUNK
        tracemalloc.reset_peak()
        with store.open("big") as file:
            while file.read(CHUNK):
                pass
        assert tracemalloc.get_traced_memory()[1] < 6 * CHUNK
    finally:
        tracemalloc.stop()


SIZE = 3 << 20


@contextmanager
def small_disk(folder):
    """Little room: a file system of three megabytes as root, else a limit on the size of files."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk"):
        store = LocalStore(tmp_path / "disk" / "objects")
        store.put("k", b"old" * 1000)
        for key in ("k", "new/one"):
            with pytest.raises(DiskFull) as caught:
                store.put(key, (b"x" * CHUNK for _ in range(8)))
            assert caught.value.hint
        assert store.get("k") == b"old" * 1000
        assert len(files(store)) == 1
        assert store.clean() == Cleaned(0, 0)
        assert store.put("k", b"x" * (2 << 20)).size == 2 << 20  # the room is there again
        folder = tmp_path / "disk" / "fetched"
        folder.mkdir()
        assert store.fetch("k", folder).stat().st_size == 2 << 20  # no second copy


def test_a_folder_that_cannot_be_read_says_so(store, monkeypatch):
    store.put("k", b"old")

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    for act in (
        lambda: store.get("k"),
        lambda: store.put("k", b""),
        store.list,
        lambda: store.delete("k"),
        store.clean,
    ):
        with pytest.raises(LakeUnusable, match="Permission denied"):
            act()
