"""What a source may change of a table: `contract=` of `lake.ingest`.

    None           the columns must be those of the table by name, the values must fit its types
    "evolve"       missing columns are added, and types widened where a value needs it, in a commit before
    "freeze"       any difference of columns or types is refused, all of them in one message
    "quarantine"   rows that do not fit are set aside (see rejects.py), the rest lands

What may become of a type is in widen.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import get_args

import duckdb

from lakehouse.catalog import inlining, keeping
from lakehouse.catalog.attach import ALIAS, Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Relation
from lakehouse.catalog.names import quote
from lakehouse.catalog.notes import EVOLVE
from lakehouse.errors import IngestError, SchemaMismatch, SourceEmpty
from lakehouse.ingest import exact, widen
from lakehouse.ingest.land import Columns
from lakehouse.ingest.receipt import Contract, Target
from lakehouse.ingest.sources import Source

Run = Callable[[str], duckdb.DuckDBPyConnection]

_SHOWN = 40  # differences in one message


def check(contract: str | None) -> None:
    """Refuse a word that is no contract."""
    if contract is not None and contract not in get_args(Contract):
        raise IngestError(f"{contract!r} is not a contract", hint="evolve, freeze or quarantine; none: as it is now")


def check_names(source: str, table: str, found: Columns, known: Columns) -> None:
    """Refuse a source whose columns are not those of the table.

    Raises:
        SchemaMismatch: names what is too many and what is missing.
    """
    have, want = {name.lower(): name for name, _ in found}, {name.lower(): name for name, _ in known}
    extra = [have[key] for key in have if key not in want]
    missing = [want[key] for key in want if key not in have]
    if not extra and not missing:
        return
    parts = []
    if extra:
        parts.append(f"the source has {', '.join(extra[:8])}, which the table has not")
    if missing:
        parts.append(f"the table has {', '.join(missing[:8])}, which the source has not")
    raise SchemaMismatch(
        f"the columns of {source} do not fit {table}: {'; '.join(parts)}",
        hint="add or rename columns, use contract='evolve', load into another table, or use mode='replace'",
    )


def check_case(source: str, table: str, found: Columns, known: Columns) -> None:
    """Refuse names that differ in the case of other letters than a to z: for DuckDB they are different ones.

    Raises:
        SchemaMismatch: names one of them.
    """
    spelled = {name.lower(): name for name, _ in known}
    for name, _ in found:
        other = spelled.get(name.lower(), name)
        if any(a != b and not (a.isascii() and b.isascii()) for a, b in zip(name, other, strict=False)):
            raise SchemaMismatch(
                f"{source} has the column {name}, and {table} calls it {other}: only of the letters a to z is"
                " upper case the same as lower case",
                hint="rename one of them",
            )


def freeze(run: Run, source: str, table: str, reading: str, found: Columns, known: Columns, *, typed: bool) -> None:
    """Refuse any difference between a source and a table.

    Args:
        run: executes SQL.
        source: its name.
        table: its name.
        reading: the FROM clause that reads the source with its own types.
        found: the columns of the source.
        known: the columns of the table.
        typed: the source says itself of what types its columns are (a frame, Parquet): then they must be the same.
            Of text the values must fit.

    Raises:
        SchemaMismatch: with every difference, column by column.
    """
    have, want = {name.lower(): (name, kind) for name, kind in found}, {name.lower(): kind for name, kind in known}
    lines = [
        f"{name}: not in the table (the source has {kind})" for key, (name, kind) in have.items() if key not in want
    ]
    lines += [f"{name}: not in the source (the table has {kind})" for name, kind in known if name.lower() not in have]
    other = [(name, kind, want[key]) for key, (name, kind) in have.items() if key in want and kind != want[key]]
    examples = dict.fromkeys((name for name, _, _ in other), "") if typed else _misfits(run, reading, other)
    for name, kind, wanted in other:
        if name in examples:
            shown = f" (such as {examples[name]})" if examples[name] else ""
            lines.append(f"{name}: {wanted} in the table, {kind} in the source{shown}")
    if lines:
        more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise SchemaMismatch(
            f"{source} differs from the frozen {table}:" + "".join(f"\n  {line}" for line in lines[:_SHOWN]) + more,
            hint="mend the source; or let the table change with contract='evolve'",
        )


def evolve(
    run: Run,
    source: Source,
    table: str,
    reading: Callable[[Mapping[str, str]], str],
    fixed: Mapping[str, str],
    found: Columns,
    known: Columns,
) -> None:
    """Find out whether the table must change for a source.

    Args:
        run: executes SQL.
        source: what is loaded.
        table: the table's name in SQL.
        reading: the FROM clause that reads the source with the types of some columns given.
        fixed: types that somebody fixed for columns, by lower-cased name: they are not widened further.
        found: the columns of the source.
        known: the columns of the table.

    Raises:
        Evolution: how, in a transaction of its own.
        SchemaMismatch: no widening makes the values fit.
        SourceEmpty: the table would change for no row at all.
    """
    spelled = {name.lower(): (name, kind) for name, kind in known}
    other = [(n, kind, spelled[n.lower()][1]) for n, kind in found if n.lower() in spelled]
    other = [(name, kind, old) for name, kind, old in other if kind != old]
    plain = reading(fixed)
    misfits = _misfits(run, plain, other, strict=source.typed)
    changes: dict[str, tuple[str | None, str]] = {}
    for name, kind, old in other:
        if name not in misfits:
            continue
        texts = {**fixed, name.lower(): "VARCHAR"}  # a number of a text file has more digits than a DOUBLE keeps
        column = spelled[name.lower()][0]
        to = fixed.get(name.lower()) or widen.wider(
            run, table, reading(texts) if source.texts else plain, column, old, kind
        )
        if to is None or to == old or _misfits(run, plain, [(name, kind, to)]):
            raise SchemaMismatch(
                f"the value {misfits[name]} of column {name} of {source.name} does not fit {old},"
                " and no wider type that keeps every value holds both",
                hint=f"mend the source, name a type (options={{'types': {{'{column}': 'VARCHAR'}}}}),"
                " or set such rows aside with contract='quarantine'",
            )
        changes[column] = (old, to)
    changes.update({name: (None, keeping.kept(kind)) for name, kind in found if name.lower() not in spelled})
    if not changes:
        return
    if run(f"SELECT 1 FROM {plain} LIMIT 1").fetchone() is None:
        raise SourceEmpty(f"{source.name} holds no rows", hint="nothing was written, and the table was not changed")
    raise Evolution(changes)


class Evolution(Exception):
    """The table must change before a load.

    That cannot be in the load's own transaction: DuckLake 1.5 loses the minimum and maximum of a column whose type
    changes in a transaction that also inserts, takes those of the next rows for all of them, and later leaves out
    filters that seem to be true of every row.
    """

    def __init__(self, changes: dict[str, tuple[str | None, str]]) -> None:
        super().__init__(changes)
        self.changes = changes
        """The old type (None: a new column) and the new one by column."""


def change(catalog: Catalog, database: Database, target: Target, changes: dict[str, tuple[str | None, str]]) -> None:
    """Add and widen columns in one commit; what somebody else has changed meanwhile is left alone.

    DuckLake takes several changes in one transaction where columns are added and whole numbers widened, unlike
    renaming. For other types the table is made anew.
    """
    message = f"evolve {target.full_name}: {', '.join(changes)}"
    made: Relation | None = None
    with ExitStack() as undo, catalog.writer.transaction(EVOLVE, message) as transaction:
        relation = catalog.find(quote(target.schema, target.name))
        table = quote(ALIAS, relation.schema, relation.name)
        now = {name.lower(): kind for name, kind in catalog.describe(relation)}
        due = [(name, old, new) for name, (old, new) in changes.items() if now.get(name.lower()) == old]
        if all(old is None or widen.in_place(old, new) for _, old, new in due):
            for name, old, new in due:
                verb = "ADD COLUMN" if old is None else "ALTER COLUMN"
                kind = new if old is None else f"SET DATA TYPE {new}"
                transaction.execute(f"ALTER TABLE {table} {verb} {quote(name)} {kind}")
            inlining.settle(transaction, relation.schema, relation.name)
        else:
            widen.anew(catalog, database, transaction, [(name, new) for name, _, new in due], relation, undo)
            made = relation
    if made is not None:
        widen.carried(catalog, made)


def _strictly(column: str, given: str, wanted: str) -> str:
    """Whether a value does not fit: a FLOAT is no approximation of what comes with the digits of a DOUBLE."""
    misfit = exact.fitting(column, given, wanted)[1]
    if wanted == "FLOAT" and given == "DOUBLE":
        return f"({misfit} OR CAST(TRY_CAST({column} AS FLOAT) AS DOUBLE) IS DISTINCT FROM {column})"
    return misfit


def _misfits(run: Run, reading: str, columns: list[tuple[str, str, str]], *, strict: bool = False) -> dict[str, str]:
    """Of columns (name, type given, type wanted) those with a value that does not fit, each with an example."""
    if not columns:
        return {}
    tests = []
    for name, given, wanted in columns:
        misfit = _strictly(quote(name), given, wanted) if strict else exact.fitting(quote(name), given, wanted)[1]
        tests.append(f"any_value(CAST({quote(name)} AS VARCHAR)) FILTER ({misfit})")
    row = run(f"SELECT {', '.join(tests)} FROM {reading}").fetchone() or ()
    return {name: value[:60] for (name, _, _), value in zip(columns, row, strict=True) if value is not None}
