"""SQL over HTTP: which statement goes where, its values, and the rows on their way back."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import httpx
import msgspec
import pyarrow as pa

from lakehouse.catalog.metadata import Version
from lakehouse.client.arrow import ARROW, opened
from lakehouse.client.problems import error_of
from lakehouse.client.scratch import Scratch
from lakehouse.client.table import version_text
from lakehouse.client.wire import LONG, Wire, complete, limited, path
from lakehouse.config import QuerySettings, StorageSettings, parse_size
from lakehouse.errors import AnswerBroken, DiskFull, LakehouseError, NotFound, NotRemote, ParameterFault, QueryError
from lakehouse.pathway.values import LOST, encoded
from lakehouse.query import script, spool
from lakehouse.query.history import Query, Status
from lakehouse.query.result import Result, Rows
from lakehouse.query.script import Parameters
from lakehouse.query.statements import Parser, Statement
from lakehouse.wording import counted

KEY = "Idempotency-Key"
QUERY_ID, SNAPSHOT = "Lakehouse-Query-Id", "Lakehouse-Snapshot"


@dataclass(frozen=True, slots=True)
class _Arriving:
    """Rows on their way; what `spool` reads."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    query_id: str
    snapshot: int
    types: tuple[str, ...] | None
    """The DuckDB types of the columns, when the server tells them."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.batches


class _Done(msgspec.Struct):
    query_id: str
    snapshot: int
    rows: int | None
    elapsed: float


class Asked(msgspec.Struct):
    """A query on the server."""

    query_id: str
    principal: str
    """Who asked."""
    sql: str
    state: str
    """`running`, `done`, `failed` or `cancelled`."""
    progress: float | None
    """Percent; None when that is not known."""
    rows: int
    """That were handed over so far."""
    elapsed: float
    """Seconds."""
    started: datetime
    code: str | None
    """Of the error that ended it."""


class _Running(msgspec.Struct):
    running: list[Asked]


class _Ended(msgspec.Struct):
    queries: list[Query]


class Queries:
    """The SQL of one client.

    Args:
        wire: the server.
        max_rows: rows that a result gives whole.
    """

    def __init__(self, wire: Wire, *, max_rows: int) -> None:
        self._wire = wire
        self._max_rows = max_rows
        self._scratch = Scratch()
        self._parser: Parser | None = None

    def sql(
        self, text: str, params: Parameters, *, at: Version | None, limit: int | None, timeout: float | None
    ) -> Result:
        """The result of the last statement; see `Client.sql`."""
        statements = self._parsed(text, params)
        if limit is not None and limit < 0:
            raise QueryError(f"limit must be a whole number from 0, not {limit!r}")
        if at is not None and any(one.kind != "read" for one in statements):
            raise QueryError("the past cannot be changed", hint="leave out at=, or only read")
        if any(len(group) > 1 for group in script.grouped(statements)):
            raise NotRemote(
                "a transaction of several statements needs the lake itself; nothing was run",
                hint="over HTTP every statement is a commit of its own",
            )
        result: Result | None = None
        for statement in statements:
            if statement.kind == "read":
                result = self._read(statement, params, at, limit, timeout)
            else:
                result = self._write(statement, params, timeout)
        assert result is not None  # a script without a statement was refused
        return result

    @contextmanager
    def stream(
        self, text: str, params: Parameters, *, at: Version | None, limit: int | None, timeout: float | None
    ) -> Iterator[pa.RecordBatchReader]:
        """The rows of one query as they come; see `Client.stream`."""
        statements = self._parsed(text, params)
        if len(statements) != 1 or statements[0].kind != "read":
            raise QueryError("a stream is of one statement that reads", hint="sql() runs the others")
        with self._asked(statements[0], params, at, limit, timeout) as arriving:
            yield pa.RecordBatchReader.from_batches(arriving.schema, arriving.batches)

    def run(self, text: str) -> int:
        """Run statements that change the lake, and give the snapshot they made."""
        return self.sql(text, None, at=None, limit=None, timeout=None).snapshot

    def history(self, limit: int | None, text: str | None, status: Status | None) -> list[Query]:
        """What was asked of the lake; see `Client.queries`."""
        query = {"limit": limited(limit), "text": text, "status": status}
        return complete(self._wire.json("GET", "/queries", _Ended, query=query).queries, limit)

    def running(self) -> list[Asked]:
        """The queries under way; see `Client.running`."""
        return list(self._wire.json("GET", "/queries", _Running, query={"limit": 1}).running)

    def cancel(self, query_id: str) -> bool:
        """Stop a query; see `Client.cancel`."""
        try:
            before: Asked = self._wire.json("GET", path("/queries/{}", query_id), Asked)
            if before.state == "running":
                self._wire.send("DELETE", path("/queries/{}", query_id))
        except NotFound:
            return False
        return before.state == "running"

    def parser(self) -> Parser:
        """What looks at SQL before it is sent."""
        if self._parser is None:
            self._parser = Parser()
        return self._parser

    def _parsed(self, text: str, params: Parameters) -> list[Statement]:
        statements = self.parser().parse(text)
        script.check_parameters(statements, params)
        return statements

    def _read(
        self, statement: Statement, params: Parameters, at: Version | None, limit: int | None, timeout: float | None
    ) -> Result:
        started = time.perf_counter()
        size, most = parse_size(QuerySettings().buffer_size), parse_size(StorageSettings().max_temp_size)
        with self._asked(statement, params, at, limit, timeout) as arriving:
            rows_in = arriving
            if arriving.types is not None:
                schema, batches = self._scratch.restored(arriving.schema, arriving.batches, arriving.types)
                rows_in = replace(arriving, schema=schema, batches=batches)
            try:
                table = spool.whole(rows_in, size, Path(tempfile.gettempdir()), most)
            except OSError as error:
                raise DiskFull(f"the rows cannot be kept in {tempfile.gettempdir()}: {error}") from None
        elapsed = time.perf_counter() - started
        rows = Rows(table, self._scratch.types(table) if arriving.types is None else arriving.types)
        return self._result(statement, params, arriving.query_id, arriving.snapshot, elapsed, rows)

    @contextmanager
    def _asked(
        self, statement: Statement, params: Parameters, at: Version | None, limit: int | None, timeout: float | None
    ) -> Iterator[_Arriving]:
        body = {
            "sql": statement.text,
            "params": _values(statement, params),
            "at": None if at is None else version_text(at),
            "limit": limit,
            "timeout": timeout,
        }
        # Reading changes nothing, so it may be asked twice; once rows come it is not.
        with self._wire.stream("POST", "/query", body=body, headers={"Accept": ARROW}, wait=LONG) as answer:
            schema, batches = opened(answer, self._wire.base)
            query_id, snapshot = answer.headers.get(QUERY_ID, ""), _whole(answer, SNAPSHOT)
            types = _types(schema)
            try:
                yield _Arriving(schema.remove_metadata(), batches, query_id, snapshot, types)
            except AnswerBroken as broken:
                raise self._why(query_id, broken) from None

    def _why(self, query_id: str, broken: AnswerBroken) -> LakehouseError:
        """What ended a query whose rows did not come whole, as far as the server can still tell."""
        try:
            ended = self._wire.json("GET", path("/queries/{}", query_id), Asked)
        except LakehouseError:
            return broken
        if ended.code is None:
            return broken
        return error_of(
            ended.code, f"the query {query_id} ended after {counted(ended.rows, 'row')}, which were thrown away"
        )

    def _write(self, statement: Statement, params: Parameters, timeout: float | None) -> Result:
        body = {"sql": statement.text, "params": _values(statement, params), "timeout": timeout}
        headers = {KEY: uuid.uuid4().hex}  # by which the server knows it again, so that it is done once
        done = self._wire.json("POST", "/statements", _Done, body=body, headers=headers, again=True, wait=LONG)
        table = pa.table({} if done.rows is None else {"Count": [done.rows]})
        rows = Rows(table, self._scratch.types(table))
        return self._result(statement, params, done.query_id, done.snapshot, done.elapsed, rows)

    def _result(
        self, statement: Statement, params: Parameters, query_id: str, snapshot: int, elapsed: float, rows: Rows
    ) -> Result:
        def explain(analyze: bool) -> str:
            text = f"EXPLAIN {'ANALYZE ' if analyze else ''}{statement.text}"
            plan = self.sql(text, params, at=None, limit=None, timeout=None)
            return "\n".join(str(row[-1]) for row in plan.fetchall())

        return Result(
            sql=statement.text,
            query_id=query_id,
            snapshot=snapshot,
            elapsed=elapsed,
            page=rows,
            source=None,
            max_rows=self._max_rows,
            database=self._scratch,
            explain=explain,
            kind=statement.kind,
        )


def _values(statement: Statement, params: Parameters) -> Any:
    """The values of a statement as JSON; what JSON has not stands as `{"$type": text}`.

    Raises:
        ParameterFault: one cannot be sent.
    """
    bound = script.bind(statement, params)
    named = bound.items() if isinstance(bound, Mapping) else enumerate(bound or (), 1)
    for name, value in named:
        if _lost(sent := encoded(value)):
            raise ParameterFault(f"the value of ${name} cannot be sent: it is a {type(value).__name__}", hint=str(sent))
    return encoded(bound) if isinstance(bound, list | None) else {name: encoded(v) for name, v in bound.items()}


def _types(schema: pa.Schema) -> tuple[str, ...] | None:
    """The DuckDB types of the columns, where the stream says them."""
    told = (schema.metadata or {}).get(b"lakehouse.types")
    if told is None:
        return None
    try:
        types = tuple(msgspec.json.decode(told, type=list[str]))
        for kind in types:  # they are going to stand in SQL here: nothing but a type may
            duckdb.sqltype(kind)
    except (msgspec.DecodeError, duckdb.Error):
        return None
    return types if len(types) == len(schema) else None


def _lost(value: Any) -> bool:
    if isinstance(value, Mapping):
        return LOST in value or any(map(_lost, value.values()))
    return isinstance(value, list) and any(map(_lost, value))


def _whole(answer: httpx.Response, name: str) -> int:
    try:
        return int(answer.headers[name])
    except (KeyError, ValueError):
        raise AnswerBroken(f"the server does not say the {name}", hint="is it of another version?") from None
