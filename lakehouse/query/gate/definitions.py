"""The part of the grammar of `writes` that makes, changes and drops tables, views and schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.names import quote
from lakehouse.errors import SchemaNotFound, TableNotFound
from lakehouse.query.gate.names import DEFAULT
from lakehouse.query.gate.tokens import Composed, Piece

if TYPE_CHECKING:
    from lakehouse.query.gate.writes import Statement

_CONSTRAINTS = frozenset(
    "not null default primary unique check references generated collate constraint using as with compression".split()
)


def _create(s: Statement) -> None:
    text = s.text
    replace = text.accept("or", "replace")
    s.out.add("CREATE OR REPLACE " if replace else "CREATE ")
    kinds: dict[str, Callable[[Statement], None]] = {"table": _table, "view": _view, "schema": _schema}
    kind = text.peek()
    if kind is None or kind.word not in kinds or (replace and kind.word == "schema"):
        raise text.unexpected("tables, views and schemas of the lake can be made")
    text.at += 1
    s.out.add(f"{kind.word.upper()} ")
    if text.accept("if", "not", "exists"):
        s.out.add("IF NOT EXISTS ")
    kinds[kind.word](s)


def _new_name(s: Statement) -> None:
    """Take the name of a table or view that need not be there; its schema must be."""
    here = s.text.peek()
    *place, name = s.text.dotted()
    if len(place) > 2 or (len(place) == 2 and place[0].lower() != ALIAS):
        raise s.text.refuse("a table can be made in the lake only", here)
    written = place[-1] if place else DEFAULT
    schema = s.names.schema(written)
    if schema is None and len(place) == 1 and written.lower() == ALIAS:
        schema = DEFAULT
    if schema is None:
        raise SchemaNotFound(f"there is no schema {written}", hint=f"CREATE SCHEMA {written}")
    s.written.append((schema, name))
    s.out.add(quote(ALIAS, schema, name))


def _table(s: Statement) -> None:
    text = s.text
    _new_name(s)
    if text.accept("as"):
        _as_query(s)
        return
    text.expect("(")
    s.out.add(" (")
    while True:
        s.out.add(quote(text.identifier()), " ")
        s.type(text.piece((",", *_CONSTRAINTS)))
        _constraints(s)
        if not text.accept(","):
            break
        s.out.add(", ")
    text.expect(")")
    s.out.add(")")


def _as_query(s: Statement) -> None:
    text = s.text
    end = len(text.tokens)
    for tail in (["with", "no", "data"], ["with", "data"]):
        if [token.word for token in text.tokens[-len(tail) :]] == tail:
            end -= len(tail)
            break
    query = text.piece(lambda index: index >= end)
    s.query = Composed().add(query)
    s.out.add(" AS (", query, ")")
    for words in (("with", "no", "data"), ("with", "data")):
        if text.accept(*words):
            s.out.add(f" {' '.join(words).upper()}")


def _constraints(s: Statement) -> None:
    text = s.text
    while (token := text.peek()) is not None and token.word in _CONSTRAINTS:
        if text.accept("not", "null"):
            s.out.add(" NOT NULL")
        elif text.accept("null"):
            s.out.add(" NULL")
        elif text.accept("default"):
            s.out.add(" DEFAULT ")
            s.expression(_default(s))
        else:
            raise text.refuse(f"{token.word.upper()} is not let through: a table of a lake has no such columns", token)


def _default(s: Statement) -> Piece:
    """The expression behind DEFAULT: it may begin with NOT or NULL, and ends before the next constraint."""
    begin = s.text.at
    return s.text.piece(
        lambda index: index > begin and (s.text.tokens[index].word == "," or s.text.tokens[index].word in _CONSTRAINTS)
    )


def _view(s: Statement) -> None:
    _new_name(s)
    if s.text.next_is("("):
        s.out.add(f" ({', '.join(quote(name) for name in s.text.listed())})")
    s.text.expect("as")
    query = s.text.piece()
    s.query = Composed().add(query)
    s.out.add(" AS (", query, ")")


def _schema(s: Statement) -> None:
    s.out.add(quote(ALIAS, _schema_name(s)))


def _schema_name(s: Statement) -> str:
    here = s.text.peek()
    parts = s.text.dotted()
    if len(parts) > 2 or (len(parts) == 2 and parts[0].lower() != ALIAS):
        raise s.text.refuse("a schema can be made or dropped in the lake only", here)
    return s.names.schema(parts[-1]) or parts[-1]


def _drop(s: Statement) -> None:
    text = s.text
    kind = text.peek()
    if kind is None or kind.word not in ("table", "view", "schema"):
        raise text.unexpected("tables, views and schemas can be dropped")
    text.at += 1
    s.out.add(f"DROP {kind.word.upper()} ")
    missing_ok = _if_exists(s)
    if kind.word == "schema":
        s.out.add(quote(ALIAS, _schema_name(s)))
    elif missing_ok:
        _perhaps(s)
    else:
        s.target(views=True)
    for tail in ("cascade", "restrict"):
        if text.accept(tail):
            s.out.add(f" {tail.upper()}")


def _if_exists(s: Statement) -> bool:
    if s.text.accept("if", "exists"):
        s.out.add("IF EXISTS ")
        return True
    return False


def _perhaps(s: Statement) -> None:
    """A name behind IF EXISTS: one of the lake, or none at all."""
    at = s.text.at
    try:
        s.target(views=True)
    except TableNotFound:
        s.text.at = at
        _new_name(s)


def _alter(s: Statement) -> None:
    text = s.text
    if text.accept("view"):
        s.out.add("ALTER VIEW ")
        _if_exists(s)
        s.target(views=True)
        text.expect("rename", "to")
        s.out.add(f" RENAME TO {quote(text.identifier())}")
        return
    text.expect("table")
    s.out.add("ALTER TABLE ")
    if _if_exists(s):
        _perhaps(s)
    else:
        s.target()
    for words, action in _ALTERATIONS.items():
        if text.accept(*words.split()):
            action(s)
            return
    raise text.unexpected()


def _column(s: Statement) -> str:
    """A column, or a field of a struct in one."""
    return quote(*s.text.dotted())


def _add(s: Statement) -> None:
    text = s.text
    text.accept("column")
    s.out.add(" ADD COLUMN ")
    if text.accept("if", "not", "exists"):
        s.out.add("IF NOT EXISTS ")
    s.out.add(_column(s), " ")
    s.type(text.piece(_CONSTRAINTS))
    _constraints(s)


def _drop_column(s: Statement) -> None:
    s.text.accept("column")
    s.out.add(" DROP COLUMN ")
    _if_exists(s)
    s.out.add(_column(s))
    for tail in ("cascade", "restrict"):
        if s.text.accept(tail):
            s.out.add(f" {tail.upper()}")


def _rename(s: Statement) -> None:
    text = s.text
    if text.accept("to"):
        s.out.add(f" RENAME TO {quote(text.identifier())}")
        return
    text.accept("column")
    old = _column(s)
    text.expect("to")
    s.out.add(f" RENAME COLUMN {old} TO {quote(text.identifier())}")


def _alter_column(s: Statement) -> None:
    text = s.text
    text.accept("column")
    s.out.add(f" ALTER COLUMN {_column(s)}")
    if text.accept("set", "data", "type") or text.accept("type"):
        s.out.add(" SET DATA TYPE ")
        s.type(text.piece(("using", "collate")))
    elif text.accept("set", "default"):
        s.out.add(" SET DEFAULT ")
        s.expression(text.piece())
    elif text.accept("drop", "default"):
        s.out.add(" DROP DEFAULT")
    elif text.accept("set", "not", "null"):
        s.out.add(" SET NOT NULL")
    elif text.accept("drop", "not", "null"):
        s.out.add(" DROP NOT NULL")
    else:
        raise text.unexpected()


def _partitioned(s: Statement) -> None:
    text = s.text
    text.expect("(")
    s.out.add(" SET PARTITIONED BY (")
    while True:
        if text.accept("bucket", "("):  # a word of DuckLake's, no function: bucket(number, column)
            s.out.add("bucket(")
            s.expression(text.piece((",",)))
            text.expect(",")
            s.out.add(f", {quote(text.identifier())})")
            text.expect(")")
        else:
            s.expression(text.piece((",",)))
        if not text.accept(","):
            break
        s.out.add(", ")
    text.expect(")")
    s.out.add(")")


def _sorted(s: Statement) -> None:
    s.text.expect("(")
    s.out.add(" SET SORTED BY (")
    while True:
        s.expression(s.text.piece((",", "asc", "desc", "nulls")))
        for words in ("asc", "desc", "nulls first", "nulls last"):
            if s.text.accept(*words.split()):
                s.out.add(f" {words.upper()}")
        if not s.text.accept(","):
            break
        s.out.add(", ")
    s.text.expect(")")
    s.out.add(")")


_ALTERATIONS: dict[str, Callable[[Statement], None]] = {
    "add": _add,
    "drop": _drop_column,
    "rename": _rename,
    "alter": _alter_column,
    "set partitioned by": _partitioned,
    "set sorted by": _sorted,
    "reset partitioned by": lambda s: _words(s, " RESET PARTITIONED BY"),
    "reset sorted by": lambda s: _words(s, " RESET SORTED BY"),
}


def _words(s: Statement, words: str) -> None:
    s.out.add(words)


def _comment(s: Statement) -> None:
    text = s.text
    text.expect("on")
    s.out.add("COMMENT ON ")
    kind = text.peek()
    if kind is None or kind.word not in ("table", "view", "column"):
        raise text.unexpected("tables, views and columns have comments")
    text.at += 1
    s.out.add(f"{kind.word.upper()} ")
    if kind.word == "column":
        _commented_column(s)
    else:
        s.target(views=True)
    text.expect("is")
    value = text.peek()
    if value is None or value.word not in ("'", "null"):
        raise text.unexpected("a text or NULL was expected")
    piece = text.piece()
    s.expressions.append(piece)
    s.out.add(" IS ", piece)


def _commented_column(s: Statement) -> None:
    here = s.text.peek()
    parts = list(s.text.dotted())
    if len(parts) < 2:
        raise s.text.refuse("a column is named as table.column", here)
    *place, table, column = parts
    catalog, schema = ["", "", *place][-2:]
    found = s.names.resolve(catalog, schema, table)
    s.written.append(found.key)
    s.out.add(quote(ALIAS, *found.key, column))


DEFINITIONS: dict[str, Callable[[Statement], None]] = {
    "create": _create,
    "drop": _drop,
    "alter": _alter,
    "comment": _comment,
}
