"""What an SQL statement writes and reads, from a parse of its text alone."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sqlglot import exp

_LONGEST = 20_000  # characters: parsing more would take longer than the write it describes
_KEPT = 1000
_PARSING = threading.Lock()
_LITERAL = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")
_TRICKY = re.compile(r"--|/\*|\$\$|\be'", re.I)  # comments and other ways to write texts: the parser knows them
_COMMENT = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)+", re.S)
_VALUES = r"insert\s+(?:or\s+\w+\s+)?into\s+[^;(]*?(?:\([^()]*\)\s*)?values\b"
_ITSELF = re.compile(
    rf"{_VALUES}|update\b|delete\s+from\b|truncate\b|create\s+(?:or\s+replace\s+)?table\b(?!.*\bas\b)", re.I | re.S
)
_OTHERS = re.compile(r"\b(?:select|from|table|using)\b", re.I)
_NO_ROWS = re.compile(r"(?:alter|drop|comment|checkpoint|use|set|reset|pragma|begin|commit|rollback)\b", re.I)
_CREATE_AS = re.compile(
    r"(create\s+(?:or\s+replace\s+)?(?:temp(?:orary)?\s+)?(?:table|view)\s.+?\sas\s)(.+)", re.I | re.S
)

_FILES = frozenset(
    "read_csv read_csv_auto sniff_csv read_parquet parquet_scan parquet_metadata parquet_schema read_json read_json_auto"
    " read_json_objects read_json_objects_auto read_ndjson read_ndjson_auto read_ndjson_objects read_text read_blob"
    " read_xlsx glob sqlite_scan delta_scan iceberg_scan st_read read_avro".split()
)
_MADE = frozenset("generate_series range unnest explode values repeat repeat_row generate_subscripts".split())
_CHANGES = frozenset("table_changes table_insertions table_deletions".split())


@dataclass(frozen=True, slots=True)
class Named:
    """A source, or the target, as a statement names it."""

    kind: Literal["table", "file", "function", "call"]
    """`function`: it gives a table; `call`: it gives a value, and may be a macro that reads tables."""
    name: str
    """Of a file: its path or pattern, or `$parameter`; of a function: how it is called."""
    schema: str = ""
    catalog: str = ""
    at: str | None = None
    """The snapshot id or the moment of an `AT (…)` clause."""


@dataclass(frozen=True, slots=True)
class Use:
    """One statement that makes or changes rows, or a view."""

    operation: str
    """`create`, `view`, `insert`, `update`, `delete`, `merge` or `copy`."""
    target: Named | None
    sources: tuple[Named, ...]
    """Each once, in the order of the text; the target is among them only where it is read by name."""
    temporary: bool = False


def uses(sql: str) -> tuple[Use, ...] | None:
    """What the statements of a text write and read; None when some of it is not understood.

    Left out are statements that make no rows (ALTER, DROP, COMMENT …), and a text that is one statement which
    plainly reads no other table: rows written as VALUES, a simple UPDATE or DELETE.
    """
    bare = _COMMENT.sub(" ", sql, count=1).lstrip() if _COMMENT.match(sql) else sql
    if _NO_ROWS.match(bare) and ";" not in bare.rstrip().rstrip(";"):
        return ()
    if _reads_nothing(bare):
        return ()
    return None if len(sql) > _LONGEST else _parsed(sql)


def query(sql: str) -> tuple[Named, ...] | None:
    """What a SELECT reads; None when it is not understood."""
    found = uses(f"CREATE VIEW v AS {sql}")
    return found[0].sources if found else None


@lru_cache(_KEPT)
def _parsed(sql: str) -> tuple[Use, ...] | None:
    try:
        found = [_use(tree) for tree in trees(sql)]
    except Exception:  # of any kind: the words of a statement that DuckDB took must never fail its write
        return None
    return tuple(use for use in found if use is not None)


def trees(sql: str) -> list[exp.Expr]:
    """The statements of a text as sqlglot sees them.

    Raises:
        Exception: it does not understand one of them.
    """
    import sqlglot
    from sqlglot import exp

    with _PARSING, _silent(logging.getLogger("sqlglot")):
        found = [tree for tree in sqlglot.parse(sql, dialect="duckdb") if tree is not None]
        if len(found) == 1 and isinstance(found[0], exp.Command) and (match := _CREATE_AS.match(sql.strip())):
            # Such as CREATE TABLE … AS PIVOT …: the query is understood only by itself.
            found = [sqlglot.parse_one(f"{match[1]} SELECT 1", dialect="duckdb")]
            found[0].set("expression", sqlglot.parse_one(match[2], dialect="duckdb"))
    if any(isinstance(tree, exp.Command) for tree in found):
        raise ValueError("not understood")
    return found


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """It warns of what it keeps as mere text; here that is an exception."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def target(tree: exp.Expr) -> exp.Table | None:
    """The table or view that a statement writes."""
    from sqlglot import exp

    if not isinstance(
        tree, exp.Create | exp.Insert | exp.Update | exp.Delete | exp.Merge | exp.Copy | exp.TruncateTable
    ):
        return None
    here = tree.expressions[0] if isinstance(tree, exp.TruncateTable) else tree.this
    here = here.this if isinstance(here, exp.Schema) else here
    return here if isinstance(here, exp.Table) else None


def _reads_nothing(sql: str) -> bool:
    """Whether it is one statement of the most frequent kinds that reads no other table: those are never parsed."""
    if not (match := _ITSELF.match(sql)):
        return False
    rest = _LITERAL.sub("''", sql[match.end() :])
    return not _TRICKY.search(rest) and not _OTHERS.search(rest) and ";" not in rest.rstrip().rstrip(";")


def _use(tree: exp.Expr) -> Use | None:
    from sqlglot import exp

    written = target(tree)
    if written is None or (isinstance(tree, exp.Create) and tree.args.get("kind") not in ("TABLE", "VIEW")):
        return None
    if isinstance(tree, exp.Create):
        operation = "view" if tree.args["kind"] == "VIEW" else "create"
        if tree.expression is None:
            return None  # only columns: there are no rows yet
    else:
        operation = "delete" if isinstance(tree, exp.TruncateTable) else type(tree).__name__.lower()
    sources = list(dict.fromkeys(named for table in tables(tree, written) for named in named_sources(table)))
    if isinstance(tree, exp.Copy):
        sources += [Named("file", file.name) for file in tree.args.get("files") or ()]
    sources += calls(tree)
    temporary = isinstance(tree, exp.Create) and tree.find(exp.TemporaryProperty) is not None
    return Use(operation, _named(written), tuple(sources), temporary)


def calls(tree: exp.Expr) -> list[Named]:
    """The functions that sqlglot does not know, each once: macros are among them."""
    from sqlglot import exp

    found = tree.find_all(exp.Anonymous)
    names = (call.name for call in found if not isinstance(call.parent, exp.Table | exp.Dot))
    return [Named("call", name) for name in dict.fromkeys(names)]


def tables(node: exp.Expr, written: exp.Table | None, hidden: frozenset[str] = frozenset()) -> Iterator[exp.Table]:
    """Every table, file and table function that is read below a node.

    Args:
        node: where to look.
        written: the table that the statement writes; where it stands as such it is not read.
        hidden: lower-cased names that mean a CTE here.
    """
    from sqlglot import exp

    if isinstance(clause := node.args.get("with_"), exp.With):
        for cte in clause.expressions:
            yield from tables(cte.this, written, hidden | {cte.alias.lower()} if clause.recursive else hidden)
            hidden |= {cte.alias.lower()}
    if isinstance(node, exp.Table) and node is not written:
        plain = isinstance(node.this, exp.Identifier)
        if not (plain and not node.db and node.name.lower() in hidden):
            yield node
    for child in _flat([value for key, value in node.args.items() if key != "with_"]):
        yield from tables(child, written, hidden)


def _flat(values: list[Any]) -> Iterator[exp.Expr]:
    from sqlglot import exp

    for value in values:
        if isinstance(value, exp.Expr):
            yield value
        elif isinstance(value, list):
            yield from _flat(value)


def named_sources(table: exp.Table) -> Iterator[Named]:
    """What a table of a parsed statement stands for: itself, or the files or the function it calls."""
    from sqlglot import exp

    call = table.this
    if isinstance(call, exp.Identifier):
        yield _named(table)
        return
    name = (call.name if isinstance(call, exp.Anonymous) else call.sql_name()).lower()
    if name in _MADE:
        return
    arguments = [call.this, *call.expressions] if isinstance(call.this, exp.Expr) else list(call.expressions)
    first = arguments[0] if arguments else None
    if name in _FILES and first is not None:
        yield from (Named("file", path) for path in _paths(first))
    elif name in _CHANGES | {"query_table"} and isinstance(first, exp.Literal):
        last = arguments[-1]
        at = last.name if name in _CHANGES and isinstance(last, exp.Literal) and not last.is_string else None
        *schema, short = first.name.split(".") if name == "query_table" else [first.name]
        yield Named("table", short, schema[-1] if schema else "", at=at)
    else:
        yield Named("function", call.sql("duckdb", normalize_functions=False)[:200])


def _paths(argument: exp.Expr) -> Iterator[str]:
    from sqlglot import exp

    for part in argument.expressions if isinstance(argument, exp.Array | exp.Tuple) else [argument]:
        if isinstance(part, exp.Literal):
            yield part.name
        elif isinstance(part, exp.Placeholder | exp.Parameter):
            yield f"${part.name or '?'}"
        else:
            yield part.sql("duckdb")[:200]  # a path that only running it makes


def _named(table: exp.Table) -> Named:
    at = None
    if (when := table.args.get("when")) is not None:
        moment = when.args.get("expression")
        at = moment.this.name if type(moment).__name__ == "Cast" else moment.name if moment is not None else None
    return Named("table", table.name, table.db, table.catalog, at or None)
