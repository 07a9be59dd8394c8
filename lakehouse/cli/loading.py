"""Commands that make a lake and fill it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lakehouse.cli.shared import as_json, opened, pair, print_json
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.ingest.load import Receipt


@click.command()
@click.pass_obj
def init(path: str | None) -> None:
    """Make a lake, or say that it is there."""
    with opened(path, create=True) as lake:
        tables = len(lake.catalog.tables())
        click.echo(f"{lake.path} is ready ({counted(tables, 'table')})")


@click.command()
@click.option("--page/--no-page", default=True, help="Execute the quickstart notebook and write it as a page.")
@click.pass_obj
def demo(path: str | None, page: bool) -> None:
    """Load real data (flights from New York in 2013), ask three questions, show a page."""
    from lakehouse import demo as tour

    with opened(path, create=True) as lake:
        tour.run(lake, click.echo, page=page)


@click.command()
@click.argument("source")
@click.argument("table", required=False)
@click.option("--mode", type=click.Choice(["append", "replace", "upsert"]), default="append", show_default=True)
@click.option("--key", "keys", multiple=True, metavar="COLUMN", help="Key of an upsert; again for more columns.")
@click.option(
    "--contract",
    type=click.Choice(["evolve", "freeze", "quarantine"]),
    help="Add and widen columns; refuse any difference; set rows that do not fit aside. Else they must fit.",
)
@click.option("--format", "kind", type=click.Choice(["csv", "json", "parquet", "excel"]), help="Else by file name.")
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Reader option, value as JSON.")
@click.option("--force", is_flag=True, help="Load even if the same content was loaded before.")
@as_json
@click.pass_obj
def ingest(
    path: str | None,
    source: str,
    table: str | None,
    mode: str,
    keys: Sequence[str],
    contract: str | None,
    kind: str | None,
    options: Sequence[str],
    force: bool,
    as_json: bool,
) -> None:
    """Load SOURCE (file, pattern, folder or object:KEY) into TABLE, named after the file unless given."""
    from lakehouse.catalog.names import shown, split
    from lakehouse.ingest.files import find
    from lakehouse.ingest.objects import is_object

    if not is_object(source):
        find(source)  # before a lake is made for what is not there
    name = table or _table_name(source)
    with opened(path, create=True) as lake:
        receipt = lake.ingest(
            source,
            name,
            mode=mode,  # type: ignore[arg-type]  # click has checked the choices
            key=list(keys) or None,
            contract=contract,  # type: ignore[arg-type]  # as above
            format=kind,
            options=dict(pair(option) for option in options),
            force=force,
        )
    if as_json:
        print_json({field: getattr(receipt, field) for field in receipt.__slots__})
    elif receipt.duplicate:
        click.echo(
            f"{receipt.table}: this content was loaded before ({counted(receipt.rows, 'row')}, snapshot {receipt.snapshot});"
            " --force loads it again"
        )
    else:
        click.echo(
            f"{receipt.table}: {counted(receipt.rows, 'row')}{_details(receipt)} in {receipt.elapsed:.2f} s,"
            f" snapshot {receipt.snapshot}"
        )
        if receipt.rejected:
            schema, bare = split(receipt.table)
            rejects = shown(schema, f"{bare}__rejects")
            click.echo(f"see lakehouse sql 'FROM {rejects}'; mend them, then lakehouse retry '{receipt.table}'")


@click.command()
@click.argument("table")
@as_json
@click.pass_obj
def retry(path: str | None, table: str, as_json: bool) -> None:
    """Load the rejected rows of TABLE that fit by now; mend them first in TABLE__rejects (column raw)."""
    with opened(path) as lake:
        receipt = lake.ingest.retry(table)
    if as_json:
        print_json({field: getattr(receipt, field) for field in receipt.__slots__})
    else:
        click.echo(f"{receipt.table}: {counted(receipt.rows, 'row')} loaded, {receipt.rejected:,} still rejected")


def _details(receipt: Receipt) -> str:
    """What a plain count of rows does not say."""
    parts = []
    if receipt.mode == "upsert":
        parts.append(f"{receipt.inserted:,} new, {receipt.updated:,} updated")
    if receipt.deduplicated:
        parts.append(f"{receipt.deduplicated:,} left out for a later one of the same key")
    if receipt.rejected:
        parts.append(f"{receipt.rejected:,} rejected")
    return f" ({'; '.join(parts)})" if parts else ""


def _table_name(source: str) -> str:
    """What a table is called after its source; that of a pattern or folder only if it is a plain name."""
    path = Path(source.removeprefix("object:"))
    if source.startswith("object:"):
        return path.name.split(".")[0]
    name = path.name.split(".")[0]
    if not path.is_file() and (path.is_dir() or any(mark in source for mark in "*?[")) and not name.isidentifier():
        raise click.UsageError(f"name the TABLE: '{path.name}' gives no name for one")
    return name
