"""One notebook executed in a process that can be ended: its environment, its progress, its end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from lakehouse.errors import ReportInvalid
from lakehouse.reports.model import Fault
from lakehouse.reports.parameters import SECRET

_KEPT = frozenset(
    "PATH HOME USER LOGNAME LANG LANGUAGE TZ TMPDIR PYTHONPATH VIRTUAL_ENV LD_LIBRARY_PATH SSL_CERT_FILE"
    " JUPYTER_PATH JUPYTER_DATA_DIR XDG_CACHE_HOME XDG_DATA_HOME XDG_RUNTIME_DIR".split()
)
_PREFIXES = ("LC_", "LAKEHOUSE_CATALOG_", "LAKEHOUSE_STORAGE_", "LAKEHOUSE_QUERY_")
_GRACE = 5.0  # seconds to put the kernel away before the process is killed
_LOOK = 0.2  # seconds between two looks for a cancellation

End = Literal["ok", "failed", "timeout", "cancelled"]


def environment(lake: Path, snapshot: int, values: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a report's kernel: which lake and snapshot it reads, and no token.

    Raises:
        ReportInvalid: a secret that a parameter refers to is not there; names the variable, never a value.
    """
    kept = harmless(environ) | secrets(values, environ)
    return kept | {"LAKEHOUSE_PATH": str(lake), "LAKEHOUSE_SNAPSHOT": str(snapshot), "PYTHONUNBUFFERED": "1"}


def harmless(environ: Mapping[str, str]) -> dict[str, str]:
    """What a kernel needs of an environment, without a token or password of anything."""
    return {name: value for name, value in environ.items() if name in _KEPT or name.startswith(_PREFIXES)}


def secrets(references: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that secret parameters refer to.

    Raises:
        ReportInvalid: one is not set.
    """
    found = {}
    for name, reference in references.items():
        variable = str(reference).removeprefix(SECRET)
        if variable not in environ:
            raise ReportInvalid(
                f"the secret '{name}' refers to the variable {variable}, which is not set",
                hint="set it where the report is started",
            )
        found[variable] = environ[variable]
    return found


def execute(
    folder: Path,
    env: Mapping[str, str],
    *,
    timeout: float,
    most: int,
    told: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> tuple[End, Fault | None]:
    """Execute `input.ipynb` of a folder into `executed.ipynb`.

    Args:
        folder: where the notebook is, and what the process stands in.
        env: the environment of the process and its kernel.
        timeout: seconds until it is ended.
        most: bytes of output that are kept of one cell.
        told: called with the cells done and the number of cells.
        cancelled: asked several times a second whether to end it.

    Returns:
        how it ended, and why if not well.
    """
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lakehouse.reports.execute", str(most)],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    deadline = time.monotonic() + timeout
    fault: Fault | None = None
    finished = False
    try:
        while True:
            if cancelled():
                return "cancelled", Fault("Cancelled", "the run was cancelled")
            if time.monotonic() >= deadline:
                return "timeout", Fault("Timeout", f"the run took longer than {timeout:g} s")
            try:
                line = lines.get(timeout=min(_LOOK, max(0.001, deadline - time.monotonic())))
            except queue.Empty:
                continue
            if line is None:
                break
            said = json.loads(line)
            if "cells" in said:
                told(said["cell"], said["cells"])
            elif "error" in said:
                fault = Fault(**said["error"])
            finished = finished or "done" in said
        code = process.wait(_GRACE)
    finally:
        end(process)
    if finished and code == 0:
        return "ok", None
    return "failed", fault or Fault("ProcessDied", f"the process of the report ended with {_code(code)}: {_last(log)}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to put its kernel away, then kill it and its group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _read(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    except ValueError:
        pass  # closed while it was read: the run is over
    lines.put(None)


def _code(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last(log: Path) -> str:
    lines = [line for line in log.read_bytes()[-4000:].decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
