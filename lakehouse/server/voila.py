"""The server of dashboards: standalone Voila, cut down to what a viewer needs, behind a gate of ours.

What is served stands in a folder of copies made for this process (see `reports.dashboards`). Nothing of Jupyter's API
is there: a viewer has the page, its files and the widgets' messages of the kernel that the page was made with.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jupyter_server.auth.identity import IdentityProvider
from tornado.ioloop import IOLoop
from tornado.routing import Rule
from tornado.web import RequestHandler
from traitlets.config import Config
from voila.app import Voila
from voila.paths import collect_static_paths, collect_template_paths

from lakehouse import config
from lakehouse.errors import ConfigError, LakehouseError, LakeUnusable
from lakehouse.folder import exists, folder_of
from lakehouse.lake import open
from lakehouse.reports.running import harmless
from lakehouse.server.assets import located
from lakehouse.server.launch import check
from lakehouse.server.stage import Stage
from lakehouse.server.stop import stops_the_start
from lakehouse.server.viewers import Connection, routes
from lakehouse.server.viewing import Door, Gate, Refusal

_TEMPLATES = Path(__file__).with_name("templates")
MESSAGES = ["comm_open", "comm_close", "comm_msg", "comm_info_request", "kernel_info_request"]
"""What a viewer may say to a kernel: the widgets' own messages, and asking whether it is there."""
_EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8", "anywidget")
"""What a page loads of all that is installed for JupyterLab: the widgets."""
_POLICY = (
    # blob: anywidget's way to load a widget's script, which has come through the kernel.
    "default-src 'self'; script-src 'self' 'unsafe-inline' blob:; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
log = logging.getLogger("lakehouse.dashboards")


class Dashboards(Voila):  # type: ignore[misc]
    """Voila with our gate, routes and template; it reads no configuration file."""

    door: Door
    stage: Stage

    def load_config_file(self, *_: Any, **__: Any) -> None:
        """Nothing: a file that is lying about must not open what is closed here."""

    def setup_template_dirs(self) -> None:
        """Our template stands before those of Voila, which it builds upon."""
        self.template_paths = [str(_TEMPLATES), *collect_template_paths(["voila", "nbconvert"], "lab", prune=True)]
        self.static_paths = collect_static_paths(["voila", "nbconvert"], "lab")

    def init_settings(self) -> dict[str, Any]:
        """Voila's settings, with the messages that a viewer may send."""
        settings: dict[str, Any] = super().init_settings()
        self.kernel_manager.allowed_message_types = list(MESSAGES)
        self.stage.manager = self.kernel_manager
        policy = {
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        own = {"kernel_websocket_connection_class": Connection, "log_function": noted}
        return settings | {"headers": policy} | own

    def init_handlers(self) -> list[Any]:
        """Static files of Voila's, and our own routes for all else."""
        return routes(super().init_handlers(), self.door, self.stage)

    def listen(self) -> None:
        """Open the port, once the gate stands in front of it."""
        refuse(self.door, self.ip)
        gate = Gate(self.door)
        self.app.default_router.rules.insert(0, Rule(gate, Refusal))
        self.listen_to_hangup(gate)
        IOLoop.current().add_callback(self.stage.keep_fresh)
        super().listen()

    def listen_to_hangup(self, gate: Gate) -> None:
        """Read tokens and allowlist again on SIGHUP; whoever was let in before logs in again."""

        def again() -> None:
            try:
                self.door.reload()
            except LakehouseError as error:
                log.error("tokens and allowlist stay as they were: %s", error.message)  # noqa: TRY400 - no traceback
            else:
                gate.end_sockets()
                log.info("read tokens and allowlist again: %r", self.door.guard)

        loop = IOLoop.current()
        signal.signal(signal.SIGHUP, lambda *_: loop.add_callback_from_signal(again))


def noted(handler: RequestHandler) -> None:
    """One line for a request, without its query: somebody may have put a token there."""
    request, status = handler.request, handler.get_status()
    level = logging.ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    log.log(level, "%d %s %s (%s)", status, request.method, request.path, request.remote_ip)


@stops_the_start
def refuse(door: Door, ip: str) -> None:
    """End the process with exit code 2 where others could reach what nothing protects."""
    door.guard.check_bind(ip)


class OwnMachineOnly(IdentityProvider):
    """For plain `voila` with our configuration: it has no gate of ours, so it serves this machine only."""

    @stops_the_start
    def __init__(self, **given: Any) -> None:
        from lakehouse.auth import is_loopback
        from lakehouse.errors import BindRefused

        super().__init__(**given)
        ip = getattr(self.parent, "ip", "")
        if not is_loopback(ip):
            raise BindRefused(f"plain voila must not listen on '{ip}'", hint="start it with lakehouse dashboards")


def settings(ip: str, port: int, root: Path, *, warm: int, timeout: int, idle: int) -> Config:
    """The configuration of Voila.

    Args:
        ip: where it listens.
        port: the port; when it is taken the server does not start.
        root: the folder of what is served.
        warm: kernels kept ready for each dashboard.
        timeout: seconds that a cell may take.
        idle: seconds without a message after which a kernel is ended.
    """
    return Config(
        {
            "Voila": {"ip": ip, "port": port, "port_retries": 0, "open_browser": False, "root_dir": str(root)},
            "VoilaConfiguration": {
                "file_allowlist": [],
                "allow_template_override": "NO",
                "allow_theme_override": "NO",
                "template": "lab",
                "preheat_kernel": True,
                "default_pool_size": warm,
                "show_tracebacks": False,
                "extension_allowlist": list(_EXTENSIONS),
                "page_config_hook": located,
            },
            "VoilaExecutor": {
                "timeout": timeout,
                "cell_error_instruction": "Whoever published this dashboard finds out more in the server's log.",
                "cell_timeout_instruction": "It took too long.",
            },
            "MappingKernelManager": {
                "cull_idle_timeout": idle,
                "cull_connected": True,
                "cull_interval": min(60, idle),
                "buffer_offline_messages": False,
            },
            "KernelManager": {
                "transport": "ipc",  # no port is opened for a kernel
                "autorestart": False,  # a kernel anew would know nothing of the page
            },
        }
    )


def launch(path: str | None, ip: str, port: int, *, viewers: int, each: int, warm: int, memory: str) -> None:
    """Serve the published dashboards of a lake until stopped; exit code 2 when it must not listen there.

    Args:
        path: the lake folder, which must exist.
        ip: where to listen.
        port: the port.
        viewers: most pages that are open at once.
        each: most pages that one viewer has open.
        warm: kernels kept ready for each dashboard.
        memory: most memory that each kernel may ask for, such as `4GB`; drawing charts asks for 2 GB and uses a tenth.

    Raises:
        LakeUnusable: there is no lake.
        ConfigError: the memory is no size.
    """
    folder = folder_of(path)
    if not exists(folder):
        raise LakeUnusable(f"there is no lake at {folder}", hint="create it with lakehouse init")
    check(folder, ip)
    most = limit(memory)
    door = Door(folder, os.environ, ip)
    kernels = harmless(os.environ)
    kernels.setdefault("LAKEHOUSE_QUERY_MEMORY_LIMIT", f"{most // 4_000_000}MB")
    ours = {config.PATH_VARIABLE: str(folder), config.READ_ONLY_VARIABLE: "1", "LAKEHOUSE_QUERY_PROGRESS": "false"}
    # The kernels inherit what this process has: no token is in it, and no more memory than this.
    os.environ.clear()
    os.environ.update(kernels | ours)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    root = Path(tempfile.mkdtemp(prefix="lakehouse-dashboards-"))
    try:
        with open(folder, read_only=True) as lake:
            app = Dashboards(config=settings(ip, port, root, warm=warm, timeout=120, idle=1800))
            app.door, app.stage = door, Stage(root, lake, viewers, each)
            app.stage.place_all()
            app.initialize([])
            app.start()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def limit(memory: str) -> int:
    """Bytes of a size.

    Raises:
        ConfigError: it is none, or too small for a kernel to start.
    """
    try:
        most = config.parse_size(memory)
    except (ValueError, KeyError):
        raise ConfigError(f"{memory!r} is no size", hint="such as 2GB") from None
    if most < 1_000_000_000:
        raise ConfigError(f"{memory} is too little for a kernel", hint="give at least 1GB")
    return most
