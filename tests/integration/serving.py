"""A real server in a process of its own, for the tests of the HTTP door."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time

import httpx

PRIMARY, SECOND, READER = "primary-token-00000001", "secondary-token-000002", "reading-token-00000003"
JUPYTER = "jupyters-own-token-004"
V1 = "/lakehouse/v1"
_tried = itertools.count()
TOKENS = {"AUTH_TOKEN": PRIMARY, "AUTH_TOKEN_SECONDARY": SECOND, "AUTH_TOKEN_READ": READER}


def free_port(host="127.0.0.1"):
    """A port that nobody listens on, below those that the kernel gives away; every process begins at another one."""
    for number in itertools.islice(_tried, 20_000):
        port = 12_000 + (os.getpid() * 131 + number) % 20_000
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue  # somebody else's
            return port
    raise AssertionError("no port is free")


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


class Server:
    """`python -m COMMAND` with a port and a home of its own.

    Args:
        folder: where it runs; its log is `log.txt` there.
        command: what is run, without `--port`.
        environ: set for it; no other variable that could mean something to it is left.
    """

    def __init__(self, folder, command, environ=None):
        self.port = free_port()
        self.folder = folder
        self.log_file = folder / "log.txt"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LAKEHOUSE_", "AUTH_", "JUPYTER", "PYTEST"))}
        home = {"HOME": str(folder), "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "JUPYTER_TOKEN": JUPYTER}
        home |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "JUPYTER_CONFIG_DIR": str(folder)}
        cut = command.index("--") if "--" in command else len(command)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command[:cut], f"--port={self.port}", *command[cut:]],
                cwd=folder,
                env={**clean, **home, **(environ or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    @property
    def log(self):
        return self.log_file.read_text("utf-8", "replace")

    def ready(self):
        """Wait until it answers."""
        end = time.monotonic() + 180
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.client.get("/health").status_code:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        self.stop()
        raise AssertionError(self.log)

    def refused(self):
        """Wait until it has ended by itself, trying its port all the time; returns the exit code and our line."""
        opened, end = False, time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with socket.socket(family) as probe:
                    opened |= probe.connect_ex((host, self.port)) == 0
            time.sleep(0.01)
        assert not opened, f"the port was open\n{self.log}"
        assert self.process.poll() is not None, f"it runs on\n{self.log}"
        lines = [line for line in self.log.splitlines() if line.startswith("lakehouse: ")]
        assert len(lines) == 1, self.log
        assert "Traceback" not in self.log or "Exception while loading config file" in self.log, self.log
        return self.process.returncode, lines[0]

    def call(self, method, path, token=PRIMARY, **given):
        self.client.cookies.clear()
        headers = {**(bearer(token) if token else {}), **given.pop("headers", {})}
        return self.client.request(method, V1 + path, headers=headers, **given)

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def problem(response, status, code=None):
    """Assert the one shape of errors; returns it."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["Content-Type"] == "application/problem+json", response.text
    shape = response.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(shape) <= {*shape, "hint"}
    assert shape["status"] == status
    assert shape["type"] == f"urn:lakehouse:error:{shape['code']}"
    assert "Traceback" not in response.text
    if code is not None:
        assert shape["code"] == code, shape
    return shape
