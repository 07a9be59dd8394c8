"""Commands that tell what is in a lake: profiles, search, the query history; and `fmt`, which lays out SQL."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from lakehouse.cli.shared import as_json, at_version, opened, pinned, print_json, print_rows
from lakehouse.wording import counted


@click.command()
@click.argument("table")
@at_version
@click.option("--sample", type=click.IntRange(min=1), metavar="ROWS", help="Of a larger table look at so many rows.")
@click.option("--all", "whole", is_flag=True, help="Look at all rows, however many.")
@as_json
@click.pass_obj
def profile(path: str | None, table: str, at: str | None, sample: int | None, whole: bool, as_json: bool) -> None:
    """Show what each column of TABLE holds: nulls, distinct values, range, histogram, most frequent values."""
    if whole and sample:
        raise click.UsageError("--all and --sample exclude each other")
    with pinned(path, at) as lake:
        entry = lake.catalog.table(table)
        found = entry.profile(sample=None) if whole else entry.profile(sample=sample) if sample else entry.profile()
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(repr(found))


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The best so many.")
@as_json
@click.pass_obj
def search(path: str | None, words: Sequence[str], limit: int, as_json: bool) -> None:
    """Find tables, views and schemas by WORDS in names, columns, comments and tags."""
    with opened(path, read_only=True) as lake:
        hits = lake.catalog.search(" ".join(words), limit)
    if as_json:
        print_json([hit.to_dict() for hit in hits])
        return
    rows = [
        {
            "name": hit.name,
            "kind": hit.kind,
            "found in": "; ".join(f"{match.where} {match.text}" for match in hit.matches[:3]),
        }
        for hit in hits
    ]
    print_rows(rows, as_json=False, empty=f"nothing has {' and '.join(repr(word) for word in words)}")


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@click.option("--text", help="Only those with this in their SQL.")
@click.option("--status", type=click.Choice(["ok", "failed", "cancelled", "timeout"]), help="Only those that ended so.")
@as_json
@click.pass_obj
def queries(path: str | None, limit: int, text: str | None, status: str | None, as_json: bool) -> None:
    """List the queries that were run on the lake, from anywhere, newest first."""
    with opened(path, read_only=True) as lake:
        found = lake.queries(limit, text=text, status=status)  # type: ignore[arg-type]  # click has checked it
    if as_json:
        print_json([query.to_dict() for query in found])
        return
    rows = [
        {
            "id": query.id,
            "started": query.started.astimezone().isoformat(" ", "seconds"),
            "status": query.code if query.status == "failed" else query.status,
            "seconds": f"{query.elapsed:.3f}",
            "rows": query.rows,
            "snapshot": query.snapshot,
            "sql": " ".join(query.sql.split())[:80],
            "from": query.origin,
        }
        for query in found
    ]
    print_rows(rows, as_json=False, empty="no queries are kept")


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, allow_dash=True))
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if something would be changed.")
def fmt(files: Sequence[str], check: bool) -> None:
    """Lay out the SQL in FILES (.sql files, or folders of them) for reading; - or none: standard input to output.

    Comments are kept. What could not be laid out without changing its meaning is left as it is and named.
    """
    from lakehouse.errors import LakehouseError
    from lakehouse.query.format import formatted

    if not files or "-" in files:
        if len(files) > 1:
            raise click.UsageError("- stands alone")
        text = sys.stdin.read()
        done = formatted(text) if text.strip() else text
        if not check:
            click.echo(done, nl=False)
        elif done != text:
            raise LakehouseError("standard input would be changed", hint="run it without --check")
        return
    changed, failed, count = [], [], 0
    for file in _sql_files(files):
        count += 1
        try:
            if _lay_out(file, check=check):
                changed.append(file)
        except LakehouseError as error:
            failed.append(file)
            click.echo(f"{click.style('error', fg='red')}: {file}: {error.message}", err=True)
            if error.hint:
                click.echo(f"hint: {error.hint}", err=True)
    for file in changed:
        click.echo(f"{'would change' if check else 'changed'} {file}")
    click.echo(
        f"{counted(count, 'file')}, {len(changed):,} {'to change' if check else 'changed'}, {len(failed):,} left as they are"
    )
    if failed or (check and changed):
        sys.exit(1)


def _lay_out(file: Path, *, check: bool) -> bool:
    """Whether the file is, or would be, changed."""
    from lakehouse.errors import LakehouseError
    from lakehouse.query.files import written
    from lakehouse.query.format import formatted

    try:
        with file.open(encoding="utf-8", newline="") as stream:  # line ends as they are: they may be inside a string
            text = stream.read()
    except UnicodeDecodeError:
        raise LakehouseError("it is not UTF-8 text", hint="save it as UTF-8") from None
    except OSError as error:
        raise LakehouseError(f"it cannot be read: {error.strerror}") from None
    if not text.strip():
        return False
    done = formatted(text)
    if done == text:
        return False
    if not check:
        mode = file.stat().st_mode
        with written(file) as temporary:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                stream.write(done)
            temporary.chmod(mode)
    return True


def _sql_files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*.sql") if found.is_file())
        else:
            yield path
