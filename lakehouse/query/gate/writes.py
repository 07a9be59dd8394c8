"""The grammar of the statements that change rows or definitions.

DuckDB shows no tree of these, so each is taken apart here into names, and pieces that are queries, expressions, types or
tables. The pieces are put into one SELECT, which DuckDB's own parser turns into a tree for the walk; what runs is made
anew of the names, quoted and in full, and of the pieces, in parentheses. So the two parsers need not agree on where a
piece ends: only what was in the SELECT runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.names import quote
from lakehouse.query.gate.definitions import DEFINITIONS
from lakehouse.query.gate.names import Named, Names
from lakehouse.query.gate.tokens import Composed, Piece, Text

_QUERY_BEGINS = frozenset("select with values from table pivot unpivot describe summarize show (".split())


@dataclass(slots=True)
class Statement:
    """What a statement became.

    The SELECT to be looked at is `with_`, the `expressions`, `tables` and `condition`; or `query` alone.
    """

    text: Text
    names: Names
    out: Composed = field(default_factory=Composed)
    """What is to run."""
    with_: Piece | None = None
    expressions: list[Piece] = field(default_factory=list)
    types: list[Piece] = field(default_factory=list)
    tables: Composed | None = None
    condition: Piece | None = None
    query: Composed | None = None
    defaults: bool = False
    written: list[tuple[str, str]] = field(default_factory=list)
    """Schema and name of what is changed."""

    def target(self, *, views: bool = False) -> Named:
        """Take the name of a table that is there, and put it into what runs.

        Raises:
            SqlRefused: it is a view, or the traces of the pathway memory.
            TableNotFound: there is none.
        """
        here = self.text.peek()
        *place, name = self.text.dotted()
        if len(place) > 2:
            raise self.text.refuse("a table has no more than three parts in its name", here)
        catalog, schema = (["", "", *place])[-2:]
        found = self.names.resolve(catalog, schema, name)
        if found.key not in [one.key for one in self.names.relations.values()]:
            raise self.text.refuse(f"{found.shown} can only be read", here)
        if found.sql is not None and not views:
            raise self.text.refuse(f"{found.shown} is a view, and has no rows of its own", here)
        self.written.append(found.key)
        self.out.add(quote(ALIAS, *found.key))
        return found

    def alias(self, *after: str) -> str:
        """Take `AS name` or a bare name, unless what comes next is one of the words that follow."""
        token = self.text.peek()
        if self.text.accept("as") or (token is not None and token.word not in (*after, "(", ";")):
            name = self.text.identifier()
            self.out.add(f" AS {quote(name)}")
            return name
        return ""

    def expression(self, piece: Piece) -> None:
        """Put an expression into what runs, and remember that it has to be looked at."""
        self.expressions.append(piece)
        self.out.add("(", piece, ")")

    def type(self, piece: Piece) -> None:
        """The same with a type."""
        self.types.append(piece)
        self.out.add(piece)

    def select(self) -> Composed:
        """The SELECT that has every piece in it."""
        if self.query is not None:
            return self.query
        found = Composed()
        if self.with_ is not None:
            found.add(self.with_)
        found.add("SELECT 1")
        for piece in self.expressions:
            found.add(", (", piece, ")")
        for piece in self.types:
            found.add(", CAST(NULL AS ", piece, ")")
        if self.tables is not None:
            found.add(" FROM ", *self.tables.parts)
        if self.condition is not None:
            found.add(" WHERE (", self.condition, ")")
        return found


def understand(text: Text, names: Names) -> Statement:
    """Take one statement apart.

    Raises:
        SqlRefused: it is not one of those that are let through, or has a clause that is not.
        TableNotFound: the lake has no such table.
    """
    for token in text.tokens:
        if token.word == "returning" and token.depth == 0:
            raise text.refuse("RETURNING is not let through: a lake cannot return rows of a write", token)
    statement = Statement(text, names)
    first = text.peek()
    if first is not None and first.word == "with":
        statement.with_ = text.piece(("insert", "update", "delete", "merge"))
        first = text.peek()
    verb = first.word if first else ""
    known = _CHANGES if statement.with_ else _CHANGES | DEFINITIONS
    if verb not in known:
        raise text.refuse(
            f"{verb.upper() or 'this'} is not let through",
            first,
            "INSERT, UPDATE, DELETE, TRUNCATE, MERGE, CREATE, DROP, ALTER and COMMENT are",
        )
    text.at += 1
    known[verb](statement)
    text.done()
    return statement


def _insert(s: Statement) -> None:
    text = s.text
    if text.next_is("or"):
        raise text.refuse("INSERT OR … is not let through", None, "MERGE changes the rows that are there")
    text.expect("into")
    s.out.add("INSERT INTO ")
    s.target()
    s.alias("default", "by", *_QUERY_BEGINS)
    inner = text.peek(1)
    if text.next_is("(") and inner is not None and inner.word not in _QUERY_BEGINS:
        s.out.add(f" ({', '.join(quote(name) for name in text.listed())})")
    for how in ("name", "position"):
        if text.accept("by", how):
            s.out.add(f" BY {how.upper()}")
    if text.accept("default", "values"):
        s.out.add(" DEFAULT VALUES")
        return
    query = text.piece(("on",) if _has_conflict(text) else ())
    if text.peek() is not None:
        raise text.refuse("ON CONFLICT is not let through: tables of a lake have no keys", None, "use MERGE")
    s.defaults = True
    s.query = Composed()
    if s.with_ is not None:
        s.query.add(s.with_, "(", query, ")")
    else:
        s.query.add(query)
    s.out.add(" (", *([s.with_, "(", query, ")"] if s.with_ is not None else [query]), ")")


def _has_conflict(text: Text) -> bool:
    return any(
        one.word == "on" and one.depth == 0 and two.word == "conflict"
        for one, two in zip(text.tokens, text.tokens[1:], strict=False)
    )


def _update(s: Statement) -> None:
    text = s.text
    _with(s)
    s.out.add("UPDATE ")
    target = s.target()
    alias = s.alias("set")
    text.expect("set")
    s.out.add(" SET ")
    _assignments(s, ("from", "where"))
    _from(s, target, alias, "from")
    _where(s)


def _delete(s: Statement) -> None:
    _with(s)
    s.text.expect("from")
    s.out.add("DELETE FROM ")
    target = s.target()
    alias = s.alias("using", "where")
    _from(s, target, alias, "using")
    _where(s)


def _truncate(s: Statement) -> None:
    s.text.accept("table")
    s.out.add("TRUNCATE TABLE ")
    s.target()


def _with(s: Statement) -> None:
    if s.with_ is not None:
        s.out.add(s.with_)


def _from(s: Statement, target: Named, alias: str, word: str) -> None:
    s.tables = _aliased(target, alias)
    if s.text.accept(word):
        piece = s.text.piece(("where",))
        s.tables.add(", ", piece)
        s.out.add(f" {word.upper()} ", piece)


def _aliased(target: Named, alias: str) -> Composed:
    return Composed().add(quote(ALIAS, *target.key) + (f" AS {quote(alias)}" if alias else ""))


def _where(s: Statement) -> None:
    if s.text.accept("where"):
        s.condition = s.text.piece()
        s.out.add(" WHERE (", s.condition, ")")


def _assignments(s: Statement, until: tuple[str, ...]) -> None:
    text = s.text
    while True:
        if text.next_is("("):
            s.out.add(f"({', '.join(quote(name) for name in text.listed())})")
        else:
            s.out.add(quote(text.identifier()))
        text.expect("=")
        s.out.add(" = ")
        s.expression(text.piece((",", *until)))
        if not text.accept(","):
            return
        s.out.add(", ")


def _merge(s: Statement) -> None:
    text = s.text
    _with(s)
    text.expect("into")
    s.out.add("MERGE INTO ")
    target = s.target()
    alias = s.alias("using")
    text.expect("using")
    source = text.piece(("on", "using"))
    s.tables = _aliased(target, alias).add(", ", source)
    s.out.add(" USING ", source)
    if text.accept("using"):
        s.out.add(f" USING ({', '.join(quote(name) for name in text.listed())})")
    else:
        text.expect("on")
        s.out.add(" ON ")
        s.expression(text.piece(("when",)))
    if not text.next_is("when"):
        raise text.unexpected("WHEN was expected")
    while text.accept("when"):
        _when(s)


def _when(s: Statement) -> None:
    text = s.text
    s.out.add(" WHEN ")
    if text.accept("not"):
        s.out.add("NOT ")
    text.expect("matched")
    s.out.add("MATCHED")
    for side in ("source", "target"):
        if text.accept("by", side):
            s.out.add(f" BY {side.upper()}")
    if text.accept("and"):
        s.out.add(" AND ")
        s.expression(text.piece(("then",)))
    text.expect("then")
    s.out.add(" THEN ")
    if text.accept("delete"):
        s.out.add("DELETE")
    elif text.accept("do", "nothing"):
        s.out.add("DO NOTHING")
    elif text.accept("error"):
        s.out.add("ERROR ")
        if text.peek() is not None and not text.next_is("when"):
            s.expression(text.piece(("when",)))
    elif text.accept("update"):
        s.out.add("UPDATE")
        _how(s)
        if text.accept("set", "*"):
            s.out.add(" SET *")
        elif text.accept("set"):
            s.out.add(" SET ")
            _assignments(s, ("when",))
    else:
        text.expect("insert")
        s.out.add("INSERT")
        _how(s)
        _merged_row(s)


def _how(s: Statement) -> None:
    for how in ("name", "position"):
        if s.text.accept("by", how):
            s.out.add(f" BY {how.upper()}")


def _merged_row(s: Statement) -> None:
    text = s.text
    if text.accept("*"):
        s.out.add(" *")
        return
    if text.next_is("("):
        s.out.add(f" ({', '.join(quote(name) for name in text.listed())})")
    if text.accept("default", "values"):
        s.out.add(" DEFAULT VALUES")
    elif text.accept("values"):
        text.expect("(")
        s.out.add(" VALUES (")
        while True:
            if text.accept("default"):
                s.out.add("DEFAULT")
            else:
                s.expression(text.piece((",",)))
            if not text.accept(","):
                break
            s.out.add(", ")
        text.expect(")")
        s.out.add(")")


_CHANGES: dict[str, Callable[[Statement], None]] = {
    "insert": _insert,
    "update": _update,
    "delete": _delete,
    "truncate": _truncate,
    "merge": _merge,
}
VERBS = frozenset({"with", *_CHANGES, *DEFINITIONS})
"""The words that a statement may begin with."""
