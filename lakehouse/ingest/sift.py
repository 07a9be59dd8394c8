"""The loads that set rows aside: what fits goes into the table, the rest into its rejects, in one commit."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from lakehouse.catalog.attach import ALIAS
from lakehouse.catalog.metadata import Relation
from lakehouse.catalog.names import quote
from lakehouse.errors import SchemaMismatch, SourceUnreadable, TableNotFound
from lakehouse.ingest import contract, rejects
from lakehouse.ingest.land import Columns, Landing
from lakehouse.ingest.place import Work, existing, relation_of
from lakehouse.ingest.receipt import Counts
from lakehouse.ingest.records import Layout
from lakehouse.ingest.rejects import Staged
from lakehouse.ingest.sources import Source
from lakehouse.ingest.write import written


def rows(work: Work, source: Source) -> Counts:
    """Load a source row by row.

    Raises:
        SourceUnreadable: no row can be told from another, or a new table would have no row.
        SchemaMismatch: the columns are not those of the table: then no row fits.
    """
    target = work.target
    relation = relation_of(work)
    known = work.catalog.describe(relation) if relation is not None else []
    if relation is not None and source.records is not None and source.fault is not None:
        _check_header(source, known)
    staged = _staged(work, source)
    layout = msgspec.structs.replace(staged.layout, mode=target.mode, key=target.key)
    staged = replace(staged, layout=layout)
    if relation is None:
        types = {**{name.lower(): kind for name, kind in source.sniffed}, **work.types}
        inferred = staged.columns if source.records is None else rejects.infer(work.run, staged, work.database.temp)
        known = [(name, types.get(name.lower(), kind)) for name, kind in inferred]
    else:
        contract.check_case(source.name, target.full_name, staged.columns, known)
        contract.check_names(source.name, target.full_name, staged.columns, known)
    good, bad, reading = rejects.judge(work.run, staged, known, _required(work, relation))
    counts = Counts()
    if relation is None and not good:
        raise source.fault or SourceUnreadable(f"no row of {source.name} fits", hint="nothing was written")
    landing = Landing(target.schema, target.name, known, known, None, create=True, empty=False)
    if relation is not None:
        landing = existing(work, relation, known, known)
    if good or landing.empty:
        counts = written(work, landing, reading, source.name)
    if bad:
        rejects.keep(work.run, work.catalog, target, layout, source.digest())
    rejects.clear(work.run)
    return replace(counts, rejected=bad)


def again(work: Work) -> Counts:
    """Load the rejected rows of a table that fit by now; `rejected` of the answer are those that are left.

    Raises:
        TableNotFound: there are no rejects, or no table.
    """
    target = work.target
    table = rejects.find(work.catalog, target)
    relation = relation_of(work)
    if table is None or relation is None:
        missing = target.rejects if table is None else target.full_name
        raise TableNotFound(
            f"there is no table '{missing}'", hint="rows are set aside by a load with contract='quarantine'"
        )
    rejects.renamed(work.run, work.catalog, target)
    name = quote(ALIAS, table.schema, target.rejects)
    total = Counts()
    for (described,) in work.run(f"SELECT layout FROM {name} GROUP BY layout ORDER BY min(time)").fetchall():
        part = _layout_again(work, relation, name, described)
        total = Counts(*(getattr(total, field) + getattr(part, field) for field in Counts.__slots__))
    return total


def _layout_again(work: Work, relation: Relation, rejected: str, described: str) -> Counts:
    """Retry the rejects that are written in one layout."""
    layout = msgspec.json.decode(described, type=Layout)
    known = work.catalog.describe(relation)
    known = [(name, kind) for name, kind in known if name.lower() in {column.lower() for column in layout.columns}]
    wanted = {name.lower() for name, _ in known}
    work = replace(work, target=replace(work.target, mode="append" if not layout.key else "upsert", key=layout.key))
    found = work.run(f"SELECT id, raw, layout FROM {rejected} ORDER BY time, line, id").fetchall()
    texts = [(id, raw) for id, raw, one in found if one == described]
    staged = rejects.stage_again(work.connection, work.run, texts, layout)
    if gone := [column for column in layout.columns if column.lower() not in wanted]:
        raise SchemaMismatch(
            f"the rejected rows have {', '.join(gone[:8])}, which {work.target.full_name} has no more",
            hint=f"add the column again, or delete those rows from {work.target.rejects}",
        )
    good, bad, reading = rejects.judge(work.run, staged, known, _required(work, relation))
    counts = Counts()
    if good:
        landing = Landing(
            relation.schema, relation.name, known, known, relation, create=False, empty=False, direct=False
        )
        counts = written(work, landing, reading, rejected)
    rejects.settle(work.run, work.target)
    rejects.clear(work.run)
    return replace(counts, rejected=bad)


def _staged(work: Work, source: Source) -> Staged:
    if source.records is not None:
        return rejects.stage_records(work.connection, work.run, source.records)
    reading = source.readings[-1]({})
    found = work.described(reading)
    source.check([name for name, _ in found])
    layout = Layout("json", tuple(name for name, _ in found))
    return rejects.stage_rows(work.run, reading, found, source.name, layout)


def _check_header(source: Source, known: Columns) -> None:
    """Of a file that could not be understood as a whole the header at least must be that of the table."""
    assert source.records is not None
    assert source.fault is not None
    if {name.lower() for name in source.records.layout.columns} != {name.lower() for name, _ in known}:
        raise source.fault


def _required(work: Work, relation: Relation | None) -> set[str]:
    """Lower-cased names of the columns that must have a value."""
    key = {name.lower() for name in work.target.key}
    if relation is None:
        return key
    columns = work.catalog.metadata.columns(work.catalog.metadata.current(), relation.id)
    return key | {str(row[2]).lower() for row in columns if not row[4]}
