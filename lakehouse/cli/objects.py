"""Commands for objects: bytes under keys."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lakehouse.cli.shared import as_json, opened, print_json, print_rows


@click.command()
@click.argument("file")
@click.argument("key")
@click.option("--if-absent", is_flag=True, help="Only if there is no object under KEY.")
@click.option("--if-match", metavar="ETAG", help="Only if the object there has this etag.")
@as_json
@click.pass_obj
def put(path: str | None, file: str, key: str, if_absent: bool, if_match: str | None, as_json: bool) -> None:
    """Write FILE (- for standard input) as the object KEY, whole or not at all."""
    with opened(path, create=True) as lake:
        data = sys.stdin.buffer if file == "-" else Path(file)
        receipt = lake.storage.put(key, data, if_absent=if_absent, if_match=if_match)
    if as_json:
        print_json({name: getattr(receipt, name) for name in receipt.__slots__})
    else:
        click.echo(f"{receipt.key}: {receipt.size:,} bytes, sha256 {receipt.sha256}")


@click.command()
@click.argument("key")
@click.argument("file", required=False)
@click.pass_obj
def get(path: str | None, key: str, file: str | None) -> None:
    """Write the object KEY to FILE, or to standard output."""
    import shutil

    from lakehouse.query.files import written

    with opened(path, read_only=True) as lake, lake.storage.open(key) as source:
        if file is None:
            shutil.copyfileobj(source, sys.stdout.buffer, 1 << 20)
            sys.stdout.buffer.flush()
            return
        with written(Path(file)) as temporary, temporary.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        size = Path(file).stat().st_size
    click.echo(f"{file}: {size:,} bytes")


@click.command()
@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(min=0), default=1000, show_default=True, help="Most objects.")
@click.option("--after", metavar="KEY", help="Only keys behind this one.")
@as_json
@click.pass_obj
def ls(path: str | None, prefix: str, limit: int, after: str | None, as_json: bool) -> None:
    """List the objects whose keys begin with PREFIX."""
    with opened(path, read_only=True) as lake:
        found = lake.storage.list(prefix, limit, after)
    rows = [
        {
            "key": one.key,
            "size": one.size,
            "modified": one.modified.astimezone().isoformat(" ", "seconds"),
            "etag": one.etag,
        }
        for one in found
    ]
    print_rows(rows, as_json, empty="no objects")


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY…")
@click.pass_obj
def rm(path: str | None, keys: tuple[str, ...]) -> None:
    """Remove objects for good."""
    with opened(path) as lake:
        for key in keys:
            there = lake.storage.delete(key)
            click.echo(f"{key}: {'removed' if there else 'there was none'}")
