"""One statement in, the same statement or an error out.

What runs has been parsed by DuckDB itself and looked at node by node (`walk`); what DuckDB cannot show as a tree is
written anew from the parts of a small grammar, with every query and expression in it looked at (`writes`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import duckdb

from lakehouse.catalog import faults
from lakehouse.catalog.names import literal
from lakehouse.errors import LakehouseError, SqlRefused, SyntaxFault, TableNotFound
from lakehouse.query.gate import pivots
from lakehouse.query.gate.functions import functions
from lakehouse.query.gate.names import Names
from lakehouse.query.gate.tokens import Composed, Piece, Text, characters, refused, where
from lakehouse.query.gate.walk import Node, Walk
from lakehouse.query.gate.writes import VERBS, Statement, understand
from lakehouse.query.statements import done

MAX_LENGTH = 256 * 1024
"""Bytes of a statement: ten times what people write; DuckDB's parser takes a second for it at most."""
MAX_DEPTH = 100
"""Brackets within brackets."""
_DEEP = "the statement is nested too deeply"


@dataclass(frozen=True, slots=True)
class Passed:
    """A statement that may run."""

    sql: str
    """What is to run: for a read the text as it came, for a write one made of its checked parts."""
    kind: Literal["read", "write"]
    tables: tuple[tuple[str, str], ...]
    """Schema and name of the tables and views that it reads or writes, also through views."""


class Gate:
    """Tells what of the SQL that strangers send may run on a lake.

    Args:
        parser: a connection to an empty database in memory, for nothing but parsing; the gate sets it up.
        names: what the lake has at the snapshot that the SQL will see.
        max_length: the longest text that is looked at, in bytes of UTF-8.
        max_depth: how deeply brackets may stand within brackets.
    """

    def __init__(
        self,
        parser: duckdb.DuckDBPyConnection,
        names: Names,
        *,
        max_length: int = MAX_LENGTH,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        # Otherwise the tree is written for old versions of DuckDB, which leaves out what they do not know.
        parser.execute("SET GLOBAL storage_compatibility_version = 'latest'")
        self._parser = parser
        self.names = names
        self._max_length = max_length
        self._max_depth = max_depth

    def read(self, sql: str) -> Passed:
        """Let one SELECT pass, or DESCRIBE or SUMMARIZE.

        Raises:
            SqlRefused: it is something else, or uses what is not allowed; nothing was run.
            SyntaxFault: it cannot be parsed.
            TableNotFound: the lake has no such table.
        """
        self._check_text(sql)
        words, begin = _explained(sql)
        select = Piece(sql[begin:], begin)
        self._check(Composed().add(select), walk := self._walk(), sql)
        return Passed(f"{words}{select.text}", "read", tuple(walk.tables))

    def write(self, sql: str) -> Passed:
        """Let one statement pass that changes rows or definitions.

        Raises:
            SqlRefused: it is something else, or uses what is not allowed; nothing was run.
            SyntaxFault: it cannot be parsed.
            NotFound: the lake has no such table or schema.
        """
        self._check_text(sql)
        text = Text(sql, self._max_depth)
        if not text.tokens:
            raise SyntaxFault("there is no SQL statement to run", hint="such as INSERT INTO t VALUES (42)")
        try:
            statement = understand(text, self.names)
        except SqlRefused:
            self._check_syntax(text)
            raise
        self._check_syntax(text)
        pivoted = self._check(statement.select(), walk := self._walk(defaults=statement.defaults), sql, statement)
        made = Text(statement.out.text, self._max_depth)
        if self._parsed(made) != 1 and not pivoted:
            raise SqlRefused("only one statement at a time is let through")
        return Passed(made.sql, "write", tuple(dict.fromkeys((*statement.written, *walk.tables))))

    def _check(self, select: Composed, walk: Walk, sql: str, statement: Statement | None = None) -> bool:
        """Look at a SELECT, and say line and column of the statement in the errors.

        Returns:
            Whether it has a PIVOT of which DuckDB makes several statements.
        """
        text = select.text
        try:
            tree = self._tree(text)
        except SqlRefused:
            pivoted = pivots.shown(text, self._max_depth)
            if pivoted is None:
                raise
        else:
            self._look(tree, text, select.origin, walk, sql, statement)
            return False
        walk.apart = self._own_names()
        inner = pivoted.text
        self._look(self._tree(inner.text), inner.text, partial(_through, inner, select), walk, sql, statement)
        for query in pivoted.queries:  # each is run by itself, and sees nothing of what stands around it
            origin = partial(_through, Composed().add(query), select)
            self._look(self._tree(query.text), query.text, origin, walk, sql)
        return True

    def _look(
        self,
        tree: Node,
        text: str,
        origin: Callable[[int], int | None],
        walk: Walk,
        sql: str,
        statement: Statement | None = None,
    ) -> None:
        walk.place = None
        try:
            if statement is not None and statement.query is None:
                _check_shape(tree["node"], statement)
            walk.statement(tree)
        except RecursionError:
            raise SqlRefused(_DEEP) from None
        except (SqlRefused, TableNotFound) as error:
            if walk.place is None or (at := origin(characters(text, walk.place))) is None:
                raise
            raise type(error)(f"{error.message} ({where(sql, at)})", hint=error.hint) from None

    def _own_names(self) -> frozenset[str]:
        """The views and tables that every DuckDB has, whatever is attached."""
        found = self._parser.execute(
            "SELECT view_name FROM duckdb_views() WHERE internal UNION SELECT table_name FROM duckdb_tables()"
        ).fetchall()
        return frozenset(str(row[0]).lower() for row in found)

    def _walk(self, *, defaults: bool = False) -> Walk:
        return Walk(self.names, functions(), self._tree, defaults=defaults)

    def _check_text(self, sql: str) -> None:
        try:
            size = len(sql.encode())
        except UnicodeEncodeError as error:
            raise SyntaxFault(f"the query is not text: {error.reason} at position {error.start}") from None
        if size > self._max_length:
            raise SqlRefused(
                f"the statement has {size:,} bytes, {self._max_length:,} are allowed",
                hint="put the values into a table, or into parameters",
            )
        if (at := sql.find("\0")) >= 0:
            raise refused("a NUL character is not allowed", sql, at)

    def _tree(self, sql: str) -> Node:
        """DuckDB's tree of one SELECT."""
        # A literal, not a parameter: DuckDB imports pandas to bind the first one. Text that has no NUL cannot leave it.
        row = self._parser.execute(f"SELECT json_serialize_sql({literal(sql)})").fetchone()
        try:
            found: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
        except RecursionError:
            raise SqlRefused(_DEEP) from None
        if found["error"]:
            raise _unparsed(found, sql)
        if not found["statements"]:
            raise SyntaxFault("there is no SQL statement to run", hint="such as SELECT 42")
        if len(found["statements"]) != 1:
            raise SqlRefused("only one statement at a time is let through")
        statement: Node = found["statements"][0]
        return statement

    def _check_syntax(self, text: Text) -> None:
        """Raise SyntaxFault, in DuckDB's own words, if it is no SQL at all."""
        try:
            self._parsed(text)
        except SyntaxFault:
            raise
        except LakehouseError:
            pass  # it may be SQL that DuckDB has not made yet

    def _parsed(self, text: Text) -> int:
        """How many statements DuckDB finds in a text that has one.

        Asked only of a text that begins with one of the words of the grammar: where DuckDB finds a PRAGMA, it runs the
        arguments of it in order to parse it.

        Raises:
            SyntaxFault: it cannot be parsed; in DuckDB's own words.
        """
        if not text.tokens or text.tokens[0].word not in VERBS:
            return 0
        with faults.translated():
            return len(done(self._parser.extract_statements(text.sql)))


def _through(inner: Composed, outer: Composed, at: int) -> int | None:
    """Where a character was written of a text that was composed twice."""
    middle = inner.origin(at)
    return None if middle is None else outer.origin(middle)


def _explained(sql: str) -> tuple[str, int]:
    """What EXPLAIN there is before a SELECT, and how many characters of the text that and its comments are."""
    words, at = "", 0
    raw = sql.encode()
    for offset, _ in duckdb.tokenize(sql)[:3]:
        at = len(raw[:offset].decode())
        word = sql[at : at + 7].upper()
        if word == ("ANALYZE" if words else "EXPLAIN") and not sql[at + 7 : at + 8].isidentifier():
            words += f"{word} "
        else:
            break
    return words, at if words else 0


def _check_shape(node: Node, statement: Statement) -> None:
    """The SELECT has what was put into it, and nothing more that a piece brought."""
    count = 1 + len(statement.expressions) + len(statement.types)
    more = ("modifiers", "group_expressions", "having", "qualify", "sample")
    if (
        node["type"] != "SELECT_NODE"
        or len(node["select_list"]) != count
        or any(node[name] for name in more)
        or (node["where_clause"] is not None) != (statement.condition is not None)
        or (node["from_table"]["type"] != "EMPTY") != (statement.tables is not None)
    ):
        raise SqlRefused("a clause is not let through in this place")


def _unparsed(found: dict[str, Any], sql: str) -> LakehouseError:
    if found.get("error_type") == "parser":
        message = str(found.get("error_message", "it cannot be parsed"))
        place = found.get("position")
        at = f" ({where(sql, characters(sql, int(place)))})" if place is not None else ""
        return SyntaxFault(f"{message}{at}")
    return SqlRefused("only SELECT is let through, and DESCRIBE, SUMMARIZE or EXPLAIN of it")
