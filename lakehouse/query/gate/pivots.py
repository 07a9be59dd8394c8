"""PIVOT whose columns come from the data, as DuckDB can show it.

DuckDB makes two statements of `PIVOT orders ON customer`: a temporary type of the values that there are, and the PIVOT
with that type. The two have nothing in them that `PIVOT orders ON customer IN (0)` has not, which DuckDB shows as a tree.
In `PIVOT orders ON customer IN (SELECT id FROM customers)` the type is made of the query, which stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from lakehouse.query.gate.tokens import Composed, Piece, Text

_WORDS = frozenset({"pivot", "pivot_wider"})
_QUERIES = frozenset("select with values from table pivot unpivot describe summarize show".split())
_ENDS = frozenset("using group order limit offset union except intersect qualify window having where select".split())


@dataclass(frozen=True, slots=True)
class Shown:
    """A text that DuckDB shows as a tree, and the queries that are not in it any more."""

    text: Composed
    queries: tuple[Piece, ...]


def shown(sql: str, deepest: int) -> Shown | None:
    """The text with values for every column that has none, or a query for them; None where no PIVOT needs them.

    Args:
        sql: one statement.
        deepest: how deeply brackets may stand within brackets.

    Raises:
        SqlRefused: the tokens of it are not certain.
    """
    text = Text(sql, deepest)
    found = {gap for index, token in enumerate(text.tokens) if token.word in _WORDS for gap in _open(text, index)}
    if not found:
        return None
    made, queries, done = Composed(), [], 0
    for begin, end in sorted(found):
        if begin < done:
            continue  # in a query that goes as a whole
        made.add(Piece(sql[done:begin], done), " (0) " if end > begin else " IN (0) ")
        if end > begin:
            queries.append(Piece(sql[begin + 1 : end - 1], begin + 1))
        done = end
    return Shown(made.add(Piece(sql[done:], done)), tuple(queries))


def _open(text: Text, pivot: int) -> list[tuple[int, int]]:
    """Where values are to be put for the PIVOT at that token: behind which characters, and instead of which query."""
    depth = text.tokens[pivot].depth
    gaps, inside, valued, last = list[tuple[int, int]](), False, False, pivot
    for index in range(pivot + 1, len(text.tokens)):
        token = text.tokens[index]
        if token.depth < depth or (inside and token.depth == depth and token.word in _ENDS):
            break
        if token.depth == depth:
            if token.word in _WORDS and not inside:
                break  # it is looked at for itself
            if token.word == "on" and not inside:
                inside = True
                continue
            if inside and token.word == ",":
                if not valued:
                    gaps.append((text.tokens[last].end,) * 2)
                valued = False
            elif inside and token.word == "in":
                valued = True
                gaps += _queried(text, index + 1)
        last = index
    if inside and not valued:
        gaps.append((text.tokens[last].end,) * 2)
    return gaps


def _queried(text: Text, opening: int) -> list[tuple[int, int]]:
    """From where to where a query stands in brackets, if one begins at that token."""
    words = [token.word for token in text.tokens[opening : opening + 2]]
    if len(words) < 2 or words[0] != "(" or words[1] not in _QUERIES:
        return []
    bracket = text.tokens[opening]
    ends = (one.start for one in islice(text.tokens, opening + 1, None) if one.depth == bracket.depth)
    return [(bracket.start, next(ends) + 1)]
