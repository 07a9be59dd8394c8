"""A worker as the process of the lake sees it: started, asked, told to stop, killed."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from lakehouse.errors import LakehouseError, WorkerDied
from lakehouse.query.sandbox import wire
from lakehouse.query.sandbox.wire import Channel, Fault, Request, Setup
from lakehouse.query.sandbox.worker import ASK, CANCEL, PROGRESS, TOLD

ENTRY = "lakehouse.query.sandbox.worker"
FOLDER_PREFIX = "tmp-sandbox-"
"""How the folders of workers begin, in the folder for temporary files; the doctor knows them as ours."""

Ending = Literal["timeout", "cancelled", "spill", "closed"]
"""Why a worker was told to stop."""

_PATIENCE = 30.0  # seconds until a worker must be ready
_ASKED = 0.5  # seconds to wait for an answer about progress


class Worker:
    """One worker process, with the folder it may spill to.

    Args:
        folder: a folder of its own, made for it and removed with it.
        setup: what it is to be, once its folder and its parent are known.
        entry: the module whose `main` it runs.
    """

    def __init__(self, folder: Path, setup: Setup, entry: str = ENTRY) -> None:
        self.folder = folder
        self.write = setup.write
        self.principal: str | None = None
        """Whose it is; None: nobody's yet."""
        self.served = 0
        """Statements it was asked to run."""
        self.busy = False
        self.since = time.monotonic()
        """When it became idle or busy."""
        self.deadline: float | None = None
        self.ending: Ending | None = None
        self.told: float | None = None
        """When it was first told to stop what it does now."""
        self.slow = False
        """Whether it was told to let others go first."""
        self._setup = setup
        self._asking = threading.Lock()
        self._ending = threading.Lock()
        # As long as it is held, nobody takes the folder for what a dead process left.
        self._claim = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._claim, fcntl.LOCK_SH)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with the worker
        self._start(entry)

    def _start(self, entry: str) -> None:
        ours, theirs = socket.socketpair()
        self._control, control = socket.socketpair()
        self._control.settimeout(_ASKED)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        code = f"import sys; from {entry} import main; main(int(sys.argv[1]), int(sys.argv[2]))"
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-c", code, str(theirs.fileno()), str(control.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=_environment(self.folder),
            cwd=self.folder,
            pass_fds=(theirs.fileno(), control.fileno()),
            start_new_session=True,
        )
        theirs.close()
        control.close()
        self.channel = Channel(ours)
        with suppress(OSError):  # it died: `ready` says so
            self.channel.say(wire.SETUP, self._setup)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> None:
        """Wait until it has dropped everything and opened the lake.

        Raises:
            LakehouseError: what it says went wrong.
            WorkerDied: it ended without a word.
        """
        alarm = threading.Timer(_PATIENCE, self.kill)
        alarm.daemon = True
        alarm.start()
        try:
            kind, content = self.channel.receive()
        except EOFError:
            self._errors.seek(0)
            last = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
            self.kill()
            raise WorkerDied(f"a worker could not be started: {''.join(last) or self.process.returncode}") from None
        finally:
            alarm.cancel()
        if kind == wire.FAULT:
            self.kill()
            raise wire.raised(msgspec.msgpack.decode(content, type=Fault))

    def ask(self, request: Request, timeout: float | None) -> None:
        """Have a statement run; what comes of it is read from `channel`."""
        with self._asking:
            self.served += 1
        self.deadline = None if timeout is None else time.monotonic() + timeout
        with suppress(OSError):  # it died: who reads the answer is told
            self.channel.say(wire.REQUEST, request)

    def stop(self, why: Ending, number: int | None = None) -> None:
        """Tell it to stop the statement under way; the first reason counts.

        Args:
            why: the reason.
            number: which statement is meant, as `served` counts them: another one is not stopped; None: any.
        """
        with self._asking, suppress(OSError):
            if number not in (None, self.served):
                return
            if self.ending is None:
                self.ending, self.told = why, time.monotonic()
            self._control.sendall(ASK.pack(CANCEL, self.served))

    def progress(self) -> tuple[float | None, int]:
        """Percent done, None when it does not know, and rows sent."""
        with self._asking:
            try:
                while select.select([self._control], [], [], 0)[0]:  # what it answered too late, the last time
                    if not self._control.recv(TOLD.size):
                        return None, 0
                self._control.sendall(ASK.pack(PROGRESS, self.served))
                percent, rows = TOLD.unpack(self._control.recv(TOLD.size, socket.MSG_WAITALL))
            except (OSError, ValueError, struct.error):
                return None, 0  # busy with something that does not let it speak, or dead
        return (percent if percent >= 0 else None), rows

    def yield_to_others(self) -> None:
        """Let processes that have run for less time go first, from now on."""
        self.slow = True
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                os.setpriority(os.PRIO_PROCESS, int(thread), 10)

    def spilled(self) -> int:
        """Bytes in its folder."""
        total = 0
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                total += path.lstat().st_blocks * 512
        return total

    def kill(self) -> None:
        """End it now, with what it has started, and remove its folder; a second call does nothing."""
        with self._ending:
            if self._claim < 0:
                return
            if self.process.poll() is None:
                with suppress(OSError):
                    os.killpg(self.pid, signal.SIGKILL)
                self.process.wait()
            self.channel.close()
            self._control.close()
            self._errors.close()
            os.close(self._claim)
            self._claim = -1
            shutil.rmtree(self.folder, ignore_errors=True)

    def worked(self) -> float:
        """Seconds of processor time that it has used."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0  # no such thing here, or it is gone
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def died(self) -> LakehouseError:
        """What to say of a worker that ended by itself."""
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        limit = {"SIGXCPU": ": it used all its processor time"}.get(how, "")
        return WorkerDied(
            f"the process that ran the query ended ({how}){limit}",
            hint="the lake and other queries are as they were; a smaller query may go through",
        )


def _environment(folder: Path) -> dict[str, str]:
    """All that a worker knows of the environment: where modules are, the time zone, and its folder."""
    kept = {
        name: os.environ[name]
        for name in ("TZ", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
        if name in os.environ
    }
    return {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OPENBLAS_NUM_THREADS": "1",
        **kept,
    }
