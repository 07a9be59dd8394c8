"""Casts that refuse what they cannot keep: DuckDB rounds 1.5 to 2 and cuts the time off a date in silence."""

from __future__ import annotations

import re

from lakehouse.catalog.names import literal, quote

_WHOLE = re.compile(r"^(?:U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER)$")
_DECIMAL = re.compile(r"^DECIMAL\(\d+,\s*\d+\)$")
_MEASURED = re.compile(r"^(?:U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL\(.*|FLOAT|DOUBLE|DATE|TIME|TIMESTAMP.*)$")
_NESTED = re.compile(r"STRUCT\(|MAP\(|\]$")
_LOOSE = re.compile(r"VARCHAR|JSON|FLOAT")  # what may look otherwise on the way back and yet be the same
_INSIDE = re.compile(r"(?:(?<=[ (])|^)(?:U?(?:TINY|SMALL|BIG)INT|U?INTEGER|DECIMAL\(\d+,\s*\d+\))(?=[,)\[]|$)")
"""The numbers inside a nested type that would be rounded to it."""
_ROUNDED = frozenset({"HUGEINT", "UHUGEINT"})
"""What Parquet keeps as a DOUBLE."""
_ROUGH = frozenset({"FLOAT", "DOUBLE", "VARCHAR"})
"""What anything measured but large whole numbers may become: text keeps all digits, a float is approximate by nature."""


def guarded(kind: str) -> bool:
    """Whether text that is read as this type may lose something on the way."""
    return bool(_WHOLE.match(kind) or _DECIMAL.match(kind)) or kind in ("DATE", "TIME")


def whole(kind: str) -> bool:
    """Whether a type holds whole numbers only."""
    return bool(_WHOLE.match(kind))


def number(kind: str) -> bool:
    """Whether a type holds numbers."""
    return bool(_WHOLE.match(kind) or _DECIMAL.match(kind)) or kind in ("FLOAT", "DOUBLE")


def cast_float(name: str, wanted: str) -> str:
    """SQL of a column that was read as DOUBLE as whole numbers; an error says that it must be read as text.

    That is many times cheaper than to look into texts. A float keeps whole numbers exactly up to 2^53, and the
    fraction of a number of 15 digits as far as any column of floats would keep it; a cast to so many digits costs
    nothing, to compare with the least and the greatest of them as much as all else.
    """
    column = quote(name)
    whole = f"CAST({column} AS BIGINT)"
    plain = f"CAST(CAST({whole} AS DECIMAL(15, 0)) AS {wanted})"
    return (
        f"CASE WHEN CAST({whole} AS DOUBLE) <> {column} THEN error('to be read as text') ELSE {plain} END AS {column}"
    )


def cast(name: str, given: str, wanted: str) -> str:
    """SQL of a column as another type; a value that would be rounded or cut is an error.

    Args:
        name: the column.
        given: its DuckDB type.
        wanted: the type it shall have.
    """
    column = quote(name)
    if given == wanted and wanted not in _ROUNDED:
        return column
    plain = f"CAST({column} AS {wanted})"
    lost = _lost(column, plain, given, wanted)
    if lost is None:
        return f"{plain} AS {column}"
    message = f"'the value ' || CAST({column} AS VARCHAR) || {literal(f' of column {name} does not fit {wanted}')}"
    return f"CASE WHEN {lost} THEN error({message}) ELSE {plain} END AS {column}"


def _rounded(given: str, wanted: str) -> bool:
    """Whether a float may have too few digits for a whole number."""
    small = ("TINYINT", "SMALLINT") if wanted == "FLOAT" else ("TINYINT", "SMALLINT", "INTEGER")
    return whole(given) and wanted in ("FLOAT", "DOUBLE") and given.removeprefix("U") not in small


def _lost(column: str, plain: str, given: str, wanted: str) -> str | None:
    """The condition that a value does not survive the cast; None when every value does or the cast fails by itself."""
    if wanted in _ROUNDED:
        wide = "DECIMAL(38, 0)"  # exact: a HUGEINT has no more digits that matter here
        return f"TRY_CAST(TRY_CAST({column} AS DOUBLE) AS {wide}) IS DISTINCT FROM TRY_CAST({column} AS {wide})"
    if given == "JSON" and (loose := _INSIDE.sub("DOUBLE", wanted)) != wanted:
        return f"TRY_CAST({plain} AS {loose}) IS DISTINCT FROM TRY_CAST({column} AS {loose})"
    if given != "VARCHAR":
        if _NESTED.search(given) and not _LOOSE.search(f"{given} {wanted}") and wanted != "VARCHAR":
            return f"TRY_CAST({plain} AS {given}) IS DISTINCT FROM {column}"
        if not _MEASURED.match(given) or (wanted in _ROUGH and not _rounded(given, wanted)):
            return None
        return f"TRY_CAST({plain} AS {given}) IS DISTINCT FROM {column}"
    if wanted == "DATE":
        return f"strlen({column}) > 10 AND TRY_CAST({column} AS TIMESTAMP) IS DISTINCT FROM CAST({plain} AS TIMESTAMP)"
    if wanted == "TIME":
        return f"contains({column}, '-')"
    if guarded(wanted):
        fraction = " OR ".join(f"contains({column}, '{mark}')" for mark in (".", "e-", "E-"))
        wide = "DECIMAL(38, 18)"
        return f"({fraction}) AND TRY_CAST({column} AS {wide}) IS DISTINCT FROM TRY_CAST({plain} AS {wide})"
    return None


def plain_text(column: str) -> str:
    """SQL of the text of a JSON value; `->>` gives numbers as a DOUBLE keeps them, here they are as written."""
    written = f"CAST({column} AS VARCHAR)"
    return f"(CASE WHEN starts_with({written}, '\"') THEN {column} ->> '$' ELSE nullif({written}, 'null') END)"


def fitting(column: str, given: str, wanted: str) -> tuple[str, str]:
    """SQL of a value as another type, NULL where it does not fit, and SQL of whether it does not.

    Args:
        column: SQL of the value.
        given: its DuckDB type.
        wanted: the type it shall have.
    """
    if given == wanted and wanted not in _ROUNDED:
        return column, "false"
    if given == "JSON" and not wanted.endswith("]") and not wanted.startswith(("STRUCT(", "MAP(", "UNION(", "JSON")):
        column, given = plain_text(column), "VARCHAR"
    plain = f"TRY_CAST({column} AS {wanted})"
    lost = _lost(column, plain, given, wanted)
    missing = f"{plain} IS NULL AND {column} IS NOT NULL"
    return plain, f"({missing})" if lost is None else f"({missing} OR ({column} IS NOT NULL AND ({lost})))"
