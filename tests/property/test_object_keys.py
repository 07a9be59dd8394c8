"""Any key that is one round-trips and sorts; any that is not is refused, and nothing outside the folder is touched."""

import os
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from lakehouse.errors import KeyInvalid, LakehouseError
from lakehouse.storage import names
from lakehouse.storage.base import check_key
from lakehouse.storage.local import LocalStore
from lakehouse.storage.memory import MemoryStore

CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\/")
PARTS = st.one_of(
    st.text(CHARACTERS, min_size=1, max_size=6),
    st.sampled_from(
        ["a", "A", "a+", "a@", "a~", "%61", "%", "...", " ", "x" * 79, "x" * 80, "x" * 81, "x" * 160, "é" * 40]
    ),
).filter(lambda part: part not in (".", ".."))
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
HOSTILE = st.one_of(
    st.lists(st.sampled_from(["..", ".", "", "a", "etc", "\\", "\x00", "~", "C:", "\n", "\x9b"]), max_size=5).map(
        "/".join
    ),
    st.text(max_size=8),
    st.builds("{}/{}".format, KEYS, st.sampled_from(["..", ".", "", "\\..\\x", "\x00"])),
    st.integers(1025, 2000).map("x".__mul__),
)


def outside(folder):
    """Everything below a folder but the store, with what is in it."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "objects" not in path.relative_to(folder).parts
    }


@settings(max_examples=40)
@given(keys=st.lists(KEYS, min_size=1, max_size=8, unique=True))
def test_valid_keys_round_trip_in_order(tmp_path, keys):
    store = LocalStore(tmp_path / uuid.uuid4().hex / "objects")
    for key in keys:
        assert store.put(key, key.encode(), if_absent=True).key == key
    ordered = sorted(keys, key=str.encode)
    assert [info.key for info in store.list()] == ordered
    assert [store.get(key) for key in keys] == [key.encode() for key in keys]
    assert outside(store.folder.parent) == {}
    for key in keys:
        for prefix in (key, key[:1], key[:-1]):
            assert [info.key for info in store.list(prefix)] == [k for k in ordered if k.startswith(prefix)]
        assert [info.key for info in store.list(after=key)] == ordered[ordered.index(key) + 1 :]
    for key in keys:
        assert store.delete(key)
    assert os.listdir(store.folder / "keys") == []


@settings(max_examples=150)
@given(key=HOSTILE)
def test_hostile_keys_touch_nothing_outside(tmp_path, key):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    (home / "etc").write_bytes(b"secret")
    store = LocalStore(home / "objects" / "deep")
    before = outside(home)
    try:
        check_key(key)
        valid = True
    except KeyInvalid:
        valid = False
    parts = key.split("/")
    assert valid == (
        0 < len(key.encode(errors="surrogatepass")) <= 1024
        and not any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "\\" or 0xD800 <= ord(c) < 0xE000 for c in key)
        and not any(part in ("", ".", "..") for part in parts)
    )
    if valid:
        assert store.put(key, b"mine").key == key
        assert store.get(key) == b"mine"
        assert store.delete(key)
    else:
        for act in (store.get, store.head, store.delete, lambda key: store.put(key, b"mine")):
            with pytest.raises(LakehouseError):
                act(key)
    assert outside(home) == before


@settings(max_examples=300)
@given(key=KEYS, other=KEYS)
def test_spelling(key, other):
    spelled = names.folders(key)
    read = [names.read(name) for name in spelled]
    assert b"".join(raw for raw, _ in read).decode() == key
    assert [mark for _, mark in read].index(names.OBJECT) == len(read) - 1
    assert all(name.isascii() and name == name.lower() and len(name) < 255 for name in spelled)
    assert (spelled == names.folders(other)) == (key == other)
    added, others = [raw for raw, _ in read], [names.read(name)[0] for name in names.folders(other)]
    assert (added < others) == (key.encode() < other.encode())


@settings(max_examples=300)
@given(name=st.one_of(st.text(max_size=8), st.from_regex(r"(?:[a-z.]|%[0-9a-f]{2}){0,4}[+~@]", fullmatch=True)))
def test_a_folder_has_one_spelling(name):
    read = names.read(name)
    if read is not None:
        raw, mark = read
        assert name[-1] == mark
        assert "".join(names._SPELLED[byte] for byte in raw.removesuffix(b"/" if mark == "+" else b"")) == name[:-1]


class Stores(RuleBasedStateMachine):
    """A local store, the memory double and a dictionary always agree."""

    used = Bundle("used")

    @initialize()
    def start(self):
        self.local = LocalStore(self.folder / uuid.uuid4().hex)
        self.memory = MemoryStore()
        self.model = {}

    def both(self, act):
        """What both stores answer, errors included."""
        answers = []
        for store in (self.local, self.memory):
            try:
                answers.append(act(store))
            except LakehouseError as error:
                answers.append(type(error))
        assert answers[0] == answers[1]
        return answers[0]

    @rule(target=used, key=st.sampled_from(["a", "a/b", "a/b/c", "a-", "A", "x" * 80, "x" * 81]) | KEYS)
    def key(self, key):
        return key

    @rule(key=used, data=st.binary(max_size=20))
    def put(self, key, data):
        assert self.both(lambda store: store.put(key, data)).size == len(data)
        self.model[key] = data

    @rule(key=used, data=st.binary(max_size=20))
    def put_if_absent(self, key, data):
        self.both(lambda store: store.put(key, data, if_absent=True))
        self.model.setdefault(key, data)

    @rule(key=used, seen=used, data=st.binary(max_size=20))
    def put_if_match(self, key, seen, data):
        if seen not in self.model:
            return
        etag = self.memory.head(seen).etag
        self.both(lambda store: store.put(key, data, if_match=etag))
        if self.model.get(key) == self.model[seen]:
            self.model[key] = data

    @rule(key=used)
    def delete(self, key):
        assert self.both(lambda store: store.delete(key)) == (self.model.pop(key, None) is not None)

    @rule(key=used)
    def read(self, key):
        content = self.both(lambda store: store.get(key))
        assert content == self.model[key] if key in self.model else issubclass(content, LakehouseError)

    @rule(prefix=used, cut=st.integers(0, 3), limit=st.integers(0, 4), after=st.none() | used)
    def page(self, prefix, cut, limit, after):
        prefix = prefix[:cut]
        found = self.both(lambda store: [info.key for info in store.list(prefix, limit, after)])
        behind = (after or "").encode()
        ordered = sorted((k for k in self.model if k.startswith(prefix) and k.encode() > behind), key=str.encode)
        assert found == ordered[:limit]

    @rule()
    def clean(self):
        assert self.local.clean().files == 0

    @invariant()
    def agree(self):
        if hasattr(self, "model"):
            found = self.both(lambda store: [(info.key, info.size, info.etag) for info in store.list()])
            assert [key for key, *_ in found] == sorted(self.model, key=str.encode)


def test_stores_agree(tmp_path):
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (Stores,), {"folder": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=25))
