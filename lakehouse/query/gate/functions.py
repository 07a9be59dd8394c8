"""Which functions, aggregates, table functions, types and collations SQL from strangers may use.

`functions.txt` beside this module has every name that DuckDB and the extensions of a lake know, each under a class;
`scripts/classify_functions.py` brings it up to a newer DuckDB. A name that is not there is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

_HEAD = re.compile(r"\[(\w+) (\w+)\] ?(.*)")
SPACES = ("expression", "aggregate", "table", "pragma", "type", "collation")
"""The kinds of names: an aggregate is called where an expression stands, too."""
_BY_NAME = frozenset({"list_aggregate", "list_aggr", "array_aggregate", "array_aggr", "aggregate"})


@dataclass(frozen=True, slots=True)
class Section:
    """One class of names, such as the table functions that read files."""

    space: str
    """One of `SPACES`."""
    allowed: bool
    about: str
    """What the names have in common; where refused: why."""
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Functions:
    """The allow-list; names in it are lower-cased."""

    allowed: Mapping[str, frozenset[str]]
    """By space."""
    why: Mapping[tuple[str, str], str]
    """Why a known name is refused, by space and name."""

    def refused(self, space: str, name: str) -> str | None:
        """None when it may be called, else what to add to the message."""
        word = name.lower()
        if word in self.allowed[space] or (space == "expression" and word in self.allowed["aggregate"]):
            return None
        why = self.why.get((space, word))
        return f": {why}" if why else " (it is not among those that are)"

    def known(self, space: str, name: str) -> bool:
        """Whether DuckDB has a function of that name."""
        return self.refused(space, name) is None or (space, name.lower()) in self.why

    def by_name(self, name: str) -> bool:
        """Whether the function calls another one, which an argument names."""
        return name.lower() in _BY_NAME

    def aggregate(self, name: str) -> bool:
        """Whether it is an allowed aggregate."""
        return name.lower() in self.allowed["aggregate"]

    def type(self, name: str) -> bool:
        """Whether a value may be cast to that type, named as in `INTEGER`; a space in it is `_` in the file."""
        return name.lower().replace(" ", "_") in self.allowed["type"]

    def collation(self, name: str) -> bool:
        """Whether text may be compared so."""
        return name.lower() in self.allowed["collation"]


def read(text: str) -> list[Section]:
    """The sections of a text like `functions.txt`."""
    found: list[tuple[re.Match[str], list[str]]] = []
    for line in text.splitlines():
        if match := _HEAD.fullmatch(line):
            found.append((match, []))
        elif line and found and not line.startswith("# "):
            found[-1][1].extend(line.split())
    return [Section(head[1], head[2] == "allowed", head[3], tuple(words)) for head, words in found]


@cache
def functions() -> Functions:
    """The allow-list that is shipped."""
    sections = read(resources.files(__package__).joinpath("functions.txt").read_text(encoding="utf-8"))
    allowed = {
        space: frozenset(n for s in sections if s.space == space and s.allowed for n in s.names) for space in SPACES
    }
    why = {(s.space, name): s.about for s in sections if not s.allowed for name in s.names}
    return Functions(allowed, why)
