"""`lake.saved`: queries kept by name, to be read and to be built upon.

A saved query is one SELECT. Another query uses it as a common table expression: `compose(sql, ["late"])` puts
`WITH late AS (…)` before the SQL, and before that what `late` itself was saved upon, each once and in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lakehouse.catalog.names import nearest
from lakehouse.errors import AlreadyExists, LakehouseError, LakeReadOnly, NotFound, QueryError, SyntaxFault
from lakehouse.query.statements import Parser, Statement
from lakehouse.state import State

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_BEFORE = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.S)
_WITH = re.compile(r"with\b(\s+recursive\b)?", re.I)
_TAKES_WITH = ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE_INTO")


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """One saved query."""

    name: str
    sql: str
    uses: tuple[str, ...]
    """The saved queries that it reads, in order."""
    time: datetime
    """When it was saved."""


class Saved:
    """The saved queries of a lake; every process sees them.

    Args:
        state: where they are kept.
        parser: gives the parser that looks at them; asked for when first needed.
        read_only: whether saving and deleting is refused.
    """

    def __init__(self, state: State, parser: Callable[[], Parser], *, read_only: bool) -> None:
        self._state = state
        self._parser = parser
        self._read_only = read_only

    def add(self, name: str, sql: str, *, with_: Sequence[str] = (), replace: bool = True) -> SavedQuery:
        """Save one SELECT under a name.

        Args:
            name: letters, digits and _, no digit first: other queries use it as a table's name.
            sql: the query; it is not run.
            with_: names of the saved queries that it reads.
            replace: whether another one of that name is given up.

        Raises:
            QueryError: it is not one SELECT, or would in the end read itself.
            NotFound: one of `with_` is not saved.
            AlreadyExists: the name is taken and `replace` is off.
        """
        self._check_writable()
        check_name(name)
        try:
            self._parser().parse(f"FROM {name}")
        except SyntaxFault:
            raise QueryError(f"'{name}' is a word of SQL and cannot name a saved query") from None
        text = self._one_select(sql)
        known = {query.name: query for query in self.list()}
        uses = tuple(dict.fromkeys(_find(known, used).name for used in _names(with_)))
        name = next((other for other in known if other.lower() == name.lower()), name)
        if any(needed.lower() == name.lower() for needed in _ordered(known, uses)):
            raise QueryError(f"the saved query {name} would read itself", hint=f"it is in what {', '.join(uses)} reads")
        now = datetime.now(UTC)
        with self._state.write() as connection:
            taken = connection.execute("SELECT 1 FROM saved_query WHERE name = ?", (name,)).fetchone()
            if taken and not replace:
                raise AlreadyExists(f"there is a saved query {name} already", hint="choose another name, or replace it")
            row = (name, text, now.isoformat())
            connection.execute("INSERT OR REPLACE INTO saved_query (name, sql, time) VALUES (?, ?, ?)", row)
            connection.execute("DELETE FROM saved_query_use WHERE name = ?", (name,))
            rows = [(name, position, used) for position, used in enumerate(uses)]
            connection.executemany("INSERT INTO saved_query_use (name, position, uses) VALUES (?, ?, ?)", rows)
        return SavedQuery(name, text, uses, now)

    def get(self, name: str) -> SavedQuery:
        """The saved query of a name, in any case.

        Raises:
            NotFound: there is none.
        """
        return _find({query.name: query for query in self.list()}, name)

    def list(self) -> list[SavedQuery]:
        """All saved queries, sorted by name."""
        uses: dict[str, tuple[str, ...]] = {}
        for name, used in self._state.read("SELECT name, uses FROM saved_query_use ORDER BY name, position"):
            uses[name] = (*uses.get(name, ()), used)
        rows = self._state.read("SELECT name, sql, time FROM saved_query ORDER BY lower(name)")
        return [SavedQuery(name, sql, uses.get(name, ()), datetime.fromisoformat(time)) for name, sql, time in rows]

    def delete(self, name: str, *, force: bool = False) -> None:
        """Give up a saved query.

        Raises:
            NotFound: there is none of that name.
            QueryError: others read it and `force` is off.
        """
        self._check_writable()
        name = self.get(name).name
        readers = [query.name for query in self.list() if name in query.uses]
        if readers and not force:
            raise QueryError(f"the saved query {name} is read by {', '.join(readers)}", hint="delete those first")
        with self._state.write() as connection:
            connection.execute("DELETE FROM saved_query WHERE name = ?", (name,))
            connection.execute("DELETE FROM saved_query_use WHERE name = ?", (name,))

    def compose(self, sql: str, with_: Sequence[str] = ()) -> str:
        """The SQL with saved queries before it as common table expressions, for `lake.sql`.

        Args:
            sql: one statement; a WITH of its own goes on after the saved ones.
            with_: names of saved queries; what they read themselves comes with them.

        Raises:
            NotFound: one of them is not saved.
            QueryError: the statement cannot begin with WITH.
        """
        if not (names := _names(with_)):
            return sql
        known = {query.name: query for query in self.list()}
        statement = self._one(sql, "saved queries go before one statement")
        if statement.verb not in _TAKES_WITH:
            raise QueryError(
                f"saved queries cannot stand before {statement.verb.replace('_', ' ')}",
                hint="they go with SELECT, INSERT, UPDATE, DELETE and MERGE; for a table: INSERT INTO … SELECT …",
            )
        return _joined(known, statement.text, names)

    def joined(self, sql: str, with_: Sequence[str] = ()) -> str:
        """The text of `compose` for SQL that nobody has looked at yet: it is not parsed here.

        Raises:
            NotFound: one of `with_` is not saved.
        """
        names = _names(with_)
        return _joined({query.name: query for query in self.list()}, sql, names) if names else sql

    def __iter__(self) -> Iterator[SavedQuery]:
        return iter(self.list())

    def __getitem__(self, name: str) -> SavedQuery:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return any(isinstance(name, str) and query.name.lower() == name.lower() for query in self.list())

    def __len__(self) -> int:
        return len(self.list())

    def __repr__(self) -> str:
        names = ", ".join(query.name for query in self.list())
        return f"<saved queries: {names or 'none'}>"

    def _check_writable(self) -> None:
        if self._read_only:
            raise LakeReadOnly

    def _one_select(self, sql: str) -> str:
        statement = self._one(sql, "a saved query is one SELECT")
        if statement.verb not in ("SELECT", "RELATION") or statement.kind != "read":
            raise QueryError(
                f"a saved query is one SELECT, not {statement.verb.replace('_', ' ')}",
                hint="other queries read it like a table",
            )
        return statement.text

    def _one(self, sql: str, rule: str) -> Statement:
        statements = self._parser().parse(sql)
        if len(statements) != 1:
            raise QueryError(rule, hint=f"there are {len(statements)}")
        return statements[0]


def check_name(name: str) -> None:
    """Refuse what cannot stand as a table's name without quotes.

    Raises:
        LakehouseError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise LakehouseError(
            f"'{name}' cannot be the name of a saved query", hint="letters, digits and _, no digit first"
        )


def _names(with_: Sequence[str]) -> Sequence[str]:
    return [with_] if isinstance(with_, str) else with_


def _find(known: dict[str, SavedQuery], name: str) -> SavedQuery:
    for query in known.values():
        if query.name.lower() == str(name).lower():
            return query
    listed = f"saved are {', '.join(known)}" if known else "nothing is saved yet: lake.saved.add(name, sql)"
    raise NotFound(f"there is no saved query '{name}'", hint=nearest(str(name), known) or listed)


def _joined(known: dict[str, SavedQuery], text: str, names: Sequence[str]) -> str:
    parts = [f"{name} AS (\n{known[name].sql}\n)" for name in _ordered(known, names)]
    start = _BEFORE.match(text).end()  # type: ignore[union-attr]  # it matches nothing, too
    own = _WITH.match(text, start)
    if own is None:
        return f"WITH {', '.join(parts)}\n{text}"
    return f"{text[:start]}WITH{own[1] or ''} {', '.join(parts)},{text[own.end() :]}"


def _ordered(known: dict[str, SavedQuery], names: Sequence[str]) -> list[str]:
    """The names with all that they read, each after what it reads, once."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        query = _find(known, name)
        if query.name not in found:
            for used in query.uses:
                visit(used)
            found[query.name] = None

    for name in names:
        visit(name)
    return list(found)
