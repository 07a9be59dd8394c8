"""What every test needs: an empty lake, and real processes beside this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, Phase, settings

import lakehouse

settings.register_profile(
    "steady",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=15,
    phases=[Phase.explicit, Phase.generate],  # shrinking would run writes on a real lake for minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """No test depends on the settings of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("LAKEHOUSE_")]:
        monkeypatch.delenv(name)
    if sys.argv[:1] == ["-c"]:  # so a worker of pytest-xdist is started
        monkeypatch.setattr(sys, "argv", ["pytest"])


@pytest.fixture
def lake(tmp_path):
    """An empty lake in a folder of its own."""
    with lakehouse.open(tmp_path / "lake") as opened:
        yield opened


class Child:
    """A Python process that runs `code` with its arguments in `args`; `say(value)` sends one JSON line back."""

    def __init__(self, code: str, *args) -> None:
        head = (
            "import json, sys; args = json.loads(sys.argv[1])\ndef say(value): print(json.dumps(value), flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", head + textwrap.dedent(code), json.dumps([str(arg) for arg in args])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self):
        """The next value it says."""
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def go(self) -> None:
        """Let it pass its `sys.stdin.readline()`."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        """Everything it still says, once it has ended without an error."""
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def kill(self):
        """`kill -9`, and everything it had said."""
        os.kill(self.pid, signal.SIGKILL)
        out, _ = self.process.communicate(timeout=60)
        return [json.loads(line) for line in out.splitlines() if line.endswith(("}", "]"))]


@pytest.fixture
def child():
    """Start processes; those still running at the end of the test are killed."""
    started: list[Child] = []

    def start(code: str, *args) -> Child:
        started.append(Child(code, *args))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
