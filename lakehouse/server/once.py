"""Requests that count once: what an `Idempotency-Key` stands for, across retries, servers and restarts.

As in the IETF draft draft-ietf-httpapi-idempotency-key-header: the same request under the same key gets the answer
that the first one got, another request under it is refused (422), and one that comes while the first is worked on is
told to wait (409). Before any work the key is written down with a hash of the request and a name of its own; what the
work commits may carry that name, and so be known again when the server died before the answer was kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from lakehouse.catalog.lock import locked
from lakehouse.errors import (
    DiskFull,
    KeyReused,
    LakehouseError,
    LakeUnusable,
    LockTimeout,
    QueryCancelled,
    QueryTimeout,
    RequestInFlight,
    RequestInvalid,
)
from lakehouse.server.routing import Answer, Call, Route, encoded
from lakehouse.state import State

HEADER, REPLAYED = "Idempotency-Key", "Idempotent-Replayed"
KEPT_FOR = 24 * 3600.0
"""Seconds that an answer is kept; then the key stands for nothing again."""
_FOLDER, _FILE, _LOCK = "server", "requests.sqlite", "requests.lock"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS request (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, name TEXT NOT NULL,
    begun REAL NOT NULL, status INTEGER, headers TEXT, body BLOB)
"""
_log = logging.getLogger("lakehouse.server")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Known:
    """What is written of a key."""

    fingerprint: str
    name: str
    answer: Answer[Any] | None
    """None: no answer was kept."""


class Requests:
    """The keys of one lake, for all servers on it.

    Args:
        lake: the lake folder.
    """

    def __init__(self, lake: Path) -> None:
        self._folder = lake / _FOLDER
        self._state = State(self._folder / _FILE, _SCHEMA)

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Nobody else works on a key meanwhile; the kernel frees it when the process dies.

        Raises:
            RequestInFlight: somebody does.
        """
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 2
        try:
            self._folder.mkdir(exist_ok=True)
            file = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LakeUnusable(f"{self._folder} cannot be written: {error.strerror}") from None
        try:
            if not locked(file, place, 1):
                raise RequestInFlight("a request with this Idempotency-Key is being worked on", hint="ask again soon")
            yield
        finally:
            os.close(file)

    def find(self, key: str) -> Known | None:
        """What is written of a key and has not expired."""
        rows = self._state.read(
            "SELECT fingerprint, name, status, headers, body FROM request WHERE key = ? AND begun > ?",
            (key, time.time() - KEPT_FOR),
        )
        if not rows:
            return None
        fingerprint, name, status, headers, body = rows[0]
        if status is None:
            return Known(fingerprint, name, None)
        value = None if body is None else msgspec.Raw(body)
        return Known(fingerprint, name, Answer(value, status, msgspec.json.decode(headers)))

    def begin(self, key: str, fingerprint: str, name: str) -> None:
        """Write down, durably, that a request is about to be done; what has expired goes."""
        with self._state.write() as connection:
            connection.execute("DELETE FROM request WHERE begun <= ?", (time.time() - KEPT_FOR,))
            row = (key, fingerprint, name, time.time())
            connection.execute("INSERT INTO request (key, fingerprint, name, begun) VALUES (?, ?, ?, ?)", row)

    def keep(self, key: str, answer: Answer[Any]) -> None:
        """Write down what a request got."""
        body = None if answer.status == 204 else encoded(answer.value)
        headers = msgspec.json.encode(dict(answer.headers)).decode()
        with self._state.write() as connection:
            connection.execute(
                "UPDATE request SET status = ?, headers = ?, body = ? WHERE key = ?",
                (answer.status, headers, body, key),
            )

    def forget(self, key: str) -> None:
        """The request was refused and did nothing: it may be mended and sent again."""
        with self._state.write() as connection:
            connection.execute("DELETE FROM request WHERE key = ?", (key,))


class _Body:
    """The pieces of a body, hashed as they pass."""

    def __init__(self, pieces: Any, digest: Any) -> None:
        self._pieces, self._digest = pieces, digest

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            yield piece


def performed(route: Route, call: Call) -> Any:
    """What a route answers; when it `counts_once` and the request has a key, what it answered the first time.

    Raises:
        RequestInvalid: the key is none.
        RequestInFlight, KeyReused: see there.
    """
    given = call.headers.get(HEADER)
    if not route.counts_once or given is None:
        return route.run(call)
    key = given.strip().removeprefix('"').removesuffix('"')
    if not _KEY.fullmatch(key):
        raise RequestInvalid(f"{HEADER} is 1 to 255 visible ASCII characters", hint="such as a UUID")
    call.lake  # noqa: B018 - made by now, as the key is kept in its folder
    requests = call.service.requests
    with requests.held(key):
        return _Attempt(requests, key, route, call).made()


class _Attempt:
    """One request under a key that nobody else works on."""

    def __init__(self, requests: Requests, key: str, route: Route, call: Call) -> None:
        self._requests, self._key, self._route = requests, key, route
        self._known = requests.find(key)
        self._digest = hashlib.sha256(_head(route, call))
        self._name: str | None = None
        body: Any = call.stream and _Body(call.stream, self._digest)
        self._call = replace(call, stream=body, name=self._begin, again=self._again)

    def made(self) -> Any:
        if self._known is not None and self._known.answer is not None:
            for _ in self._call.stream or ():
                pass
            self._check(self._known)
            return replace(self._known.answer, headers={**self._known.answer.headers, REPLAYED: "true"})
        if self._call.stream is None:
            self._begin()
        try:
            answer = self._route.run(self._call)
        except LakehouseError as error:
            # That a retry did nothing says nothing of the time before: its key still stands for what may be done.
            if self._name is not None and self._known is None and _did_nothing(error):
                self._requests.forget(self._key)
            raise
        answer = answer if isinstance(answer, Answer) else Answer(answer)
        if self._name is None:
            self._begin()
        try:
            self._requests.keep(self._key, answer)
        except LakehouseError as error:  # it is done: a retry finds it by its name, or is told that nobody knows
            _log.error("the answer to %s %s is not kept: %s", self._route.method, self._route.path, error.message)
        return answer

    def _again(self) -> bool:
        return self._known is not None

    def _begin(self) -> str:
        """Write down that this very request begins, once its body is known to the end; returns its name."""
        if self._name is not None:
            return self._name
        known = self._known
        if known is None:
            self._name = uuid.uuid4().hex
            self._requests.begin(self._key, self._digest.hexdigest(), self._name)
            return self._name
        self._check(known)
        self._name = known.name
        return self._name

    def _check(self, known: Known) -> None:
        if known.fingerprint != self._digest.hexdigest():
            raise KeyReused(f"this {HEADER} stands for another request", hint="every request has a key of its own")


def _head(route: Route, call: Call) -> bytes:
    """What makes a request this request, but for a body that streams."""
    kinds = [call.headers.get(name, "") for name in ("Content-Type", "Content-Encoding")]
    return encoded([route.method, route.path, call.path, call.query, kinds, call.body]) + b"\n"


def _did_nothing(error: LakehouseError) -> bool:
    """Whether an error surely means that nothing was written: not when the work was stopped, or broke."""
    if isinstance(error, LockTimeout | DiskFull):
        return True
    return error.status < 500 and not isinstance(error, QueryTimeout | QueryCancelled)
