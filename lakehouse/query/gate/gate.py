"""One statement in, the same statement or an error out.

What runs has been parsed by DuckDB itself and looked at node by node (`tree`); what DuckDB cannot show as a tree is
written anew from the parts of a small grammar, with every query and expression in it looked at (`writes`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lakehouse.errors import LakehouseError, SqlRefused, SyntaxFault
from lakehouse.query.gate.functions import functions
from lakehouse.query.gate.names import Names
from lakehouse.query.gate.tree import Node, Walk

if TYPE_CHECKING:
    import duckdb

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
        walk = self._walk()
        try:
            walk.statement(self._tree(sql))
        except RecursionError:
            raise SqlRefused("the statement is nested too deeply") from None
        except SqlRefused as refused:
            raise _placed(refused, sql) from None
        return Passed(sql, "read", tuple(walk.tables))

    def write(self, sql: str) -> Passed:
        """Let one statement pass that changes rows or definitions.

        Raises:
            SqlRefused: it is something else, or uses what is not allowed; nothing was run.
            SyntaxFault: it cannot be parsed.
            TableNotFound: the lake has no such table.
        """
        raise SqlRefused("writes are not let through yet")

    def _walk(self, *, defaults: bool = False) -> Walk:
        return Walk(self.names, functions(), self._tree, defaults)

    def _check_text(self, sql: str) -> None:
        try:
            raw = sql.encode()
        except UnicodeEncodeError as error:
            raise SyntaxFault(f"the query is not text: {error.reason} at position {error.start}") from None
        if len(raw) > self._max_length:
            raise SqlRefused(
                f"the statement has {len(raw):,} bytes, {self._max_length:,} are allowed",
                hint="put the values into a table, or into parameters",
            )
        if (at := sql.find("\0")) >= 0:
            raise _placed(SqlRefused("a NUL character is not allowed"), sql, len(sql[:at].encode()))
        if not sql.strip():
            raise SyntaxFault("there is no SQL statement to run", hint="such as SELECT 42")

    def _tree(self, sql: str) -> Node:
        """DuckDB's tree of one SELECT."""
        row = self._parser.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        found: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
        if found["error"]:
            raise _unparsed(found, sql)
        if len(found["statements"]) != 1:
            raise SqlRefused("only one statement at a time is let through")
        statement: Node = found["statements"][0]
        return statement


def _unparsed(found: dict[str, Any], sql: str) -> LakehouseError:
    if found.get("error_type") == "parser":
        message = str(found.get("error_message", "it cannot be parsed"))
        place = found.get("position")
        where = f" ({_where(sql, int(place))})" if place is not None else ""
        return SyntaxFault(f"{message}{where}")
    return SqlRefused("only SELECT is let through, and DESCRIBE and SUMMARIZE of tables")


def _placed(refused: SqlRefused, sql: str, at: int | None = None) -> SqlRefused:
    """The same error with the line and column in its message."""
    at = refused.at if at is None else at
    if at is None:
        return refused
    placed = SqlRefused(f"{refused.message} ({_where(sql, at)})", hint=refused.hint)
    placed.at = at
    return placed


def _where(sql: str, at: int) -> str:
    before = sql.encode()[:at].decode(errors="replace")
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
