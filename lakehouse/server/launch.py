"""Starting a Jupyter server with the lake's routes and safe defaults, in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lakehouse import config
from lakehouse.auth import Guard
from lakehouse.config import PATH_VARIABLE
from lakehouse.errors import LakeUnusable
from lakehouse.folder import exists, folder_of
from lakehouse.server.stop import stops_the_start

_BODY = 1 << 20  # bytes
_CONFIG = Path(__file__).with_name("config")


def arguments(
    ip: str, port: int, *, hostnames: Sequence[str], browser: bool, files: str | None, lab: bool
) -> list[str]:
    """The command line of the server.

    Args:
        ip: where to listen.
        port: the port; when it is taken the server does not start.
        hostnames: further names that it is reached by, such as that of a proxy in front.
        browser: open the browser.
        files: the folder whose notebooks and files are served to whoever is logged in; None: the current one.
        lab: with JupyterLab, which sends whole notebooks.
    """
    names = [f"--ServerApp.local_hostnames={name}" for name in ("localhost", *hostnames)] if hostnames else []
    # Jupyter keeps a body in memory before it asks whose it is; the lake's routes have limits of their own.
    small = [] if lab else [f"--ServerApp.max_body_size={_BODY}"]
    return [
        *small,
        f"--ServerApp.ip={ip}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.open_browser={browser}",
        "--ServerApp.allow_unauthenticated_access=False",
        "--ServerApp.reraise_server_extension_failures=True",
        "--ServerApp.trust_xheaders=False",
        *names,
        *([f"--ServerApp.root_dir={files}"] if files else []),
        *(["--allow-root"] if os.geteuid() == 0 else []),  # who may be root here is not ours to say
    ]


def launch(path: str | None, ip: str, command: Sequence[str], *, lab: bool) -> None:
    """Run the server until it is stopped; exit code 2 when it must not listen there.

    Args:
        path: the lake folder, which must exist.
        ip: where it listens.
        command: see `arguments`.
        lab: with JupyterLab and the other extensions that are enabled; else with the lake's routes only.

    Raises:
        LakeUnusable: there is no lake.
    """
    folder = folder_of(path)
    if not exists(folder):
        raise LakeUnusable(f"there is no lake at {folder}", hint="create it with lakehouse init")
    check(folder, ip)
    os.environ[PATH_VARIABLE] = str(folder)
    if lab:
        from jupyterlab.labapp import LabApp

        others = os.environ.get("JUPYTER_CONFIG_PATH")
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join([str(_CONFIG), *([others] if others else [])])
        LabApp.launch_instance(list(command))
        return
    from jupyter_server.serverapp import ServerApp

    server = ServerApp.instance(jpserver_extensions={"lakehouse.server": True})
    server.initialize(list(command), find_extensions=False)
    server.start()


@stops_the_start
def check(folder: Path, ip: str) -> None:
    """Refuse at once what the server itself would refuse once it is put together.

    Raises:
        SystemExit: it must not listen there, or the settings cannot be used.
    """
    Guard(config.load(folder).auth).check_bind(ip)
