"""The command that shows where a table came from."""

from __future__ import annotations

from typing import Any

import click

from lakehouse.cli.shared import as_json, at_version, pinned, print_json


@click.command()
@click.argument("table")
@click.option("--direction", type=click.Choice(["up", "down", "both"]), default="both", show_default=True)
@click.option("--depth", type=click.IntRange(min=1), help="At most so many steps.")
@click.option("--format", "form", type=click.Choice(["tree", "mermaid", "svg", "json"]), default="tree")
@at_version
@as_json
@click.pass_obj
def lineage(
    path: str | None, table: str, direction: Any, depth: int | None, form: str, at: str | None, as_json: bool
) -> None:
    """Show what TABLE, which may have been dropped, was made from and what was made from it."""
    with pinned(path, at) as lake:
        found = lake.catalog.lineage(table, direction, depth)
        if as_json or form == "json":
            print_json(found.to_dict())
        else:
            click.echo({"tree": found.tree, "mermaid": found.mermaid, "svg": found.svg}[form]().rstrip("\n"))
