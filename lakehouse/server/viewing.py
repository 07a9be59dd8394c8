"""Who may look at dashboards: the gate in front of every route of that server, and its login.

A viewer has a pass: a cookie with a random name and an expiry, signed with a secret of this process over the tokens
in force. Another token, a restart or a logout ends it. Kernels belong to the pass that opened their page.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit
from weakref import WeakSet

from tornado import web
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream
from tornado.routing import Matcher

from lakehouse import config
from lakehouse.auth import Attempts, Guard, is_loopback
from lakehouse.errors import Unauthenticated
from lakehouse.server import viewpages
from lakehouse.server.gate import PASSED_ON
from lakehouse.tokens import bearer

COOKIE = "lakehouse-viewer"
LOGIN = "/login"
_AGE = 12 * 3600.0  # seconds
log = logging.getLogger("lakehouse.dashboards")


class Door:
    """The guard of a server of dashboards, and the passes it gives.

    Args:
        folder: the lake folder, whose settings are read.
        environ: the environment with the tokens, read again by `reload`.
        host: where the server listens.

    Raises:
        ConfigError: settings or tokens cannot be used.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], host: str) -> None:
        self._folder, self._environ, self._host = folder, dict(environ), host
        self._secret = secrets.token_bytes(32)
        self._left: dict[str, float] = {}
        self.guard = self._read(None)

    def reload(self) -> None:
        """Read tokens and allowlist again; those in force stay when that raises."""
        guard = self._read(self.guard.attempts)
        guard.check_bind(self._host)
        self.guard = guard

    def _read(self, attempts: Attempts | None) -> Guard:
        return Guard(config.load(self._folder, environ=self._environ).auth, self._environ, attempts)

    def address(self, request: HTTPServerRequest) -> str:
        """Where a request comes from."""
        context = getattr(request.connection, "context", None)
        peer = getattr(context, "_orig_remote_ip", None) or request.remote_ip or ""
        return self.guard.client(peer, request.headers.get_list("X-Forwarded-For"))

    def new(self) -> tuple[str, str]:
        """A new viewer: its name and its pass."""
        name, end = secrets.token_hex(16), str(int(time.time() + _AGE))
        return name, f"{name}.{end}.{self._sign(name, end)}"

    def viewer(self, request: HTTPServerRequest) -> str | None:
        """Whose pass comes with a request; None when it has none that is good."""
        try:
            jar = SimpleCookie(request.headers.get("Cookie", ""))
        except CookieError:
            return None
        parts = jar[COOKIE].value.split(".") if COOKIE in jar else []
        if len(parts) != 3 or not parts[1].isdecimal():
            return None
        name, end, signed = parts
        good = hmac.compare_digest(signed.encode(), self._sign(name, end).encode())
        return name if good and float(end) > time.time() and name not in self._left else None

    def leave(self, name: str) -> None:
        """A pass that is good no longer."""
        now = time.time()
        self._left = {one: end for one, end in self._left.items() if end > now} | {name: now + _AGE}

    def _sign(self, name: str, end: str) -> str:
        key = hmac.digest(self._secret, self.guard.fingerprint, "sha256")
        return hmac.new(key, f"{name}.{end}".encode(), hashlib.sha256).hexdigest()


def give_pass(handler: web.RequestHandler, text: str) -> None:
    """Set a pass as cookie: no script reads it, no other site sends it."""
    secure = handler.request.protocol == "https"
    handler.set_cookie(COOKIE, text, httponly=True, samesite="Strict", secure=secure, path="/")


class Gate(Matcher):
    """Matches what must not pass, whatever it asks for; the first rule of the router (see `gate.Gate`).

    Args:
        door: who may pass.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._sockets: WeakSet[IOStream] = WeakSet()

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """What `Refusal` needs for a match, None for none, as Tornado wants it."""
        guard, address = self._door.guard, self._door.address(request)
        if not guard.admits(address)[0]:
            return self._refused(address, 403, "This address is not allowed.")
        if not guard.has_token:
            if any(name in request.headers for name in PASSED_ON):
                return self._refused(address, 403, "A proxy stands in front of a server without a token.")
            # Else a page of another site could point its own name at this machine, and be this site.
            host = urlsplit(f"//{request.host}").hostname or ""
            if host != "localhost" and not is_loopback(host, lambda _: ()):
                return self._refused(address, 403, "Without a token only this machine is served, by its own name.")
        elif request.path != LOGIN:
            token = bearer(request.headers.get("Authorization"))
            if token is not None:
                decision = guard.decide(address, token)
                if decision.error is not None:
                    if isinstance(decision.error, Unauthenticated):
                        guard.attempts.failed(address)
                    return self._refused(address, decision.error.status, decision.error.message)
            elif self._door.viewer(request) is None:
                pages = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
                if pages and "Upgrade" not in request.headers:
                    return {"target_kwargs": {"status": 302, "detail": request.uri or "/"}}
                return {"target_kwargs": {"status": 401, "detail": "Log in first."}}
        if request.headers.get("Upgrade", "").lower() == "websocket":
            self._sockets.add(request.connection.stream)  # type: ignore[union-attr]
        return None

    def end_sockets(self) -> None:
        """End every open websocket: whoever still may opens another one."""
        for stream in list(self._sockets):
            stream.close()

    def _refused(self, address: str, status: int, detail: str) -> dict[str, Any]:
        log.warning("refused %s: %s", address[:60], detail)
        return {"target_kwargs": {"status": status, "detail": detail}}


class Plain(web.RequestHandler):
    """A page of ours that needs nothing of Jupyter."""

    SUPPORTED_METHODS: ClassVar[tuple[str, ...]] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # type: ignore[misc]

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", viewpages.POLICY)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish(viewpages.refusal(status_code, ""))


class Refusal(Plain):
    """The answer to what must not pass."""

    def initialize(self, status: int, detail: str) -> None:
        self._status, self._detail = status, detail

    def prepare(self) -> None:
        """Nothing else is looked at."""
        if self._status == 302:
            self.redirect(f"{LOGIN}?next={quote(self._detail, safe='')}")
            return
        self.set_status(self._status)
        self.finish(viewpages.refusal(self._status, self._detail))


class Login(Plain):
    """Takes a token once, and gives a pass for it."""

    def initialize(self, door: Door) -> None:
        self._door = door

    def get(self) -> None:
        if not self._door.guard.has_token:
            self.redirect("/")
            return
        self.finish(viewpages.login(_inside(self.get_query_argument("next", "/")), ""))

    def post(self) -> None:
        door, address = self._door, self._door.address(self.request)
        there = _inside(self.get_body_argument("next", "/"))
        decision = door.guard.decide(address, self.get_body_argument("token", "").encode())
        if decision.error is not None:
            if isinstance(decision.error, Unauthenticated):
                door.guard.attempts.failed(address)
            log.warning("refused the login of %s: %s", address[:60], decision.error.message)
            self.set_status(decision.error.status)
            said = f"{decision.error.message}. {decision.error.hint or ''}".strip()
            self.finish(viewpages.login(there, said[:1].upper() + said[1:]))
            return
        give_pass(self, door.new()[1])
        self.redirect(there, status=303)


class Logout(Plain):
    """Ends a pass."""

    def initialize(self, door: Door) -> None:
        self._door = door

    def post(self) -> None:
        name = self._door.viewer(self.request)
        if name is not None:
            self._door.leave(name)
        self.clear_cookie(COOKIE, path="/")
        self.redirect(LOGIN if self._door.guard.has_token else "/", status=303)


def _inside(there: str) -> str:
    """A path of this server; anything that could lead elsewhere is its first page."""
    good = there.startswith("/") and not there.startswith("//") and "\\" not in there and there.isprintable()
    return there if good else "/"
