"""The runs of reports as they are kept: objects of the lake under `reports/NAME/ID/`.

`run.json` says how far a run is and how it ended; the artefacts stand beside it. A run that says it is running while
nobody holds its lock was interrupted.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lakehouse.errors import ObjectNotFound, RunNotFound
from lakehouse.reports.model import Fault, ReportRun, check_name

if TYPE_CHECKING:
    from lakehouse.storage.base import ObjectStore

PREFIX = "reports"
UNDER_WAY = ("queued", "running")
_PAGE = 1000


class Records:
    """The runs of all reports of a lake.

    Args:
        storage: the objects of the lake.
        temp: the folder for locks and marks, shared by the processes of the lake.
    """

    def __init__(self, storage: ObjectStore, temp: Path) -> None:
        self.storage = storage
        self._temp = temp / PREFIX

    def save(self, run: ReportRun) -> ReportRun:
        """Keep how a run stands."""
        self.storage.put(key(run.report, run.id, "run.json"), msgspec.json.format(msgspec.json.encode(run)))
        return run

    def keep(self, run: ReportRun, name: str, content: bytes) -> str:
        """Keep an artefact of a run; its key is returned."""
        return self.storage.put(key(run.report, run.id, name), content).key

    def get(self, id: str) -> ReportRun:
        """A run by its id.

        Raises:
            RunNotFound: there is none.
        """
        report = id.rpartition("--")[0]
        try:
            check_name(report)
            content = self.storage.get(key(report, id, "run.json"))
        except Exception as error:
            if isinstance(error, ObjectNotFound) or not report or "/" in id:
                raise RunNotFound(f"there is no run '{id:.120}'", hint="list them: lake.reports.runs()") from None
            raise
        return self._seen(msgspec.json.decode(content, type=ReportRun))

    def runs(self, report: str | None, limit: int) -> list[ReportRun]:
        """Runs, newest first."""
        prefix = f"{PREFIX}/{check_name(report)}/" if report is not None else f"{PREFIX}/"
        keys, after = [], None
        while page := self.storage.list(prefix, _PAGE, after):
            keys += [info.key for info in page if info.key.endswith("/run.json")]
            after = page[-1].key
        keys.sort(key=lambda one: one.rsplit("/", 2)[-2].rpartition("--")[2], reverse=True)
        found = (msgspec.json.decode(self.storage.get(one), type=ReportRun) for one in keys[:limit])
        return [self._seen(run) for run in found]

    def answer(self, report: str, question: str) -> ReportRun | None:
        """The run that answers a question (a hash of code, parameters and snapshot), if one ended well."""
        try:
            return self.get(self.storage.get(_answer(report, question)).decode())
        except (ObjectNotFound, RunNotFound):
            return None

    def answered(self, run: ReportRun, question: str) -> None:
        """Let a run be the answer to a question."""
        self.storage.put(_answer(run.report, question), run.id.encode())

    def requested(self, report: str, request: str) -> ReportRun | None:
        """The run that was begun for a request; None when there is none."""
        try:
            return self.get(self.storage.get(_request(check_name(report), request)).decode())
        except (ObjectNotFound, RunNotFound):
            return None

    def promised(self, run: ReportRun, request: str) -> None:
        """Let a run be known by a request, before it is kept: one that is not kept was not begun."""
        self.storage.put(_request(run.report, request), run.id.encode())

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold the lock of a run or a question, waiting for whoever has it; the kernel frees that of a dead process."""
        self._temp.mkdir(parents=True, exist_ok=True)
        path = self._temp / f"{name}.lock"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    break
            except FileNotFoundError:
                pass  # whoever had it before has removed it
            os.close(descriptor)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def cancel(self, id: str) -> bool:
        """Ask for the end of a run, in whatever process it is; False when it is not under way."""
        if self.get(id).status not in UNDER_WAY:
            return False
        (self._temp / f"{id}.cancel").touch()
        return True

    def cancelled(self, id: str) -> bool:
        """Whether somebody asked for the end of a run."""
        return (self._temp / f"{id}.cancel").exists()

    def forget_cancel(self, id: str) -> None:
        """The run has ended."""
        (self._temp / f"{id}.cancel").unlink(missing_ok=True)

    def _seen(self, run: ReportRun) -> ReportRun:
        if run.status not in UNDER_WAY or self._held(run.id):
            return run
        try:  # it may have ended between the two looks
            now = msgspec.json.decode(self.storage.get(key(run.report, run.id, "run.json")), type=ReportRun)
        except ObjectNotFound:
            now = run
        if now.status not in UNDER_WAY:
            return now
        fault = Fault("Interrupted", "the process that ran it has gone")
        return msgspec.structs.replace(run, status="interrupted", error=fault)

    def _held(self, name: str) -> bool:
        try:
            descriptor = os.open(self._temp / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)


def key(report: str, id: str, name: str) -> str:
    """The key of what belongs to a run."""
    return f"{PREFIX}/{report}/{id}/{name}"


def _request(report: str, request: str) -> str:
    return f"{PREFIX}/{report}/requests/{request}"


def _answer(report: str, question: str) -> str:
    return f"{PREFIX}/{report}/answers/{question}"
