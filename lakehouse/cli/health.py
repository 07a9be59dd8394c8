"""Commands that keep a lake healthy: maintenance, doctor, backup and restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lakehouse.cli.shared import as_json, opened, print_json
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.health.maintenance import Report

_COLORS = {"ok": "green", "note": "yellow", "fault": "red"}
older_than = click.option("--older-than", metavar="AGE", help="Such as 30d, 12h or '2 weeks'.")
yes = click.option("--yes", is_flag=True, help="Do it; without this it is only said what would go.")


@click.group()
def maintenance() -> None:
    """Compact, expire and clean a lake."""


@maintenance.command()
@click.argument("table", required=False)
@as_json
@click.pass_obj
def compact(path: str | None, table: str | None, as_json: bool) -> None:
    """Merge small files of TABLE, or of all tables; no row changes and every snapshot reads as before."""
    with opened(path) as lake:
        _tell([lake.maintenance.compact(table)], as_json)


@maintenance.command()
@older_than
@yes
@as_json
@click.pass_obj
def expire(path: str | None, older_than: str | None, yes: bool, as_json: bool) -> None:
    """Give up old snapshots (default: maintenance.keep_snapshots); tagged ones stay."""
    with opened(path) as lake:
        _tell([lake.maintenance.expire(older_than, dry_run=not yes)], as_json)


@maintenance.command()
@older_than
@yes
@as_json
@click.pass_obj
def clean(path: str | None, older_than: str | None, yes: bool, as_json: bool) -> None:
    """Delete files that nobody needs any more (default: for maintenance.keep_files)."""
    with opened(path) as lake:
        _tell([lake.maintenance.clean(older_than, dry_run=not yes)], as_json)


@maintenance.command()
@as_json
@click.pass_obj
def run(path: str | None, as_json: bool) -> None:
    """Compact, expire and clean as the settings in [maintenance] say."""
    with opened(path) as lake:
        _tell(lake.maintenance.run(), as_json)


@click.command()
@click.option("--repair", is_flag=True, help="Fix what can be fixed without losing anything.")
@click.option("--checksums", is_flag=True, help="Also read every data file and object and compare its hash.")
@click.option("-v", "--verbose", is_flag=True, help="Also say what is as it should be.")
@as_json
@click.pass_context
def doctor(ctx: click.Context, repair: bool, checksums: bool, verbose: bool, as_json: bool) -> None:
    """Look whether the lake is whole, and say what to do; exit code 1 when something is wrong."""
    from lakehouse.lake import diagnose

    found = diagnose(ctx.obj, checksums=checksums, repair=repair)
    if as_json:
        print_json(found.to_dict())
    else:
        for finding in found.findings:
            if verbose or finding.level != "ok":
                click.echo(f"{click.style(finding.level, fg=_COLORS[finding.level])}: {finding.where}: {finding.what}")
                if finding.advice:
                    click.echo(f"  {finding.advice}")
        for line in found.repaired:
            click.echo(f"repaired: {line}")
        looked, faults, notes = len(found.findings), len(found.faults), len(found.notes)
        click.echo(f"{found.lake}: {looked} findings, {counted(faults, 'fault')}, {notes} to note")
    if not found.healthy:
        ctx.exit(1)


@click.command()
@click.argument("dest")
@click.option("--verify", is_flag=True, help="Only read the backup in DEST and compare every hash.")
@as_json
@click.pass_obj
def backup(path: str | None, dest: str, verify: bool, as_json: bool) -> None:
    """Copy the lake to the folder DEST, only what is new there; others may write meanwhile."""
    if verify:
        from lakehouse.lake import verify_backup

        found = verify_backup(dest)
        facts = {"place": dest, "snapshot": found.snapshot, "time": found.time, "files": len(found.hashes())}
        if as_json:
            print_json({**facts, "whole": True})
        else:
            click.echo(f"{dest}: whole, {facts['files']:,} contents, snapshot {found.snapshot}, made {found.time[:19]}")
        return
    with opened(path) as lake:
        report = lake.backup(dest)
    if as_json:
        print_json(report.to_dict())
        return
    click.echo(
        f"{report.place}: {counted(report.files, 'file')}, {report.bytes:,} bytes, snapshot {report.snapshot};"
        f" {report.copied:,} copied ({report.copied_bytes:,} bytes) in {report.elapsed:.2f} s"
    )
    for line in report.left_out:
        click.echo(f"  left out: {line}")


@click.command()
@click.argument("src")
@as_json
@click.pass_obj
def restore(path: str | None, src: str, as_json: bool) -> None:
    """Make the lake of the backup in SRC again, in a new or empty lake folder (--lake)."""
    from lakehouse.lake import restore as make

    report = make(src, path)
    if as_json:
        print_json(report.to_dict())
        return
    click.echo(
        f"{report.path}: {counted(report.files, 'file')}, {report.bytes:,} bytes, snapshot {report.snapshot},"
        f" every hash as backed up, in {report.elapsed:.2f} s"
    )
    for line in report.left_out:
        click.echo(f"  not in the backup: {line}")


def _tell(reports: list[Report], as_json: bool) -> None:
    if as_json:
        print_json([report.to_dict() for report in reports])
        return
    for report in reports:
        click.echo(str(report))
        if report.dry_run:
            click.echo("  --yes does it")
