"""Completion inside the magics: finds the SQL in a cell, and reads the names that it may use."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from lakehouse.catalog.metadata import Relation
from lakehouse.catalog.names import shown
from lakehouse.errors import LakehouseError
from lakehouse.lake import Lakehouse
from lakehouse.notebook import cells, completion, remote, variables
from lakehouse.notebook.completion import Names, Suggestion, Suggestions
from lakehouse.notebook.scopes import Columns

_CELL = re.compile(r"\s*%%(\w+)(?=\s)")
_LINE = re.compile(r"\s*(?:[\w\s,.\[\]'\"]+=\s*)?%(\w+)(?=\s)")
_WORD = re.compile(r"\S*\Z")
_PLAIN = re.compile(r"[a-z_]\w*")


@dataclass(frozen=True, slots=True)
class Field:
    """The part of a cell that one magic reads."""

    magic: str
    start: int
    text: str
    line: int
    """Length of the magic's own line, which is where its options stand."""


def field(text: str, cursor: int, sql: str) -> Field | None:
    """The part of the cell with the cursor that one of our magics reads; None in Python code.

    Args:
        text: the whole cell.
        cursor: where in it.
        sql: what the SQL magic is called.
    """
    if (cell := _CELL.match(text)) is not None and cell[1] == sql:
        start = cell.end()
        end = text.find("\n", start)
        line = (len(text) if end < 0 else end) - start
        return Field(cell[1], start, text[start:], line) if cursor > start else None
    begin = text.rfind("\n", 0, cursor) + 1
    end = text.find("\n", cursor)
    line_text = text[begin : len(text) if end < 0 else end]
    match = _LINE.match(line_text)
    if match is None or match[1] not in (sql, "lake") or cursor <= begin + match.end():
        return None
    inner = line_text[match.end() :]
    return Field(match[1], begin + match.end(), inner, len(inner))


def in_sql(here: Field, cursor: int, names: Callable[[], Names]) -> Suggestions:
    """Suggestions inside `%sql` or `%%sql`: options in its line, SQL everywhere."""
    at = cursor - here.start
    line, body = here.text[: here.line], here.text[here.line :]
    if at <= here.line and (found := _option(line[:at], cells.SQL_OPTIONS)) is not None:
        return _moved(found, here.start)
    try:
        _, line = cells.take_options(line, cells.SQL_OPTIONS, here.magic)
    except LakehouseError:
        pass  # an option half typed further on
    sql = line + body
    start = cells.sql_start(sql)
    if at < start:
        return Suggestions(cursor)
    return _moved(completion.complete(" " * start + sql[start:], at, names()), here.start)


def in_lake(here: Field, cursor: int, names: Callable[[], Names]) -> Suggestions:
    """Suggestions inside `%lake`: its words, options, and the names they take."""
    before = here.text[: cursor - here.start]
    if (found := _option(before, cells.LAKE_OPTIONS)) is not None:
        return _moved(found, here.start)
    words = before.split()
    typed = _typed(before)
    done = words[:-1] if typed else words
    items: Iterable[Suggestion] = ()
    if not done:
        items = (Suggestion(word, "keyword") for word in cells.LAKE_WORDS)
    elif done in (["columns"], ["profile"], ["history"], ["lineage"]):
        relations = names().relations.values()
        full = (shown(r.schema, r.name) for r in relations)
        items = (Suggestion(f"'{n}'" if " " in n else n, "table") for n in full)
    elif done == ["tables"]:
        items = (Suggestion(schema, "schema") for schema in names().schemas)
    return Suggestions(cursor - len(typed), _beginning(items, typed))


class CatalogNames:
    """The names of one lake, read once for every snapshot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[Lakehouse, int, Names] | None = None
        self._functions: tuple[Sequence[str], Sequence[str]] | None = None

    def warm(self, lake: Lakehouse) -> None:
        """Begin to read the names of a lake just opened, so that the first completion need not wait for them."""
        threading.Thread(target=self._warm, args=(lake,), name="lakehouse-names").start()

    def _warm(self, lake: Lakehouse) -> None:
        try:
            self._lake(lake)
        except Exception:
            return  # closed meanwhile; a completion will ask again

    def read(self, lake: Lakehouse, values: Mapping[str, Any], hidden: Iterable[str] = ()) -> Names:
        """Everything that a query may name now.

        Args:
            lake: the lake.
            values: the notebook's variables.
            hidden: names among them that are not the user's.
        """
        hidden = set(hidden)
        mine = {k: v for k, v in list(values.items()) if not k.startswith("_") and k not in hidden}
        return replace(
            self._lake(lake),
            variables=sorted(name for name, value in mine.items() if variables.is_value(value)),
            frames={
                name: functools.partial(variables.frame_columns, value)
                for name, value in mine.items()
                if variables.is_frame(value)
            },
        )

    def _lake(self, lake: Lakehouse) -> Names:
        with self._lock:
            if remote.is_client(lake):
                return self._remote(lake)
            metadata = lake.catalog.metadata
            snapshot = metadata.current()
            if self._kept is None or self._kept[0] is not lake or self._kept[1] != snapshot:
                columns = functools.cache(lambda: metadata.column_names(snapshot))
                functions, table_functions = self._all_functions()
                names = Names(
                    relations={
                        key: completion.Relation(r.schema, r.name, r.kind, _columns(lake, r, columns))
                        for key, r in metadata.relations(snapshot).items()
                    },
                    schemas=metadata.schemas(snapshot),
                    functions=[*functions, *sorted(metadata.macros(snapshot))],
                    table_functions=table_functions,
                )
                self._kept = (lake, snapshot, names)
            return self._kept[2]

    def _remote(self, client: Any) -> Names:
        snapshot = client.catalog.current_snapshot().id
        if self._kept is None or self._kept[0] is not client or self._kept[1] != snapshot:
            self._kept = (client, snapshot, remote.names(client, *self._all_functions()))
        return self._kept[2]

    def _all_functions(self) -> tuple[Sequence[str], Sequence[str]]:
        """The names of DuckDB's functions and table functions; asked for once, of an empty database: it is faster."""
        if self._functions is None:
            with duckdb.connect() as connection:
                rows = connection.execute(
                    "SELECT DISTINCT function_name, function_type LIKE 'table%' FROM duckdb_functions() ORDER BY 1"
                ).fetchall()
            named = [(name, table) for name, table in rows if _PLAIN.fullmatch(name)]
            self._functions = ([n for n, table in named if not table], [n for n, table in named if table])
        return self._functions


class Completer:
    """What may be typed next in SQL over one lake; `%%sql` suggests the same.

    Args:
        lake: whose tables, columns and functions there are.
    """

    def __init__(self, lake: Lakehouse) -> None:
        self._lake = lake
        self._names = CatalogNames()

    def complete(self, sql: str, cursor: int) -> Suggestions:
        """What may stand from its `start` to the cursor: `items` with `text` and `kind`, the likely ones first.

        Args:
            sql: finished or not.
            cursor: where in it, in characters.
        """
        return completion.complete(sql, cursor, self._names.read(self._lake, {}))


def _columns(lake: Lakehouse, relation: Relation, listed: Callable[[], Mapping[int, list[str]]]) -> Columns:
    if relation.kind == "table":
        return lambda: listed().get(relation.id, [])

    @functools.cache
    def of_view() -> Sequence[str]:
        try:
            return [name for name, _ in lake.catalog.describe(relation)]
        except LakehouseError:
            return []  # a view whose query no longer runs

    return of_view


def _option(before: str, options: Sequence[cells.Option]) -> Suggestions | None:
    """Suggestions for the option, or the value of one, that ends the text; None when there is neither."""
    typed = _typed(before)
    words = before.split()
    previous = words[-2 if typed else -1] if len(words) > bool(typed) else ""
    taking = next((o for o in options if o.value and previous in (o.name, o.short)), None)
    start = len(before) - len(typed)
    if taking is not None:
        values = cells.TYPES if taking.name == "--type" else ()
        return Suggestions(start, _beginning((Suggestion(v, "keyword") for v in values), typed))
    if not typed.startswith("-"):
        return None
    return Suggestions(start, _beginning((Suggestion(option.name, "option") for option in options), typed))


def _typed(before: str) -> str:
    match = _WORD.search(before)
    return match[0] if match else ""


def _beginning(items: Iterable[Suggestion], typed: str) -> tuple[Suggestion, ...]:
    return tuple(item for item in items if item.text.casefold().startswith(typed.casefold()))


def _moved(found: Suggestions, by: int) -> Suggestions:
    return Suggestions(found.start + by, found.items)
