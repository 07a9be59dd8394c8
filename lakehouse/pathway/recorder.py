"""`lake.pathway`: the memory, and what makes it one of analyses: recording, replaying, suggesting."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lakehouse.arguments import arguments_told
from lakehouse.catalog.origin import origin
from lakehouse.catalog.secrets import masked, secret
from lakehouse.errors import LakeReadOnly, QueryError, TraceInvalid
from lakehouse.pathway import steps
from lakehouse.pathway.inputs import inputs_of, made_by
from lakehouse.pathway.model import Found, Trace
from lakehouse.pathway.replay import RECORDED, Replay, forget, replayed
from lakehouse.pathway.store import Pathway
from lakehouse.pathway.values import LOST, encoded
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.metadata import Version

A = TypeVar("A")

ANALYSIS = "analysis"
"""The kind of the traces that `record` makes."""

_STEPS = 1_000  # of one recording; how many came after is kept
_ROOM = 1 << 20  # bytes of rows of all results of one recording
_SQL = 100_000  # characters of SQL of one step


class Lake(Protocol):
    """What recording and replaying need of the lake; `Lakehouse` is one."""

    catalog: Catalog
    read_only: bool

    @property
    def sql(self) -> Callable[..., Any]: ...
    def branch(self, name: str) -> AbstractContextManager[Any]: ...


class Recording:
    """An analysis while it is recorded; made by `lake.pathway.record(…)`.

    Attributes:
        question: what it is to answer.
        trace: the trace it was kept as; None until the block has ended.
    """

    def __init__(self, recorder: Recorder, question: str, tags: Iterable[str], scope: Mapping[str, str]) -> None:
        self._recorder = recorder
        self._tags = tuple(tags)
        self._scope = dict(scope)
        self._began = recorder.lake_snapshot()
        self._steps: list[dict[str, Any]] = []
        self._answers: list[Any] = []
        self._left_out = 0
        self._room = _ROOM
        self._conclusion: str | None = None
        self.question = question
        self.trace: Trace | None = None

    def conclude(self, text: str) -> None:
        """Say what was found; after the block has ended this becomes the next version of its trace.

        Raises:
            TraceInvalid: no text, or only white space.
        """
        if not isinstance(text, str) or not text.strip():
            raise TraceInvalid(f"a conclusion is a text, not {text!r}")
        self._conclusion = text.strip()
        if self.trace is not None:
            content = {**self.trace.content, "conclusion": self._conclusion}
            self.trace = self._recorder.update(self.trace.uid, content)

    def add(self, step: dict[str, Any], answer: Any) -> None:
        """Take in a step; `answer` is its result, for later steps that read it as a table."""
        if len(self._steps) >= _STEPS:
            self._left_out += 1
            return
        self._room -= len(json.dumps(step.get("first", ())))
        self._steps.append(step)
        self._answers.append(answer)

    @property
    def room(self) -> int:
        """Bytes that rows of results may still take."""
        return max(0, self._room)

    def place_of(self, value: Any) -> int | None:
        """The number of the step that gave a result, from 1; None when none did."""
        return next((number for number, answer in enumerate(self._answers, 1) if answer is value), None)

    def keep(self, error: BaseException | None) -> None:
        """Make a trace of it."""
        content: dict[str, Any] = {"question": self.question, "began": self._began, "steps": self._steps}
        if self._conclusion is not None:
            content["conclusion"] = self._conclusion
        if self._left_out:
            content["left_out"] = self._left_out
        if error is not None:
            content["error"] = steps.fault(error)
        self.trace = self._recorder.add(content, kind=ANALYSIS, tags=self._tags, scope=self._scope)
        self._answers.clear()

    def __repr__(self) -> str:
        many = counted(len(self._steps), "step")
        if self.trace is None:
            return f"<Recording '{self.question}', {many} so far>"
        concluded = f": {self._conclusion}" if self._conclusion else "; conclude it with .conclude('…')"
        return f"recorded as {self.trace.uid}, {many}{concluded}"


@arguments_told
class Recorder(Pathway):
    """The memory of one lake.

    Args:
        folder: where the journal and its index are, or will be.
        lake: whose analyses are recorded, and where they are replayed.
    """

    def __init__(self, folder: Path, lake: Lake) -> None:
        super().__init__(folder, read_only=lake.read_only, snapshot=lake.catalog.metadata.current)
        self._lake = lake
        self._local = threading.local()

    @contextmanager
    def record(
        self, question: str, *, tags: Iterable[str] = (), scope: Mapping[str, str] | None = None
    ) -> Iterator[Recording]:
        """Keep how a question is answered: every `lake.sql` of this thread inside the block is a step of one trace.

        A step keeps the SQL, the values of its parameters, the tables it read and their snapshot, how many rows
        came, the first of them, the time it took, or the error. What looks like a secret in the SQL is masked. Beyond
        1,000 steps their number is kept.

        Args:
            question: what is to be answered, in words by which it is found again.
            tags: labels to find it by.
            scope: whose it is: `{"user": …, "agent": …}`; the notebook or script is added when it is known.

        Raises:
            TraceInvalid: the question is empty.
            LakeReadOnly: the lake is open for reading only.
            QueryError: another recording is under way in this thread.
        """
        if not question.strip():
            raise TraceInvalid(f"a question is a text, not {question!r}")
        if self._read_only:
            raise LakeReadOnly
        if self.recording is not None:
            raise QueryError("a recording is under way already", hint=f"end the one of '{self.recording.question}'")
        recording = self._local.recording = Recording(self, question.strip(), tags, {**_place(), **(scope or {})})
        error: BaseException | None = None
        try:
            yield recording
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._local.recording = None
            recording.keep(error)

    @property
    def recording(self) -> Recording | None:
        """The one under way in this thread."""
        return getattr(self._local, "recording", None)

    def noted(self, sql: str, params: Any, options: Mapping[str, Any], work: Callable[[], A]) -> A:
        """What `work` gives or raises; while this thread records, it is a step."""
        recording = self.recording
        if recording is None:
            return work()
        before = self.lake_snapshot()
        begun = time.perf_counter()
        step = self._step(recording, sql, params, options)
        try:
            result = work()
        except Exception as error:
            elapsed = time.perf_counter() - begun
            recording.add({**step, "error": steps.fault(error), "snapshot": before, "elapsed": round(elapsed, 6)}, None)
            raise
        self._local.recording = None  # what is read to keep the result is no step
        try:
            recording.add({**step, **self._outcome(sql, result, before, recording.room)}, result)
        finally:
            self._local.recording = recording
        return result

    def replay(self, uid: str, at: Version | None = None, *, tables: Mapping[str, Any] | None = None) -> Replay:
        """Run the steps of a recorded analysis again and compare what they give; the replay is counted.

        Args:
            uid: its trace.
            at: None: on the lake as it is now, without the tables that its steps make; `"recorded"`: on what it saw
                then; else on this version. Steps that write do so in a branch that is thrown away.
            tables: the frames, by name, that its steps read; earlier results of the analysis need not be given.

        Raises:
            TraceNotFound: there is no such trace.
            TraceInvalid: it is no recorded analysis.
            LakeReadOnly: the lake is open for reading only.
        """
        trace = self.get(uid)
        kept = trace.content.get("steps") if isinstance(trace.content, Mapping) else None
        if not isinstance(kept, list) or not all(isinstance(step, Mapping) and "sql" in step for step in kept):
            raise TraceInvalid(f"trace {uid} is no recorded analysis", hint="lake.pathway.record(…) makes one")
        if self._read_only:
            raise LakeReadOnly
        with ExitStack() as stack:
            run, when = self._lake.sql, at
            if at is None or any(step.get("kind", "read") != "read" for step in kept):
                branch = stack.enter_context(self._lake.branch(f"replay-{uuid.uuid4().hex[:12]}"))
                if at is not None:
                    branch.lake.rollback(trace.content.get("began") if at == RECORDED else at)
                else:
                    forget(branch.lake, kept)
                run, when = branch.sql, None
            compared = replayed(kept, run, when, tables or {})
        with self._writing() as writing:
            outcome = {
                verdict: sum(one.verdict == verdict for one in compared) for verdict in ("same", "changed", "failed")
            }
            writing.append({"op": "replay", "uid": uid, "outcome": outcome})
        return Replay(self.get(uid), at, tuple(compared))

    def similar(self, question: str, limit: int = 5) -> list[Found]:
        """How questions like this one were answered before: recorded analyses, best first."""
        return list(self.search(question, kind=ANALYSIS, limit=limit))

    def _outcome(self, sql: str, result: Any, before: int, room: int) -> dict[str, Any]:
        """What is kept of a query that ran; `before` is the snapshot that a write began from."""
        ran = {"kind": result.kind, "snapshot": result.snapshot, "elapsed": round(result.elapsed, 6)}
        ran["inputs"] = inputs_of(sql, self._lake.catalog, result.snapshot if result.kind == "read" else before)
        if made := made_by(sql):
            ran["makes"] = made
        return {**ran, **steps.facts(result, room)}

    def lake_snapshot(self) -> int:
        """The lake's snapshot now."""
        return self._lake.catalog.metadata.current()

    def _step(self, recording: Recording, sql: str, params: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        shown = masked(sql)[:_SQL]
        step: dict[str, Any] = {"sql": shown, "started": datetime.now(UTC).isoformat(timespec="milliseconds")}
        if shown != sql:
            step["lost"] = "is too long" if len(sql) > _SQL else "holds a secret"
        if params is not None:
            step["params"] = _kept(params)
        if options.get("at") is not None:
            step["at"] = encoded(options["at"])
        if options.get("limit") is not None:
            step["limit"] = options["limit"]
        if frames := options.get("tables"):
            step["tables"] = {name: recording.place_of(value) for name, value in frames.items()}
        return step


def _place() -> dict[str, str]:
    found = origin()
    return {found.kind: found.name} if found.name is not None else {}


def _kept(params: Any) -> Any:
    """The values of parameters, but for those that are secrets by their name."""
    if not isinstance(params, Mapping):
        return encoded(list(params))
    return {name: {LOST: "secret"} if secret(str(name)) else encoded(value) for name, value in params.items()}
