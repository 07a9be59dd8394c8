"""PIVOT whose columns come from the data, as DuckDB can show it.

DuckDB makes two statements of `PIVOT orders ON customer`: a temporary type of the values that there are, and the PIVOT
with that type. The two have nothing in them that `PIVOT orders ON customer IN (0)` has not, which DuckDB shows as a tree.
"""

from __future__ import annotations

from lakehouse.query.gate.tokens import Composed, Piece, Text

_WORDS = frozenset({"pivot", "pivot_wider"})
_ENDS = frozenset("using group order limit offset union except intersect qualify window having where select".split())


def shown(sql: str, deepest: int) -> Composed | None:
    """The text with values for every column that has none; None where no PIVOT needs them.

    Args:
        sql: one statement.
        deepest: how deeply brackets may stand within brackets.

    Raises:
        SqlRefused: the tokens of it are not certain.
    """
    text = Text(sql, deepest)
    cuts = [at for index, token in enumerate(text.tokens) if token.word in _WORDS for at in _open(text, index)]
    if not cuts:
        return None
    found, done = Composed(), 0
    for cut in sorted(set(cuts)):
        found.add(Piece(sql[done:cut], done), " IN (0) ")
        done = cut
    return found.add(Piece(sql[done:], done))


def _open(text: Text, pivot: int) -> list[int]:
    """Behind which characters a column of the PIVOT at that token ends that has no values."""
    depth = text.tokens[pivot].depth
    cuts, inside, valued, last = [], False, False, pivot
    for index in range(pivot + 1, len(text.tokens)):
        token = text.tokens[index]
        if token.depth < depth or (inside and token.depth == depth and token.word in _ENDS):
            break
        if token.depth == depth:
            if token.word == "on" and not inside:
                inside = True
                continue
            if inside and token.word == ",":
                if not valued:
                    cuts.append(text.tokens[last].end)
                valued = False
            elif inside and token.word == "in":
                valued = True
        last = index
    if inside and not valued:
        cuts.append(text.tokens[last].end)
    return cuts
