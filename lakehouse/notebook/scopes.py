"""What names mean at a place in unfinished SQL: its tokens, brackets, tables, aliases and CTEs.

A real parser refuses half a query, so this reads tokens: brackets become groups, and the words
FROM, JOIN, WITH and SELECT say what each group brings into sight. What it cannot tell it leaves out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Columns = Callable[[], Sequence[str]]
"""Gives the columns of a table when they are asked for."""

Lookup = Callable[[Sequence[str]], Columns | None]
"""Finds a table by the parts of its name; None when it is not known."""

_LEX = re.compile(
    r"""(?P<space>\s+)
    |(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<string>'(?:[^']|'')*(?:'|\Z)|\$(?P<tag>[^\W\d]\w*)?\$.*?(?:\$(?(tag)(?P=tag))\$|\Z))
    |(?P<quoted>"(?:[^"]|"")*(?:"|\Z))
    |(?P<parameter>\$\w*)
    |(?P<number>\d[\w.]*)
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>.)""",
    re.X | re.S,
)
_DEPTH = 20  # subqueries resolved inside each other
_WIDE = 2_000  # columns taken from one subquery

BEFORE_TABLE = frozenset("from join into update table view describe summarize show".split())
CLAUSES = BEFORE_TABLE | frozenset(
    "select where on using group order by having qualify window set values limit offset returning with insert delete"
    " create drop alter merge when schema use column pivot unpivot call pragma attach copy".split()
)
_SET_OPERATIONS = frozenset("union intersect except".split())
_NO_ALIAS = (
    CLAUSES
    | _SET_OPERATIONS
    | frozenset(
        "and anti as asof at cross default do full inner left natural or outer positional right semi to".split()
    )
)
_ENDS_LIST = CLAUSES - {"on", "using"}
_AFTER_LIST = frozenset("from where group order having qualify window limit offset using returning".split())
_QUERY = ("select", "with", "from", "values")
_IN_EXPRESSION = frozenset("and or not in is like ilike between then else when case".split())


@dataclass(frozen=True, slots=True)
class Token:
    """One token; a `cursor` token stands where the name being typed was."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The lower-cased word; empty for everything else."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def name(self) -> str:
        """The name it stands for, without quotes; empty when it is none."""
        if self.kind == "quoted":
            return self.text[1:].removesuffix('"').replace('""', '"')
        return self.text if self.kind == "word" else ""

    @property
    def open(self) -> bool:
        """Whether it is a string, quoted name or comment whose end has not been written yet."""
        if self.text.startswith(("'", '"')):
            return self.text.count(self.text[0]) % 2 == 1
        if self.kind == "string":
            tag = self.text[: self.text.index("$", 1) + 1]
            return len(self.text) < 2 * len(tag) or not self.text.endswith(tag)
        return self.kind == "comment" and (self.text.startswith("--") or not self.text.endswith("*/"))


@dataclass(slots=True)
class Group:
    """What stands between a pair of round brackets, or the whole statement."""

    items: list[Token | Group] = field(default_factory=list)
    parent: Group | None = None
    word: str = ""
    name: str = ""
    text: str = "("
    kind: str = "group"


Item = Token | Group


@dataclass(frozen=True, slots=True)
class Source:
    """A table in sight under a name."""

    alias: str
    columns: Columns


def lex(text: str) -> list[Token]:
    """All tokens of a text, spaces and comments too; together they are the text."""
    return [Token(m.lastgroup or "mark", m[0], m.start(), m.end()) for m in _LEX.finditer(text)]


def tree(tokens: Sequence[Token]) -> tuple[Group, Group]:
    """The statement as nested groups, and the group in which the cursor token stands."""
    here = whole = Group()
    found = whole
    for token in tokens:
        if token.text == "(" and token.kind == "mark":
            inner = Group(parent=here)
            here.items.append(inner)
            here = inner
        elif token.text == ")" and token.kind == "mark":
            here = here.parent or here
        else:
            here.items.append(token)
            if token.kind == "cursor":
                found = here
    return whole, found


def segment(items: Sequence[Item], around: Item | None) -> list[Item]:
    """The part between UNION, INTERSECT and EXCEPT in which an item stands; the first part for None."""
    part: list[Item] = []
    for item in items:
        if item.word in _SET_OPERATIONS:
            if around is None or any(one is around for one in part):
                return part
            part = []
        else:
            part.append(item)
    return part


def ctes(items: Sequence[Item], lookup: Lookup, depth: int = 0) -> dict[str, Columns]:
    """The CTEs that a WITH among the items defines, by lower-cased name."""
    found: dict[str, Columns] = {}
    at = next((i for i, item in enumerate(items) if item.word == "with"), len(items)) + 1
    if at < len(items) and items[at].word == "recursive":
        at += 1
    while at < len(items) and items[at].name:
        name, at = items[at].name, at + 1
        listed: Sequence[str] | None = None
        if at < len(items) and isinstance(group := items[at], Group):
            listed, at = _names(group), at + 1
        while at < len(items) and items[at].word in ("as", "not", "materialized"):
            at += 1
        if at >= len(items) or not isinstance(body := items[at], Group):
            break
        inner = with_ctes(dict(found), lookup)
        found[name.lower()] = _fixed(listed) if listed is not None else _later(body.items, inner, depth + 1)
        at += 1
        if at >= len(items) or items[at].text != ",":
            break
        at += 1
    return found


def sources(items: Sequence[Item], lookup: Lookup, depth: int = 0, *, listing: bool = False) -> list[Source]:
    """The tables that a SELECT, INSERT, UPDATE or MERGE names, each under its alias.

    Args:
        items: one segment.
        lookup: finds tables and CTEs by name.
        depth: how many subqueries it stands in.
        listing: the items are themselves the list after FROM.
    """
    if depth > _DEPTH:
        return []
    found: list[Source] = []
    at, expected, commas = 0, listing, listing
    while at < len(items):
        item = items[at]
        at += 1
        if item.word in BEFORE_TABLE or (item.word == "using" and not _columns_follow(items, at)):
            expected, commas = True, item.word == "from" or commas
        elif item.text == "," and commas:
            expected = True
        elif item.word in ("lateral", "only", "if", "not", "exists") and expected:
            continue
        elif item.word in _ENDS_LIST:
            expected = commas = False
        elif expected and isinstance(item, Group):
            expected = False
            if item.items and item.items[0].word in _QUERY:
                at = _aliased(items, at, "", _later(item.items, lookup, depth + 1), found)
            else:
                found += sources(item.items, lookup, depth + 1, listing=True)
        elif expected and item.name:
            expected = False
            path = [item.name]
            while at + 1 < len(items) and items[at].text == "." and items[at + 1].name:
                path.append(items[at + 1].name)
                at += 2
            columns = lookup(path)
            if at < len(items) and isinstance(items[at], Group):
                at += 1  # the arguments of a table function, or the column list of an INSERT
            at = _aliased(items, at, path[-1], columns or _fixed(()), found)
    return found


def projected(items: Sequence[Item], lookup: Lookup, depth: int = 0) -> list[str]:
    """The names of the columns that a query gives, as far as they can be told."""
    if depth > _DEPTH:
        return []
    lookup = with_ctes(ctes(items, lookup, depth), lookup)
    part = segment(items, None)
    start = next((i for i, item in enumerate(part) if item.word == "select"), None)
    seen = sources(part, lookup, depth)
    if start is None:
        return [name for source in seen for name in source.columns()]
    found: list[str] = []
    for expression in _expressions(part[start + 1 :]):
        last = expression[-1]
        if any(item.text == "*" for item in expression[:3:2]):
            only = expression[0].name.lower() if len(expression) > 2 and expression[1].text == "." else None
            found += [c for source in seen if only in (None, source.alias.lower()) for c in source.columns()]
        elif last.name and (len(expression) == 1 or _ends_name(expression[-2])):
            found.append(last.name)
    return found


def _ends_name(before: Item) -> bool:
    """Whether a last word after this item is an alias or the last part of a column's name."""
    operand = before.kind not in ("mark", "cursor") and before.word not in _IN_EXPRESSION
    return operand or before.text in (".", "]", "}")


def _expressions(items: Sequence[Item]) -> Iterator[list[Item]]:
    expression: list[Item] = []
    for item in items:
        if item.word in _AFTER_LIST:
            break
        if item.text == "," and item.kind == "mark":
            if expression:
                yield expression
            expression = []
        elif item.word not in ("distinct", "all") or expression:
            if item.kind != "cursor":
                expression.append(item)
    if expression:
        yield expression


def _aliased(items: Sequence[Item], at: int, name: str, columns: Columns, found: list[Source]) -> int:
    """Read `AT (…)`, `AS alias (columns)` from `at` on, add the source, and give where it ends."""
    if at + 1 < len(items) and items[at].word == "at" and isinstance(items[at + 1], Group):
        at += 2
    if at < len(items) and items[at].word == "as":
        at += 1
    if at < len(items) and items[at].name and items[at].word not in _NO_ALIAS:
        name, at = items[at].name, at + 1
        if at < len(items) and isinstance(group := items[at], Group):
            columns, at = _fixed(_names(group)), at + 1
    found.append(Source(name, columns))
    return at


def _columns_follow(items: Sequence[Item], at: int) -> bool:
    """Whether `USING` is that of a join: a list of columns, not a table or a query."""
    following = items[at] if at < len(items) else None
    if not isinstance(following, Group):
        return following is None or not following.name
    return not following.items or following.items[0].word not in _QUERY


def _names(group: Group) -> list[str]:
    return [item.name for item in group.items if item.name]


def _fixed(names: Sequence[str]) -> Columns:
    return lambda: names


def _later(items: Sequence[Item], lookup: Lookup, depth: int) -> Columns:
    return functools.cache(lambda: projected(items, lookup, depth)[:_WIDE])


def with_ctes(more: Mapping[str, Columns], lookup: Lookup) -> Lookup:
    """A lookup that knows CTEs too."""
    if not more:
        return lookup

    def find(path: Sequence[str]) -> Columns | None:
        if len(path) == 1 and path[0].lower() in more:
            return more[path[0].lower()]
        return lookup(path)

    return find
