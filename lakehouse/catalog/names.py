"""Names of schemas, tables and columns: how they are written in SQL, split, and guessed at."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from lakehouse.errors import LakehouseError

_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\s".]+))\s*(?:\.|$)')

_BARE = re.compile(r'^[^\s".]+$')
_PATTERN = re.compile(r"[*?\[]")


def quote(*parts: str) -> str:
    """An SQL identifier: each part in double quotes, joined by dots."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def shown(schema: str, name: str) -> str:
    """A table's name as people write it and `split` reads it: quoted where it must be, `main` left out."""
    parts = [name] if schema == "main" else [schema, name]
    return ".".join(part if _BARE.match(part) else quote(part) for part in parts)


def literal(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def split(name: str, default: str = "main") -> tuple[str, str]:
    """Schema and table of `table`, `schema.table` or `lake.schema.table`, quoted parts allowed.

    Raises:
        LakehouseError: the text is not a table name.
    """
    if not isinstance(name, str):
        raise LakehouseError(f"a table name is text, not a {type(name).__name__}", hint="such as 'sales.orders'")
    parts, at = [], 0
    while at < len(name) and (match := _PART.match(name, at)):
        parts.append(match[1].replace('""', '"') if match[1] else match[2])
        at = match.end()
    if at < len(name) or not parts or len(parts) > 3 or name.rstrip().endswith("."):
        raise LakehouseError(f"'{name}' is not a table name", hint='write table, schema.table or "odd name"')
    if len(parts) == 3 and parts[0].lower() != "lake":
        raise LakehouseError(f"'{name}' names the catalog '{parts[0]}'", hint="tables live in the catalog 'lake'")
    return (default, parts[0]) if len(parts) == 1 else (parts[-2], parts[-1])


def nearest(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the known words nearest to `word`, or None when nothing is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(by_lower[name] for name in near)}?" if near else None


def exactly(file: str) -> str:
    """A path as DuckDB must be given it to read that file and no other that its name would match as a pattern."""
    return _PATTERN.sub(lambda match: f"[{match[0]}]", file)
