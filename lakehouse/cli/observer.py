"""`lakehouse observer`: what ran, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import msgspec

from lakehouse.cli.shared import as_json, opened, print_json, print_rows
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.observer.model import Event

_FILTERS = ("run", "workflow", "node", "mode", "status")


@click.group()
def observer() -> None:
    """What ran, and what came of it: events of all processes."""


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which events are wanted."""
    for name in reversed(_FILTERS):
        command = click.option(f"--{name}", help=f"Only of this {name}.")(command)
    return click.option("--failed", is_flag=True, help="Only what ended without success.")(command)


@observer.command()
@_filtered
@click.option("--since", metavar="WHEN", help="Behind this place, since this time, or within this age (1h).")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True)
@click.option("--oldest", is_flag=True, help="The oldest first.")
@as_json
@click.pass_obj
def events(
    path: str | None, /, failed: bool, since: str | None, limit: int, oldest: bool, as_json: bool, **filters: Any
) -> None:
    """Show events, newest first."""
    with opened(path, read_only=True) as lake:
        success = False if failed else None
        found = lake.observer.events(**filters, success=success, since=_when(since), limit=limit, oldest=oldest)
    if as_json:
        print_json([event.to_dict() for event in found])
    else:
        print_rows([_row(event) for event in found], as_json=False, empty="nothing was recorded")


@observer.command()
@click.option("--workflow", help="Only of this workflow.")
@click.option("--node", help="Only of this node.")
@click.option("--mode", help="Only of this mode.")
@click.option("--since", metavar="WHEN", help="Behind this place, since this time, or within this age (1h).")
@as_json
@click.pass_obj
def stats(path: str | None, /, since: str | None, as_json: bool, **filters: Any) -> None:
    """Count runs and failures by workflow, node and mode, and show how long they took."""
    with opened(path, read_only=True) as lake:
        found = lake.observer.stats(**filters, since=_when(since))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    rows = [
        {
            "workflow": one.workflow, "node": one.node, "mode": one.mode, "runs": one.runs, "failures": one.failures,
            "p50": _seconds(one.p50), "p99": _seconds(one.p99), "last": one.last_status,
            "last error": None if one.last_error is None else f"{one.last_error.type}: {one.last_error.message:.80}",
        }
        for one in found
    ]  # fmt: skip
    print_rows(rows, as_json=False, empty="nothing was recorded")


@observer.command()
@_filtered
@click.option("--since", type=click.IntRange(0), metavar="PLACE", help="Begin behind this place in the journal.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="End when nothing came for so long.")
@as_json
@click.pass_obj
def follow(
    path: str | None, /, failed: bool, since: int | None, timeout: float | None, as_json: bool, **filters: Any
) -> None:
    """Show events as they come, one a line, until interrupted."""
    with opened(path, read_only=True) as lake:
        success = False if failed else None
        for event in lake.observer.follow(**filters, success=success, since=since, timeout=timeout):
            click.echo(json.dumps(event.to_dict(), ensure_ascii=False) if as_json else _line(event))


@observer.command()
@as_json
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Read the whole journal; exit code 1 when something is wrong with it."""
    with opened(ctx.obj, read_only=True) as lake:
        found = lake.observer.verify()
    facts = {**asdict(found), "sound": found.sound}
    faults = facts.pop("faults")
    if as_json:
        print_json({**facts, "faults": faults})
    else:
        print_rows([facts], as_json=False)
        print_rows([{k: fault[k] for k in ("offset", "size", "reason")} for fault in faults], False, empty="no faults")
    ctx.exit(0 if found.sound else 1)


@observer.command()
@click.option("--keep", metavar="AGE", help="Leave out older events, such as 30d; else the setting observer.keep.")
@as_json
@click.pass_obj
def compact(path: str | None, keep: str | None, as_json: bool) -> None:
    """Write the journal anew, without old events."""
    with opened(path) as lake:
        done = lake.observer.compact(keep)
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(
            f"{counted(done.dropped, 'event')} left out; {done.bytes_before:,} bytes before, {done.bytes_after:,} after"
        )


def _when(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _row(event: Event) -> dict[str, Any]:
    return {
        "place": event.seq,
        "recorded": None if event.recorded is None else event.recorded.astimezone().isoformat(" ", "seconds"),
        "run": event.run,
        "workflow": event.workflow,
        "node": event.node,
        "mode": event.mode,
        "status": event.status,
        "took": _seconds(event.elapsed),
        "why": _why(event),
    }


def _line(event: Event) -> str:
    where = "/".join(filter(None, (event.workflow, event.node))) or "-"
    took = "" if event.elapsed is None else f" in {_seconds(event.elapsed)}"
    why = _why(event)
    return f"{event.run} {where} {event.status}{took}" + (f": {why}" if why else "")


def _why(event: Event) -> str | None:
    return event.reason if event.error is None else f"{event.error.type}: {event.error.message:.120}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g} s"
