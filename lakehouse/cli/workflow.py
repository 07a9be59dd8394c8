"""`lakehouse workflow`: nodes that depend on each other, run with a true account of each."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.shared import as_json, opened, pair, print_json, print_rows
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.workflow.runs import Run

_NAMED = "The name of a stored workflow, or the path of a .toml file."
executor = click.option(
    "--executor", metavar="NAME", help="threads (default), processes, dask, or dask:tcp://HOST:PORT of a scheduler."
)
workers = click.option("--workers", type=click.IntRange(1, 1000), help="Nodes that run at once.")
quiet = click.option("--quiet", is_flag=True, help="Show no progress.")


@click.group()
def workflow() -> None:
    """Run nodes that depend on each other, each in a process of its own, and say truly what came of them."""


@workflow.command()
@click.argument("name", metavar="WORKFLOW")
@as_json
@click.pass_obj
def validate(path: str | None, name: str, as_json: bool) -> None:
    """Look for everything that would keep WORKFLOW (a name, or a .toml file) from running; nothing is run."""
    with opened(path, create=_is_file(name)) as lake:
        plan = lake.workflows.validate(name)
    if as_json:
        print_json({"workflow": Path(name).stem, "order": list(plan.order)})
    else:
        click.echo(f"{name} can run: {counted(len(plan.order), 'node')}: {', '.join(plan.order[:20])}")


@workflow.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.pass_obj
def store(path: str | None, file: str) -> None:
    """Keep the definition in FILE in the lake, to be run by its name, also over HTTP."""
    with opened(path, create=True) as lake:
        click.echo(f"stored as {lake.workflows.store(file)}")


@workflow.command("list")
@as_json
@click.pass_obj
def list_(path: str | None, as_json: bool) -> None:
    """Show the stored workflows."""
    with opened(path, read_only=True) as lake:
        rows = [{"workflow": name} for name in lake.workflows.names()]
    print_rows(rows, as_json, empty="no workflow is stored")


@workflow.command()
@click.argument("name", metavar="WORKFLOW")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter; JSON, or else a text.")
@click.option("--force", is_flag=True, help="Run nodes also when nothing has changed.")
@workers
@executor
@quiet
@as_json
@click.pass_obj
def run(
    path: str | None,
    name: str,
    params: tuple[str, ...],
    force: bool,
    workers: int | None,
    executor: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run WORKFLOW (a name, or a .toml file) and wait; exit code 1 unless all of it is done."""
    with opened(path, create=_is_file(name)) as lake:
        loaded = lake.workflows.load(name)
        _stoppable()

        def work(progress: Any) -> Run:
            given = dict(map(pair, params))
            return lake.workflows.run(
                loaded, given, force=force, workers=workers, executor=executor, progress=progress, check=False
            )

        _finish(_watched(work, loaded.name, len(loaded.nodes), quiet=quiet or as_json), as_json)


@workflow.command()
@click.argument("run_id", metavar="RUN")
@click.option("--updated", is_flag=True, help="Go by its file as it is now: what differs is done again, and the rest.")
@workers
@executor
@quiet
@as_json
@click.pass_obj
def resume(
    path: str | None,
    run_id: str,
    updated: bool,
    workers: int | None,
    executor: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Go on with a run that failed, was cancelled or interrupted; what is done stays."""
    from lakehouse.workflow.renewed import file_of

    with opened(path) as lake:
        before = lake.workflows.get(run_id)
        file = file_of(before.definition) if updated else None
        if updated and file is None:
            raise click.UsageError(
                "the run was not begun from a file that is still there: --updated has nothing to take"
            )
        left = sum(node not in before.events or not before.events[node].success for node in before.nodes)
        _stoppable()

        def work(progress: Any) -> Run:
            return lake.workflows.resume(
                run_id, workflow=file, workers=workers, executor=executor, progress=progress, check=False
            )

        _finish(_watched(work, before.workflow, left, quiet=quiet or as_json), as_json)


@workflow.command()
@click.argument("run_id", metavar="RUN")
@as_json
@click.pass_obj
def cancel(path: str | None, run_id: str, as_json: bool) -> None:
    """Cancel a run, of whatever process; its nodes are killed."""
    with opened(path) as lake:
        found = lake.workflows.cancel(run_id)
    if as_json:
        print_json(found.to_dict())
    else:
        going = found.status == "running"
        click.echo(f"{run_id} is being cancelled" if going else f"{run_id} does not run: it is {found.status}")


@workflow.command()
@click.argument("name", required=False, metavar="[WORKFLOW]")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@as_json
@click.pass_obj
def runs(path: str | None, name: str | None, limit: int, as_json: bool) -> None:
    """Show the runs, newest first."""
    with opened(path, read_only=True) as lake:
        found = [one.to_dict() for one in lake.workflows.runs(name, limit)]
    if as_json:
        print_json(found)
        return
    rows = [
        {
            "run": one["run"],
            "workflow": one["workflow"],
            "status": one["status"],
            "started": one["started"].astimezone().isoformat(" ", "seconds"),
            "nodes": ", ".join(f"{count} {status}" for status, count in one["counts"].items()),
        }
        for one in found
    ]
    print_rows(rows, as_json=False, empty="no runs")


@workflow.command()
@click.argument("run_id", metavar="RUN")
@click.option("--log", metavar="NODE", help="Show what this node printed instead.")
@as_json
@click.pass_obj
def show(path: str | None, run_id: str, log: str | None, as_json: bool) -> None:
    """Show what came of each node of a run."""
    with opened(path, read_only=True) as lake:
        if log is not None:
            click.echo(lake.workflows.printed(run_id, log), nl=False)
            return
        found = lake.workflows.get(run_id)
    _print(found, as_json)


@workflow.command()
@click.argument("name", metavar="WORKFLOW")
@click.option("--run", "run_id", metavar="RUN", help="With what came of each node in this run.")
@click.option("--svg", is_flag=True, help="Print the picture instead.")
@as_json
@click.pass_obj
def graph(path: str | None, name: str, run_id: str | None, svg: bool, as_json: bool) -> None:
    """Show which node of WORKFLOW (a name, or a .toml file) comes after which."""
    with opened(path, create=_is_file(name)) as lake:
        found = lake.workflows.graph(name, run_id)
        if as_json:
            print_json(found.to_dict())
        else:
            click.echo(found.svg() if svg else found.text())


@workflow.command()
@click.argument("name", metavar="WORKFLOW")
@click.option("--calendar", metavar="WHEN", help="For systemd, such as daily or 'Mon..Fri 06:30'.")
@click.option("--cron", metavar="WHEN", help="For cron, such as '30 6 * * 1-5' or @daily.")
@click.option("--write", "folder", type=click.Path(file_okay=False), help="Write the units into this folder.")
@as_json
@click.pass_obj
def schedule(
    path: str | None, name: str, calendar: str | None, cron: str | None, folder: str | None, as_json: bool
) -> None:
    """Print systemd units (--calendar) or a line for cron (--cron) that run WORKFLOW; nothing is installed."""
    from lakehouse.workflow.schedule import Schedule

    if (calendar is None) is (cron is None):
        raise click.UsageError("give --calendar or --cron")
    with opened(path, create=_is_file(name)) as lake:
        lake.workflows.validate(name)
        where = lake.path
    what = str(Path(name).absolute()) if _is_file(name) else name
    made = Schedule(what, where, (sys.executable, "-m", "lakehouse.cli"), Path.cwd())
    files = {"crontab": made.cron(cron)} if cron is not None else made.units(calendar or "")
    if as_json:
        print_json(files)
        return
    for file, text in files.items():
        if folder is None:
            click.echo(text if cron is not None else f"# {file}\n{text}")
        else:
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, file).write_text(text, "utf-8")
            click.echo(str(Path(folder, file)))


def _is_file(name: str) -> bool:
    return name.endswith(".toml") or "/" in name


def _stoppable() -> None:
    """Let SIGTERM, as systemd sends it, end a run as Ctrl-C does: its nodes are killed and that is written down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _watched(work: Any, name: str, count: int, *, quiet: bool) -> Run:
    found: Run
    if quiet or not sys.stderr.isatty():
        found = work(None)
        return found
    from rich.console import Console

    from lakehouse.workflow.progress import Shown

    with Shown(name, count, Console(stderr=True)) as progress:
        found = work(progress)
    return found


def _finish(run: Run, as_json: bool) -> None:
    """Print a run and end with the exit code that it deserves."""
    _print(run, as_json)
    if run.note:
        click.echo(f"note: {run.note}", err=True)
    if not run.success:
        if not as_json:
            click.echo(f"hint: lakehouse workflow resume {run.id}", err=True)
        click.get_current_context().exit(1)


def _print(run: Run, as_json: bool) -> None:
    if as_json:
        print_json({**run.to_dict(), "events": [event.to_dict() for event in run.events.values()]})
        return
    click.echo(f"run {run.id} of {run.workflow}: {run.status}")
    print_rows(run.rows(), as_json=False)
