"""Commands that start a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def _options(browser: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    options: list[Any] = [
        click.option("--ip", default="127.0.0.1", show_default=True, help="Where to listen."),
        click.option("--port", type=click.IntRange(0, 65535), default=8888, show_default=True),
        click.option("--hostname", "hostnames", multiple=True, help="A name that it is reached by, such as a proxy's."),
        click.option("--files", type=click.Path(exists=True, file_okay=False), help="The folder of the notebooks."),
        click.option("--browser/--no-browser", default=browser, help="Open the browser."),
        click.argument("jupyter", nargs=-1, metavar="[-- JUPYTER…]"),
        click.pass_obj,
    ]

    def decorated(work: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            work = option(work)
        return work

    return decorated


@click.command()
@_options(browser=False)
def serve(path: str | None, ip: str, port: int, jupyter: tuple[str, ...], **options: Any) -> None:
    """Serve the lake over HTTP under /lakehouse/v1; exit code 2 when it would be open to others.

    The token is read from $AUTH_TOKEN (see `lakehouse token new`); without one only this machine is served.
    What stands behind -- goes to Jupyter.
    """
    _start(path, ip, port, jupyter, options, lab=False)


@click.command()
@_options(browser=True)
def lab(path: str | None, ip: str, port: int, jupyter: tuple[str, ...], **options: Any) -> None:
    """Open JupyterLab on the lake, guarded as `lakehouse serve` is."""
    _start(path, ip, port, jupyter, options, lab=True)


def _start(
    path: str | None, ip: str, port: int, jupyter: tuple[str, ...], options: dict[str, Any], *, lab: bool
) -> None:
    from lakehouse.server.launch import arguments, launch

    launch(path, ip, [*arguments(ip, port, lab=lab, **options), *jupyter], lab=lab)
