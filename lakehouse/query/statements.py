"""What a piece of SQL is: where statements end, what each does, and what a SELECT refers to.

DuckDB's tokenizer finds the statement ends, its parser says what each statement is, and its JSON
form of a SELECT (`json_serialize_sql`) says which tables and functions it names.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import duckdb
import msgspec

from lakehouse.catalog import faults
from lakehouse.catalog.names import literal
from lakehouse.errors import SyntaxFault

Kind = Literal["read", "write", "ddl", "session", "transaction"]

_BY_TYPE: dict[str, Kind] = {
    "SELECT": "read",
    "RELATION": "read",
    "EXPORT": "read",
    "INSERT": "write",
    "UPDATE": "write",
    "DELETE": "write",
    "MERGE_INTO": "write",
    "EXECUTE": "write",
    "COPY_DATABASE": "write",
    "CREATE": "ddl",
    "DROP": "ddl",
    "ALTER": "ddl",
    "TRANSACTION": "transaction",
}
# Table functions and procedures of DuckLake that change the lake although they are called like a query.
_EFFECTS = frozenset(
    "add_data_files checkpoint cleanup_old_files delete_orphaned_files expire_snapshots flush_inlined_data"
    " force_checkpoint merge_adjacent_files rewrite_data_files set_option".split()
)
_WORD = re.compile(r"[^\W\d]\w*")
_SHAPES_KEPT = 1000
_COMMENT = re.compile(r"\s+|--[^\n]*(?:\n|$)|/\*.*?\*/", re.S)
# Names that read the clock or the session although they look like columns.
_CLOCK = frozenset(
    "current_catalog current_database current_date current_role current_schema current_time current_timestamp "
    "current_user localtime localtimestamp session_user today user".split()
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a script."""

    text: str
    verb: str
    """DuckDB's name of the statement type, such as `SELECT` or `MERGE_INTO`."""
    kind: Kind
    parameters: frozenset[str]
    """Names of its `$parameters`; `?` counts as `1`, `2` …"""
    compound: bool = False
    """Whether DuckDB makes several statements of it: a PIVOT whose columns come from the data needs a type first."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a SELECT refers to."""

    tables: frozenset[tuple[str, str, str]]
    """Catalog, schema (both empty when not written) and name of every table that is not a CTE."""
    functions: frozenset[str]
    columns: frozenset[str]
    """Lower-cased last parts of all column references."""
    plain: bool
    """Whether it is only a SELECT over tables: no SHOW, sample, or reading of clock and session."""
    scan: bool
    """Whether it is one SELECT of one table that keeps the order of its rows: nothing grouped, joined or sorted."""


class Parser:
    """DuckDB's parser on an empty database of its own, so that parsing can touch nothing."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(config={"threads": 1})
        self._lock = threading.Lock()
        self._shapes: dict[str, Shape | None] = {}

    def parse(self, sql: str) -> list[Statement]:
        """The statements of a script, in order, each classified; empty statements are left out.

        Raises:
            SyntaxFault: some statement cannot be parsed, or there is none. Nothing has been run.
        """
        try:
            sql.encode()
        except UnicodeEncodeError as error:
            raise SyntaxFault(f"the query is not text: {error.reason} at position {error.start}") from None
        found = [self._classify(text) for text in split(sql)]
        if not found:
            raise SyntaxFault("there is no SQL statement to run", hint="such as SELECT 42")
        return found

    def inspect(self, text: str) -> Shape | None:
        """What one SELECT refers to, or None when it is not a SELECT that DuckDB can serialise."""
        try:
            return self._shapes[text]
        except KeyError:
            with self._lock:
                row = self._connection.execute(f"SELECT json_serialize_sql({literal(text)})").fetchone()
            if len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.clear()
            try:
                document = msgspec.json.decode(row[0]) if row else {}
            except msgspec.DecodeError:  # DuckDB writes a number too large for a DOUBLE, such as 1e400, as Infinity
                document = {}
            self._shapes[text] = shape = _shape(document)
            return shape

    def close(self) -> None:
        """Free the parser's database."""
        self._connection.close()

    def _classify(self, text: str) -> Statement:
        with self._lock, faults.translated():
            parsed = self._connection.extract_statements(text)
        if not parsed:
            raise SyntaxFault(f"not a statement: {text[:80]}")
        parts = done(parsed)
        verb = str(parts[-1].type).rsplit(".", 1)[-1]  # a type that this DuckDB cannot name is '???'
        parameters = frozenset[str]().union(*(part.named_parameters for part in parts))
        return Statement(text, verb, self._kind(verb, _bare(text)), parameters, len(parts) > 1)

    def _kind(self, verb: str, text: str) -> Kind:
        found = tokens(text)
        words = [word for _, word in found]
        if verb in ("SELECT", "CALL") and any(word.removeprefix("ducklake_") in _EFFECTS for word in words):
            return "write"
        if verb == "COPY":
            return "read" if _direction(words) == "to" else "write"
        if verb == "EXPLAIN":
            options, inner = _explained(words)
            return self._classify(text[found[inner][0] :]).kind if "analyze" in options else "read"
        if verb in ("CREATE", "DROP") and {"temp", "temporary", "secret"} & set(words[1:5]):
            return "session"
        return _BY_TYPE.get(verb, "session")


def done(parsed: list[Any]) -> list[Any]:
    """Of what DuckDB makes of one statement the parts that do something.

    PIVOT comes apart into making a temporary type and the statement itself. Where that writes, BEGIN and COMMIT stand
    around the two, or a SET each if a transaction is open.
    """
    around = (duckdb.StatementType.TRANSACTION, duckdb.StatementType.SET)
    return parsed if len(parsed) == 1 else [part for part in parsed if part.type not in around]


def tokens(text: str) -> list[tuple[int, str]]:
    """Where each token begins, and its lower-cased word; strings, quoted names and punctuation by one character.

    Comments are no tokens.
    """
    raw = text.encode()
    found = []
    for offset, _ in duckdb.tokenize(text):
        at = len(raw[:offset].decode())
        match = _WORD.match(text, at)
        found.append((at, match[0].lower() if match else text[at]))
    return found


def _direction(words: list[str]) -> str:
    """Whether a COPY goes `to` or `from`: the first of the two outside of parentheses."""
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if depth == 0 and word in ("to", "from"):
            return word
    return "from"


def _explained(words: list[str]) -> tuple[list[str], int]:
    """The options of an EXPLAIN, and which token the explained statement begins with."""
    if words[1] == "(":
        end = words.index(")")
        return words[2:end], end + 1
    return (["analyze"], 2) if words[1] == "analyze" else ([], 1)


def split(sql: str) -> list[str]:
    """The texts between the semicolons that end statements: not those in strings, names or comments."""
    ends = [offset for offset, kind in duckdb.tokenize(sql) if kind == duckdb.token_type.operator]
    # The tokenizer counts bytes of UTF-8, and names every kind of punctuation an operator.
    raw = sql.encode()
    cuts = [end for end in ends if raw[end : end + 1] == b";"]
    pieces = [raw[a:b].decode() for a, b in zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(raw)], strict=True)]
    return [piece.strip() for piece in pieces if _bare(piece)]


def _bare(text: str) -> str:
    """The text without the comments and spaces before its first word."""
    at = 0
    while match := _COMMENT.match(text, at):
        at = match.end()
    return text[at:].rstrip()


def _shape(document: dict[str, Any]) -> Shape | None:
    if document.get("error", True) or len(document["statements"]) != 1:
        return None
    nodes = list(_walk(document["statements"][0]))
    ctes = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    tables, functions, columns, plain = set(), set(), set(), True
    for node in nodes:
        match node.get("type"):
            case "BASE_TABLE":
                name = (node["catalog_name"], node["schema_name"], node["table_name"])
                if node.get("at_clause"):
                    plain = False
                if name[0] or name[1] or name[2].lower() not in ctes:
                    tables.add(name)
            case "COLUMN_REF":
                columns.add(node["column_names"][-1].lower())
            case "SHOW_REF" | "TABLE_FUNCTION" | "DELIM_GET" | "PIVOT":
                plain = False
        if "function_name" in node and node.get("class") in ("FUNCTION", "WINDOW"):
            functions.add(node["function_name"].lower())
        if node.get("sample"):
            plain = False
    plain = plain and not columns & _CLOCK
    return Shape(frozenset(tables), frozenset(functions), frozenset(columns), plain, plain and _scans(nodes))


def _scans(nodes: list[dict[str, Any]]) -> bool:
    selects = [node for node in nodes if "select_list" in node or node.get("type") == "SET_OPERATION_NODE"]
    if len(selects) != 1 or any(node.get("class") in ("WINDOW", "SUBQUERY") for node in nodes):
        return False
    (select,) = selects
    source = select.get("from_table") or {}
    grouped = select.get("group_expressions") or select.get("group_sets") or select.get("having")
    return source.get("type") == "BASE_TABLE" and not grouped and not select.get("modifiers")


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, dict):
            yield here
            stack.extend(here.values())
        elif isinstance(here, list):
            stack.extend(here)
