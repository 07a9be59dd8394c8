"""DuckLake's own maintenance, called in SQL: what would break a promise of the lake is refused, with the way that keeps it.

What only reads (`dry_run => true`, `ducklake_snapshots`, `ducklake_list_files` …) and what only moves rows into other
files (`ducklake_flush_inlined_data`, `ducklake_merge_adjacent_files`) runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lakehouse.errors import QueryError
from lakehouse.query.statements import Statement, tokens

_COMPACT = "lake.maintenance.compact() merges small files and keeps the past as it was"
_CLEAN = "lake.maintenance.clean() deletes only what no snapshot and no reader needs; with dry_run => true this may run"
_EXPIRE = "lake.maintenance.expire(older_than=…) spares tagged snapshots; with dry_run => true this may run"
_RUN = "lake.maintenance.run() does all that is due, by the lake's own rules"
_REFUSED = {
    "rewrite_data_files": ("makes older snapshots filter and sort wrongly", _COMPACT),
    "cleanup_old_files": ("may delete files that somebody is still reading", _CLEAN),
    "delete_orphaned_files": ("may delete files that a write has just made", _CLEAN),
    "expire_snapshots": ("takes tagged snapshots as well, and what is known of loads and lineage", _EXPIRE),
    "add_data_files": (
        "makes the file the lake's own, which deletes it one day",
        "lake.ingest(path, table) copies it in",
    ),
    "checkpoint": ("rewrites files, expires snapshots and deletes files", _RUN),
    "force_checkpoint": ("rewrites files, expires snapshots and deletes files", _RUN),
    "ducklake_commit": ("writes to the catalog past the lake", "use BEGIN and COMMIT, or lake.transaction()"),
}
_LOOKS = frozenset({"cleanup_old_files", "delete_orphaned_files", "expire_snapshots"})  # those with dry_run
_HARMLESS = re.compile(r"'(?:parquet_\w+|target_file_size|per_thread_output|hive_file_pattern)'", re.I)
_MAY = re.compile(
    r"_data_files|_old_files|_orphaned_files|expire_snapshots|checkpoint|ducklake_commit|set_option", re.I
)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def check(statements: Iterable[Statement]) -> None:
    """Refuse a script that calls such a function; nothing of it has been run.

    Raises:
        QueryError: names the function, why not, and what to call instead.
    """
    for statement in statements:
        if not _MAY.search(statement.text):
            continue
        for name, arguments in _calls(statement.text):
            function = name if name in _REFUSED else name.removeprefix("ducklake_")
            if function == "set_option" and not _HARMLESS.search(arguments):
                raise QueryError(
                    "this option of the catalog may break what the lake promises",
                    hint="by hand only parquet_…, target_file_size, per_thread_output and hive_file_pattern can be set",
                )
            if function not in _REFUSED or (function in _LOOKS and _only_looks(arguments)):
                continue
            why, instead = _REFUSED[function]
            raise QueryError(f"{name} is not called by hand: it {why}", hint=instead)


def _calls(text: str) -> Iterator[tuple[str, str]]:
    """Lower-cased names of the functions that a statement calls, and the text of their arguments."""
    found = tokens(text)
    words = [match[1].lower() if (match := _QUOTED.match(text, at)) else word for at, word in found]
    if words[:1] in (["checkpoint"], ["force"]) and words[-1] in ("checkpoint", "lake"):
        yield "checkpoint", ""
    for index, word in enumerate(words[:-1]):
        if words[index + 1] == "(" and words[index - 1] not in ("table", "into", "exists"):
            depth, end = 0, index + 1
            for end in range(index + 1, len(words)):
                depth += (words[end] == "(") - (words[end] == ")")
                if depth == 0:
                    break
            yield word, text[found[index + 1][0] : found[end][0]]


def _only_looks(arguments: str) -> bool:
    words = [word for _, word in tokens(arguments)]
    if "dry_run" not in words:
        return False
    rest = words[words.index("dry_run") + 1 :]
    return next((word for word in rest if word not in ("=", ">", ":", "=>", ":=")), "") == "true"
