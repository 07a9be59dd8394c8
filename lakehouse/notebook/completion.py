"""What may be typed at the cursor in a piece of SQL: text, cursor and known names in, suggestions out.

Knows nothing of notebooks and asks nobody: the names come as a `Names`. Any text may come in,
finished or not; where nothing sensible can be said there are no suggestions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lakehouse.notebook import scopes
from lakehouse.notebook.scopes import Columns, Group, Item, Source, Token

MOST = 500
"""Suggestions given at once."""

RESERVED = frozenset(
    "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create default"
    " deferrable desc describe distinct do else end except false fetch for foreign from group having in initially"
    " intersect into lambda lateral leading limit not null offset on only or order pivot pivot_longer pivot_wider"
    " placing primary qualify references returning select show some summarize symmetric table then to trailing true"
    " union unique unpivot using variadic when where window with".split()
)
"""Words that must be quoted to be a name (DuckDB's `duckdb_keywords()`, category reserved)."""

KEYWORDS = tuple(
    "SELECT FROM WHERE GROUP BY ORDER HAVING LIMIT OFFSET DISTINCT AS ON USING AND OR NOT IN IS NULL LIKE ILIKE BETWEEN"
    " EXISTS CASE WHEN THEN ELSE END CAST TRY_CAST ASC DESC NULLS FIRST LAST JOIN LEFT RIGHT FULL INNER OUTER CROSS"
    " NATURAL ASOF SEMI ANTI POSITIONAL LATERAL UNION ALL INTERSECT EXCEPT WITH RECURSIVE VALUES OVER PARTITION ROWS"
    " RANGE UNBOUNDED PRECEDING FOLLOWING CURRENT ROW FILTER WITHIN QUALIFY WINDOW EXCLUDE REPLACE COLUMNS PIVOT UNPIVOT"
    " INSERT INTO UPDATE SET DELETE MERGE MATCHED RETURNING CREATE TABLE VIEW SCHEMA TEMP DROP ALTER ADD COLUMN RENAME"
    " TO IF DEFAULT COMMENT DESCRIBE SUMMARIZE SHOW EXPLAIN ANALYZE BEGIN COMMIT ROLLBACK CALL COPY USE AT VERSION"
    " TIMESTAMP INTERVAL DATE TRUE FALSE ANY SOME INTEGER BIGINT DOUBLE DECIMAL VARCHAR BOOLEAN".split()
)
_PLAIN = re.compile(r"[^\W\d]\w*")
_BEFORE_SCHEMA = ("schema", "use")
_KNOWS_RESULT = ("order", "group", "by", "having", "qualify")


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view that can be named."""

    schema: str
    name: str
    kind: str
    columns: Columns


@dataclass(frozen=True)
class Names:
    """Everything that a query may name."""

    relations: Mapping[tuple[str, str], Relation] = field(default_factory=dict)
    """Tables and views by lower-cased schema and name."""
    schemas: Sequence[str] = ()
    functions: Sequence[str] = ()
    table_functions: Sequence[str] = ()
    variables: Sequence[str] = ()
    """Names of values that can be bound as `$name`."""
    frames: Mapping[str, Columns] = field(default_factory=dict)
    """Variables that can be used as tables."""
    catalog: str = "lake"
    main: str = "main"

    def table(self, path: Sequence[str]) -> Columns | None:
        """The columns of a table by the parts of its name."""
        parts = [part.lower() for part in path]
        if len(parts) == 3 and parts[0] == self.catalog:
            parts = parts[1:]
        elif len(parts) == 2 and parts[0] == self.catalog and parts[0] not in map(str.lower, self.schemas):
            parts = [self.main, parts[1]]
        if len(parts) > 2:
            return None
        schema, name = parts if len(parts) == 2 else (self.main, parts[0])
        if found := self.relations.get((schema, name)):
            return found.columns
        return self.frames.get(path[0]) if len(path) == 1 else None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One text that may replace what is typed before the cursor."""

    text: str
    kind: str
    """`column`, `table`, `view`, `schema`, `dataframe`, `function`, `keyword` or `variable`."""


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What may replace the text from `start` to the cursor."""

    start: int
    items: tuple[Suggestion, ...] = ()


@dataclass(frozen=True)
class _Place:
    """Where the cursor is."""

    start: int
    """Where the name being typed begins."""
    prefix: str
    quoted: bool
    closed: bool
    """Whether the closing quote of a quoted name stands behind the cursor already."""
    path: tuple[str, ...]
    """The names with dots before it."""
    group: Group
    marker: Token
    statement: Group


def complete(text: str, cursor: int, names: Names) -> Suggestions:
    """Suggestions for the name that ends at `cursor`; none in strings, comments and numbers."""
    cursor = max(0, min(cursor, len(text)))
    tokens = scopes.lex(text)
    touched = _touched(tokens, cursor)
    if touched and touched.kind == "quoted" and cursor < touched.end:
        # The quote just opened may have swallowed text up to the next one: then a later one stays open.
        if tokens[-1].open or "\n" in text[cursor : touched.end]:
            rest = (Token(t.kind, t.text, t.start + cursor, t.end + cursor) for t in scopes.lex(text[cursor:]))
            tokens = [*scopes.lex(text[:cursor]), *rest]
            touched = _touched(tokens, cursor)
    if touched and touched.kind == "parameter":
        found = (Suggestion(f"${name}", "variable") for name in names.variables)
        return _picked(touched.start, text[touched.start : cursor], found)
    place = _place(text, cursor, tokens, touched)
    if place is None:
        return Suggestions(cursor)
    return _picked(place.start, place.prefix, _found(place, names), place)


def _touched(tokens: Sequence[Token], cursor: int) -> Token | None:
    return next((t for t in tokens if t.start < cursor <= t.end and t.kind not in ("space", "mark")), None)


def _place(text: str, cursor: int, tokens: Sequence[Token], touched: Token | None) -> _Place | None:
    if touched is not None:
        within = cursor < touched.end or touched.open
        if touched.kind in ("number", "string") or (touched.kind == "comment" and within):
            return None
        if touched.kind == "quoted" and not within:
            return None
        if touched.kind not in ("word", "quoted"):
            touched = None
    start = touched.start if touched else cursor
    quoted = bool(touched and touched.kind == "quoted")
    prefix = text[start:cursor]
    marker = Token("cursor", "", cursor, cursor)
    real = [t for t in tokens if t.kind not in ("space", "comment") and t is not touched]
    before = [t for t in real if t.end <= start]
    after = [t for t in real if t.start >= start]
    path: list[str] = []
    while before and before[-1].text == ".":
        if len(before) < 2 or not before[-2].name:
            return None  # a field of an expression
        path.insert(0, before[-2].name)
        before = before[:-2]
    ends = [i for i, t in enumerate(before) if t.text == ";"]
    rest = next((i for i, t in enumerate(after) if t.text == ";"), len(after))
    whole, group = scopes.tree([*before[ends[-1] + 1 if ends else 0 :], marker, *after[:rest]])
    closed = quoted and touched is not None and not touched.open
    prefix = prefix[1:].replace('""', '"') if quoted else prefix
    return _Place(start, prefix, quoted, closed, tuple(path), group, marker, whole)


def _found(place: _Place, names: Names) -> Iterator[Suggestion]:
    part = scopes.segment(place.group.items, place.marker)
    at = next(i for i, item in enumerate(part) if item is place.marker)
    previous = part[at - 1] if at else None
    clause = next((item.word for item in reversed(part[:at]) if item.word in scopes.CLAUSES), "")
    lookup, seen = _sight(place, names)
    if clause in _BEFORE_SCHEMA and previous is not None and previous.word == clause:
        yield from _schemas(names)
    elif _table_expected(clause, previous):
        yield from _tables(place, names, lookup[1])
    elif place.path:
        yield from _members(place, names, seen)
    elif target := _insert_target(place.group):
        yield from _columns(lookup[0](target))
    else:
        yield from _expression(place, names, seen, part, clause, lookup[0])


def _expression(
    place: _Place, names: Names, seen: Sequence[Source], part: Sequence[Item], clause: str, lookup: scopes.Lookup
) -> Iterator[Suggestion]:
    for source in seen:
        yield from _columns(source.columns)
    if clause in _KNOWS_RESULT:
        yield from (Suggestion(name, "column") for name in scopes.projected(part, lookup))
    yield from (Suggestion(source.alias, "table") for source in seen if source.alias)
    if not seen and place.prefix:  # nothing is named yet: whatever column there is
        for relation in names.relations.values():
            yield from _columns(relation.columns)
    if not place.quoted:
        yield from (Suggestion(name, "function") for name in names.functions)
        lower = place.prefix[:1].islower()
        yield from (Suggestion(word.lower() if lower else word, "keyword") for word in KEYWORDS)


def _tables(place: _Place, names: Names, known: Iterable[str]) -> Iterator[Suggestion]:
    schema = None
    if place.path:
        parts = [part.lower() for part in place.path]
        if parts[0] == names.catalog:
            parts = parts[1:]
            yield from () if parts else _schemas(names)
        if len(parts) > 1:
            return
        schema = parts[0] if parts else names.main
    else:
        yield from (Suggestion(name, "table") for name in known)
    for relation in names.relations.values():
        if relation.schema.lower() == (schema or names.main):
            yield Suggestion(relation.name, relation.kind)
    if schema is None:
        yield from (Suggestion(name, "dataframe") for name in names.frames)
        yield from _schemas(names)
        if not place.quoted:
            yield from (Suggestion(name, "function") for name in names.table_functions)
            lower = place.prefix[:1].islower()
            yield from (Suggestion(w.lower() if lower else w, "keyword") for w in ("LATERAL", "VALUES", "IF", "EXISTS"))


def _members(place: _Place, names: Names, seen: Sequence[Source]) -> Iterator[Suggestion]:
    """What stands behind the dot in an expression: the columns of a table in sight, or a schema's tables."""
    path = place.path
    alias = path[-1].lower()
    matching = [source for source in seen if source.alias.lower() == alias]
    for source in matching[:1]:
        yield from _columns(source.columns)
    if not matching:
        yield from _columns(names.table(path))
        yield from _tables(place, names, ())


def _sight(place: _Place, names: Names) -> tuple[tuple[scopes.Lookup, list[str]], list[Source]]:
    """A lookup that knows the CTEs, their names, and the tables in sight, the nearest first."""
    chain: list[Group] = []
    group: Group | None = place.group
    while group is not None:
        chain.append(group)
        group = group.parent
    lookup: scopes.Lookup = names.table
    known: list[str] = []
    for outer in reversed(chain):
        more = scopes.ctes(outer.items, lookup)
        known += more
        lookup = scopes.with_ctes(more, lookup)
    seen: list[Source] = []
    inner: Item = place.marker
    for group in chain:
        part = scopes.segment(group.items, inner)
        seen += scopes.sources(part, lookup)
        if group.parent is None or _stands_alone(group):
            break
        inner = group
    return (lookup, known), seen


def _stands_alone(group: Group) -> bool:
    """Whether a subquery sees nothing of the query around it: it is a table in FROM, or a CTE."""
    around = group.parent.items if group.parent else []
    at = next(i for i, item in enumerate(around) if item is group)
    previous = around[at - 1].word if at else ""
    if at and around[at - 1].text == ",":
        return next((item.word for item in reversed(around[:at]) if item.word in scopes.CLAUSES), "") == "from"
    return previous in ("from", "join", "as", "materialized") or (previous == "using" and _is_query(group))


def _is_query(group: Group) -> bool:
    return bool(group.items) and group.items[0].word in ("select", "with", "from", "values")


def _table_expected(clause: str, previous: Item | None) -> bool:
    if previous is None or clause not in scopes.BEFORE_TABLE:
        return False
    return previous.word == clause or (clause == "from" and previous.text == ",") or previous.word in ("exists", "only")


def _insert_target(group: Group) -> list[str] | None:
    """The table's name when the group is the column list of `INSERT INTO table (`."""
    around = group.parent.items if group.parent else []
    at = next((i for i, item in enumerate(around) if item is group), 0) - 1
    path: list[str] = []
    while at >= 0 and around[at].name:
        path.insert(0, around[at].name)
        if at >= 2 and around[at - 1].text == ".":
            at -= 2
            continue
        return path if at >= 1 and around[at - 1].word == "into" else None
    return None


def _columns(columns: Columns | None) -> Iterator[Suggestion]:
    return (Suggestion(name, "column") for name in (columns() if columns else ()))


def _schemas(names: Names) -> Iterator[Suggestion]:
    return (Suggestion(name, "schema") for name in names.schemas)


def _picked(start: int, prefix: str, found: Iterable[Suggestion], place: _Place | None = None) -> Suggestions:
    """Those that begin with the prefix, each text once, written as SQL wants it."""
    wanted = prefix.casefold()
    chosen: dict[str, Suggestion] = {}
    for one in found:
        if one.text.casefold().startswith(wanted) and one.text:
            written = _written(one, place) if place else one.text
            chosen.setdefault(written.casefold(), Suggestion(written, one.kind))
            if len(chosen) >= MOST:
                break
    return Suggestions(start, tuple(chosen.values()))


def _written(suggestion: Suggestion, place: _Place) -> str:
    name = suggestion.text
    if suggestion.kind in ("keyword", "function") and not place.quoted:
        return name
    if not place.quoted and _PLAIN.fullmatch(name) and name.lower() not in RESERVED:
        return name
    closing = "" if place.closed else '"'
    return '"' + name.replace('"', '""') + closing
