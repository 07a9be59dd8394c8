"""Whether a node may be skipped: its definition, parameters and inputs are what they were, and its output still stands."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakehouseError
from lakehouse.workflow.model import Node, described, digest
from lakehouse.workflow.modes.sql import Sql

if TYPE_CHECKING:
    from lakehouse.observer.model import Event
    from lakehouse.workflow.site import Site

FINGERPRINT = "fingerprint"
_NOT_OF_IT = {"after", "retries", "backoff", "timeout", "skip", "description"}


def fingerprint(node: Node, site: Site, params: Mapping[str, Any], pin: int | None) -> str | None:
    """A hash of all that decides what a node makes; None when that is not known, so that it must run."""
    reads = node.reads(site)
    if reads is None or not node.skip:
        return None
    if isinstance(node, Sql) and (node.write == "append" or not _repeats(node.sql, site)):
        return None
    versions = {}
    for table in reads:
        if table in site.views or (version := version_of(site, table)) is None:
            return None
        versions[table] = version if pin is None else min(version, pin)
    used = {name: params[name] for name in node.uses(site)}
    definition = {key: value for key, value in described(node).items() if key not in _NOT_OF_IT}
    try:
        files = [hashlib.sha256(file.read_bytes()).hexdigest() for file in node.files(site)]
    except OSError:
        return None
    return digest(definition, used, versions, files)


def stands(event: Event, site: Site) -> bool:
    """Whether what a node made then is still what is there."""
    try:
        for output in event.outputs:
            if output.kind == "table" and version_of(site, output.name) != output.snapshot:
                return False
            if output.kind == "object" and site.lake.storage.head(output.name).sha256 != output.hash:
                return False
    except LakehouseError:
        return False
    return True


def version_of(site: Site, table: str) -> int | None:
    """The snapshot of the commit that last changed a table; None when it is not there."""
    catalog = site.lake.catalog
    try:
        commits = catalog.notes(catalog.find(table))
    except LakehouseError:
        return None
    return commits[0].id if commits else None


def _repeats(sql: str, site: Site) -> bool:
    """Whether the tables it reads say everything about its rows: no clock, no random numbers, no files."""
    engine = site.lake._engine
    shape = engine.parser.inspect(sql)
    metadata = site.lake.catalog.metadata
    return shape is not None and engine._known.relations(shape, metadata.current()) is not None
