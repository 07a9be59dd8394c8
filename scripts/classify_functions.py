"""Bring lakehouse/query/gate/functions.txt up to the installed DuckDB: `python scripts/classify_functions.py`.

Names that DuckDB has no more go; new ones are put at the end under `[… unclassed]`, where they are refused until
somebody has moved them under a class by hand. Ends with 1 while there are any.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import duckdb

from lakehouse.catalog import extensions
from lakehouse.query.gate.functions import SPACES, read

FILE = Path(__file__).parent.parent / "lakehouse" / "query" / "gate" / "functions.txt"
HEAD = """\
# What SQL from strangers may use, by class; see functions.py. Every name of DuckDB and of the lake's extensions is here.
# A line [space allowed] or [space refused] begins a class; after `refused` stands why, which the message repeats.
# scripts/classify_functions.py adds what a newer DuckDB has; tests/unit/query/test_gate_functions.py wants it classed.
"""
_SPACE = {"scalar": "expression", "macro": "expression", "aggregate": "aggregate", "pragma": "pragma"}
SYNTAX = {"unnest", "unlist"}
"""What the parser leaves as a call although no function has that name."""


def installed() -> dict[str, set[str]]:
    """The names that DuckDB has with the extensions of a lake, by space."""
    found: dict[str, set[str]] = {space: set() for space in SPACES}
    with duckdb.connect() as connection:
        extensions.load(connection, *extensions.CORE, "excel")
        for name, kind in connection.execute("SELECT function_name, function_type FROM duckdb_functions()").fetchall():
            found[_SPACE.get(kind, "table")].add(name.lower())
        found["expression"] -= found["aggregate"]
        found["expression"] |= SYNTAX
        rows = connection.execute("SELECT type_name FROM duckdb_types()").fetchall()
        found["type"] = {row[0].lower().replace(" ", "_") for row in rows}
        rows = connection.execute("SELECT collname FROM pragma_collations()").fetchall()
        found["collation"] = {row[0].lower() for row in rows}
    return found


def main() -> int:
    """Rewrite the file."""
    there, text = installed(), HEAD
    left = {(space, name) for space, names in there.items() for name in names}
    for section in read(FILE.read_text(encoding="utf-8")):
        names = sorted(name for name in section.names if (section.space, name) in left)
        left -= {(section.space, name) for name in names}
        state = "allowed" if section.allowed else "refused"
        text += _written(section.space, state, section.about, names)
    for space in SPACES:
        if new := sorted(name for where, name in left if where == space):
            text += _written(space, "unclassed", "", new)
            print(f"not classed yet, so refused: {space} {' '.join(new)}", file=sys.stderr)
    FILE.write_text(text, encoding="utf-8")
    return 1 if left else 0


def _written(space: str, state: str, about: str, names: list[str]) -> str:
    head = f"\n[{space} {state}] {about}".rstrip()
    lines = textwrap.wrap(" ".join(names), 120, break_long_words=False, break_on_hyphens=False)
    return head + "\n" + "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
