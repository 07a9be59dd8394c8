"""One server, spoken to over HTTP: requests, retries, answers that are read whole or as they come."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from lakehouse import __version__
from lakehouse.client.problems import refusal, translated, value
from lakehouse.config import Secret
from lakehouse.errors import ConfigError, LakehouseError, RequestInFlight, RequestInvalid

T = TypeVar("T")
LONG = -1.0
"""In place of seconds: as long as it takes; a server that is gone is still noticed (TCP keep-alive)."""
MOST = 10_000
"""What a list in one answer of the server may hold."""
_CONNECT = 10.0  # seconds
_FIRST, _MOST = 0.2, 5.0  # seconds between attempts, doubled each time
_LONGEST = 60.0  # a server that asks for more than so many seconds is not waited for
_AGAIN = (502, 503, 504)
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Nothing was sent: trying again can do nothing twice."""
_PASSING = (*_UNSENT, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_PROBLEM = 1 << 20  # bytes of a refusal that are read
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), seconds) for name, seconds in
      (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)) if hasattr(socket, name)),
]  # fmt: skip


def path(template: str, *names: str) -> str:
    """A path with names in its `{}`, written so that each stays one part."""
    return template.format(*(_part(name) for name in names))


def limited(limit: int | None) -> int:
    """How many are asked for; None: as many as one answer may hold."""
    return MOST if limit is None else limit


def complete(found: list[T], limit: int | None) -> list[T]:
    """What was found, if it is surely all that was asked for.

    Raises:
        LakehouseError: all were asked for, and the answer is full.
    """
    if limit is None and len(found) >= MOST:
        raise LakehouseError(f"there are {MOST:,} or more, which is what one answer may hold", hint="give a limit")
    return found


def _part(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise RequestInvalid(f"{name!r} is no name", hint="give a text that is not empty")
    try:
        return quote(name, safe="") if name.strip(".") else "%2E" * len(name)
    except UnicodeEncodeError:
        raise RequestInvalid(f"{name!a} is not valid Unicode") from None


class Wire:
    """The connections to one server; used by several threads at once.

    Args:
        base: the address of its routes.
        token: who asks; None: nobody in particular.
        timeout: seconds to wait for each piece of an answer.
        retries: how often a request that may be sent twice is sent again.
        ca_file: certificates of the authorities that are believed, in place of the system's.
        proxy: the address of a proxy; that of the environment is not used.

    Raises:
        ConfigError: the file of certificates cannot be used, or the proxy is none.
    """

    def __init__(
        self, base: str, token: Secret | None, *, timeout: float, retries: int, ca_file: str | None, proxy: str | None
    ) -> None:
        if not timeout > 0 or retries < 0:
            raise ConfigError("timeout must be above 0 seconds, and retries not below 0")
        self.base = base
        self._timeout = timeout
        self._retries = retries
        headers = {"User-Agent": f"lakehouse/{__version__}", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        try:
            transport = httpx.HTTPTransport(
                verify=_trust(base, ca_file), proxy=proxy, socket_options=_KEEP_ALIVE, trust_env=False
            )
        except (ValueError, httpx.InvalidURL):
            raise ConfigError("proxy is no address of a proxy", hint="such as http://proxy.example.org:3128") from None
        self._http = httpx.Client(
            transport=transport,
            headers=headers,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # the token says who it is, each time
            trust_env=False,
        )

    def json(
        self,
        method: str,
        where: str,
        kind: Any = Any,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        wait: float | None = None,
    ) -> Any:
        """What an answer says.

        Args:
            method: `GET`, `POST` …
            where: the path below the base.
            kind: what the JSON of the answer is.
            query: the query string; None among its values is left out.
            body: becomes JSON; None: none.
            headers: further headers.
            again: whether the request may be sent twice; None: GET and HEAD may.
            wait: seconds until the answer begins; None: the client's timeout.

        Raises:
            LakehouseError: what the server refuses, by its code.
            ServerUnreachable, AnswerBroken: says what went wrong on the way.
        """
        response = self.send(method, where, query=query, body=body, headers=headers, again=again, wait=wait)
        return value(response.content, kind, self.base)

    def send(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        wait: float | None = None,
    ) -> httpx.Response:
        """An answer, read whole; see `json`. `content` gives the pieces of a body, anew for each attempt."""

        def attempt() -> httpx.Response:
            asked = {"query": query, "body": body, "headers": headers, "wait": wait}
            with self._once(method, where, content=None if content is None else content(), **asked) as response:
                response.read()
                return response

        return self._retried(attempt, again=method in ("GET", "HEAD") if again is None else again)

    @contextmanager
    def stream(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        again: bool = True,
        wait: float | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer whose body is read as it comes, inside the block; leaving the block ends it.

        Only what happens before the body begins is tried again.
        """

        def attempt() -> tuple[httpx.Response, contextlib.ExitStack]:
            with contextlib.ExitStack() as stack:
                opened = self._once(method, where, query=query, body=body, headers=headers, wait=wait)
                return stack.enter_context(opened), stack.pop_all()

        response, stack = self._retried(attempt, again=again)
        with stack:
            yield response

    def _retried(self, attempt: Callable[[], T], *, again: bool) -> T:
        """What an attempt gives; after a failure that may pass it is made again, a little later each time."""
        left, pause = self._retries, _FIRST
        while True:
            waited = pause
            try:
                with translated(self.base):
                    try:
                        return attempt()
                    except _PASSING as error:
                        if left <= 0 or not (again or isinstance(error, _UNSENT)):
                            raise
            except _Later as later:
                waited = pause if later.seconds is None else later.seconds
                if left <= 0 or not again or waited > _LONGEST:
                    raise later.error from None
            left -= 1
            time.sleep(waited * random.uniform(1.0, 1.3))  # noqa: S311 - so that many do not come back at once
            pause = min(2 * pause, _MOST)

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def __repr__(self) -> str:
        return f"<Wire {self.base}>"

    @contextmanager
    def _once(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float | None = None,
    ) -> Iterator[httpx.Response]:
        """One attempt; its answer is good, and its body not yet read."""
        sent = dict(headers or {})
        given: Any = content
        if body is not None:
            given, sent["Content-Type"] = _encoded(body), "application/json"
        read = self._timeout if wait is None else None if wait == LONG else wait
        try:
            request = self._http.build_request(
                method,
                self.base + where,
                params=_query(query or {}),
                content=given,
                headers=sent,
                timeout=httpx.Timeout(read, connect=min(_CONNECT, self._timeout)),
            )
        except UnicodeEncodeError:
            raise RequestInvalid("what is asked for is not valid Unicode") from None
        response = self._http.send(request, stream=True)
        try:
            if not response.is_success:
                self._refused(response)
            yield response
        finally:
            with contextlib.suppress(httpx.HTTPError):
                response.close()

    def _refused(self, response: httpx.Response) -> None:
        content = b""
        for piece in response.iter_raw():
            content += piece
            if len(content) > _PROBLEM:
                break
        error = refusal(response.status_code, response.headers, content, self.base)
        if response.status_code in _AGAIN or isinstance(error, RequestInFlight):
            raise _Later(error, _seconds(response.headers.get("Retry-After")))
        raise error


class _Later(Exception):
    """A refusal that may pass."""

    def __init__(self, error: LakehouseError, seconds: float | None) -> None:
        self.error = error
        self.seconds = seconds
        """What the server asks to wait; None: it does not say."""


def _seconds(header: str | None) -> float | None:
    """The seconds that `Retry-After` asks for (RFC 9110: a number, or a date)."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _query(given: Mapping[str, Any]) -> dict[str, Any]:
    plain = {True: "true", False: "false"}
    return {
        name: plain[one] if isinstance(one, bool) else one if isinstance(one, str | list) else str(one)
        for name, one in given.items()
        if one is not None
    }


def _encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError) as error:  # a UnicodeEncodeError is a ValueError
        raise RequestInvalid(f"what is sent cannot be written as JSON: {error}") from None


def _trust(base: str, ca_file: str | None) -> ssl.SSLContext | bool:
    if not base.startswith("https:"):
        return False  # nothing to be verified
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(
            f"{ca_file} holds no certificates: {error.strerror or error}", hint="PEM, as a file"
        ) from None
