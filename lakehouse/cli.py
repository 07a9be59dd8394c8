"""The `lakehouse` command: the operations of a lake from a shell.

Exit codes: 0 done; 1 it could not be done (one line says why, one what to do next); 2 the command
was typed wrongly; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse import __version__
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse

_EPILOG = "Exit codes: 0 done, 1 could not be done, 2 typed wrongly, 130 interrupted."


class _Commands(click.Group):
    """Turns every LakehouseError into a line, a hint and exit code 1."""

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


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
at_version = click.option("--at", metavar="VERSION", help="Read as of a snapshot id or a time.")


def _open(path: str | None, *, create: bool = False, read_only: bool = False) -> Lakehouse:
    import lakehouse
    from lakehouse.lake import exists

    if not create and not exists(path):
        # A typing error in a path must not leave an empty lake behind.
        return lakehouse.open(path, read_only=True)
    return lakehouse.open(path, read_only=read_only)


@main.command()
@click.pass_obj
def init(path: str | None) -> None:
    """Make a lake, or say that it is there."""
    with _open(path, create=True) as lake:
        tables = len(lake.catalog.tables())
        click.echo(f"{lake.path} is ready ({tables} table{'' if tables == 1 else 's'})")


@main.command()
@click.option("--page/--no-page", default=True, help="Execute the quickstart notebook and write it as a page.")
@click.pass_obj
def demo(path: str | None, page: bool) -> None:
    """Load real data (flights from New York in 2013), ask three questions, show a page."""
    from lakehouse import demo as tour

    with _open(path, create=True) as lake:
        tour.run(lake, click.echo, page=page)


@main.command()
@click.argument("source")
@click.argument("table", required=False)
@click.option("--mode", type=click.Choice(["append", "replace"]), default="append", show_default=True)
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
    kind: str | None,
    options: Sequence[str],
    force: bool,
    as_json: bool,
) -> None:
    """Load SOURCE (file, pattern or folder) into TABLE, named after the file unless given."""
    from lakehouse.ingest.files import find

    find(source)  # before a lake is made for what is not there
    name = table or _table_name(source)
    with _open(path, create=True) as lake:
        receipt = lake.ingest(
            source,
            name,
            mode=mode,  # type: ignore[arg-type]  # click has checked the choice
            format=kind,
            options=dict(_pair(option) for option in options),
            force=force,
        )
    if as_json:
        _print_json({field: getattr(receipt, field) for field in receipt.__slots__})
    elif receipt.duplicate:
        click.echo(
            f"{receipt.table}: this content was loaded before ({receipt.rows:,} rows, snapshot {receipt.snapshot});"
            " --force loads it again"
        )
    else:
        click.echo(f"{receipt.table}: {receipt.rows:,} rows in {receipt.elapsed:.2f} s, snapshot {receipt.snapshot}")


@main.command()
@click.argument("query")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Value for $NAME, as JSON or text.")
@at_version
@click.option("--limit", type=click.IntRange(min=0), help="At most so many rows.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds until the query is stopped.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write all rows to a .csv or .parquet file.")
@click.option("--explain", is_flag=True, help="Show the plan instead of the rows.")
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
    as_json: bool,
) -> None:
    """Run QUERY; - reads it from standard input."""
    text = sys.stdin.read() if query == "-" else query
    if output and Path(output).suffix not in (".csv", ".parquet"):
        raise click.BadParameter("the file must end in .csv or .parquet", param_hint="--output")
    with _open(path) as lake:
        bound = dict(_pair(param) for param in params)
        result = lake.sql(text, bound, at=at, limit=limit, timeout=timeout)
        if explain:
            click.echo(result.explain())
        elif output:
            written = result.to_csv(output) if output.endswith(".csv") else result.to_parquet(output)
            click.echo(f"{len(result):,} rows in {written}")
        elif as_json:
            _stream_json(result)
        else:
            click.echo(repr(result))


@main.command()
@click.argument("schema", required=False)
@at_version
@as_json
@click.pass_obj
def tables(path: str | None, schema: str | None, at: str | None, as_json: bool) -> None:
    """List tables with their rows and sizes, and views."""
    with _pinned(path, at) as lake:
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
    _print(rows, as_json, empty="the lake is empty: load something with lakehouse ingest")


@main.command()
@click.argument("table")
@at_version
@as_json
@click.pass_obj
def show(path: str | None, table: str, at: str | None, as_json: bool) -> None:
    """Show the columns, size and history of TABLE."""
    with _pinned(path, at) as lake:
        entry = lake.catalog.table(table)
        columns = [
            {"column": c.name, "type": c.type, "nullable": c.nullable, "comment": c.comment} for c in entry.schema
        ]
        snapshots = [_snapshot(s) for s in entry.snapshots()[:10]]
        facts = {"name": entry.full_name, "kind": entry.kind, "rows": entry.row_count, "bytes": entry.bytes}
        comment = entry.comment
    if as_json:
        _print_json({**facts, "comment": comment, "columns": columns, "snapshots": snapshots})
        return
    click.echo(f"{facts['kind']} {facts['name']}: {facts['rows']:,} rows, {facts['bytes']:,} bytes")
    if comment:
        click.echo(comment)
    _print(columns, as_json=False)
    _print(snapshots, as_json=False)


@main.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@as_json
@click.pass_obj
def snapshots(path: str | None, limit: int, as_json: bool) -> None:
    """List the commits of the lake, newest first."""
    with _open(path, read_only=True) as lake:
        rows = [_snapshot(s) for s in lake.catalog.snapshots(limit)]
    _print(rows, as_json)


@main.command()
@as_json
@click.pass_obj
def config(path: str | None, as_json: bool) -> None:
    """Print the effective settings and where each came from."""
    from lakehouse import config as settings
    from lakehouse.lake import folder_of

    _, origins = settings.explain(folder_of(path))
    rows = [{"setting": f"{o.section}.{o.key}", "value": o.value, "from": o.source} for o in origins]
    _print(rows, as_json)


def _pinned(path: str | None, at: str | None) -> Lakehouse:
    import lakehouse

    return lakehouse.open(path, at=at) if at is not None else _open(path, read_only=True)


def _table_name(source: str) -> str:
    """What a table is called after its source; that of a pattern or folder only if it is a plain name."""
    path = Path(source)
    name = path.name.split(".")[0]
    if not path.is_file() and (path.is_dir() or any(mark in source for mark in "*?[")) and not name.isidentifier():
        raise click.UsageError(f"name the TABLE: '{path.name}' gives no name for one")
    return name


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"'{text}' is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _snapshot(snapshot: Any) -> dict[str, Any]:
    return {
        "snapshot": snapshot.id,
        "time": snapshot.time.astimezone().isoformat(" ", "seconds"),
        "author": snapshot.author,
        "message": snapshot.message,
        "changes": snapshot.changes,
    }


def _print(rows: list[dict[str, Any]], as_json: bool, *, empty: str = "nothing") -> None:
    if as_json:
        _print_json(rows)
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


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, default=str, ensure_ascii=False, indent=2))


def _stream_json(result: Any) -> None:
    """Rows as one JSON array, written as they come: a result larger than memory works."""
    names: list[str] = result.columns
    encode: Callable[[Any], str] = json.JSONEncoder(default=str, ensure_ascii=False).encode
    click.echo("[", nl=False)
    for number, row in enumerate(result):
        click.echo(("," if number else "") + "\n  " + encode(dict(zip(names, row, strict=True))), nl=False)
    click.echo("\n]")


if __name__ == "__main__":
    main()
