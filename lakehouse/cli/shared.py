"""What all commands share: opening the lake, options, and how rows are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
at_version = click.option("--at", metavar="VERSION", help="Read as of a snapshot id, a tag or a time.")


def opened(path: str | None, *, create: bool = False, read_only: bool = False) -> Lakehouse:
    import lakehouse
    from lakehouse.folder import exists

    _check_folder(path)
    if not create and not exists(path):
        # A typing error in a path must not leave an empty lake behind.
        return lakehouse.open(path, read_only=True)
    return lakehouse.open(path, read_only=read_only)


def pinned(path: str | None, at: str | None) -> Lakehouse:
    import lakehouse

    _check_folder(path)
    return lakehouse.open(path, at=at) if at is not None else opened(path, read_only=True)


def _check_folder(path: str | None) -> None:
    """Refuse a server's address where a folder is wanted: a folder of that name would be looked for."""
    if path is not None and path.lower().startswith(("http://", "https://")):
        from lakehouse.errors import NotRemote

        raise NotRemote(
            "the shell works on a lake in a folder", hint="in Python lakehouse.connect(url) reaches a server"
        )


def pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"'{text}' is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def snapshot_row(snapshot: Any) -> dict[str, Any]:
    return {
        "snapshot": snapshot.id,
        "time": snapshot.time.astimezone().isoformat(" ", "seconds"),
        "author": snapshot.author,
        "message": snapshot.message,
        "changes": snapshot.changes,
    }


def print_rows(rows: list[dict[str, Any]], as_json: bool, *, empty: str = "nothing") -> None:
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        numeric = all(row[name] is None or type(row[name]) is int for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row.values()))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, default=str, ensure_ascii=False, indent=2))


def stream_json(result: Any) -> None:
    """Rows as one JSON array, written as they come: a result larger than memory works."""
    names: list[str] = result.columns
    stream_rows(dict(zip(names, row, strict=True)) for row in result)


def stream_rows(rows: Iterable[dict[str, Any]]) -> None:
    """Rows as one JSON array, written as they come."""
    encode: Callable[[Any], str] = json.JSONEncoder(default=str, ensure_ascii=False).encode
    click.echo("[", nl=False)
    for number, row in enumerate(rows):
        click.echo(("," if number else "") + "\n  " + encode(row), nl=False)
    click.echo("\n]")
