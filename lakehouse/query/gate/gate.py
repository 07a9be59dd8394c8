"""One statement in, the same statement or an error out.

What runs has been parsed by DuckDB itself and looked at node by node (`walk`); what DuckDB cannot show as a tree is
written anew from the parts of a small grammar, with every query and expression in it looked at (`writes`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from lakehouse.catalog import faults
from lakehouse.catalog.names import literal
from lakehouse.errors import LakehouseError, SqlRefused, SyntaxFault, TableNotFound
from lakehouse.query.gate.functions import functions
from lakehouse.query.gate.names import Names
from lakehouse.query.gate.tokens import Text, characters, refused, where
from lakehouse.query.gate.walk import Node, Walk
from lakehouse.query.gate.writes import Statement, understand

MAX_LENGTH = 256 * 1024
"""Bytes of a statement: ten times what people write; DuckDB's parser takes a second for it at most."""
MAX_DEPTH = 100
"""Brackets within brackets."""


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
        select = sql[begin:]
        walk = self._walk()
        with _placed(walk, lambda at: begin + characters(select, at), sql):
            walk.statement(self._tree(select))
        return Passed(f"{words}{select}", "read", tuple(walk.tables))

    def write(self, sql: str) -> Passed:
        """Let one statement pass that changes rows or definitions.

        Raises:
            SqlRefused: it is something else, or uses what is not allowed; nothing was run.
            SyntaxFault: it cannot be parsed.
            NotFound: the lake has no such table or schema.
        """
        self._check_text(sql)
        statement = understand(Text(sql, self._max_depth), self.names)
        composed = statement.select()
        walk = self._walk(defaults=statement.defaults)
        with _placed(walk, lambda at: composed.origin(characters(composed.text, at)), sql):
            tree = self._tree(composed.text)
            if statement.query is None:
                _check_shape(tree["node"], statement)
            walk.statement(tree)
        made = statement.out.text
        self._check_made(made)
        return Passed(made, "write", tuple(dict.fromkeys((*statement.written, *walk.tables))))

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
        found: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
        if found["error"]:
            raise _unparsed(found, sql)
        if len(found["statements"]) != 1:
            raise SqlRefused("only one statement at a time is let through")
        statement: Node = found["statements"][0]
        return statement

    def _check_made(self, sql: str) -> None:
        """What was made anew is one statement for DuckDB, too; it begins with a word of ours, so parsing runs nothing."""
        with faults.translated():
            if len(self._parser.extract_statements(sql)) != 1:
                raise SqlRefused("only one statement at a time is let through")


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


@contextmanager
def _placed(walk: Walk, origin: Callable[[int], int | None], sql: str) -> Iterator[None]:
    """Say line and column in the errors of a walk.

    Args:
        walk: knows how many bytes stand before the place.
        origin: how many characters of the statement those are.
        sql: the statement.
    """
    try:
        yield
    except RecursionError:
        raise SqlRefused("the statement is nested too deeply") from None
    except (SqlRefused, TableNotFound) as error:
        if walk.place is None or (at := origin(walk.place)) is None:
            raise
        raise type(error)(f"{error.message} ({where(sql, at)})", hint=error.hint) from None
