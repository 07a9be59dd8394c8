"""Commands for tokens and the decisions made with them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from lakehouse.cli.shared import as_json, print_json

if TYPE_CHECKING:
    from lakehouse.auth import Guard, Scope


@click.group()
def token() -> None:
    """Tokens for the server."""


@token.command()
def new() -> None:
    """Print a new token of 256 random bits; it is kept nowhere."""
    from lakehouse.tokens import new_token

    click.echo(new_token())


@click.group()
def auth() -> None:
    """Who may use the server, and why."""


@auth.command()
@click.option("--token", "given", help="The token to try; - reads it from standard input. None: none is sent.")
@click.option("--ip", "address", default="127.0.0.1", show_default=True, help="The address that it comes from.")
@click.option("--forwarded", multiple=True, metavar="ADDRESSES", help="X-Forwarded-For, as that address would send it.")
@click.option("--scope", type=click.Choice(["read", "write"]), default="read", show_default=True)
@click.option("--bind", metavar="HOST", help="Also say whether the server may listen on HOST.")
@as_json
@click.pass_context
def check(
    ctx: click.Context,
    given: str | None,
    address: str,
    forwarded: tuple[str, ...],
    scope: Scope,
    bind: str | None,
    as_json: bool,
) -> None:
    """Explain what the server would decide with the settings as they are; exit code 1 when it would refuse."""
    from lakehouse.errors import BindRefused

    guard = _guard(ctx.obj)
    if given == "-":
        given = sys.stdin.readline()
    client = guard.client(address, forwarded)
    decision = guard.decide(client, None if given is None else given.strip().encode(), scope)
    layers: list[dict[str, Any]] = [msgspec.structs.asdict(layer) for layer in decision.layers]
    if bind is not None:
        try:
            guard.check_bind(bind)
            layers.append({"name": "bind", "passed": True, "why": f"the server may listen on '{bind}'"})
        except BindRefused as error:
            layers.append({"name": "bind", "passed": False, "why": error.message})
    allowed = all(layer["passed"] for layer in layers)
    who = decision.principal.name if decision.principal else None
    refusal = decision.error if decision.error or allowed else BindRefused("")
    status = 200 if refusal is None else refusal.status
    if as_json:
        print_json({"allowed": allowed, "principal": who, "status": status, "client": client, "layers": layers})
    else:
        for layer in layers:
            mark = click.style("passed", fg="green") if layer["passed"] else click.style("refused", fg="red")
            click.echo(f"{mark}  {layer['name']}: {layer['why']}")
        click.echo(f"{'allowed' if allowed else 'refused'} ({status}) as {who or 'nobody'} from {client}")
    ctx.exit(0 if allowed else 1)


def _guard(path: str | None) -> Guard:
    from lakehouse import config
    from lakehouse.auth import Guard
    from lakehouse.folder import folder_of

    return Guard(config.load(folder_of(path)).auth, os.environ)
