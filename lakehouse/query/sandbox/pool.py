"""The workers of one lake: made when they are needed, kept warm for who had them, watched, and killed."""

from __future__ import annotations

import getpass
import os
import tempfile
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.attach import CATALOG_FILE, DATA_FOLDER
from lakehouse.catalog.lock import LOCK_FILE
from lakehouse.config import Settings, parse_size
from lakehouse.errors import LakeClosed, LakehouseError, LakeReadOnly, SandboxBusy, SandboxUnavailable
from lakehouse.query.sandbox.confine import Policy, Protection, protection
from lakehouse.query.sandbox.process import ENTRY, FOLDER_PREFIX, Worker
from lakehouse.query.sandbox.wire import Setup

if TYPE_CHECKING:
    from lakehouse.query.sandbox.answer import Answer

QUERIES = 500
"""Statements after which a worker is replaced."""
_AHEAD = 100  # statements before that, when its successor is made
_WORK = 600.0  # seconds of processor time after which a worker is replaced
_FILES = 1024  # files it may have open
_PATIENCE = 60.0  # seconds to wait for a worker when there is no timeout
_GRACE = 1.0  # seconds between being told to stop and being killed
_GRACE_WRITE = 10.0  # the same, for a statement that may be in the middle of its commit
_LONG = 2.0  # seconds after which a query lets others go first
_LOOK = 0.1  # seconds between looks at those that are busy
_IDLE = 600.0  # seconds after which a worker that nobody asks is let go
_SLACK = 64 << 20  # bytes that files may be larger than what is counted in them
_OVERHEAD = 512 << 20  # bytes of memory for Python and the libraries, beside what queries may take


class Pool:
    """Workers for one lake folder.

    Args:
        folder: the lake folder; the lake must be open in this process, for as long as the pool is.
        settings: its effective settings.
        read_only: whether statements that change the lake are refused.
        temp: where each worker gets a folder; None: where the lake has its temporary files.
        catalog: the file that the lake reads as its catalog; None: the one in its folder.
        entry: the module whose `main` a worker runs.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        read_only: bool,
        temp: Path | None = None,
        catalog: Path | None = None,
        entry: str = ENTRY,
    ) -> None:
        self.protection: Protection = protection(settings.query.sandbox)
        self._folder = folder
        self._settings = settings
        self._read_only = read_only
        self._entry = entry
        self._temp = temp or Path(settings.storage.temp_directory or folder / "tmp")
        self._catalog = catalog or folder / CATALOG_FILE
        self.running: weakref.WeakValueDictionary[tuple[str, str], Answer] = weakref.WeakValueDictionary()
        """The answers under way by their principal and query id."""
        self.waiting: set[tuple[str, str]] = set()
        """The same of those that wait for a worker."""
        self._workers: list[Worker] = []
        self._starting: Counter[str] = Counter()
        self._spare = False
        self._changed = threading.Condition()
        self._closed = False
        # A worker dies with the thread that started it (PR_SET_PDEATHSIG), so all are started by one that stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="lakehouse-sandbox")
        self._keeper: threading.Thread | None = None
        # For a lake that nobody closed: the workers die with this process, and their folders go as well.
        self._finish = weakref.finalize(self, _kill, self._workers, os.getpid())

    def acquire(self, principal: str, *, write: bool, timeout: float | None) -> Worker:
        """A ready worker of a principal, which is busy from now on: give it back.

        Args:
            principal: whose it will be; no other principal ever gets it.
            write: one that may change the lake.
            timeout: seconds to wait for one.

        Raises:
            SandboxUnavailable: this machine cannot hold it.
            SandboxBusy: all were busy.
            LakeReadOnly: one that may change the lake was asked for, and the lake is open for reading.
        """
        if self.protection.level == "none":
            raise SandboxUnavailable(
                f"SQL from strangers does not run here: {self.protection.reason}",
                hint="run it on Linux 6.2 or later with Landlock",
            )
        if write and self._read_only:
            raise LakeReadOnly
        deadline = time.monotonic() + (_PATIENCE if timeout is None else timeout)
        with self._changed:
            while True:
                if self._closed:
                    raise LakeClosed(f"the lake {self._folder} is closed", hint="open it again with lakehouse.open()")
                if (worker := self._idle(principal, write)) is not None:
                    return self._taken(worker, principal)
                if self._room(principal):
                    self._starting[principal] += 1
                    break
                if not self._changed.wait(deadline - time.monotonic()):
                    raise SandboxBusy(
                        "all workers for SQL from strangers are busy",
                        hint="try again, or raise query.sandbox_workers",
                    )
        return self._new(principal, write)

    def release(self, worker: Worker, *, clean: bool) -> None:
        """Give a worker back.

        Args:
            worker: one that `acquire` gave; a second call for the same statement does nothing.
            clean: it may run another statement of the same principal; else it is killed.
        """
        keep = clean and worker.served < QUERIES and worker.ending is None and not worker.slow
        keep = keep and worker.worked() < _WORK
        with self._changed:
            if not worker.busy:
                return
            worker.busy, worker.deadline, worker.since = False, None, time.monotonic()
            if keep and not self._closed:
                if worker.served == QUERIES - _AHEAD and not worker.write:
                    self._want_spare()
                self._changed.notify_all()
                return
            self._part_with(worker)
        worker.kill()

    def count(self) -> tuple[int, int]:
        """How many workers there are, and how many of them run a statement."""
        with self._changed:
            return len(self._workers), sum(worker.busy for worker in self._workers)

    def close(self) -> None:
        """Kill all workers."""
        with self._changed:
            self._closed = True
            workers = list(self._workers)
            self._workers.clear()
            self._changed.notify_all()
        for worker in workers:
            worker.ending = worker.ending or "closed"
            worker.kill()
        self._starter.shutdown(cancel_futures=True)

    def _idle(self, principal: str, write: bool) -> Worker | None:
        idle = [one for one in list(self._workers) if not one.busy and one.write == write and self._alive(one)]
        own = [one for one in idle if one.principal == principal] or [one for one in idle if one.principal is None]
        return own[-1] if own and self._may(principal) else None

    def _alive(self, worker: Worker) -> bool:
        """Whether an idle worker is still there: somebody may have killed it."""
        if worker.process.poll() is None:
            return True
        self._workers.remove(worker)
        worker.kill()
        return False

    def _taken(self, worker: Worker, principal: str) -> Worker:
        worker.principal, worker.busy, worker.since = principal, True, time.monotonic()
        worker.ending = worker.told = None
        self._watch()
        return worker

    def _room(self, principal: str) -> bool:
        """Whether one more worker may be started for a principal, if need be in the place of another's idle one."""
        most = self._settings.query.sandbox_workers
        if not self._may(principal):
            return False
        if len(self._workers) + self._starting.total() < most:
            return True
        idle = sorted((one for one in self._workers if not one.busy), key=lambda one: one.since)
        if not idle:
            return False
        self._workers.remove(idle[0])
        threading.Thread(target=idle[0].kill, daemon=True).start()
        return True

    def _may(self, principal: str) -> bool:
        """Whether a principal may have one more busy worker: at most half of all, so that others come in."""
        own = sum(one.busy and one.principal == principal for one in self._workers)
        return own + self._starting[principal] < max(1, self._settings.query.sandbox_workers // 2)

    def _new(self, principal: str, write: bool) -> Worker:
        worker: Worker | None = None
        try:
            worker = self._starter.submit(self._start, write=write).result()
            worker.ready()
        except BaseException:
            if worker is not None:
                worker.kill()
            with self._changed:
                self._starting[principal] -= 1
                self._changed.notify_all()
            if self._closed:
                raise LakeClosed(f"the lake {self._folder} was closed", hint="open it again") from None
            raise
        with self._changed:
            self._starting[principal] -= 1
            if self._closed:
                worker.kill()
                raise LakeClosed(f"the lake {self._folder} is closed", hint="open it again with lakehouse.open()")
            self._workers.append(worker)
            return self._taken(worker, principal)

    def _start(self, *, write: bool) -> Worker:
        try:
            self._temp.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=self._temp))
            return Worker(folder, self._setup(folder, write), self._entry)
        except OSError as error:
            raise SandboxUnavailable(
                f"a worker with its folder in {self._temp} cannot be started: {error.strerror}",
                hint="another folder can be given by storage.temp_directory",
            ) from None

    def _setup(self, folder: Path, write: bool) -> Setup:
        query, catalog = self._settings.query, self._settings.catalog
        spill, memory = parse_size(query.sandbox_spill), parse_size(query.sandbox_memory)
        threads = query.sandbox_threads or os.cpu_count() or 1
        settings: dict[str, dict[str, Any]] = {
            "query": {
                "memory_limit": query.sandbox_memory,
                "threads": threads,
                "cache_size": "0B",
                "buffer_size": query.buffer_size,
                "progress": False,
                "history_rows": 0,
            },
            "storage": {"temp_directory": str(folder), "max_temp_size": query.sandbox_spill},
            "catalog": {
                "author": catalog.author or _login(),
                "lock_timeout": catalog.lock_timeout,
                "sync": catalog.sync,
            },
        }
        data, lock = str(self._folder / DATA_FOLDER), str(self._folder / LOCK_FILE)
        files = tuple(f"{self._catalog}{end}" for end in ("", "-wal", "-shm"))
        policy = Policy(
            kernel=self.protection.level == "full",
            parent=os.getpid(),
            read=(lock, *((data,) if write else (data, *files))),
            write=(str(folder), *((data,) if write else ())),
            change=(lock, *files) if write else (),
            memory=2 * memory + _OVERHEAD,
            file_size=1 << 40 if write else spill + _SLACK,  # DuckDB keeps to its own limit first
            open_files=_FILES,
            cpu=int(_WORK + 2 * query.sandbox_timeout * threads),
        )
        return Setup(policy, str(self._folder), str(self._catalog), write, settings)

    def _part_with(self, worker: Worker) -> None:
        """Count one no more that is about to be killed; under the lock that it became idle under, so nobody takes it."""
        if worker in self._workers:
            self._workers.remove(worker)
        self._changed.notify_all()
        if not worker.write:
            self._want_spare()  # whoever it was will likely ask again

    def _want_spare(self) -> None:
        """Have a reader made that is nobody's yet, unless there is one, or no room."""
        wanted = not self._closed and not self._spare and all(one.principal is not None for one in self._workers)
        if wanted and len(self._workers) + self._starting.total() < self._settings.query.sandbox_workers:
            self._spare = True
            self._starter.submit(self._make_spare)

    def _make_spare(self) -> None:
        worker: Worker | None = None
        try:
            worker = self._start(write=False)
            worker.ready()
        except (LakehouseError, OSError):
            if worker is not None:
                worker.kill()
            worker = None  # who needs one is told
        with self._changed:
            self._spare = False
            if worker is not None and not self._closed:
                self._workers.append(worker)
                self._changed.notify_all()
                return
        if worker is not None:
            worker.kill()

    def _watch(self) -> None:
        """See that somebody looks after those that are busy."""
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="lakehouse-sandbox-keeper", daemon=True)
            self._keeper.start()
        self._changed.notify_all()

    def _keep(self) -> None:
        quota = parse_size(self._settings.query.sandbox_spill) + _SLACK
        while True:
            with self._changed:
                busy = [worker for worker in self._workers if worker.busy]
                if not busy and not self._closed:
                    self._changed.wait(_IDLE)
                if self._closed:
                    return
            self._let_go()
            for worker in busy:
                self._look(worker, quota)
            time.sleep(_LOOK if busy else 0.01)

    def _look(self, worker: Worker, quota: float) -> None:
        """Stop one that takes too long or too much; kill it when it does not stop."""
        now = time.monotonic()
        if worker.told is not None:
            if now >= worker.told + (_GRACE_WRITE if worker.write else _GRACE):
                self._drop(worker)
        elif worker.deadline is not None and now >= worker.deadline:
            worker.stop("timeout")
        elif now - worker.since > _LONG:
            if not worker.slow:
                worker.yield_to_others()
            if worker.spilled() > quota:
                worker.stop("spill")
                self._drop(worker)

    def _drop(self, worker: Worker) -> None:
        """Kill one that runs a statement; who reads its answer is told, and if nobody does, its place is free."""
        with self._changed:
            worker.busy = False
            self._part_with(worker)
        worker.kill()

    def _let_go(self) -> None:
        """End those that nobody has asked for long."""
        with self._changed:
            old = [one for one in self._workers if not one.busy and time.monotonic() - one.since > _IDLE]
        for worker in old:
            with self._changed:
                if worker.busy or worker not in self._workers:
                    continue
                self._workers.remove(worker)
            worker.kill()


def _kill(workers: list[Worker], process: int) -> None:
    if os.getpid() == process:  # a fork of it ends as well
        for worker in workers:
            worker.kill()


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
