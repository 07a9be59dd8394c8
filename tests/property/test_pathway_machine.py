"""The pathway memory against a plain dict, step by step; and again from the journal alone."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lakehouse import errors
from lakehouse.pathway.store import Pathway

CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
UIDS = st.sampled_from(["a", "b", "c", "d"])


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.pathway = Pathway(self.folder, sync="never")
        self.model = {}
        self.past = []

    def teardown(self):
        self.pathway.close()
        shutil.rmtree(self.folder)

    def expected(self, act, uid, missing=errors.TraceNotFound):
        if uid in self.model:
            act()
            return True
        with pytest.raises(missing):
            act()
        return False

    @rule(uid=UIDS, content=CONTENT)
    def add(self, uid, content):
        if uid in self.model:
            with pytest.raises(errors.AlreadyExists):
                self.pathway.add(content, uid=uid)
        else:
            self.pathway.add(content, uid=uid)
            self.model[uid] = {"content": [content], "replays": 0, "retired": None, "score": None, "before": None}

    @rule(uid=UIDS, content=CONTENT)
    def add_idempotent(self, uid, content):
        trace = self.pathway.add_idempotent(content, uid=uid)
        if uid in self.model:
            self.model[uid]["replays"] += 1
        else:
            self.model[uid] = {"content": [content], "replays": 0, "retired": None, "score": None, "before": None}
        assert trace.replay_count == self.model[uid]["replays"]

    @rule(uid=UIDS, content=CONTENT, version=st.none() | st.integers(1, 3))
    def update(self, uid, content, version):
        def act():
            self.pathway.update(uid, content, if_version=version)

        if uid in self.model and version not in (None, len(self.model[uid]["content"])):
            with pytest.raises(errors.Conflict):
                act()
        elif self.expected(act, uid):
            self.model[uid]["content"].append(content)

    @rule(uid=UIDS, new=UIDS, content=CONTENT)
    def revise(self, uid, new, content):
        if uid in self.model and new in self.model:
            with pytest.raises(errors.AlreadyExists):
                self.pathway.revise(uid, content, new_uid=new)
        elif self.expected(lambda: self.pathway.revise(uid, content, new_uid=new), uid):
            self.model[new] = {"content": [content], "replays": 0, "retired": None, "score": None, "before": uid}

    @rule(uid=UIDS, reason=st.none() | st.text(st.characters(codec="utf-8"), max_size=3))
    def retire(self, uid, reason):
        if self.expected(lambda: self.pathway.retire(uid, reason), uid) and self.model[uid]["retired"] is None:
            self.model[uid]["retired"] = (reason,)

    @rule(uid=UIDS)
    def restore(self, uid):
        if self.expected(lambda: self.pathway.restore(uid), uid):
            self.model[uid]["retired"] = None

    @rule(uid=UIDS, score=st.floats(-10, 10))
    def feedback(self, uid, score):
        if self.expected(lambda: self.pathway.feedback(uid, score), uid):
            self.model[uid]["score"] = score

    @rule()
    def remember(self):
        self.past.append((self.pathway.stats().records, self.pathway.get_all(include_retired=True)))

    @precondition(lambda self: self.past)
    @rule()
    def look_back(self):
        for position, traces in self.past:
            assert self.pathway.get_all(include_retired=True, as_of=position) == traces

    @rule()
    def compact(self):
        self.pathway.compact()

    @precondition(lambda self: self.pathway.journal.path.exists())
    @rule(line=st.sampled_from([b"damage\n", b'{"seq":1,"torn', b"\n"]))
    def damage(self, line):
        with self.pathway.journal.path.open("ab") as file:
            file.write(line)

    @rule(uid=UIDS, content=CONTENT)
    def add_many_with_one_that_may_be_there(self, uid, content):
        def act():
            self.pathway.add_many([{"content": content, "uid": uid}])

        if uid in self.model:
            with pytest.raises(errors.AlreadyExists):
                act()
        else:
            act()
            self.model[uid] = {"content": [content], "replays": 0, "retired": None, "score": None, "before": None}

    @rule()
    def lose_everything_but_the_journal(self):
        self.pathway.close()
        for file in self.folder.iterdir():
            if file.name != "traces.jsonl":
                file.unlink()
        self.pathway = Pathway(self.folder, sync="never")

    @invariant()
    def is_what_the_model_says(self):
        traces = {trace.uid: trace for trace in self.pathway.get_all(include_retired=True)}
        assert set(traces) == set(self.model)
        for uid, trace in traces.items():
            want = self.model[uid]
            assert trace.content == want["content"][-1]
            assert [version.content for version in self.pathway.versions(uid)] == want["content"]
            assert (trace.replay_count, trace.retired) == (want["replays"], want["retired"] is not None)
            assert (trace.score, trace.predecessor) == (want["score"], want["before"])
            assert trace.retired_reason == (want["retired"] or (None,))[0]
        live = {uid for uid, want in self.model.items() if want["retired"] is None}
        assert {found.trace.uid for found in self.pathway.search()} == live


TestPathway = Machine.TestCase
TestPathway.settings = settings(max_examples=40, stateful_step_count=30)
