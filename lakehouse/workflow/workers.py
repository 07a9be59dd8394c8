"""Processes for nodes, seen from whoever runs them: one is taken, watched until it is done or must end, and ended."""

from __future__ import annotations

import atexit
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from lakehouse.errors import WorkflowError
from lakehouse.observer.model import Problem
from lakehouse.workflow.locks import alive
from lakehouse.workflow.modes import OURS
from lakehouse.workflow.warm import Reply, Request
from lakehouse.workflow.work import Outcome, Task, encoded

_STEP = 0.2  # seconds between two looks at whether the run is cancelled or its runner gone
_FAREWELL = 10.0  # seconds that a process has to end after its last word
_PACKET = 1 << 16
_PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from lakehouse.workflow import warm; warm.main(int(sys.argv[1]), sys.argv[3:])"
_REUSABLE = {one.mode for one in OURS if one.reusable}


class Worker:
    """One process for nodes."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.sock = sock
        self.died = os.pidfd_open(pid)
        self.rest = b""

    def wait(self, seconds: float | None) -> bool:
        """Wait until it says something or dies; False when neither came."""
        return _readable(seconds, self.sock.fileno(), self.died)

    def hear(self) -> bytes | None:
        """What it has said, if that is whole."""
        while b"\n" not in self.rest:
            try:
                chunk = self.sock.recv(_PACKET, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionResetError):
                return None
            if not chunk:
                return None
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return _readable(0, self.died)


class Warm:
    """The process that forks those of the nodes; started when the first is wanted.

    Args:
        modules: what it loads.
        control: the socket of one that runs already; None: one is started.
    """

    def __init__(self, modules: Sequence[str], control: socket.socket | None = None) -> None:
        self._modules = tuple(modules)
        self._control = control
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._closed = False

    def take(self, *, reusable: bool) -> Worker:
        """A process; one that did other nodes before, if that does no harm.

        Raises:
            WorkflowError: none can be made.
        """
        with self._lock:
            while reusable and self._idle:
                if not (worker := self._idle.pop()).is_dead():
                    return worker
                self._end(worker)
            ours, theirs = socket.socketpair()
            try:
                reply = self._ask(Request(), theirs)
                return Worker(reply.pid, ours)
            finally:
                theirs.close()

    def give_back(self, worker: Worker) -> None:
        """Keep a process for the next node."""
        with self._lock:
            if not self._closed:
                self._idle.append(worker)

    def end(self, worker: Worker) -> int:
        """Kill a process with all that it started, if it lives; the code it ended with, as `subprocess` writes it."""
        with self._lock:
            return self._end(worker)

    def rest(self) -> None:
        """End the processes that wait for work."""
        with self._lock:
            while self._idle:
                self._end(self._idle.pop())

    def close(self) -> None:
        """End everything."""
        with self._lock:
            self._closed = True
            self._idle.clear()
            self._hang_up()

    def _end(self, worker: Worker) -> int:
        worker.sock.close()
        os.close(worker.died)
        try:
            return self._ask(Request(end=worker.pid)).code
        except WorkflowError:
            return -9  # with the one that made them all of them end

    def _ask(self, request: Request, file: socket.socket | None = None) -> Reply:
        if self._control is None:
            if request.end is not None:
                raise WorkflowError("the process that makes those of nodes is gone")
            self._start()
        assert self._control is not None
        try:
            socket.send_fds(self._control, [msgspec.json.encode(request)], [file.fileno()] if file else [])
            data = self._control.recv(_PACKET)
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            raise WorkflowError("the process that makes those of nodes has died", hint="the next node starts a new one")
        reply = msgspec.json.decode(data, type=Reply)
        if reply.error is not None:
            raise WorkflowError(reply.error)
        return reply

    def _start(self) -> None:
        if self._closed:
            raise WorkflowError("the lake is closed")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            path = json.dumps([os.path.abspath(one or ".") for one in sys.path])
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), path, *self._modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for us, and we tell it
            )
        self._control = ours
        data = ours.recv(_PACKET)
        reply = msgspec.json.decode(data, type=Reply) if data else Reply(error="it ended at once")
        if reply.error is not None:
            self._hang_up()
            raise WorkflowError(
                f"the modules for the nodes cannot be loaded: {reply.error}", hint="see workflow.preload"
            )

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(_FAREWELL)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def attempt(task: Task, warm: Warm) -> Outcome:
    """Do a task in a process, and give what came of it, whatever that is; it never takes longer than it may."""
    started = time.monotonic()
    reusable = task.definition["mode"] in _REUSABLE
    try:
        worker = warm.take(reusable=reusable)
    except (WorkflowError, OSError) as error:
        return Outcome(status="failed", error=Problem.of(error, "start"))
    outcome, line = _watched(task, worker, started), None
    if isinstance(outcome, bytes):
        line = outcome
        outcome = msgspec.json.decode(line, type=Outcome)
        if reusable and outcome.error is None:
            warm.give_back(worker)
            return outcome
        worker.sock.shutdown(socket.SHUT_WR)
        _readable(_FAREWELL, worker.died)  # it closes the lake
    code = warm.end(worker)
    if line is None and outcome.status == "failed":
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        told = f"its process {how} before it said what came of it{_printed(task.log)}"
        outcome = Outcome(status="failed", error=Problem("ProcessDied", told, "its process"))
    elif line is not None and code != 0 and outcome.error is None:
        told = f"its process ended with code {code} after it was done{_printed(task.log)}"
        outcome = msgspec.structs.replace(
            outcome, status="failed", reason=None, error=Problem("ProcessDied", told, "report")
        )
    return msgspec.structs.replace(outcome, elapsed=outcome.elapsed or time.monotonic() - started)


def _watched(task: Task, worker: Worker, started: float) -> bytes | Outcome:
    """What a process says at the end of a task; an outcome when it must not or cannot go on."""
    try:
        worker.sock.sendall(encoded(task) + b"\n")
    except OSError:
        return Outcome(status="failed")
    deadline = None if task.timeout is None else started + task.timeout
    while True:
        left = _STEP if deadline is None else max(0.0, min(_STEP, deadline - time.monotonic()))
        came = worker.wait(left)
        if (line := worker.hear()) is not None:
            return line
        if came and worker.is_dead():
            return Outcome(status="failed") if (line := worker.hear()) is None else line
        if came and not worker.is_dead():  # the socket was closed, or brought a part
            time.sleep(0.001)
        if deadline is not None and time.monotonic() >= deadline:
            told = f"it took longer than {task.timeout:g} s and was killed"
            return Outcome(status="timeout", error=Problem("Timeout", told, "its process"))
        if os.path.exists(task.cancel):
            return Outcome(status="cancelled")
        if not alive(Path(task.lock), task.run):
            return Outcome(status="interrupted", error=Problem("RunnerGone", "whoever ran it is gone", "its process"))


def attempt_here(task: bytes, modules: tuple[str, ...] = ()) -> bytes:
    """`attempt` for executors whose threads are elsewhere: this process keeps a `Warm` of its own."""
    global _here
    with _starting:
        if _here is None:
            _here = Warm(modules)
            atexit.register(_here.close)
        warm = _here
    outcome = attempt(msgspec.json.decode(task, type=Task), warm)
    warm.rest()
    return encoded(outcome)


_here: Warm | None = None
_starting = threading.Lock()


def _readable(seconds: float | None, *files: int) -> bool:
    """Wait until one of several files has something; by poll(2), since select(2) knows no number above 1023."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return bool(poll.poll(None if seconds is None else math.ceil(seconds * 1000)))


def _printed(log: str) -> str:
    """The last lines of what a node printed, for who looks why it died."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - 1000))
            text = file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"; it last printed: {text}" if text else ""


def settings_of(lake: Any) -> dict[str, Any]:
    """The settings of an opened lake, for opening it in another process."""
    found: dict[str, Any] = msgspec.to_builtins(lake.settings)
    found["query"]["progress"] = False
    return found
