"""What stands in front of every route of the server, Jupyter's own and those of other extensions: two refusals."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from tornado import web
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher

from lakehouse.server.base import problem
from lakehouse.server.routing import METHODS, encoded
from lakehouse.server.service import Service, address_of, log
from lakehouse.tokens import bearer


class Gate(Matcher):
    """Matches what must not pass, whatever it asks for; as the first rule of the router it sees every request.

    That is what comes from an address that is not allowed, and what has a token of the lake for a route that is not
    the lake's: it must not open kernels, files or terminals, whatever their own handlers ask for.

    Args:
        service: the lake behind the server.
        base: the path that the server's routes begin with, without a slash at its end.
    """

    def __init__(self, service: Service, base: str) -> None:
        self._service = service
        self._ours = (f"{base}/lakehouse/", f"{base}/health")

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """What `Refusal` needs for a match, None for none, as Tornado wants it."""
        guard, address = self._service.guard, address_of(request, self._service)
        if not guard.admits(address)[0]:
            log.warning("refused the address %s", address[:60])
            return {"target_kwargs": {"detail": "this address is not allowed"}}
        if guard.has_token and not request.path.startswith(self._ours):
            header = bearer(request.headers.get("Authorization"))
            if any(guard.identify(token) for token in (header, *request.query_arguments.get("token", ())) if token):
                return {"target_kwargs": {"detail": "a token of the lake opens the lake's routes only"}}
        return None


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
