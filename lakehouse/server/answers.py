"""What the routes answer with, where it is no type of the lake's own; the description of the API is made from these."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from lakehouse.catalog.layout import DataFile
from lakehouse.catalog.lineage.graph import Node
from lakehouse.catalog.search import Hit
from lakehouse.catalog.table import Column
from lakehouse.observer.model import Counters
from lakehouse.pathway.model import Trace, Version
from lakehouse.query.history import Query
from lakehouse.records import Fault
from lakehouse.server.asked import Progress
from lakehouse.storage.base import ObjectInfo


class Check(msgspec.Struct):
    """Whether one part answers."""

    ok: bool
    found: int | Counters | None = None
    """The newest snapshot, or how many there are."""
    why: str | None = None
    """What is wrong, or what is known of it."""


class Sql(msgspec.Struct):
    """Whether SQL is served, and what protects the lake from it."""

    ok: bool
    protection: str
    """`full` (Landlock, seccomp and the gate), `gate-only`, or `none`."""
    why: str


class Ready(msgspec.Struct):
    """Whether the server can do its work."""

    status: str
    """`ready` or `not ready`."""
    version: str
    checks: dict[str, Check]
    """`catalog`, `storage` and `journals`."""
    sql: Sql


class Whoami(msgspec.Struct):
    """Who asks."""

    principal: str
    scopes: list[str]


class Writes(msgspec.Struct):
    """Writes over HTTP, newest first: `time`, `who`, `from`, `method`, `path`, `outcome`, `request_id`."""

    writes: list[dict[str, Any]]


class Reloaded(msgspec.Struct):
    """What is in force now."""

    tokens: int
    allowed_networks: int
    trusted_proxies: int
    wrong_tokens: int
    """Since the start."""


class Committed(msgspec.Struct):
    """The snapshot that a commit made, or that a name stands for."""

    snapshot: int


class Schemas(msgspec.Struct):
    """Names of schemas."""

    schemas: list[str]


class Entry(msgspec.Struct, kw_only=True):
    """A table or view."""

    name: str
    """As it is written in SQL."""
    schema: str
    kind: str
    """`table` or `view`."""
    comment: str | None


class Sized(Entry, kw_only=True):
    """A table with its size."""

    rows: int
    bytes: int


class Tables(msgspec.Struct):
    """All tables and views."""

    tables: list[Sized]
    views: list[Entry]


class TableFacts(Entry, kw_only=True):
    """One table or view."""

    rows: int
    bytes: int
    snapshot: int
    tags: dict[str, str]
    partitioning: list[str]
    sorting: list[str]
    columns: list[Column]


class Columns(msgspec.Struct):
    """The columns of a table or view, in order."""

    columns: list[Column]


class Files(msgspec.Struct):
    """Data files, oldest first."""

    files: list[DataFile]


class EdgeFacts(msgspec.Struct):
    """Rows of `target` were made from `source`; both are ids of nodes."""

    source: str
    target: str
    operation: str
    snapshots: list[int]
    sql: str | None
    ways: list[str]
    snapshot: int
    """The newest of the commits."""


class LineageFacts(msgspec.Struct):
    """Where rows came from, and what was made from them."""

    root: str
    direction: str
    depth: int | None
    snapshot: int
    complete: bool
    nodes: list[Node]
    edges: list[EdgeFacts]
    columns: dict[str, list[tuple[str, str]] | None]
    """Of each column those it was computed from, as (table, column); null: not known."""


class SnapshotFacts(msgspec.Struct):
    """One commit."""

    id: int
    time: datetime
    author: str | None
    message: str | None
    changes: str
    note: Any
    """What the commit says of itself; null when another program made it."""


class TableSnapshots(msgspec.Struct):
    """Commits, newest first."""

    snapshots: list[SnapshotFacts]


class Snapshots(TableSnapshots):
    """Commits, newest first, and the names that some have."""

    tags: dict[str, int]


class Changes(msgspec.Struct):
    """Rows that were inserted, updated and deleted."""

    changes: list[dict[str, Any]]
    rows: int
    complete: bool
    """False: there are more rows than are here."""


class Hits(msgspec.Struct):
    """What was found, best first."""

    hits: list[Hit]


class Tags(msgspec.Struct):
    """The tags of a table."""

    tags: dict[str, str]


class Objects(msgspec.Struct):
    """Objects in the order of their keys."""

    objects: list[ObjectInfo]
    next: str | None
    """Give it as `after` for what follows; null at the end."""


class FoundTrace(msgspec.Struct):
    """A trace (see there) and how well it fits."""

    uid: str
    content: Any
    kind: str | None
    tags: list[str]
    scope: dict[str, str]
    version: int
    predecessor: str | None
    replay_count: int
    retired: bool
    retired_reason: str | None
    score: float | None
    created_at: datetime
    updated_at: datetime
    snapshot: int | None
    relevance: float
    """Larger is better; 0 when nothing was searched for."""
    why: dict[str, Any] | None
    """The matched words and partial scores, when asked to explain."""


class FoundTraces(msgspec.Struct):
    """Results of a search, best first."""

    results: list[FoundTrace]
    next_cursor: str | None
    position: int
    """The journal position that was searched: `as_of` it the answer stays the same."""
    ranking: str


class Descendants(msgspec.Struct):
    """Traces, oldest first."""

    items: list[Trace]


class TableChange(msgspec.Struct):
    """What one commit did to the rows of a table; null: it cannot be told."""

    snapshot: SnapshotFacts
    inserted: int | None
    updated: int | None
    deleted: int | None


class TableHistory(msgspec.Struct):
    """Commits, newest first."""

    commits: list[TableChange]


class Versions(msgspec.Struct):
    """What a trace said, oldest first."""

    versions: list[Version]


class Uids(msgspec.Struct):
    """Of new traces, in order."""

    uids: list[str]


class Verified(msgspec.Struct):
    """What is wrong with a journal."""

    records: int
    bytes: int
    generation: int
    corrupt: int
    torn: bool
    chain_breaks: int
    faults: list[Fault]
    sound: bool
    """Nothing is wrong."""


class Compacted(msgspec.Struct):
    """Bytes of a journal."""

    bytes_before: int
    bytes_after: int


class Queries(msgspec.Struct):
    """Queries: those that have ended, newest first, and those that run."""

    queries: list[Query]
    running: list[Progress]
    """Those that run on this server now, of the caller, or all when it may write."""
