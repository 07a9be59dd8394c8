"""`lakehouse pathway`: the memory of how questions were answered."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lakehouse.cli.shared import as_json, opened, pair, print_json, print_rows
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.pathway.model import Trace

labels = click.option("--tag", "tags", multiple=True, help="A label; may be given several times.")
scoped = click.option("--scope", "scopes", multiple=True, metavar="KEY=VALUE", help="Whose it is, such as user=ann.")
then = click.option("--as-of", metavar="WHEN", help="As it was at a journal position or time.")


@click.group()
def pathway() -> None:
    """The memory of how questions were answered: add, find, revise, retire."""


def _command(name: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    return pathway.command(name)


@_command()
@click.argument("content")
@click.option("--kind", help="One word for what it is.")
@click.option("--uid", help="Its name; else one is made up.")
@click.option("--idempotent", is_flag=True, help="Count it if it is there already.")
@labels
@scoped
@as_json
@click.pass_obj
def add(
    path: str | None,
    content: str,
    kind: str | None,
    uid: str | None,
    idempotent: bool,
    tags: tuple[str, ...],
    scopes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Keep CONTENT (JSON, or else a text; - reads it from standard input)."""
    with opened(path, create=True) as lake:
        work = lake.pathway.add_idempotent if idempotent else lake.pathway.add
        trace = work(_content(content), kind=kind, tags=tags, scope=_scope(scopes), uid=uid)
    _show(trace, as_json)


@_command()
@click.argument("uid")
@then
@as_json
@click.pass_obj
def get(path: str | None, uid: str, as_of: str | None, as_json: bool) -> None:
    """Show one trace, retired or not."""
    with opened(path, read_only=True) as lake:
        trace = lake.pathway.get(uid, as_of=_when(as_of))
    _show(trace, as_json)


@_command()
@click.argument("query", required=False)
@click.option("--filter", "filters", metavar="JSON", help='Such as \'{"content.rows": {"gte": 10}}\'.')
@click.option("--kind", help="Only this kind.")
@click.option("--retired", is_flag=True, help="Retired ones too.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--cursor", help="What the page before gave for the next one, with all else equal.")
@click.option("--threshold", type=float, help="Leave out what scores less.")
@click.option("--explain", is_flag=True, help="Show which words matched.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "lexical", "semantic", "hybrid"]),
    default="auto",
    show_default=True,
    help="By words, by meaning, by both; auto: by both where the extra 'semantic' is installed, else by words.",
)
@labels
@scoped
@then
@as_json
@click.pass_obj
def search(
    path: str | None,
    query: str | None,
    filters: str | None,
    kind: str | None,
    retired: bool,
    limit: int,
    cursor: str | None,
    threshold: float | None,
    explain: bool,
    mode: Any,
    tags: tuple[str, ...],
    scopes: tuple[str, ...],
    as_of: str | None,
    as_json: bool,
) -> None:
    """Find traces by the words and the meaning of QUERY, best first; without a query the newest first."""
    narrowed = None if filters is None else _json(filters, "--filter")
    with opened(path, read_only=True) as lake:
        page = lake.pathway.search(
            query,
            filters=narrowed,
            tags=tags,
            kind=kind,
            scope=_scope(scopes),
            include_retired=retired,
            limit=limit,
            cursor=cursor,
            threshold=threshold,
            explain=explain,
            mode=mode,
            as_of=_when(as_of),
        )
    rows = [{"score": round(found.score, 4), **_row(found.trace)} for found in page]
    if explain:
        rows = [{**row, "why": str(found.why or "")} for row, found in zip(rows, page, strict=True)]
    if as_json:
        results = [{**found.trace.to_dict(), "score": found.score, "why": found.why} for found in page]
        facts = {"next_cursor": page.next_cursor, "position": page.position, "ranking": page.ranking}
        print_json({"results": results, **facts})
        return
    print_rows(rows, as_json=False, empty="nothing was found")
    if page.next_cursor is not None:
        click.echo(f"there are more: --cursor {page.next_cursor}")


@_command()
@click.argument("uid")
@as_json
@click.pass_obj
def history(path: str | None, uid: str, as_json: bool) -> None:
    """Show a trace and those it came from, newest first."""
    with opened(path, read_only=True) as lake:
        found = lake.pathway.history(uid)
    if as_json:
        flags = {"truncated": found.truncated, "missing_predecessor": found.missing_predecessor, "cycle": found.cycle}
        print_json({"items": [trace.to_dict() for trace in found.items], **flags})
        return
    print_rows([_row(trace) for trace in found.items], as_json=False)
    if found.truncated:
        click.echo(f"the one before, {found.missing_predecessor}, is not there")
    if found.cycle:
        click.echo("the predecessors run in a circle")


@_command()
@click.argument("uid")
@as_json
@click.pass_obj
def versions(path: str | None, uid: str, as_json: bool) -> None:
    """Show what a trace said before it was updated."""
    with opened(path, read_only=True) as lake:
        found = lake.pathway.versions(uid)
    rows = [{"version": v.version, "at": v.at.isoformat(" ", "seconds"), "content": _text(v.content)} for v in found]
    print_rows(rows, as_json)


@_command()
@click.argument("uid")
@click.argument("content")
@click.option("--if-version", type=int, help="Only if it is still at this version.")
@as_json
@click.pass_obj
def update(path: str | None, uid: str, content: str, if_version: int | None, as_json: bool) -> None:
    """Give a trace new CONTENT; earlier versions are kept."""
    with opened(path) as lake:
        trace = lake.pathway.update(uid, _content(content), if_version=if_version)
    _show(trace, as_json)


@_command()
@click.argument("uid")
@click.argument("content")
@labels
@as_json
@click.pass_obj
def revise(path: str | None, uid: str, content: str, tags: tuple[str, ...], as_json: bool) -> None:
    """Keep CONTENT as a new trace that follows UID."""
    with opened(path) as lake:
        trace = lake.pathway.revise(uid, _content(content), tags=tags or None)
    _show(trace, as_json)


@_command()
@click.argument("uid")
@click.option("--reason")
@as_json
@click.pass_obj
def retire(path: str | None, uid: str, reason: str | None, as_json: bool) -> None:
    """Take a trace out of search; get and history still show it."""
    with opened(path) as lake:
        trace = lake.pathway.retire(uid, reason)
    _show(trace, as_json)


@_command()
@click.argument("uid")
@as_json
@click.pass_obj
def restore(path: str | None, uid: str, as_json: bool) -> None:
    """Put a retired trace back into search."""
    with opened(path) as lake:
        trace = lake.pathway.restore(uid)
    _show(trace, as_json)


@_command()
@click.argument("uid")
@click.argument("score", type=float)
@click.option("--note")
@as_json
@click.pass_obj
def feedback(path: str | None, uid: str, score: float, note: str | None, as_json: bool) -> None:
    """Say how good a trace was; the last SCORE counts."""
    with opened(path) as lake:
        trace = lake.pathway.feedback(uid, score, note)
    _show(trace, as_json)


@_command()
@click.argument("file", type=click.Path(dir_okay=False))
@as_json
@click.pass_obj
def export(path: str | None, file: str, as_json: bool) -> None:
    """Write all traces to FILE as NDJSON."""
    with opened(path, read_only=True) as lake:
        count = lake.pathway.export(file)
    print_json({"traces": count, "file": file}) if as_json else click.echo(f"{counted(count, 'trace')} in {file}")


@_command("import")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--on-conflict", type=click.Choice(["skip", "fail", "revise"]), default="skip", show_default=True)
@as_json
@click.pass_obj
def import_(path: str | None, file: str, on_conflict: Any, as_json: bool) -> None:
    """Add the traces of FILE: an export, or memories as other stores write them."""
    with opened(path, create=True) as lake:
        done = lake.pathway.import_(file, on_conflict=on_conflict)
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{done.added:,} added, {done.skipped:,} were there, {done.revised:,} revised")


@_command()
@click.argument("uid")
@click.option("--at", metavar="VERSION", help="On this version of the lake; `recorded`: on what it saw then.")
@click.option("--check", is_flag=True, help="Exit code 1 unless every step gives the same.")
@as_json
@click.pass_context
def replay(ctx: click.Context, uid: str, at: str | None, check: bool, as_json: bool) -> None:
    """Run a recorded analysis again, in a branch that is thrown away, and compare each step."""
    with opened(ctx.obj) as lake:
        done = lake.pathway.replay(uid, at=_when(at))
    print_json(done.to_dict()) if as_json else click.echo(repr(done))
    ctx.exit(1 if check and done.verdict != "same" else 0)


@_command()
@as_json
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Read the whole journal; exit code 1 when something is wrong with it."""
    with opened(ctx.obj, read_only=True) as lake:
        found = lake.pathway.verify()
    facts = {**asdict(found), "sound": found.sound}
    faults = facts.pop("faults")
    if as_json:
        print_json({**facts, "faults": faults})
    else:
        print_rows([facts], as_json=False)
        print_rows([{k: fault[k] for k in ("offset", "size", "reason")} for fault in faults], False, empty="no faults")
    ctx.exit(0 if found.sound else 1)


@_command()
@as_json
@click.pass_obj
def compact(path: str | None, as_json: bool) -> None:
    """Write the journal anew, without damaged lines."""
    with opened(path) as lake:
        before, after = lake.pathway.compact()
    facts = {"bytes_before": before, "bytes_after": after}
    print_json(facts) if as_json else click.echo(f"{before:,} bytes before, {after:,} after")


@_command()
@as_json
@click.pass_obj
def stats(path: str | None, as_json: bool) -> None:
    """Count traces, replays, records and bytes."""
    with opened(path, read_only=True) as lake:
        found = asdict(lake.pathway.stats())
    print_json(found) if as_json else print_rows([found], as_json=False)


def _content(text: str) -> Any:
    text = sys.stdin.read() if text == "-" else text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint=option) from None


def _scope(pairs: tuple[str, ...]) -> dict[str, str]:
    return {name: str(value) for name, value in map(pair, pairs)}


def _when(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


def _show(trace: Trace, as_json: bool) -> None:
    if as_json:
        print_json(trace.to_dict())
        return
    for name, value in trace.to_dict().items():
        if value not in (None, [], {}):
            click.echo(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


def _row(trace: Trace) -> dict[str, Any]:
    return {
        "uid": trace.uid,
        "kind": trace.kind,
        "tags": " ".join(trace.tags),
        "version": trace.version,
        "replays": trace.replay_count,
        "retired": trace.retired,
        "content": _text(trace.content),
    }


def _text(content: Any) -> str:
    if isinstance(content, dict) and isinstance(content.get("question"), str):  # a recorded analysis
        content = " → ".join(filter(None, (content["question"], content.get("conclusion"))))
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"
