"""The `lakehouse` command: the operations of a lake from a shell.

Exit codes: 0 done; 1 it could not be done (one line says why, one what to do next); 2 the command
was typed wrongly; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

import click

from lakehouse import __version__
from lakehouse.errors import LakehouseError

_EPILOG = "Exit codes: 0 done, 1 could not be done, 2 typed wrongly, 130 interrupted."
_COMMANDS = {
    "auth": "auth",
    "backup": "health",
    "config": "reading",
    "dashboards": "dashboards",
    "demo": "loading",
    "diff": "history",
    "doctor": "health",
    "fmt": "knowing",
    "history": "history",
    "get": "objects",
    "ingest": "loading",
    "init": "loading",
    "lab": "serve",
    "lineage": "lineage",
    "ls": "objects",
    "maintenance": "health",
    "observer": "observer",
    "pathway": "pathway",
    "profile": "knowing",
    "put": "objects",
    "queries": "knowing",
    "report": "report",
    "restore": "health",
    "rollback": "history",
    "retry": "loading",
    "rm": "objects",
    "search": "knowing",
    "serve": "serve",
    "show": "reading",
    "snapshots": "reading",
    "sql": "reading",
    "tag": "history",
    "tables": "reading",
    "token": "auth",
    "workflow": "workflow",
}
"""The module of each command; one that is called loads only its own."""


class _Commands(click.Group):
    """Loads the command that is called, and turns every LakehouseError into a line, a hint and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"lakehouse.cli.{_COMMANDS[name]}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LakehouseError as error:
            if ctx.meta.get("debug"):
                raise
            if "--json" in sys.argv:
                click.echo(json.dumps({"code": error.code, "detail": error.message, "hint": error.hint}), err=True)
            else:
                click.echo(f"{click.style('error', fg='red')}: {error.message}", err=True)
                if error.hint:
                    click.echo(f"hint: {error.hint}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:  # the reader of our output, such as head, has what it wanted
            sys.stderr.close()
            ctx.exit(0)


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--lake", "path", metavar="PATH", help="The lake folder; else $LAKEHOUSE_PATH, else ./lake.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="lakehouse")
@click.pass_context
def main(ctx: click.Context, path: str | None, debug: bool) -> None:
    """A transactional lake of tables on your own disk, queried with SQL."""
    ctx.obj = path
    ctx.meta["debug"] = debug
