"""Where a server is, and who asks: checked before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from lakehouse.config import Secret
from lakehouse.errors import ConfigError, Forbidden

BASE = "/lakehouse/v1"
TOKEN = "AUTH_TOKEN"  # noqa: S105 - the name of the variable
"""The variable that the token is read from when none is given."""


def base_of(url: str) -> str:
    """The address of the routes of a server.

    Args:
        url: `https://host[:port][/path]`, as Jupyter's own address is, with or without `/lakehouse/v1`.

    Raises:
        ConfigError: it is no such address, or holds a password or a query, which do not belong there.
    """
    try:
        parts = urlsplit(str(url).strip())
        port = parts.port
    except ValueError:
        raise ConfigError("the server's address cannot be read", hint="such as https://lake.example.org") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not repeated: what stands there may be a secret.
        raise ConfigError(
            "the server's address holds more than scheme, host, port and path",
            hint=f"give the token as token=… or in {TOKEN}",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r:.200} is no address of a server", hint="such as https://lake.example.org")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = host if port is None else f"{host}:{port}"
    path = parts.path.rstrip("/").removesuffix(BASE)
    return SplitResult(parts.scheme, where, path + BASE, "", "").geturl()


def token_of(given: str | Secret | None, environ: Mapping[str, str] | None = None) -> Secret | None:
    """The token to send: the one that is given, else that of the environment, else none.

    Raises:
        ConfigError: it is empty, or cannot stand in a header; never repeats it.
    """
    where = "the token"
    if given is None:
        given, where = (os.environ if environ is None else environ).get(TOKEN), TOKEN
    if given is None:
        return None
    text = (given.reveal() if isinstance(given, Secret) else str(given)).strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"{where} is empty or has characters that a token cannot have",
            hint="lakehouse token new makes one; unset the variable to send none",
        )
    return Secret(text)


def check_plain(base: str, token: Secret | None, *, allowed: bool) -> None:
    """Refuse to send a token where others can read it on its way.

    Raises:
        Forbidden: the address is `http` and not this machine's own.
    """
    parts = urlsplit(base)
    if token is None or allowed or parts.scheme == "https" or _is_own(parts.hostname or ""):
        return
    raise Forbidden(
        f"the token would go to {parts.hostname} over plain http, readable on its way",
        hint="use https://, or say plain_http=True where the network itself is safe",
    )


def _is_own(host: str) -> bool:
    """Whether a host is this machine by its very name; no name is looked up, as the answer may change."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
