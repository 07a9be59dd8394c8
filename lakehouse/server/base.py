"""The one handler of all routes: who asks, what was sent, the work in a thread, the answer, the one shape of errors."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from http.client import responses
from typing import Any, TypeVar

from jupyter_server.base.handlers import JupyterHandler
from tornado import web
from tornado.iostream import StreamClosedError

from lakehouse.auth import DEVELOPMENT, Principal
from lakehouse.errors import LakehouseError, RequestInFlight, RequestInvalid, TooManyListeners
from lakehouse.server.body import Body
from lakehouse.server.once import REPLAYED, performed
from lakehouse.server.problems import CODES, problem
from lakehouse.server.routing import (
    METHODS,
    SCOPES,
    Answer,
    Call,
    Label,
    Route,
    decoded_body,
    decoded_query,
    encoded,
    required,
)
from lakehouse.server.service import Service, address_of, log
from lakehouse.server.straight import Piece, straight

T = TypeVar("T")
JSON_LIMIT = 16 << 20
"""Bytes of a body that is decoded whole."""
_DRAIN = 4 << 20  # of a refused body this much is still read, so that the sender gets to read the refusal
_HEARING_OUT = 10.0  # seconds for it
_PATIENCE = 60.0  # seconds between two pieces of a body
_AS_LONG_AS_IT_COMES = float(1 << 31)  # seconds for a whole body that is worked on as it comes


@web.stream_request_body
class Handler(JupyterHandler):
    """One path of the lake's routes; the body is only read once it is known who sends it."""

    SUPPORTED_METHODS = METHODS
    principal: Principal
    _token_authenticated = False
    _error: LakehouseError | web.HTTPError | None = None
    _stream: Body | None = None
    _work: asyncio.Task[Any] | None = None
    _live: asyncio.Task[Any] | None = None
    _dropped = 0
    _sent = 0
    _counted = False
    _gone = False
    _dispatched = False

    def initialize(self, routes: dict[str, Route], service: Service) -> None:
        self.routes, self.service = routes, service
        self.request_id = uuid.uuid4().hex
        self.set_header("X-Request-Id", self.request_id)
        self._content = bytearray()
        self._when_gone: list[Callable[[], None]] = []
        self.service.metrics.begun()
        method = self.request.method or ""
        self.route = routes.get(method) or (routes.get("GET") if method == "HEAD" else None)

    @property
    def label(self) -> Label:
        """The label of the route that is called."""
        return self.route.label if self.route else "read"

    @property
    def content_security_policy(self) -> str:
        return "default-src 'none'; frame-ancestors 'none'; sandbox"

    async def prepare(self, **_: Any) -> None:
        """Let in who may, and start the work of a route that streams."""
        try:
            await self._admit()
        except (LakehouseError, web.HTTPError) as error:
            if self._length() > _DRAIN or "chunked" in self.request.headers.get("Transfer-Encoding", ""):
                self._refuse(error, close=True)
            else:
                self._error = error
                self.request.connection.set_body_timeout(_HEARING_OUT)  # type: ignore[union-attr]

    async def _admit(self) -> None:
        await super().prepare()
        self._check_site()
        if not self.routes:
            raise web.HTTPError(404, "there is no such route")
        if self.route is None:
            raise web.HTTPError(405)
        self._query = {name: values for name, values in self.request.query_arguments.items() if name != "token"}
        query = decoded_query(self._query, self.route.query)
        self.service.admit(self.request)
        self.request.connection.set_max_body_size(1 << 62)  # type: ignore[union-attr] # ours is kept below
        if self.route.streams:
            self.request.connection.set_body_timeout(_AS_LONG_AS_IT_COMES)  # type: ignore[union-attr]
        if self.route.streams:
            self._stream = Body(_PATIENCE)
            self._work = asyncio.ensure_future(
                self.service.run(partial(performed, self.route, self._call(query, None)), upload=True)
            )
            self._work.add_done_callback(self._worked)
            return
        if self._length() > JSON_LIMIT:
            raise web.HTTPError(413, f"a body has at most {JSON_LIMIT:,} bytes")
        kind = self.request.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if self.route.body is not None and not re.fullmatch(r"application/([\w.-]+\+)?json", kind):
            raise web.HTTPError(415, "the body must be application/json")

    def _worked(self, work: asyncio.Future[Any]) -> None:
        assert self._stream is not None
        self._stream.give_up()
        if not work.cancelled():
            work.exception()  # looked at here, as nobody may be left to whom it could be told

    def _length(self) -> int:
        text = self.request.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else 0

    def _check_site(self) -> None:
        """Refuse what a page of another site made the browser send: without a token nothing else tells it apart."""
        if not self.token_authenticated:
            site = self.request.headers.get("Sec-Fetch-Site", "none")
            if site not in ("none", "same-origin") or not self.check_origin():
                raise web.HTTPError(403, "the request comes from a page of another site")

    def set_cors_headers(self) -> None:
        """Let pages of other sites read answers only where Jupyter is told so."""
        if self.allow_origin or self.allow_origin_pat:
            super().set_cors_headers()

    def check_xsrf_cookie(self) -> None:
        """As Jupyter does, for its own users; who needs no login has no cookie to be abused (see `_check_site`)."""
        if not hasattr(self, "principal"):
            return  # too early: asked again once it is known who it is
        self._check_site()
        if self.principal is DEVELOPMENT:
            return
        super().check_xsrf_cookie()

    def log_exception(self, kind: Any, value: Any, traceback: Any) -> None:
        """Tornado would write the address that was asked for, and somebody may have put a token into it."""
        if not isinstance(value, web.HTTPError):
            log.error("request %s failed", self.request_id, exc_info=(kind, value, traceback))

    async def data_received(self, chunk: bytes) -> None:
        if self._error is not None:
            self._dropped += len(chunk)
            if self._dropped > _DRAIN:
                self._refuse(self._error, close=True)
        elif self._stream is None:
            self._content += chunk
            if len(self._content) > JSON_LIMIT:
                self._error, self._content = web.HTTPError(413, f"a body has at most {JSON_LIMIT:,} bytes"), bytearray()
        else:
            await self._hand_on(self._stream, chunk)

    async def _hand_on(self, stream: Body, chunk: bytes) -> None:
        assert self._work is not None
        if not self._work.done():
            await stream.feed(chunk)
            return
        self._dropped += len(chunk)
        if self._dropped > _DRAIN:  # it failed long ago: answer now, without reading the rest
            self.set_header("Connection", "close")
            await self._finish_work()

    def on_connection_close(self) -> None:
        if self._stream is not None:
            self._stream.end(RequestInvalid("the sender went away before the end of the body"))
        self._gone = True
        if not self._dispatched:  # the body never came to its end, so nobody will answer
            self._count("closed")
        for work in self._when_gone:
            self.service.soon(work)
        if self._live is not None:
            self._live.cancel()

    async def _dispatch(self, *_: str, **__: str) -> None:
        self._dispatched = True
        try:
            if self._error is not None:
                raise self._error
            if self._stream is not None:
                self._stream.end()
                await self._finish_work()
                return
            assert self.route is not None
            call = self._call(decoded_query(self._query, self.route.query), self._decoded())
            self._work = asyncio.ensure_future(self._run(partial(performed, self.route, call)))
            await self._finish_work()
        except (LakehouseError, web.HTTPError) as error:
            self._refuse(error)

    async def _finish_work(self) -> None:
        assert self._work is not None
        try:
            answer = await self._work
        except (LakehouseError, web.HTTPError) as error:
            await self._note(getattr(error, "code", "http_error"))
            self._refuse(error)
            return
        except Exception:
            await self._note("internal_error")
            raise
        replayed = isinstance(answer, Answer) and REPLAYED in answer.headers
        await self._note("replayed" if replayed else "done")
        try:
            await self._send(answer)
        except (LakehouseError, web.HTTPError) as error:
            self._refuse(error)

    async def _note(self, outcome: str) -> None:
        """Write down what a write came to, before anybody is told."""
        if SCOPES.get(self.label) != "write":
            return
        facts = {"who": self.principal.name, "from": address_of(self.request, self.service), "outcome": outcome}
        facts |= {"method": str(self.request.method), "path": self.request.path, "request_id": self.request_id}
        try:
            await self.service.run(partial(self.service.audit.note, **facts))
        except LakehouseError as error:
            log.error("request %s is not in the journal of writes: %s", self.request_id, error.message)

    def _then(self, work: Callable[[], None]) -> None:
        """Have something done when the caller goes away, or at once when it has; called in a thread."""
        self._when_gone.append(work)
        if self._gone:
            work()

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        """The result of the route's work, in a thread that is for such."""
        return self.service.run(work, waits=self.route is not None and self.route.waits)

    def _decoded(self) -> Any:
        assert self.route is not None
        if self.route.body is not None and not self._content.strip() and not required(self.route.body):
            return decoded_body(b"{}", self.route.body)
        return decoded_body(bytes(self._content), self.route.body)

    def _call(self, query: Any, body: Any) -> Call:
        path = tuple(map(str, self.path_args))
        creates = self.label in ("write", "admin")
        sent = (query, body, self._stream, self.request.headers)
        return Call(self.service, self.principal, path, *sent, creates, self._then)

    async def _send(self, answer: Any) -> None:
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        self.set_status(answer.status)
        if answer.chunks is not None:
            await self._stream_out(answer, answer.chunks)
            return
        if answer.live is not None:
            await self._stream_live(answer, answer.live)
            return
        for name, value in answer.headers.items():
            self.set_header(name, value)
        if answer.status in (204, 304) or answer.content is not None:
            await self.finish(answer.content)
            return
        self.set_header("Content-Type", "application/json")
        await self.finish(await self.service.run(partial(encoded, answer.value)))

    async def _stream_out(self, answer: Answer[Any], chunks: Iterator[Piece]) -> None:
        for name, value in answer.headers.items():
            self.set_header(name, value)
        try:
            if self.request.method != "HEAD":
                await self.flush()
                await self._write_out(chunks)
            await self.finish()
        except StreamClosedError:
            log.info("the reader of %s went away", self.request_id)
            self._count("closed")
        except Exception as error:
            if not self._headers_written:
                raise
            self._break_off(error)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                await self.service.run(close)

    async def _write_out(self, chunks: Iterator[Piece]) -> None:
        """A body whose head has gone out, piece by piece: a slow reader is waited for before the next one is made."""
        way = straight(self.request.connection, self._headers)
        if way is not None:
            try:
                await way.all(chunks, self._run)
            finally:
                self._sent += way.sent
                way.close()
            return
        while (chunk := await self._run(lambda: next(chunks, None))) is not None:
            self.write(bytes(chunk))
            await self.flush()

    async def _stream_live(self, answer: Answer[Any], live: AsyncIterator[bytes]) -> None:
        """Write until the reader goes away, the server stops, or there is an end after all.

        Raises:
            TooManyListeners: there is no place for another one.
        """
        most = (await self._run(self.service.lake)).settings.observer.listeners
        if self.service.listening >= most:
            raise TooManyListeners(f"{most:,} listen to this server already", hint="observer.listeners is the limit")
        self.service.listening += 1
        for name, value in answer.headers.items():
            self.set_header(name, value)
        self._live = asyncio.current_task()
        try:
            if self.request.method != "HEAD":
                async for chunk in live:
                    self.write(chunk)
                    await self.flush()
            await self.finish()
        except (StreamClosedError, asyncio.CancelledError):
            log.info("the listener of %s went away", self.request_id)
            self._auto_finish = False
            self._count("closed")
        except Exception as error:
            self._break_off(error)
        finally:
            self._live = None
            self.service.listening -= 1
            await live.aclose()  # type: ignore[attr-defined]

    def _refuse(self, error: LakehouseError | web.HTTPError, *, close: bool = False) -> None:
        """Answer with an error; `close` says that the rest of the body is not read, so the connection ends."""
        if self._finished or self._headers_written:
            self._break_off(error)
            return
        if isinstance(error, web.HTTPError):
            status, code = error.status_code, CODES.get(error.status_code, "http_error")
            detail, hint = error.log_message or responses.get(status, "Error"), None
        else:
            status, code, detail = error.status, error.code, self.service.told(error.message)
            hint = error.hint and self.service.told(error.hint)
        self.clear_problem_headers(status)
        if isinstance(error, RequestInFlight):
            self.set_header("Retry-After", "1")
        if close:
            self.set_header("Connection", "close")
        self.set_status(status)
        self.set_header("Content-Type", "application/problem+json")
        self.finish(encoded(problem(status, code, detail, self.request_id, hint)))

    def _break_off(self, error: Exception) -> None:
        """An answer that has begun can only be cut: the reader sees that it is not whole."""
        log.error("request %s broke off: %s", self.request_id, error)
        self._auto_finish = False
        with contextlib.suppress(Exception):
            self.request.connection.detach().close()  # type: ignore[union-attr]
        self._count("closed")

    def clear_problem_headers(self, status: int) -> None:
        """What an error says in headers."""
        for name in ("Content-Length", "ETag", "Content-Range", "Content-Disposition"):
            self.clear_header(name)
        if status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if status == 405:
            self.set_header("Allow", ", ".join(sorted({*self.routes, *({"HEAD"} if "GET" in self.routes else ())})))
        if status in (429, 503):
            self.set_header("Retry-After", "5")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Whatever else goes wrong, in the same shape and without what only the log may say."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        if isinstance(error, CancelledError):
            status_code = 503
        detail = responses.get(status_code, "Error")
        if isinstance(error, web.HTTPError) and error.log_message and status_code < 500:
            detail = error.log_message
        code = CODES.get(status_code, "http_error")
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("Connection", "close")  # perhaps nobody has read the body
        self.clear_problem_headers(status_code)
        self.set_header("Content-Type", "application/problem+json")
        self.finish(encoded(problem(status_code, code, detail, self.request_id)))

    def write(self, chunk: Any) -> None:
        """As Tornado does, and count it."""
        self._sent += len(chunk)
        super().write(chunk)

    def on_finish(self) -> None:
        """The answer has gone out."""
        super().on_finish()
        self._count(str(self.get_status()))

    def _count(self, status: str) -> None:
        """Count the request, once; `closed` when it broke off."""
        if self._counted:
            return
        self._counted = True
        method = self.request.method if self.request.method in METHODS else "other"
        path = next((route.path for route in self.routes.values()), "none")
        received = self._dropped + (len(self._content) if self._stream is None else self._stream.size)
        self.service.metrics.ended(str(method), path, status, self.request.request_time(), received, self._sent)

    def compute_etag(self) -> None:
        """Routes say themselves what an ETag is."""
        return

    get: Callable[..., Awaitable[None]] = _dispatch
    head: Callable[..., Awaitable[None]] = _dispatch
    post: Callable[..., Awaitable[None]] = _dispatch
    put: Callable[..., Awaitable[None]] = _dispatch
    patch: Callable[..., Awaitable[None]] = _dispatch
    delete: Callable[..., Awaitable[None]] = _dispatch


# Tells Jupyter that these methods ask who it is (`prepare` raises for who may not).
setattr(Handler._dispatch, "__allow_unauthenticated", False)
