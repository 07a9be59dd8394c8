"""The steps of a recorded analysis: what is kept of one query, and how it compares with another run of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lakehouse.errors import LakehouseError
from lakehouse.pathway.values import decoded, encoded
from lakehouse.wording import counted

if TYPE_CHECKING:
    import duckdb

KEPT_ROWS = 100
"""Rows of a result that are kept with its step; of a larger one the first so many, and a digest of all."""
_KEPT_BYTES = 64 << 10
_SHOWN = 5  # rows of a difference
_CLOSE = 1e-9  # floats may differ in their last digits: sums run in parallel
_DIGITS = "%.9g"

Verdict = Literal["same", "changed", "failed"]


class Answer(Protocol):
    """What a step needs to know of a result of `lake.sql`."""

    columns: list[str]
    types: list[str]
    snapshot: int
    elapsed: float
    kind: str

    def __len__(self) -> int: ...
    def page(self, rows: int = ...) -> list[tuple[Any, ...]]: ...
    def relation(self) -> duckdb.DuckDBPyRelation: ...
    @property
    def is_receipt(self) -> bool: ...
    @property
    def changed(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Compared:
    """One step, then and now."""

    step: int
    """Its number, from 1."""
    sql: str
    verdict: Verdict
    """`same`, `changed` (see what differs below) or `failed` (did not run this time, but did when it was recorded)."""
    detail: str = ""
    """What differs, or the error, in a line."""
    rows: tuple[int | None, int | None] = (None, None)
    """Then and now."""
    removed: tuple[tuple[Any, ...], ...] = ()
    """The first rows that are no longer there; only where all rows were kept."""
    added: tuple[tuple[Any, ...], ...] = ()
    """The first rows that were not there."""
    elapsed: tuple[float | None, float | None] = (None, None)
    """Seconds, then and now."""

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON has."""
        rows = {name: [encoded(list(row)) for row in getattr(self, name)] for name in ("removed", "added")}
        plain = {"step": self.step, "sql": self.sql, "verdict": self.verdict, "detail": self.detail}
        return {**plain, "rows": list(self.rows), **rows, "elapsed": list(self.elapsed)}


def facts(answer: Answer, most: int = _KEPT_BYTES) -> dict[str, Any]:
    """What is kept of a result: its size, its columns, its first rows, and a digest when there are more.

    Args:
        answer: the result.
        most: bytes of JSON that its rows may take; it is never more than 64 KiB.
    """
    if answer.is_receipt or not answer.columns:
        return {"changed": answer.changed}
    columns = [list(pair) for pair in zip(answer.columns, answer.types, strict=True)]
    try:
        count = len(answer)
        rows = [encoded(list(row)) for row in answer.page(KEPT_ROWS)]
    except LakehouseError as error:  # more rows than memory holds are read again, which may fail
        return {"columns": columns, "unread": str(error)}
    while rows and len(json.dumps(rows)) > min(most, _KEPT_BYTES):
        del rows[len(rows) // 2 :]
    kept = {"rows": count, "columns": columns, "first": rows}
    return kept if len(rows) == count else {**kept, "digest": digest(answer)}


def fault(error: BaseException) -> dict[str, str]:
    """What is kept of an error."""
    code = error.code if isinstance(error, LakehouseError) else type(error).__name__
    return {"code": code, "message": str(error).split("\nHint: ")[0][:2000]}


def digest(answer: Answer) -> str | None:
    """A number that is the same for the same rows in any order; None for more rows than are taken in at once.

    The sum of the lower halves of the rows' MD5 hashes. Floats count to nine digits: sums that run in parallel
    differ in the last ones.
    """
    fields = ", ".join(
        f"printf('{_DIGITS}', #{number})" if kind in ("FLOAT", "DOUBLE") else f"#{number}"
        for number, kind in enumerate(answer.types, 1)
    )
    try:
        hashes = answer.relation().project(f"md5_number_lower(CAST(row({fields}) AS VARCHAR)) AS hash")
        found = hashes.aggregate("sum(hash)").fetchone()
    except LakehouseError:
        return None
    return None if found is None else str(found[0])


def compare(number: int, step: Mapping[str, Any], now: Mapping[str, Any]) -> Compared:
    """A recorded step and another run of it, both as they are kept."""
    before, after = step.get("error"), now.get("error")
    elapsed = (step.get("elapsed"), now.get("elapsed"))
    sql = str(step["sql"])
    if after is not None:
        if before is not None and before["code"] == after["code"]:
            return Compared(number, sql, "same", f"fails as before: {after['message']}", elapsed=elapsed)
        verdict: Verdict = "changed" if before is not None else "failed"
        return Compared(number, sql, verdict, str(after["message"]), (step.get("rows"), None), elapsed=elapsed)
    rows = (step.get("rows"), now.get("rows"))
    if before is not None:
        return Compared(number, sql, "changed", f"it failed then: {before['message']}", rows, elapsed=elapsed)
    for one, when in ((step, "then"), (now, "now")):
        if "unread" in one:
            detail = f"its rows could not be read {when}: {one['unread']}"
            return Compared(number, sql, "changed", detail, rows, elapsed=elapsed)
    if "rows" not in step or "rows" not in now:
        same = step.get("changed") == now.get("changed") and ("rows" in step) == ("rows" in now)
        detail = "" if same else f"{step.get('changed')} rows were written then, {now.get('changed')} now"
        return Compared(number, sql, "same" if same else "changed", detail, rows, elapsed=elapsed)
    if differ := _columns_differ(step["columns"], now["columns"]):
        return Compared(number, sql, "changed", differ, rows, elapsed=elapsed)
    if "digest" in step or "digest" in now:
        return _compare_large(number, step, now, elapsed)
    removed, added = _difference(step["first"], now["first"])
    if not removed and not added:
        return Compared(number, sql, "same", "", rows, elapsed=elapsed)
    detail = f"{counted(len(removed), 'row')} less, {counted(len(added), 'row')} more"
    return Compared(number, sql, "changed", detail, rows, _shown(removed), _shown(added), elapsed)


def _compare_large(
    number: int, step: Mapping[str, Any], now: Mapping[str, Any], elapsed: tuple[float | None, float | None]
) -> Compared:
    rows = (step["rows"], now["rows"])
    sql = str(step["sql"])
    if rows[0] != rows[1]:
        detail = f"{counted(rows[0], 'row')} then, {rows[1]:,} now"
        return Compared(number, sql, "changed", detail, rows, elapsed=elapsed)
    known = step.get("digest"), now.get("digest")
    if None in known:
        same = not any(_difference(step["first"], now["first"]))
        detail = f"of {rows[0]:,} rows the number and the first {len(step['first'])} were compared"
    else:
        same = known[0] == known[1]
        detail = "" if same else f"of {rows[0]:,} rows some differ"
    return Compared(number, sql, "same" if same else "changed", detail, rows, elapsed=elapsed)


def _columns_differ(before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> str | None:
    if [list(pair) for pair in before] == [list(pair) for pair in after]:
        return None
    told = [", ".join(f"{name} {kind}" for name, kind in columns) for columns in (before, after)]
    return f"the columns were {told[0]}; they are {told[1]}"


def _difference(before: Iterable[Any], after: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Rows of the one that are not in the other, in any order, each as often as it is there."""
    removed, added = list(before), []
    for row in after:
        place = next((number for number, other in enumerate(removed) if _equal(row, other)), None)
        if place is None:
            added.append(row)
        else:
            del removed[place]
    return removed, added


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_CLOSE)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown(rows: Sequence[Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(_plain(value) for value in row) for row in rows[:_SHOWN])


def _plain(value: Any) -> Any:
    try:
        return decoded(value)
    except ValueError:
        return value
