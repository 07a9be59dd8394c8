"""A worker: a process that gives up what it does not need, opens the lake, and runs one statement at a time.

Started by the pool as `python -c "…main(rows, control)"` with the two sockets it may use. Nothing heavy is imported
before it is confined: the kernel confines threads, so there must be only one.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from typing import Any, Protocol

import msgspec

from lakehouse.errors import LakehouseError, QueryCancelled
from lakehouse.query.sandbox import confine, wire
from lakehouse.query.sandbox.wire import Channel, End, Fault, Request, Setup

ASK = struct.Struct("<cI")
"""What the parent says on the control socket: one letter, and the number of the statement that is meant."""
TOLD = struct.Struct("<dQ")
"""The answer to `PROGRESS`: percent, and rows sent."""
CANCEL, PROGRESS = b"c", b"p"
_HARMLESS = frozenset({"column_not_found", "table_not_found", "sql_syntax"})  # DuckDB says so before it runs anything
_AGAIN = 0.02  # seconds after which a query that was told to stop is told again

Frame = tuple[int, Any]


class Runs(Protocol):
    """What runs statements: a reader or a writer."""

    touched: bool
    """Whether the statement has got past the gate, so that DuckDB has seen it."""

    def answer(self, request: Request) -> Iterator[Frame]:
        """Run a statement: the head, then frames of rows."""

    def interrupt(self) -> None:
        """Stop what runs, from another thread."""

    def percent(self) -> float:
        """How far it is, from another thread; below 0 when that is not known."""


def main(rows: int, control: int) -> None:
    """Be a worker, for the whole life of this process.

    Args:
        rows: descriptor of the socket for requests and rows.
        control: descriptor of the socket for cancelling and progress.
    """
    channel = Channel(socket.socket(fileno=rows))
    setup = msgspec.msgpack.decode(channel.receive()[1], type=Setup)
    try:
        confine.apply(setup.policy)
        sys.meta_path.insert(0, _NoPandas())
        runs = opened(setup)
    except Exception as error:
        channel.say(wire.FAULT, _fault(error, setup, clean=False))
        return
    line = _Line(runs, socket.socket(fileno=control))
    threading.Thread(target=line.listen, name="lakehouse-control", daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say from here on is nobody's business
    channel.say(wire.READY, Fault("", ""))
    while True:
        try:
            content = channel.receive()[1]
            _serve(channel, line, msgspec.msgpack.decode(content, type=Request), setup)
        except (EOFError, OSError):
            os._exit(0)  # the parent has gone, or has no use for this worker any more


class _NoPandas(MetaPathFinder):
    """DuckDB would import pandas to bind the first parameter, which takes a second; no frame ever comes here."""

    def find_spec(self, name: str, _path: object, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("there is no pandas in a worker", name=name)


def opened(setup: Setup) -> Runs:
    """The lake, as this worker is to use it."""
    if setup.write:
        from lakehouse.query.sandbox.changing import Changer

        return Changer(setup)
    from lakehouse.query.sandbox.reading import Reading

    return Reading(setup)


def _serve(channel: Channel, line: _Line, request: Request, setup: Setup) -> None:
    """Run one statement and send what comes of it."""
    started, runs = time.perf_counter(), line.runs
    runs.touched = False
    line.begin()
    try:
        for kind, content in runs.answer(request):
            line.check()
            if kind == wire.ROWS:
                line.rows += content[0]
                channel.send(kind, *content[1])
            else:
                channel.say(kind, content)
    except (EOFError, BrokenPipeError, ConnectionError):
        raise
    except Exception as error:
        line.end()
        channel.say(wire.FAULT, _fault(error, setup, clean=not runs.touched or getattr(error, "code", "") in _HARMLESS))
        return
    line.end()
    channel.say(wire.END, End(line.rows, time.perf_counter() - started))


class _Line:
    """The control socket's side: what the parent wants of the statement under way."""

    def __init__(self, runs: Runs, control: socket.socket) -> None:
        self.runs = runs
        self.rows = 0
        self._control = control
        self._number = 0
        self._busy = False
        self._cancelled = 0

    def begin(self) -> None:
        self._number += 1
        self.rows = 0
        self._busy = True

    def end(self) -> None:
        self._busy = False

    def check(self) -> None:
        """Raise QueryCancelled if it was told to stop."""
        if self._cancelled >= self._number:
            raise QueryCancelled("the query was stopped")

    def listen(self) -> None:
        """What the thread does: it ends the process with the parent's end of the socket."""
        while True:
            try:
                asked = self._control.recv(ASK.size, socket.MSG_WAITALL)
                if len(asked) < ASK.size:
                    os._exit(0)
                what, number = ASK.unpack(asked)
                if what == PROGRESS:
                    here = self._busy and number == self._number
                    self._control.sendall(TOLD.pack(self.runs.percent() if here else -1.0, self.rows))
                elif number >= self._number:
                    self._cancelled = number
                    threading.Thread(target=self._stop, args=(number,), daemon=True).start()
            except OSError:
                os._exit(0)

    def _stop(self, number: int) -> None:
        """Interrupt until it is out of DuckDB: it may not have been there yet."""
        while self._number < number or (self._number == number and self._busy):
            if self._number == number:
                self.runs.interrupt()
            time.sleep(_AGAIN)


def _fault(error: Exception, setup: Setup, *, clean: bool) -> Fault:
    """An error as it may leave the worker: in our words, without the paths of this machine."""
    if not isinstance(error, LakehouseError):
        kind = "memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
        if isinstance(error, MemoryError):
            return Fault("query_memory", "the query needs more memory than allowed", "select fewer rows or columns")
        return Fault("query_failed", _without_paths(f"the worker failed: {kind}", setup), None)
    if error.code == "disk_full" and "File too large" in error.message:  # RLIMIT_FSIZE: DuckDB overran its own limit
        return Fault(
            "query_memory", "the query spilled more to disk than allowed (query.sandbox_spill)", "select fewer rows"
        )
    hint = _without_paths(error.hint, setup) if error.hint else None
    return Fault(error.code, _without_paths(error.message, setup), hint, clean=clean)


def _without_paths(text: str, setup: Setup) -> str:
    spill = setup.settings["storage"]["temp_directory"]
    for path, name in ((spill, "spill"), (setup.folder, "lake"), (sys.prefix, "python"), (sys.base_prefix, "python")):
        text = text.replace(path, name)
    return text
