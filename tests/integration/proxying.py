"""nginx and Caddy with the very files of deploy/, in front of a server on this machine."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx
from serving import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "lake.example.org"
TLS = "/etc/lakehouse/tls"
CAP = 32_000_000
"""Bytes of the largest upload, instead of the ten gigabytes of the files."""


def certificate(folder):
    """A throw-away certificate for the name: `fullchain.pem` and `privkey.pem`."""
    folder.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    command += ["-out", str(folder / "fullchain.pem"), "-keyout", str(folder / "privkey.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


class Proxy:
    """A proxy of one kind, running.

    Args:
        kind: `nginx` or `caddy`.
        folder: for its files, empty.
        tls: where the certificate is.
        port: of the server behind it.
    """

    def __init__(self, kind, folder, tls, port):
        folder.mkdir()
        self.folder, self.tls = folder, tls
        self.port, self.plain = free_port(), free_port()
        program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, f"{kind} is missing: scripts/system-packages.sh says how to get it"
        command = getattr(self, f"_{kind}")(port)
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        with (folder / "log.txt").open("wb") as log:
            self.process = subprocess.Popen([program, *command], env=environ, stdout=log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.stop()
        raise AssertionError(self.log)

    def _nginx(self, port):
        text = _changed(
            "nginx/lakehouse.conf",
            {
                "127.0.0.1:8888": f"127.0.0.1:{port}",
                "listen 443": f"listen 127.0.0.1:{self.port}",
                "listen 80": f"listen 127.0.0.1:{self.plain}",
                TLS: str(self.tls),
                "/var/log/nginx": str(self.folder),
                "client_max_body_size        10g": f"client_max_body_size {CAP}",
            },
        )
        (self.folder / "lakehouse.conf").write_text(text)
        kept = "".join(
            f"{name}_temp_path {self.folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        own = "user root;" if os.geteuid() == 0 else ""  # the default one may not enter the folder of a test
        main = f"{own} daemon off; pid {self.folder}/pid; error_log stderr; events {{}}\n"
        (self.folder / "nginx.conf").write_text(f"{main}http {{ {kept} include {self.folder}/lakehouse.conf; }}\n")
        return ["-p", str(self.folder), "-e", "stderr", "-c", str(self.folder / "nginx.conf")]

    def _caddy(self, port):
        here = f"{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port {self.plain}\n\thttps_port {self.port}\n\tservers {{"
        text = _changed(
            "caddy/Caddyfile",
            {
                "127.0.0.1:8888": f"127.0.0.1:{port}",
                "{\n\tservers {": here,
                TLS: str(self.tls),
                "/var/log/caddy": str(self.folder),
                "10GB": str(CAP),
            },
        )
        (self.folder / "Caddyfile").write_text(text)
        return ["run", "--adapter", "caddyfile", "--config", str(self.folder / "Caddyfile")]

    @property
    def log(self):
        """All that it wrote."""
        files = [self.folder / "log.txt", *self.folder.glob("lakehouse*.log")]
        return "".join(file.read_text("utf-8", "replace") for file in files)

    @contextlib.contextmanager
    def client(self, address="127.0.0.1", *, http2=False):
        """An HTTP client that comes from an address of this machine; `get("/…")` asks for the right name."""
        context = ssl.create_default_context(cafile=self.tls / "fullchain.pem")
        transport = httpx.HTTPTransport(verify=context, local_address=address, http1=not http2, http2=http2)
        with httpx.Client(base_url=f"https://127.0.0.1:{self.port}", transport=transport, timeout=60) as client:
            client.headers["Host"] = f"{NAME}:{self.port}"
            client.event_hooks["request"] = [_named]
            yield client

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _named(request):
    request.extensions["sni_hostname"] = NAME


def _changed(file, changes):
    """A file of deploy/ with places and ports of the test; each of them must stand there."""
    text = (DEPLOY / file).read_text()
    for old, new in changes.items():
        assert old in text, (file, old)
        text = text.replace(old, new)
    return text
