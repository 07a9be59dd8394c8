"""What stands in front of every route of the server, Jupyter's own and those of other extensions: the refusals."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from typing import Any, ClassVar
from weakref import WeakSet

from tornado import web
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream
from tornado.routing import Matcher

from lakehouse.auth import Attempts
from lakehouse.server.metrics import Why
from lakehouse.server.problems import problem
from lakehouse.server.routing import METHODS, encoded
from lakehouse.server.service import Service, address_of, log
from lakehouse.tokens import bearer

PASSED_ON = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Via")
"""What proxies say. Behind one, everybody comes from this machine, so that "only this machine" would be anybody."""


class Gate(Matcher):
    """Matches what must not pass, whatever it asks for; as the first rule of the router it sees every request.

    That is what comes from an address that is not allowed, what a proxy passed on to a server without a token, and
    what has a token of the lake for a route that is not the lake's: it must not open kernels, files or terminals,
    whatever their own handlers ask for.

    Args:
        service: the lake behind the server.
        base: the path that the server's routes begin with, without a slash at its end.
    """

    def __init__(self, service: Service, base: str) -> None:
        self._service = service
        settings = service.guard.settings
        self._guesses = Attempts(settings.max_failures, settings.failure_window)
        self._sockets: WeakSet[IOStream] = WeakSet()
        self._ours = (f"{base}/lakehouse/", f"{base}/health")

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """What `Refusal` needs for a match, None for none, as Tornado wants it."""
        guard, address = self._service.guard, address_of(request, self._service)
        if not guard.admits(address)[0]:
            log.warning("refused the address %s", address[:60])
            return self._refusal("address", "this address is not allowed")
        if not guard.has_token and any(name in request.headers for name in PASSED_ON):
            log.warning("refused what a proxy passed on: no token is configured")
            return self._refusal("proxy", "a proxy stands in front of a server without a token")
        if guard.has_token and not request.path.startswith(self._ours):
            header = bearer(request.headers.get("Authorization"))
            given = [token for token in (header, *request.query_arguments.get("token", ())) if token]
            if given and self._opens_nothing(given, address):
                return self._refusal("elsewhere", "a token of the lake opens the lake's routes only")
        stream = request.connection.stream  # type: ignore[union-attr] # of HTTP/1, the only one there is
        if request.headers.get("Upgrade", "").lower() == "websocket":
            self._sockets.add(stream)
        else:
            self._sockets.discard(stream)  # it was refused as a websocket, and goes on with other requests
        if not request.path.startswith(self._ours):
            self._service.admit(request)  # Jupyter finds out itself who it is
        return None

    def _refusal(self, why: Why, detail: str) -> dict[str, Any]:
        self._service.metrics.refused(why)
        return {"target_kwargs": {"detail": detail}}

    def _opens_nothing(self, tokens: list[bytes], address: str) -> bool:
        """Whether a token of the lake is among these, which came for what is not the lake's.

        Whoever guesses must not learn here, where guesses cost nothing, when one is right: after as many as there may
        be on the lake's own routes the answer is yes to any. They are counted apart, as a page that was opened before
        the server was started anew asks with Jupyter's token of then.
        """
        guard, jupyter = self._service.guard, hashlib.sha256(self._service.jupyter_token.encode()).digest()
        if all(hmac.compare_digest(hashlib.sha256(token).digest(), jupyter) for token in tokens):
            return False
        if self._guesses.wait(address) > 0 or any(guard.identify(token) for token in tokens):
            return True
        self._guesses.failed(address)
        return False

    def end_sockets(self) -> None:
        """End every open websocket: whoever still may opens another one. Called on the event loop."""
        for stream in list(self._sockets):
            stream.close()


class Refusal(web.RequestHandler):
    """The answer to what must not pass."""

    SUPPORTED_METHODS: ClassVar[tuple[str, ...]] = (*METHODS, "OPTIONS")  # type: ignore[misc]

    def initialize(self, detail: str) -> None:
        self._detail = detail

    def check_xsrf_cookie(self) -> None:
        """It is refused anyway."""

    def prepare(self) -> None:
        """Nothing else is looked at."""
        self.set_status(403)
        self.set_header("Content-Type", "application/problem+json")
        self.finish(encoded(problem(403, "forbidden", self._detail, uuid.uuid4().hex)))
