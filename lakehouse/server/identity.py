"""Who asks, on a Jupyter server: the API token on our routes only, and Jupyter's own users everywhere."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.identity import PasswordIdentityProvider, User
from tornado import web

from lakehouse.auth import DEVELOPMENT, Principal, is_loopback
from lakehouse.errors import AccessError, BindRefused, TooManyAttempts, Unauthenticated
from lakehouse.server.base import Handler
from lakehouse.server.routing import SCOPES
from lakehouse.server.service import address_of
from lakehouse.server.stop import stops_the_start
from lakehouse.tokens import bearer

if TYPE_CHECKING:
    from lakehouse.server.service import Service

JUPYTER = Principal("jupyter", frozenset({"read", "write"}))
"""A user who is logged in to Jupyter, and so may run code as the server anyway."""


class LakehouseIdentityProvider(PasswordIdentityProvider):
    """Jupyter's own logins, and beside them the lake's tokens.

    A token of the lake is recognised only on the lake's routes and only in the `Authorization` header; every other
    route of the server answers 403 to it (see `gate`). It never becomes a cookie.
    """

    @property
    def service(self) -> Service:
        """What the extension made before."""
        found: Service = self.parent.lakehouse_service  # type: ignore[union-attr]
        return found

    @stops_the_start
    def validate_security(self, app: Any, ssl_options: dict[str, Any] | None = None) -> None:
        """Refuse to start where others could reach what nothing protects; called before the port opens."""
        if not app.sock:
            self.service.host = app.ip
        self.service.jupyter_token = self.token
        os.environ.pop("JUPYTER_TOKEN", None)  # it has been read, and kernels inherit the environment
        self.service.check()
        if not self.auth_enabled and (self.service.guard.has_token or not is_loopback(self.service.host)):
            raise BindRefused(
                "Jupyter's own login is off, so everybody who connects may run code",
                hint="leave IdentityProvider.token alone, or set a password",
            )
        super().validate_security(app, ssl_options)

    async def _get_user(self, handler: web.RequestHandler) -> User | None:
        if isinstance(handler, Handler):
            return await self._caller(handler)
        return await super()._get_user(handler)

    async def get_user_token(self, handler: web.RequestHandler) -> User | None:
        """The user of Jupyter's own token, compared in constant time."""
        given = self.get_token(handler) or ""
        if not self.token or not hmac.compare_digest(_digest(str(self.token)), _digest(given)):
            return None
        known: User | None = await ensure_async(self.get_user_cookie(handler))
        return known or self.generate_anonymous_user(handler)

    async def _caller(self, handler: Handler) -> User:
        guard, token = self.service.guard, bearer(handler.request.headers.get("Authorization"))
        address = address_of(handler.request, self.service)
        decision = guard.decide(address, token, SCOPES[handler.label])
        if decision.principal is not None:
            handler.principal = decision.principal
            # Tells Jupyter that there is no cookie that another site could have sent.
            handler._token_authenticated = decision.principal is not DEVELOPMENT
            return User(f"lakehouse-{decision.principal.name.replace(' ', '-')}")
        error: AccessError = decision.error or Unauthenticated("no token was given")
        user = await super()._get_user(handler) if isinstance(error, Unauthenticated) else None
        # A token that is nobody's is refused whatever cookie comes with it.
        if user is not None and (token is None or handler._token_authenticated):
            action = "read" if SCOPES[handler.label] == "read" else "write"
            if not await ensure_async(handler.authorizer.is_authorized(handler, user, action, "lakehouse")):
                raise web.HTTPError(403, "Jupyter's authorizer does not allow it")
            handler.principal = JUPYTER
            return user
        if token is not None and isinstance(error, Unauthenticated | TooManyAttempts):
            self.service.refused(address, error, handler.request_id)
        raise error


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
