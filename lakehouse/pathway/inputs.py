"""What a recorded query read: tables and views of the lake with their snapshot, files, frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.catalog.catalog import Catalog
    from lakehouse.catalog.lineage.recording import Read

_LONGEST = 100_000  # characters; parsing more takes longer than most queries


def inputs_of(sql: str, catalog: Catalog, snapshot: int) -> list[dict[str, Any]] | None:
    """The inputs of all statements of a text, each once; None when it is not understood.

    Args:
        sql: what was run.
        catalog: of the lake that it was run on.
        snapshot: the one that was read.
    """
    from lakehouse.catalog.lineage import reads  # sqlglot, which only who records needs
    from lakehouse.catalog.lineage.recording import Resolver

    resolver = Resolver(
        lambda schema, name, at: catalog.metadata.relations(at).get((schema.lower(), name.lower())),
        catalog.resolve,
        catalog.metadata.macro,
    )
    found: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(read: Read) -> None:
        one = {"kind": read.kind, "name": read.name, "snapshot": read.snapshot, "sha256": read.sha256}
        kept = {key: value for key, value in one.items() if value is not None}
        found.setdefault(tuple(kept.values()), kept)
        for inner in read.reads:
            add(inner)

    if len(sql) > _LONGEST:
        return None
    try:
        trees = reads.trees(sql)
    except Exception:  # whatever its parser stumbles over: the query itself ran
        return None
    for tree in trees:
        tables = reads.tables(tree, reads.target(tree))
        for named in (*(one for table in tables for one in reads.named_sources(table)), *reads.calls(tree)):
            try:
                if (read := resolver.read(named, snapshot)).kind != "call":
                    add(read)
            except LakehouseError:  # the snapshot that it names has expired meanwhile
                found.setdefault(("table", named.name), {"kind": "table", "name": named.name})
    return list(found.values())


def made_by(sql: str) -> list[list[str]]:
    """Kind (`table` or `view`), schema and name of what the statements of a text create; temporary things left out."""
    from lakehouse.catalog.lineage import reads

    made = {"create": "table", "view": "view"}
    return [
        [made[use.operation], use.target.schema, use.target.name]
        for use in reads.uses(sql) or ()
        if use.operation in made and use.target is not None and not use.temporary
    ]
