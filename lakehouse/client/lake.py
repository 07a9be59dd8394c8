"""`connect()` and what it gives: a lake behind a server, with the operations of one that is opened here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import pyarrow as pa

from lakehouse.catalog.history.diff import Diff
from lakehouse.catalog.metadata import Version
from lakehouse.client import address
from lakehouse.client.catalog import RemoteCatalog
from lakehouse.client.ingest import RemoteIngest
from lakehouse.client.maintenance import RemoteMaintenance
from lakehouse.client.observer import RemoteObserver
from lakehouse.client.pathway import RemotePathway
from lakehouse.client.query import Asked, Queries
from lakehouse.client.reports import RemoteReports
from lakehouse.client.saved import RemoteSaved
from lakehouse.client.storage import RemoteStore
from lakehouse.client.table import Commit, version_text
from lakehouse.client.wire import LONG, Wire
from lakehouse.client.workflows import RemoteWorkflows
from lakehouse.config import QuerySettings
from lakehouse.errors import NotRemote
from lakehouse.query.history import Query, Status
from lakehouse.query.result import Result
from lakehouse.query.script import Parameters

_ONLY_THERE = {
    "at": "sql(…, at=…) and catalog.table(name).at(…) read a snapshot",
    "transaction": "over HTTP every statement is a commit of its own",
    "branch": "open a branch where the lake is",
    "backup": "run lakehouse backup where the lake is",
    "doctor": "run lakehouse doctor where the lake is",
    "sandbox": "sql() runs in one on the server",
    "path": "client.url says where the lake is",
}
"""What a lake can that is opened here, and this one cannot; and what to do instead."""


class _Who(msgspec.Struct):
    principal: str
    scopes: list[str]


class Client:
    """A lake behind a server; made by `lakehouse.connect()`, closed by `close()` or at the end of a `with` block.

    Several threads may use one client. Errors are those of a lake opened here, with the server's message and hint, and
    the id of the request (`request_id`). A request that may be sent twice is sent again when the connection breaks or
    the server asks to come back later; others never are.

    Attributes:
        url: where the server is.
        principal: who the token says you are.
        scopes: what you may do: `read`, `write`.
        catalog: schemas, tables, views, snapshots.
        ingest: `client.ingest(source, table)` loads a file, a frame or a stream.
        storage: objects (bytes by key).
        maintenance: `compact()`, `expire()`, `clean()` and `run()`.
        pathway: how questions were answered before: traces, found again by words.
        observer: what ran: events, statistics, and `follow()` as they come.
        reports: notebooks with parameters, executed in the server on one snapshot.
        workflows: those that are stored there, and their runs.
        saved: queries kept by name, to be built upon.
    """

    snapshot: int | None = None
    """A client is never pinned; `sql(…, at=…)` reads the past."""

    def __init__(self, wire: Wire, *, max_rows: int) -> None:
        self._wire = wire
        self.url = wire.base.removesuffix(address.BASE)
        self._queries = Queries(wire, max_rows=max_rows)
        self.catalog = RemoteCatalog(wire, self._queries.run)
        self.ingest = RemoteIngest(wire)
        self.storage = RemoteStore(wire)
        self.maintenance = RemoteMaintenance(wire)
        self.pathway = RemotePathway(wire)
        self.observer = RemoteObserver(wire)
        self.reports = RemoteReports(wire, self.storage)
        self.workflows = RemoteWorkflows(wire)
        self.saved = RemoteSaved(wire, self._queries.parser)
        who: _Who = wire.json("GET", "/whoami", _Who)
        self.principal = who.principal
        self.scopes = frozenset(who.scopes)

    @property
    def read_only(self) -> bool:
        """Whether the token may only read."""
        return "write" not in self.scopes

    def sql(
        self,
        query: str,
        params: Parameters = None,
        *,
        at: Version | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        tables: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run SQL on the server and return the result of the last statement, whose rows are then here.

        Rows come as a stream of Arrow batches; beyond `query.buffer_size` they are kept in a file that nobody else
        sees. A stream that breaks off is an error, never a shorter result.

        Args:
            query: one or several statements; each that changes something is a commit of its own.
            params: values for `$name` (a mapping) or `?` (a sequence); always values, never SQL.
            at: read the whole lake as of this snapshot id, tagged snapshot or time.
            limit: give at most this many rows.
            timeout: seconds until the server stops the query; None: its own setting.
            tables: not over HTTP: load a frame with `ingest` first.

        Raises:
            QueryError: the query is wrong, too slow, too large, was cancelled, or may not run there.
            NotFound: a table, schema or snapshot is not there.
            Forbidden: a write with a token that may only read.
            NotRemote: what needs the lake itself.
            AnswerBroken: the rows did not come whole.
        """
        if tables:
            raise NotRemote(
                f"{', '.join(map(str, tables))}: a frame here is no table there", hint="load it first: ingest(frame, …)"
            )
        return self._queries.sql(query, params, at=at, limit=limit, timeout=timeout)

    @contextmanager
    def stream(
        self,
        query: str,
        params: Parameters = None,
        *,
        at: Version | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[pa.RecordBatchReader]:
        """The rows of one query as they come, for reading once, however many there are; nothing of them is kept.

        Leaving the block stops the query. The reader raises `AnswerBroken` where the stream is not whole.
        """
        with self._queries.stream(query, params, at=at, limit=limit, timeout=timeout) as reader:
            yield reader

    def queries(self, limit: int | None = 100, *, text: str | None = None, status: Status | None = None) -> list[Query]:
        """What was asked of this lake by any process, newest first; see `Lakehouse.queries`."""
        return self._queries.history(limit, text, status)

    def running(self) -> list[Asked]:
        """The queries under way on the server: your own, or all when you may write."""
        return self._queries.running()

    def cancel(self, query_id: str) -> bool:
        """Stop a query of yours on the server; False when none of that id is under way."""
        return self._queries.cancel(query_id)

    def rollback(self, version: Version) -> int:
        """Make all tables, views and schemas what they were at a snapshot, in one new commit; see `Lakehouse.rollback`."""
        return int(self._wire.json("POST", "/rollback", Commit, body={"to": version_text(version)}, wait=LONG).snapshot)

    def diff(self, a: Version, b: Version | None = None) -> Diff:
        """What differs from snapshot `a` to `b` (None: the newest); see `Lakehouse.diff`."""
        query = {"start": version_text(a), "end": None if b is None else version_text(b)}
        found: Diff = self._wire.json("GET", "/diff", Diff, query=query, wait=LONG)
        return found

    def ready(self) -> dict[str, Any]:
        """Whether catalog, objects and journals of the server answer, and whether it runs SQL."""
        return dict(self._wire.json("GET", "/ready"))

    def close(self) -> None:
        """End all connections; results that are here stay."""
        self._wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lakehouse.Client {self.url}, {', '.join(sorted(self.scopes))}>"

    def __getattr__(self, name: str) -> NoReturn:
        if hint := _ONLY_THERE.get(name):
            raise NotRemote(f"a lake behind a server has no '{name}' here", hint=hint)
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")


def connect(
    url: str,
    token: str | None = None,
    *,
    timeout: float = 60.0,
    retries: int = 3,
    ca_file: str | os.PathLike[str] | None = None,
    plain_http: bool = False,
    proxy: str | None = None,
    max_rows: int | None = None,
) -> Client:
    """Connect to a lake that `lakehouse serve` or a Jupyter server offers; see `Client`.

    Args:
        url: where the server is: `https://host[:port][/path]`.
        token: a token of the server; None: that in `AUTH_TOKEN`, if it is set. It is sent to this server only, and
            shown nowhere.
        timeout: seconds to wait for a connection and for each piece of an answer. Queries, loads and maintenance take
            as long as they take; their own `timeout` bounds a query.
        retries: how often a request that may be sent twice is sent again.
        ca_file: certificates (PEM) of the authorities to believe, in place of the system's.
        plain_http: send the token over plain http to another machine, where whoever is in between can read it.
        proxy: a proxy to go through; those of the environment are not used.
        max_rows: rows that a result gives whole; None: as in `query.max_rows`.

    Raises:
        ConfigError: the address, the token or another argument cannot be used.
        Forbidden: the token would go over plain http to another machine.
        Unauthenticated: the server wants a token, or another one.
        ServerUnreachable: there is no server, or it does not answer.
    """
    secret = address.token_of(token)
    token = None  # no traceback that shows variables shall show this one
    base = address.base_of(url)
    address.check_plain(base, secret, allowed=plain_http)
    wire = Wire(
        base,
        secret,
        timeout=timeout,
        retries=retries,
        ca_file=None if ca_file is None else os.fspath(ca_file),
        proxy=proxy,
    )
    try:
        return Client(wire, max_rows=QuerySettings().max_rows if max_rows is None else max_rows)
    except BaseException:
        wire.close()
        raise
