"""Statements that make a table or change its columns: the table must be able to keep them (see catalog/keeping.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from lakehouse.catalog import inlining, keeping
from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.names import quote
from lakehouse.errors import QueryError, TableNotFound
from lakehouse.query import fetching
from lakehouse.query.statements import Statement, tokens

if TYPE_CHECKING:
    from lakehouse.catalog.writer import Transaction
    from lakehouse.query.result import Rows

_PART = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)'
_NAME = re.compile(rf"{_PART}(?:\s*\.\s*{_PART})*")
_PARTS = re.compile(_PART)
_WHOLE = re.compile(r"U?(?:TINY|SMALL|BIG)INT|U?INTEGER")
_UNBOUND = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)


@dataclass(frozen=True, slots=True)
class Making:
    """A CREATE TABLE or ALTER TABLE."""

    name: tuple[str, ...]
    """The parts of the table's name, as written but without quotes."""
    renamed: str | None = None
    """What ALTER TABLE … RENAME TO calls it."""
    head: str = ""
    query: str | None = None
    """The query of CREATE TABLE … AS; the text is `head`, then this, then `tail`."""
    tail: str = ""


def run(
    statement: Statement,
    connection: duckdb.DuckDBPyConnection,
    transaction: Transaction | None,
    values: Any,
) -> Rows:
    """Run a statement; what a write makes of columns is looked at before it is committed.

    Raises:
        QueryError: a table cannot keep a column.
    """
    making = made(statement.text) if statement.kind == "ddl" and statement.verb in ("CREATE", "ALTER") else None
    place = _place(making, connection) if making is not None else None
    if making is None or place is None or transaction is None:
        return fetching.fetch(connection, statement.text, values, compound=statement.compound)
    text = statement.text
    if making.query is not None:
        text = _exact(making, making.query, connection, transaction, place, values)
    before = _types(connection, place) if statement.verb == "ALTER" else {}
    rows = fetching.fetch(connection, text, values, compound=statement.compound)
    if making.renamed is None:
        _check_types(connection, place, before)
        with suppress(TableNotFound):  # ALTER TABLE IF EXISTS may have found none
            inlining.settle(transaction, *place)
    elif place in transaction.files_only:
        transaction.files_only.add((place[0], making.renamed))
    return rows


def _types(connection: duckdb.DuckDBPyConnection, place: tuple[str, str]) -> dict[str, str]:
    with suppress(duckdb.CatalogException):  # the statement itself says that there is no such table
        return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {quote(ALIAS, *place)}").fetchall()}
    return {}


def _check_types(connection: duckdb.DuckDBPyConnection, place: tuple[str, str], before: Mapping[str, str]) -> None:
    """Refuse a change of type after which rows would be looked for in the old one.

    DuckLake 1.5.5 leaves the rows as they are and casts what a filter compares them with to the type they were written
    in: after INTEGER became DOUBLE, `x = 9.5` finds 10. Between whole numbers that goes well.

    Raises:
        QueryError: the table has rows, and the types are not both whole numbers.
    """
    after = _types(connection, place)
    for name, old in before.items():
        new = after.get(name, old)
        if new != old and not (_WHOLE.fullmatch(old) and _WHOLE.fullmatch(new)):
            if connection.execute(f"SELECT 1 FROM {quote(ALIAS, *place)} LIMIT 1").fetchone() is not None:
                table = ".".join(place)
                raise QueryError(
                    f"the column {name} of {table} has rows, which would be looked for as {old} still",
                    hint=f"CREATE OR REPLACE TABLE {table} AS SELECT * REPLACE (CAST({quote(name)} AS {new}) AS"
                    f" {quote(name)}) FROM {table}; a load with contract='evolve' widens and keeps the history",
                )


def made(text: str) -> Making | None:
    """What a statement makes or changes, None when it is about something else than a table."""
    found = tokens(text)
    words = [word for _, word in found]
    if "table" not in words[:5]:
        return None
    at = words.index("table") + 1
    while words[at : at + 1] and words[at] in ("if", "not", "exists"):
        at += 1
    if at >= len(found) or (match := _NAME.match(text, found[at][0])) is None:
        return None
    name = tuple(_unquoted(part) for part in _PARTS.findall(match[0]))
    rest = [index for index, (offset, _) in enumerate(found) if offset >= match.end()]
    if words[0] == "alter":
        to = rest[1] + 1 if len(rest) > 2 and [words[i] for i in rest[:2]] == ["rename", "to"] else None
        new = _NAME.match(text, found[to][0]) if to is not None else None
        return Making(name, _unquoted(new[0]) if new else None)
    depth = 0
    for index in rest:
        depth += (words[index] == "(") - (words[index] == ")")
        if depth == 0 and words[index] == "as" and index + 1 < len(found):
            end = _end(words)
            begin, stop = found[index + 1][0], found[end][0] if end < len(found) else len(text)
            return Making(name, None, text[:begin], text[begin:stop], text[stop:])
    return Making(name)


def _exact(
    making: Making,
    query: str,
    connection: duckdb.DuckDBPyConnection,
    transaction: Transaction,
    place: tuple[str, str],
    values: Any,
) -> str:
    """The text of a CREATE TABLE … AS, with casts where a type is kept as another one."""
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM ({query}\n)", values).fetchall()
    except _UNBOUND:
        return f"{making.head}{query}{making.tail}"  # running it says what is wrong, with its own words
    except duckdb.Error as error:  # the transaction is aborted: such as a file that is not there
        raise type(error)(str(error).split("\nLINE ", 1)[0].rstrip()) from None
    columns = [(row[0], keeping.kept(row[1])) for row in described]
    keeping.check(making.name[-1], columns)
    if keeping.only_in_files(columns):
        inlining.write_files(transaction, *place, wide=keeping.wide(columns))
    casts = [
        f"CAST({quote(name)} AS {kind}) AS {quote(name)}"
        for (name, kind), row in zip(columns, described, strict=True)
        if kind != row[1]
    ]
    if not casts:
        return f"{making.head}{query}{making.tail}"
    return f"{making.head}SELECT * REPLACE ({', '.join(casts)}) FROM ({query}\n) {making.tail}"


def _place(making: Making, connection: duckdb.DuckDBPyConnection) -> tuple[str, str] | None:
    """Schema and name of the table; None when it is in another database than the lake."""
    here = connection.execute("SELECT current_database(), current_schema()").fetchone() or (ALIAS, "main")
    *place, name = making.name
    if len(place) == 1:
        known = connection.execute("SELECT lower(database_name) FROM duckdb_databases()").fetchall()
        place = [place[0], "main"] if (place[0].lower(),) in known else [here[0], place[0]]
    database, schema = place or here
    return (schema, name) if database.lower() == ALIAS else None


def _end(words: list[str]) -> int:
    """Which token WITH [NO] DATA begins with; one after the last where there is none."""
    for tail in (["with", "no", "data"], ["with", "data"]):
        if words[-len(tail) :] == tail:
            return len(words) - len(tail)
    return len(words)


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
