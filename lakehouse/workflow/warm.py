"""A process that has everything loaded and forks one process per node: milliseconds instead of seconds.

It has one thread and no lake, knows each process that it made until it is told to end it, and kills them with all that
they started when whoever asked for them goes away, however that happens. It talks over a Unix socket of packets.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

MARK = "LAKE_WORKFLOW_PROCESS"
"""In the environment of a node's process and of all that it starts: by it they are found, whatever their group."""
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PACKET = 1 << 16
_SWEEPS = 20


class Request(msgspec.Struct):
    """What is asked: a new process, which is given the socket that comes with it, or the end of one."""

    end: int | None = None


class Reply(msgspec.Struct):
    """The process that was made or ended, and how it ended as `subprocess` writes it."""

    pid: int = 0
    code: int = 0
    error: str | None = None


def main(control: int, modules: list[str]) -> None:
    """Load modules, say so, and serve until the other end of the socket is closed."""
    sock = socket.socket(fileno=control)
    try:
        for module in modules:
            importlib.import_module(module)
    except BaseException as error:
        sock.send(msgspec.json.encode(Reply(error=f"{type(error).__name__}: {error}"[:2000])))
        return
    sock.send(msgspec.json.encode(Reply(pid=os.getpid())))
    from lakehouse.workflow.work import serve as work

    serve(sock, work)


def serve(control: socket.socket, work: Callable[[socket.socket], None]) -> None:
    """Fork processes that run `work` with a socket of their own, and end them, as asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked is told, and tells us
    libc = ctypes.CDLL(None, use_errno=True)
    gc.collect()
    gc.freeze()  # what is loaded is never looked at again, so its memory stays shared
    made: dict[int, str] = {}
    try:
        while True:
            try:
                data, files, _, _ = socket.recv_fds(control, _PACKET, 1)
            except OSError:
                return
            if not data:
                return
            request = msgspec.json.decode(data, type=Request)
            reply = Reply(pid=request.end or 0)
            if request.end is not None:
                reply.code = _end(request.end, made.pop(request.end, None))
            else:
                mark = uuid.uuid4().hex
                try:
                    reply.pid = os.fork()
                except OSError as error:
                    reply.error = f"no process can be made: {error.strerror}"
                if reply.pid == 0 and reply.error is None:
                    control.close()
                    _begin(libc, mark, files[0], work)
                if reply.error is None:
                    made[reply.pid] = mark
                for file in files:
                    os.close(file)
            try:
                control.send(msgspec.json.encode(reply))
            except OSError:
                return
    finally:
        for pid, mark in made.items():
            _end(pid, mark)


def _begin(libc: ctypes.CDLL, mark: str, file: int, work: Callable[[socket.socket], None]) -> None:
    """The life of a node's process; it never returns."""
    code = 1
    try:
        parent = os.getppid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.setsid()
        os.environ[MARK] = mark
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # else all processes would draw the same numbers
        work(socket.socket(fileno=file))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end(pid: int, mark: str | None) -> int:
    """Kill a process with its group and all that carries its mark, and give the code it ended with.

    Until it is waited for here its number is nobody else's, so nothing of others is ever killed.
    """
    if mark is None:
        return 0
    # Those that it started first: one that is killed could still be starting others while we look.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)  # before it had a group of its own
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        code = 0
    for _ in range(_SWEEPS):
        if not (left := _marked(mark)):
            break
        for one in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
    return code


def _marked(mark: str) -> list[int]:
    """The living processes that were started with a mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
