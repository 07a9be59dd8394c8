"""`lakehouse report`: notebooks with parameters, executed on one snapshot."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from lakehouse.cli.shared import as_json, at_version, opened, print_json, print_rows
from lakehouse.errors import ReportInvalid

if TYPE_CHECKING:
    from lakehouse.reports.model import ReportRun

_parameter = click.option(
    "-p", "--parameter", "given", multiple=True, metavar="NAME=VALUE", help="A value; may be given several times."
)
_formats = click.option(
    "--format", "formats", type=click.Choice(["html", "pdf"]), multiple=True, default=["html"], show_default=True
)
_force = click.option("--force", is_flag=True, help="Run it even if there is a run of the same.")


@click.group()
def report() -> None:
    """Notebooks with parameters, executed on one snapshot into pages that are kept."""


@report.command("list")
@as_json
@click.pass_obj
def list_(path: str | None, as_json: bool) -> None:
    """List the reports there are."""
    with opened(path, read_only=True) as lake:
        rows = [
            {"report": one.name, "title": one.title, "parameters": ", ".join(p.name for p in one.parameters)}
            for one in lake.reports.list()
        ]
    print_rows(rows, as_json, empty="no reports")


@report.command()
@click.argument("name")
@as_json
@click.pass_obj
def describe(path: str | None, name: str, as_json: bool) -> None:
    """Show what a report takes."""
    with opened(path, read_only=True) as lake:
        found = lake.reports.describe(name)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    click.echo(f"{found.title}\n{found.description}".rstrip())
    print_rows(
        [
            {"parameter": p.name, "kind": p.kind, "default": p.default, "choices": _listed(p.choices), "help": p.help}
            for p in found.parameters
        ],
        as_json=False,
        empty="It takes no parameters.",
    )


@report.command()
@click.argument("name")
@_parameter
@at_version
@_formats
@_force
@click.option("--timeout", type=float, metavar="SECONDS", help="Seconds until it is ended.")
@as_json
@click.pass_obj
def run(
    path: str | None,
    name: str,
    given: tuple[str, ...],
    at: str | None,
    formats: tuple[Any, ...],
    force: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Run a report. Exit code 1 when it did not go well; what came of it is kept all the same."""

    def told(done: ReportRun) -> None:
        if done.status == "running":
            click.echo(f"\rcell {done.cell} of {done.cells}", nl=done.cell == done.cells, err=True)

    with opened(path) as lake:
        values = lake.reports.parsed(name, _texts(given))
        result = lake.reports.run(name, values, at=at, formats=formats, force=force, timeout=timeout, told=told)
        _show(result, as_json)
    if result.status != "ok":
        raise SystemExit(1)


@report.command()
@click.argument("name")
@click.argument("file", type=click.File("rb"))
@at_version
@_formats
@_force
@click.option("--workers", type=click.IntRange(1), help="How many run at once.")
@as_json
@click.pass_obj
def batch(
    path: str | None,
    name: str,
    file: Any,
    at: str | None,
    formats: tuple[Any, ...],
    force: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Run a report for each line of FILE (one JSON object of parameters per line; - for standard input)."""
    sets = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            sets.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError as error:
            raise click.UsageError(f"line {number} is no JSON object: {error}") from None

    def told(run: ReportRun) -> None:
        if not as_json:
            _line(run)

    with opened(path) as lake:
        done = lake.reports.batch(name, sets, at=at, formats=formats, force=force, workers=workers, told=told)
        if as_json:
            print_json(msgspec.to_builtins(done))
        else:
            click.echo(f"{len(done.runs)} runs, {len(done.failed)} not complete; the list is the object {done.page}")
    if done.failed:
        raise SystemExit(1)


@report.command()
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@as_json
@click.pass_obj
def runs(path: str | None, name: str | None, limit: int, as_json: bool) -> None:
    """List runs of one report or of all, newest first."""
    with opened(path, read_only=True) as lake:
        found = lake.reports.runs(name, limit=limit)
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    rows = [
        {
            "run": one.id,
            "status": one.status,
            "snapshot": one.snapshot,
            "seconds": round(one.seconds, 1),
            "parameters": json.dumps(one.parameters, ensure_ascii=False),
            "error": one.error and f"{one.error.type}: {one.error.message}"[:80],
        }
        for one in found
    ]
    print_rows(rows, as_json=False, empty="no runs")


@report.command()
@click.argument("run_a")
@click.argument("run_b")
@as_json
@click.pass_obj
def compare(path: str | None, run_a: str, run_b: str, as_json: bool) -> None:
    """Show what differs from RUN_A to RUN_B."""
    with opened(path, read_only=True) as lake:
        found = lake.reports.compare(run_a, run_b)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    for name, change in found.parameters.items():
        click.echo(f"{name}: {change.before} → {change.after}")
    if found.snapshot is not None:
        click.echo(f"snapshot: {found.snapshot.before} → {found.snapshot.after}")
    if found.code:
        click.echo("the report itself has changed")
    for output in found.outputs:
        click.echo(f"cell {output.cell}, {output.kind}:")
        shown = output.kind in ("table", "text")
        for sign, color, lines in (("-", "red", output.removed), ("+", "green", output.added)):
            for line in lines if shown else []:
                click.secho(f"  {sign} {line}", fg=color)
        if not shown:
            click.echo("  another picture")
    if found.same:
        click.echo("the outputs are the same")


@report.command()
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def cancel(path: str | None, run_id: str) -> None:
    """End a run that is under way, in whatever process."""
    with opened(path, read_only=True) as lake:
        click.echo("it will end in a moment" if lake.reports.cancel(run_id) else "it is not under way")


@report.command("open")
@click.argument("run_id", metavar="RUN")
@click.option("--output", type=click.Path(dir_okay=False), help="Where to write the page; else the folder you are in.")
@click.option("--no-browser", is_flag=True, help="Only write the page.")
@click.pass_obj
def open_(path: str | None, run_id: str, output: str | None, no_browser: bool) -> None:
    """Write the page of a run as a file and open it in the browser."""
    from lakehouse.query.files import written

    with opened(path, read_only=True) as lake:
        found = lake.reports.get(run_id)
        if "html" not in found.artefacts:
            raise ReportInvalid(f"the run {run_id} has no page: it is {found.status}")
        target = Path(output or f"{found.id}.html").absolute()
        with written(target) as temporary:
            temporary.write_bytes(lake.storage.get(found.artefacts["html"]))
    click.echo(str(target))
    if not no_browser:
        webbrowser.open(target.as_uri())


def _texts(given: tuple[str, ...]) -> dict[str, str]:
    texts = {}
    for one in given:
        name, separator, text = one.partition("=")
        if not separator or not name:
            raise click.UsageError(f"'{one}' is not NAME=VALUE")
        texts[name] = text
    return texts


def _show(run: ReportRun, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(run))
        return
    _line(run)
    for what, key in run.artefacts.items():
        click.echo(f"  {what:<9}{key}")
    click.echo(f"see it: lakehouse report open {run.id}")


def _line(run: ReportRun) -> None:
    again = ", from before" if run.reused else ""
    click.echo(f"{run.id}: {run.status}, snapshot {run.snapshot}, {run.seconds:.1f} s{again}")
    if run.error is not None:
        where = "" if run.error.cell is None else f"cell {run.error.cell}: "
        click.echo(f"  {where}{run.error.type}: {run.error.message}")


def _listed(values: list[Any] | None) -> str | None:
    return None if values is None else ", ".join(map(str, values))
