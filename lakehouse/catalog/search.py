"""`lake.catalog.search`: find a table by anything that is known of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.catalog.metadata import visible
from lakehouse.catalog.names import literal, shown
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog

Where = Literal["name", "schema", "column", "comment", "column comment", "tag", "query"]

_WEIGHT: dict[str, int] = {
    "name": 100,
    "schema": 40,
    "tag": 30,
    "column": 25,
    "comment": 15,
    "column comment": 10,
    "query": 5,
}
_EXACT, _PREFIX, _INSIDE, _NEAR = 4.0, 2.0, 1.0, 0.5
_CUTOFF = 75  # percent of the letters of both that a near miss has in common, in order
_LONGER = 3  # letters that may be missing or too many
_NEARLY = 20  # names that count as near misses of a word
_SHOWN = 80  # characters of a comment


@dataclass(frozen=True, slots=True)
class Match:
    """One thing in which a word was found."""

    where: Where
    text: str
    """The name, `key=value` of the tag, or the comment, which is cut around the word."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A table, view or schema in which every word was found."""

    kind: Literal["table", "view", "schema"]
    name: str
    """As it is written in SQL."""
    matches: tuple[Match, ...]
    """What matched, the best first, each thing once."""
    score: float
    """How well; only for the order."""

    def to_dict(self) -> dict[str, Any]:
        """All facts as values that JSON has."""
        matched = [{"where": match.where, "text": match.text} for match in self.matches]
        return {"kind": self.kind, "name": self.name, "matches": matched, "score": self.score}


@dataclass(slots=True)
class _Thing:
    """Everything that is known of one table, view or schema."""

    kind: Literal["table", "view", "schema"]
    schema: str
    name: str
    facts: list[tuple[Where, str, str]] = field(default_factory=list)
    """Where it stands, the text, and the text without case."""

    @property
    def written(self) -> str:
        """Its name in SQL; asked for of hits only, as most things are none."""
        return self.name if self.kind == "schema" else shown(self.schema, self.name)

    def add(self, where: Where, text: str | None) -> None:
        if text:
            self.facts.append((where, text, text.casefold()))


_Things = dict[tuple[str, int], _Thing]
"""By `schema` and its number, or `relation` and DuckLake's id."""


def search(catalog: Catalog, text: str, limit: int | None = None) -> list[Hit]:
    """What matches every word of a text, the best first; see `Catalog.search`."""
    if not isinstance(text, str):
        raise LakehouseError(f"what is searched for is text, not a {type(text).__name__}")
    words = list(dict.fromkeys(text.casefold().split()))
    if not words:
        return []
    things = _things(catalog)
    _add_columns(catalog, things, words)
    hits = [hit for thing in things.values() if (hit := _hit(thing, words))]
    if not hits:
        near = [_near(catalog, word, things.values()) for word in words]
        _add_columns(catalog, things, sorted(frozenset[str]().union(*near)))
        hits = [hit for thing in things.values() if (hit := _hit(thing, words, near))]
    hits.sort(key=lambda hit: (-hit.score, hit.kind != "table", hit.name))
    return hits[:limit]


def _things(catalog: Catalog) -> _Things:
    """All tables, views and schemas as they are now, without their columns."""
    metadata = catalog.metadata
    snapshot = metadata.current()
    found: _Things = {}
    for number, schema in enumerate(metadata.schemas(snapshot)):
        thing = found["schema", number] = _Thing("schema", "", schema)
        thing.add("name", schema)
    for relation in metadata.relations(snapshot).values():
        kind: Literal["table", "view"] = "view" if relation.kind == "view" else "table"
        thing = found["relation", relation.id] = _Thing(kind, relation.schema, relation.name)
        thing.add("name", relation.name)
        if relation.schema != "main":
            thing.add("schema", relation.schema)
        thing.add("comment", relation.comment)
        thing.add("query", relation.sql)
    comments = (
        "SELECT g.table_id, c.column_name, g.value FROM ducklake_column_tag g JOIN ducklake_column c"
        f" ON c.table_id = g.table_id AND c.column_id = g.column_id AND {visible(snapshot, 'c')}"
        f" WHERE g.key = 'comment' AND {visible(snapshot, 'g')}"
    )
    for table, name, comment in metadata.rows("iss", comments):
        if comment and (one := found.get(("relation", table))):
            one.add("column comment", f"{name}: {comment}")
    for table, key, value in catalog.state.read("SELECT table_id, key, value FROM table_tag"):
        if one := found.get(("relation", table)):
            one.add("tag", f"{key}={value}" if value else key)
    return found


def _add_columns(catalog: Catalog, things: _Things, words: list[str]) -> None:
    """Tell things of their columns that have one of the words: of the others there may be very many."""
    if not words:
        return
    snapshot = catalog.metadata.current()
    columns = f"SELECT table_id, column_name FROM ducklake_column WHERE parent_column IS NULL AND {visible(snapshot)}"
    columns += _like(words, "column_name")
    for table, name in catalog.metadata.rows("is", f"{columns} ORDER BY table_id, column_order"):
        if one := things.get(("relation", table)):
            one.add("column", name)


def _like(words: list[str], text: str) -> str:
    """A condition that leaves out most rows that have none of the words: there may be very many columns."""
    if not all(word.isascii() for word in words):  # SQLite folds the case of ASCII only
        return ""
    tests = (f"instr(lower({text}), {literal(word)}) > 0" for word in words)
    return f" AND ({' OR '.join(tests)})"


def _hit(thing: _Thing, words: list[str], near: list[frozenset[str]] | None = None) -> Hit | None:
    """The thing as a hit when every word is in it, or, with `near`, something like every word."""
    score, matches = 0.0, []
    for number, word in enumerate(words):
        best = 0.0
        for where, text, folded in thing.facts:
            value = _EXACT if folded == word else _PREFIX if folded.startswith(word) else _INSIDE
            if word not in folded:
                if near is None or folded not in near[number]:
                    continue
                value = _NEAR
            value *= _WEIGHT[where]
            best = max(best, value)
            matches.append((value, Match(where, _around(text, folded, word))))
        if not best:
            return None
        score += best
    matches.sort(key=lambda entry: -entry[0])
    return Hit(thing.kind, thing.written, tuple(dict.fromkeys(match for _, match in matches)), score)


def _near(catalog: Catalog, word: str, things: Iterable[_Thing]) -> frozenset[str]:
    """Names that are nearly the word: of tables, schemas, columns and tags."""
    from rapidfuzz import fuzz, process

    size = f"length(column_name) BETWEEN {len(word) - _LONGER} AND {len(word) + _LONGER}"
    columns = catalog.metadata.rows(
        "s",
        f"SELECT DISTINCT column_name FROM ducklake_column WHERE {visible(catalog.metadata.current())} AND {size}",
    )
    names = {name.casefold() for (name,) in columns}
    names |= {folded for thing in things for where, _, folded in thing.facts if where in ("name", "schema", "tag")}
    near = process.extract(word, sorted(names), scorer=fuzz.ratio, score_cutoff=_CUTOFF, limit=_NEARLY)
    return frozenset(name for name, _, _ in near if abs(len(name) - len(word)) <= _LONGER)


def _around(text: str, folded: str, word: str) -> str:
    """The text on one line, cut to what stands around the word."""
    if len(text) <= _SHOWN:
        return " ".join(text.split())
    at = max(0, min(folded.find(word) - _SHOWN // 3, len(text) - _SHOWN))
    cut = " ".join(text[at : at + _SHOWN].split())
    return f"{'…' if at else ''}{cut}{'…' if at + _SHOWN < len(text) else ''}"
