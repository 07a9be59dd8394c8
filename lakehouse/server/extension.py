"""How the lake's routes get into a Jupyter server, and what stops the server when they cannot.

Jupyter only logs what goes wrong in an extension and starts without it. Here that would be a server without its
guard, so every failure ends the process: one line, exit code 2, before the port opens.
"""

from __future__ import annotations

import atexit
import hashlib
import hmac
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tornado.routing import PathMatches, Rule
from traitlets.config import Config

from lakehouse.errors import ConfigError, LakehouseError
from lakehouse.server.base import Handler
from lakehouse.server.gate import Gate, Refusal
from lakehouse.server.identity import LakehouseIdentityProvider
from lakehouse.server.lobby import Lobby
from lakehouse.server.routes import health
from lakehouse.server.routes.all import ROUTES
from lakehouse.server.routing import BASE, audited
from lakehouse.server.service import Service, log
from lakehouse.server.stop import stops_the_start


@stops_the_start
def _link_jupyter_server_extension(serverapp: Any) -> None:
    """Before the server is put together: read tokens and allowlist, and take over who is who."""
    check_files(serverapp)
    serverapp.lakehouse_service = service = Service()
    if not serverapp.sock:
        service.host = serverapp.ip
    service.check()
    if not issubclass(LakehouseIdentityProvider, serverapp.identity_provider_class):
        raise ConfigError(
            f"ServerApp.identity_provider_class is {serverapp.identity_provider_class.__name__},"
            " beside which the lake's tokens cannot be guarded",
            hint="leave it out, or disable the extension: jupyter server extension disable lakehouse.server",
        )
    serverapp.update_config(Config(ServerApp={"identity_provider_class": LakehouseIdentityProvider}))


@stops_the_start
def _load_jupyter_server_extension(serverapp: Any) -> None:
    """Put the routes and the allowlist in place, before the port opens."""
    for apps in serverapp.extension_manager.extension_apps.values():
        for app in apps:
            check_files(app)
    service, web_app = serverapp.lakehouse_service, serverapp.web_app
    if not isinstance(serverapp.identity_provider, LakehouseIdentityProvider):
        raise ConfigError("another identity provider was put in place of the lake's")
    service.base = base = serverapp.base_url.rstrip("/")
    arguments = {"service": service}
    handlers: list[Any] = [(f"{base}{path}", health.Health) for path in ("/health", "/lakehouse/health")]
    handlers += [
        (f"{base}{BASE}{pattern}", Handler, {"routes": routes, **arguments})
        for pattern, routes in audited(ROUTES).items()
    ]
    handlers.append((f"{base}/lakehouse(?:/.*)?", Handler, {"routes": {}, **arguments}))
    web_app.add_handlers(".*", handlers)
    gate = Gate(service, base)
    web_app.default_router.rules.insert(0, Rule(gate, Refusal))
    audit(web_app.default_router.rules, f"{base}/lakehouse")
    secret = web_app.settings["cookie_secret"]
    secret = secret if isinstance(secret, bytes) else str(secret).encode()

    def seal() -> None:
        own = "" if serverapp.identity_provider.token_generated else str(serverapp.identity_provider.token)
        sealed = hmac.new(secret, service.guard.fingerprint + own.encode(), hashlib.sha256)
        web_app.settings["cookie_secret"] = sealed.digest()  # cookies made with other tokens no longer fit

    seal()

    def reloaded() -> None:
        seal()
        serverapp.io_loop.add_callback(gate.end_sockets)  # they were let in with the tokens and addresses of before

    service.on_reload = reloaded
    listen_to_hangup(service, serverapp)
    serverapp.io_loop.add_callback(open_lobby, serverapp)  # the server is made after this, and listens after that
    talk(serverapp.log)
    held = service.protection
    log.info("SQL over HTTP: protection %s: %s", held.level, held.reason)
    atexit.register(service.close)


@stops_the_start
def open_lobby(serverapp: Any) -> None:
    """Let nobody keep others out by waiting."""
    server = getattr(serverapp, "_http_server", None)  # there is none where somebody else listens
    if server is not None:
        serverapp.lakehouse_service.lobby = lobby = Lobby()
        lobby.watch(server)


def check_files(app: Any) -> None:
    """Refuse to start with a configuration file that Jupyter could not load, and so left out.

    Raises:
        ConfigError: names the file.
    """
    loaded = {os.path.realpath(path) for path in app.loaded_config_files}
    for path in _config_files(app):
        if (path.is_file() or app.config_file) and os.path.realpath(path) not in loaded:
            raise ConfigError(f"the configuration file {path} cannot be loaded", hint="the log above says why")


def _config_files(app: Any) -> Iterator[Path]:
    if app.config_file:
        yield Path(app.config_file).with_suffix(".py")
        return
    for folder in app.config_file_paths:
        for name in filter(None, ("jupyter_config", app.config_file_name)):
            yield from (Path(folder, f"{name}{ending}") for ending in (".py", ".json"))


def audit(rules: list[Any], below: str) -> None:
    """Refuse a handler of another kind among the lake's routes.

    Raises:
        LakehouseError: names it.
    """
    for rule in rules:
        if hasattr(rule.target, "rules"):
            audit(rule.target.rules, below)
        elif isinstance(rule.matcher, PathMatches) and rule.matcher.regex.pattern.startswith(below):
            if rule.target not in (Handler, health.Health):
                raise LakehouseError(f"{rule.matcher.regex.pattern} is answered by {rule.target}, which has no label")


def listen_to_hangup(service: Service, serverapp: Any) -> None:
    """Read tokens and allowlist again on SIGHUP."""

    def again() -> None:
        try:
            service.reload()
        except LakehouseError as error:
            log.error("tokens and allowlist stay as they were: %s", error.message)

    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: serverapp.io_loop.add_callback_from_signal(again))


def talk(parent: logging.Logger) -> None:
    """Write our log where Jupyter writes its own."""
    log.parent = parent
    log.setLevel(logging.INFO)
