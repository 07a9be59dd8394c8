"""Which columns each column of a table was computed from, by sqlglot's lineage of the statements that made it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lakehouse.catalog.lineage import reads
from lakehouse.catalog.lineage.reads import Named
from lakehouse.catalog.lineage.recording import Read, Resolver
from lakehouse.catalog.metadata import Relation
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from sqlglot import exp

    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.lineage.commits import Commit, Names, Step
    from lakehouse.catalog.lineage.graph import Columns

_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")  # statements that differ only in these are as one
_Found = dict[str, set[tuple[str, str]] | None]
_Schema = dict[str, tuple[str | None, list[str] | None]]
"""Name (None: it is made up by a function) and columns (None: not known) of what a rewritten query calls `t0`, `t1` …"""


def columns(
    catalog: Catalog, names: Names, steps: list[tuple[Commit, Step]], relation: Relation, version: int
) -> Columns:
    """The sources of each column, by its name now; None where some statement that wrote it is not understood.

    Args:
        catalog: where columns are asked for.
        names: what names meant when.
        steps: what wrote the rows of the table.
        relation: the table or view.
        version: the snapshot that it is looked at.
    """
    finder = _Finder(catalog, names, relation, _columns_of(catalog, relation.id, relation.kind, version) or {})
    if relation.kind == "view":
        view = names.of(relation.id, version)
        finder.statement(f"CREATE VIEW v AS {view.sql if view else ''}", version, version)
    seen: set[str] = set()
    for commit, step in reversed(steps):
        if step.operation == "ingest":
            for read in step.reads:
                finder.add({name: {(read.name, name)} for name in finder.columns(commit.id)}, commit.id)
        elif _adds_nothing(step, relation.id):
            continue
        elif (alike := _LITERAL.sub("0", step.sql or "")) not in seen:
            seen.add(alike)
            finder.statement(step.sql, commit.id - 1, commit.id, step.reads)
    return {name: None if found is None else tuple(sorted(found)) for name, found in finder.found.items()}


def _adds_nothing(step: Step, table: int) -> bool:
    """Whether a step only brings back, or takes away, rows that other steps made."""
    if step.operation == "rollback":
        return all(read.id == table for read in step.reads)
    return step.operation in ("delete", "retry")


def _columns_of(catalog: Catalog, id: int, kind: str, snapshot: int) -> dict[str, int] | None:
    """Names and ids of the columns of a table at a snapshot, or of a view now; None when they are not known."""
    if kind == "table":
        return {row[2]: row[1] for row in catalog.metadata.columns(snapshot, id)} or None
    live = catalog.metadata.relation(id, catalog.metadata.current())
    try:
        return {name: number for number, (name, _) in enumerate(catalog.describe(live))} if live else None
    except LakehouseError:
        return None  # what it reads is no longer there


class _Finder:
    """Adds up what the statements say about the columns of one table."""

    def __init__(self, catalog: Catalog, names: Names, relation: Relation, now: dict[str, int]) -> None:
        self.found: _Found = {name: set() for name in now}
        self._catalog = catalog
        self._names = names
        self._relation = relation
        self._now = now
        self._noted: tuple[Read, ...] = ()

    def columns(self, snapshot: int) -> dict[str, int]:
        """The columns that the table had."""
        if self._relation.kind == "view":
            return self._now
        return _columns_of(self._catalog, self._relation.id, "table", snapshot) or self._now

    def add(self, more: _Found, snapshot: int) -> None:
        """Join what one statement says in the names of then; a column that is no longer there is passed over."""
        then = {name.lower(): id for name, id in self.columns(snapshot).items()}
        now = {id: name for name, id in self._now.items()}
        for given, sources in more.items():
            name = now.get(then.get(given.lower(), -1))
            if name is not None:
                known = self.found[name]
                self.found[name] = None if known is None or sources is None else known | sources

    def statement(self, sql: str | None, before: int, after: int, noted: tuple[Read, ...] = ()) -> None:
        """One statement that wrote the table.

        Args:
            sql: its text.
            before: the snapshot that it read.
            after: the snapshot that has what its commit made.
            noted: what its commit noted that it read.
        """
        self._noted = noted
        have = list(self.columns(after))
        try:
            trees = [tree for tree in reads.trees(sql or "") if reads.target(tree) is not None]
            found = self._of(trees[0], have, before, after) if len(trees) == 1 else dict.fromkeys(have)
        except Exception:  # of any kind that sqlglot may have with what DuckDB took
            found = dict.fromkeys(have)
        self.add(found, after)

    def _of(self, tree: exp.Expr, have: list[str], before: int, after: int) -> _Found:
        from sqlglot import exp

        if isinstance(tree, exp.Delete | exp.TruncateTable):
            return {}
        place, unknown = tree.this, dict.fromkeys(have)
        given = [part.name for part in place.expressions] if isinstance(place, exp.Schema) else []
        if isinstance(tree, exp.Copy):  # by their place in the file; named as in the table
            files = [file.name for file in tree.args.get("files") or ()]
            return {name: {(file, name) for file in files} for name in given or have}
        if isinstance(tree, exp.Update | exp.Merge):
            return self._assigned(tree, before, after)
        query = tree.args.get("expression")
        if not isinstance(tree, exp.Create | exp.Insert) or not isinstance(query, exp.Query | exp.Values):
            return {} if query is None and isinstance(tree, exp.Create) else unknown
        if isinstance(query, exp.Values):
            return {}
        if clause := tree.args.get("with_"):
            query.set("with_", clause)
        schema: _Schema = {}
        found = self._selected(query, schema, before, after)
        if found is None:
            return unknown
        if "*" in found:  # the columns of a file or frame are not known, but they keep their names
            whole = isinstance(query, exp.Select) and len(query.expressions) == 1 and not query.args.get("joins")
            known = list(schema.values())
            same = whole and isinstance(query.expressions[0], exp.Star) and len(known) == 1
            return {name: {(known[0][0] or "", name)} for name in have} if same else unknown
        if tree.args.get("by_name"):
            return found
        given = given or (list(found) if isinstance(tree, exp.Create) else have)
        if len(given) != len(found):
            return unknown
        named: _Found = dict(zip(given, found.values(), strict=True))
        if isinstance(tree, exp.Insert):
            return named
        lower = {name.lower() for name in given}
        return {name: None for name in have if name.lower() not in lower} | named

    def _assigned(self, tree: exp.Expr, before: int, after: int) -> _Found:
        """The columns that an UPDATE or MERGE sets; None where it does not write down to what."""
        from sqlglot import exp

        other = tree.args["using"] if isinstance(tree, exp.Merge) else None
        start = tree.args.get("from_")
        others = [other] if other is not None else [start.this] if start is not None else []
        found: _Found = {}
        for assigned in _assignments(tree):
            if assigned is None:
                return dict.fromkeys(self.columns(after))
            query = exp.select(*(exp.alias_(value.copy(), name, quoted=True) for name, value in assigned.items()))
            query = query.from_(tree.this.copy())
            for one in others:
                query.append("joins", exp.Join(this=one.copy(), kind="CROSS"))
            if clause := tree.args.get("with_"):
                query.set("with_", clause.copy())
            for name, sources in (self._selected(query, {}, before, after) or dict.fromkeys(assigned)).items():
                itself = {pair for pair in sources or () if pair == (self._called(before), name)}
                known = found.get(name, set())
                found[name] = None if known is None or sources is None else known | (sources - itself)
        return found

    def _called(self, snapshot: int) -> str:
        """The name of the table at a snapshot."""
        row = self._names.of(self._relation.id, snapshot)
        return row.full_name if row else self._relation.name

    def _selected(self, query: exp.Expr, schema: _Schema, before: int, after: int) -> _Found | None:
        """The sources of what a query gives; None where COLUMNS(…) hides what that is."""
        from sqlglot import exp

        for number, table in enumerate(list(reads.tables(query, None))):
            self._rename(table, f"t{number}", schema, before, after)
        return None if query.find(exp.Columns) else _lineage(query, schema)

    def _rename(self, table: exp.Table, short: str, schema: _Schema, before: int, after: int) -> None:
        """Put a plain name in the place of a table, file or function, and remember what it stands for."""
        from sqlglot import exp

        named = next(reads.named_sources(table), None)
        label: str | None = None
        known: list[str] | None = None
        if named is not None:
            read = self._meant(named, before, after)
            label = read.name
            if read.id is not None:
                at = after if read.snapshot is None else read.snapshot
                known = list(_columns_of(self._catalog, read.id, read.kind, at) or ()) or None
        alias = table.alias or (table.name if isinstance(table.this, exp.Identifier) else "")
        schema[short] = (label, known)
        table.set("this", exp.to_identifier(short))
        for part in ("db", "catalog", "when"):
            table.set(part, None)
        if alias and not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))

    def _meant(self, named: Named, before: int, after: int) -> Read:
        """What a name stands for: the note knows it best, as the statement may have run in another schema."""
        noted = [
            read for read in self._noted if read.kind in ("table", "view") and _last(read.name) == _last(named.name)
        ]
        if len(noted) == 1 and not named.schema:
            return noted[0]
        resolver = Resolver(self._names.at, self._names.moment, self._names.macro)
        read = resolver.read(named, before)
        made_in_the_same_commit = read.id is None and read.kind == "table"
        return resolver.read(named, after) if made_in_the_same_commit else read


def _assignments(tree: exp.Expr) -> Iterator[dict[str, exp.Expr] | None]:
    """The columns that each part of an UPDATE or MERGE sets, and to what; None where it is not written down."""
    from sqlglot import exp

    if isinstance(tree, exp.Update):
        yield {part.this.name: part.expression for part in tree.expressions}
        return
    for when in tree.args["whens"].expressions:
        then = when.args["then"]
        if isinstance(then, exp.Update):
            pairs = then.expressions
            yield {p.this.name: p.expression for p in pairs} if _written(pairs, exp.EQ) else None
        elif isinstance(then, exp.Insert):
            names, values = then.this, then.expression
            written = isinstance(names, exp.Tuple) and isinstance(values, exp.Tuple)
            yield dict(zip((n.name for n in names.expressions), values.expressions, strict=True)) if written else None


def _written(pairs: Any, kind: type) -> bool:
    return isinstance(pairs, list) and bool(pairs) and all(isinstance(pair, kind) for pair in pairs)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1].strip('"').lower()


def _lineage(query: exp.Expr, schema: _Schema) -> _Found:
    """The sources of every column that a query gives, in its order."""
    from sqlglot import exp
    from sqlglot.lineage import lineage

    known = {short: dict.fromkeys(found, "VARCHAR") for short, (_, found) in schema.items() if found}
    options: dict[str, Any] = {"validate_qualify_columns": False}
    nodes: Any = lineage(None, query, schema=known, dialect="duckdb", **options)
    found: _Found = {}
    for name, node in nodes.items():
        sources: set[tuple[str, str]] | None = set()
        for leaf in node.walk():
            if leaf.downstream:
                continue
            if isinstance(leaf.source, exp.Table) and leaf.source.name in schema and leaf.name != "*":
                label, have = schema[leaf.source.name]
                column = leaf.name.rsplit(".", 1)[-1].strip('"')
                spelled = {one.lower(): one for one in have or ()}
                if sources is not None and label is not None:
                    sources.add((label, spelled.get(column.lower(), column)))
            elif leaf.expression.find(exp.Column, exp.Star) and not leaf.expression.find(exp.Count):
                sources = None
        found[name] = sources
    return found
