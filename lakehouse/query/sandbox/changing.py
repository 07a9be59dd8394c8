"""What a worker that may change the lake does: the gate, then the same engine as `lake.sql`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from lakehouse import state
from lakehouse.catalog.attach import Database
from lakehouse.catalog.catalog import Catalog
from lakehouse.catalog.metadata import Metadata
from lakehouse.catalog.running import Runner
from lakehouse.catalog.writer import Writer
from lakehouse.config import Settings
from lakehouse.errors import QueryError
from lakehouse.query.engine import Engine
from lakehouse.query.gate import Gate, names
from lakehouse.query.sandbox import wire
from lakehouse.query.sandbox.reading import stream
from lakehouse.query.sandbox.wire import Head, Request, Setup, unpacked

Frame = tuple[int, Any]


class Changer:
    """Runs statements that change one lake."""

    def __init__(self, setup: Setup) -> None:
        settings = msgspec.convert(setup.settings, Settings)
        folder = Path(setup.folder)
        self._database = Database(folder, settings, strangers=True)
        self._metadata = Metadata(self._database)
        self._writer = writer = Writer(self._database, self._metadata, settings.catalog)
        catalog = Catalog(self._database, self._metadata, writer, state.State(folder / state.FILE_NAME, state.SCHEMA))
        self._runner = Runner(progress=False)
        self._engine = Engine(self._database, catalog, settings, self._runner, _unpinned)
        self._parsing = duckdb.connect(config={"threads": 1})
        # Settings stay open: the engine needs one for tables whose rows the catalog cannot keep. The gate refuses SET.
        self._database.seal(settings=False)
        self.touched = False

    def answer(self, request: Request) -> Iterator[tuple[int, Any]]:
        """Run one statement: what it did, and rows if it gives any."""
        passed = Gate(self._parsing, names(self._metadata, self._metadata.current())).write(request.sql)
        self.touched = True
        self._writer.asked = request.asked
        result = self._engine.sql(passed.sql, unpacked(request.params))
        yield wire.HEAD, Head(result.snapshot, tuple(result.types), result.kind)
        rows = result.arrow()
        yield wire.ROWS, (result.changed or 0, stream(rows.schema, None))
        for batch in rows.to_batches():
            yield wire.ROWS, (0, stream(rows.schema, batch))

    def interrupt(self) -> None:
        """Stop what runs."""
        for running in self._runner.running():
            self._runner.cancel(running.query_id)

    def percent(self) -> float:
        """How far it is, in percent."""
        return max((float(one.connection.query_progress()) for one in self._runner.running()), default=-1.0)


def _unpinned(_version: int) -> Engine:
    raise QueryError("a statement that changes the lake reads it as it is now")
