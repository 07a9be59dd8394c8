"""Commands about the past: what changed, names for snapshots, going back."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.shared import as_json, opened, pair, print_json, print_rows, snapshot_row
from lakehouse.errors import LakehouseError, TableNotFound

if TYPE_CHECKING:
    from lakehouse.catalog.table import Table
    from lakehouse.lake import Lakehouse


@click.command()
@click.argument("table")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many commits.")
@click.option("--since", metavar="VERSION", help="Show the rows that changed from this commit on, itself included.")
@click.option("--until", metavar="VERSION", help="With --since: up to this commit, itself included.")
@as_json
@click.pass_obj
def history(path: str | None, table: str, limit: int, since: str | None, until: str | None, as_json: bool) -> None:
    """List the commits that changed TABLE and how many rows each changed; with --since the rows."""
    if until and not since:
        raise click.UsageError("--until needs --since")
    with opened(path, read_only=True) as lake:
        entry = lake.catalog.table(table)
        if since:
            rows = entry.changes(since, until).to_pylist()
        else:
            rows = [
                {**snapshot_row(c.snapshot), "inserted": c.inserted, "updated": c.updated, "deleted": c.deleted}
                for c in entry.history(limit)
            ]
            for row in rows:
                del row["changes"]
    print_rows(rows, as_json, empty="nothing changed")


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@as_json
@click.pass_obj
def diff(path: str | None, a: str, b: str | None, as_json: bool) -> None:
    """Show what differs between the snapshots A and B (the newest unless given)."""
    with opened(path, read_only=True) as lake:
        found = lake.diff(a, b)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(repr(found))


@click.command()
@click.argument("version")
@click.argument("table", required=False)
@click.option("--all", "whole", is_flag=True, help="The whole lake instead of one table.")
@click.option("--allow-schema-change", is_flag=True, help="Give the table back the columns it had, too.")
@as_json
@click.pass_obj
def rollback(
    path: str | None, version: str, table: str | None, whole: bool, allow_schema_change: bool, as_json: bool
) -> None:
    """Make TABLE, or with --all the whole lake, what it was at VERSION, in one new commit."""
    if (table is None) == (not whole):
        raise click.UsageError("give either a TABLE or --all")
    if whole and allow_schema_change:
        raise click.UsageError("--allow-schema-change is for one TABLE: --all always gives columns back")
    with opened(path) as lake:
        before = lake.catalog.current_snapshot().id
        if table is None:
            snapshot = lake.rollback(version)
        else:
            snapshot = _named(lake, table, version).rollback(version, allow_schema_change=allow_schema_change)
    what = table or "the lake"
    if as_json:
        print_json({"table": table, "snapshot": snapshot, "before": before})
    elif snapshot == before:
        click.echo(f"{what} is what it was at {version}: nothing to do")
    else:
        again = f"lakehouse rollback {before} {table or '--all'}"
        click.echo(f"{what} is what it was at {version}, snapshot {snapshot}; undo: {again}")


def _named(lake: Lakehouse, table: str, version: str) -> Table:
    """The table, or which way round the two belong."""
    try:
        return lake.catalog.table(table)
    except TableNotFound:
        with suppress(LakehouseError):
            lake.catalog.table(version)
            raise click.UsageError(f"the version comes first: lakehouse rollback {table} {version}") from None
        raise


@click.command()
@click.argument("name", required=False)
@click.argument("version", required=False)
@click.option("--table", metavar="TABLE", help="Tags of a table: NAME is KEY=VALUE.")
@click.option("--delete", is_flag=True, help="Remove the tag NAME.")
@click.option("--replace", is_flag=True, help="Move NAME if another snapshot has it.")
@as_json
@click.pass_obj
def tag(
    path: str | None,
    name: str | None,
    version: str | None,
    table: str | None,
    delete: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Give the snapshot VERSION (the newest unless given) a NAME; without NAME list what there is."""
    if name is None and (delete or replace):
        raise click.UsageError("give the NAME of the tag")
    if (delete or table) and version is not None:
        raise click.UsageError("VERSION is for naming a snapshot")
    with opened(path, read_only=name is None) as lake:
        if table is not None:
            entry = lake.catalog.table(table)
            if name is not None:
                key, value = (name, None) if delete else pair(name)
                entry.set_tag(key, None if value is None else name.partition("=")[2])
            rows: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in entry.tags.items()]
        else:
            if name is not None and delete:
                lake.catalog.untag_snapshot(name)
            elif name is not None:
                lake.catalog.tag_snapshot(name, version, replace=replace)
            rows = [{"name": known, "snapshot": id} for known, id in lake.catalog.snapshot_tags().items()]
    print_rows(rows, as_json, empty="no tags")
