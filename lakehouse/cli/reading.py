"""Commands that read a lake: queries, what is in it, its settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.shared import (
    as_json,
    at_version,
    opened,
    pair,
    pinned,
    print_json,
    print_rows,
    snapshot_row,
    stream_json,
    stream_rows,
)
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.query.sandbox.sandbox import Sandbox


_SHOWN = 20  # rows


@click.command()
@click.argument("query")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Value for $NAME, as JSON or text.")
@at_version
@click.option("--limit", type=click.IntRange(min=0), help="At most so many rows.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds until the query is stopped.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write all rows to a .csv or .parquet file.")
@click.option("--explain", is_flag=True, help="Show the plan instead of the rows.")
@click.option("--sandbox", is_flag=True, help="Run a stranger's query where it can read this lake and nothing else.")
@as_json
@click.pass_obj
def sql(
    path: str | None,
    query: str,
    params: Sequence[str],
    at: str | None,
    limit: int | None,
    timeout: float | None,
    output: str | None,
    explain: bool,
    sandbox: bool,
    as_json: bool,
) -> None:
    """Run QUERY; - reads it from standard input."""
    text = sys.stdin.read() if query == "-" else query
    if output and Path(output).suffix not in (".csv", ".parquet"):
        raise click.BadParameter("the file must end in .csv or .parquet", param_hint="--output")
    with opened(path) as lake:
        bound = dict(pair(param) for param in params)
        if sandbox:
            if output or explain:
                raise click.UsageError("--sandbox goes without --output and --explain")
            _from_stranger(lake.sandbox(), text, bound, at, limit, timeout, as_json=as_json)
            return
        result = lake.sql(text, bound, at=at, limit=limit, timeout=timeout)
        if explain:
            click.echo(result.explain())
        elif output:
            written = result.to_csv(output) if output.endswith(".csv") else result.to_parquet(output)
            click.echo(f"{counted(len(result), 'row')} in {written}")
        elif as_json:
            stream_json(result)
        else:
            click.echo(repr(result))


def _from_stranger(
    sandbox: Sandbox,
    text: str,
    params: dict[str, Any],
    at: str | None,
    limit: int | None,
    timeout: float | None,
    *,
    as_json: bool,
) -> None:
    """Print what a query gives in a sandbox: all of it as JSON, else the first rows."""
    with sandbox.sql(text, params, at=at, limit=limit, timeout=timeout) as answer:
        rows = (row for batch in answer.batches() for row in batch.to_pylist())
        if as_json:
            stream_rows(rows)
            return
        first = list(islice(rows, _SHOWN))
        print_rows(first, as_json=False, empty="no rows")
        more = next(rows, None) is not None
        click.echo(
            f"{'the first ' if more else ''}{counted(len(first), 'row')}, snapshot {answer.snapshot}, in a sandbox"
        )


@click.command()
@click.argument("schema", required=False)
@at_version
@as_json
@click.pass_obj
def tables(path: str | None, schema: str | None, at: str | None, as_json: bool) -> None:
    """List tables with their rows and sizes, and views."""
    with pinned(path, at) as lake:
        found = [*lake.catalog.tables(schema), *lake.catalog.views(schema)]
        sizes = lake.catalog.sizes(found)
        rows = [
            {
                "name": table.full_name,
                "kind": table.kind,
                "rows": sizes.get(table.full_name, (None, None))[0],  # a view's query may be slow, or broken
                "bytes": sizes.get(table.full_name, (None, None))[1],
                "comment": table.comment,
            }
            for table in found
        ]
    print_rows(rows, as_json, empty="the lake is empty: load something with lakehouse ingest")


@click.command()
@click.argument("table")
@at_version
@as_json
@click.pass_obj
def show(path: str | None, table: str, at: str | None, as_json: bool) -> None:
    """Show the columns, size and history of TABLE."""
    with pinned(path, at) as lake:
        entry = lake.catalog.table(table)
        columns = [
            {"column": c.name, "type": c.type, "nullable": c.nullable, "comment": c.comment} for c in entry.schema
        ]
        snapshots = [snapshot_row(s) for s in entry.snapshots()[:10]]
        rows, size, comment = entry.row_count, entry.bytes, entry.comment
    if as_json:
        facts = {"name": entry.full_name, "kind": entry.kind, "rows": rows, "bytes": size, "comment": comment}
        print_json({**facts, "columns": columns, "snapshots": snapshots})
        return
    click.echo(f"{entry.kind} {entry.full_name}: {counted(rows, 'row')}, {size:,} bytes")
    if comment:
        click.echo(comment)
    print_rows(columns, as_json=False)
    print_rows(snapshots, as_json=False)


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@as_json
@click.pass_obj
def snapshots(path: str | None, limit: int, as_json: bool) -> None:
    """List the commits of the lake, newest first."""
    with opened(path, read_only=True) as lake:
        rows = [snapshot_row(s) for s in lake.catalog.snapshots(limit)]
    print_rows(rows, as_json)


@click.command()
@as_json
@click.pass_obj
def config(path: str | None, as_json: bool) -> None:
    """Print the effective settings and where each came from."""
    from lakehouse import config as settings
    from lakehouse.folder import folder_of

    _, origins = settings.explain(folder_of(path))
    rows = [{"setting": f"{o.section}.{o.key}", "value": settings.masked(o.value), "from": o.source} for o in origins]
    print_rows(rows, as_json)
