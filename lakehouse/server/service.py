"""What one server has: its guard, its lake, and the threads that work."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lakehouse import config
from lakehouse.auth import Attempts, Guard, is_loopback
from lakehouse.errors import ConfigError, TooManyAttempts, Unauthenticated
from lakehouse.folder import exists, folder_of
from lakehouse.lake import open
from lakehouse.query.sandbox.confine import Protection, protection
from lakehouse.server.asked import Register
from lakehouse.server.audit import Audit
from lakehouse.server.metrics import Metrics
from lakehouse.server.once import Requests
from lakehouse.tokens import environment_names

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse
    from lakehouse.server.lobby import Lobby

T = TypeVar("T")
_THREADS = 64
_WAITING = 32
"""Threads for what may take long: however many such requests there are, the others find a thread."""
log = logging.getLogger("lakehouse.server")


class Service:
    """One lake behind one server.

    Args:
        path: the lake folder; None: `$LAKEHOUSE_PATH`, else `./lake`.

    Raises:
        ConfigError: the settings or tokens cannot be used.
        LakeUnusable: there can be no lake at the path.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.folder: Path = folder_of(path)
        self.host = "127.0.0.1"
        """Where the server listens; a reload must still be fit for it."""
        self.base = ""
        """The path that all of the server's routes begin with, without a slash at its end."""
        self.jupyter_token = ""
        self.on_reload: Callable[[], None] = lambda: None
        self._lake: Lakehouse | None = None
        self._opening = threading.Lock()
        self.lobby: Lobby | None = None
        """Where connections wait; None: another one's server is used."""
        self.audit = Audit(self.folder)
        """The journal of writes."""
        self.requests = Requests(self.folder)
        """What `Idempotency-Key`s stand for."""
        self.metrics = Metrics(self)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="lakehouse-http")
        self._uploads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lakehouse-upload")
        self._waiting = ThreadPoolExecutor(_WAITING, thread_name_prefix="lakehouse-http-waiting")
        self.asked = Register()
        """The SQL under way."""
        self.listening = 0
        """Who listens to events now; only the event loop counts."""
        self._kept: dict[str, str] = {}
        self.guard = self._read()
        # Kernels and terminals inherit the environment: the tokens in it are kept here instead.
        for name in environment_names(self.guard.settings):
            if name in os.environ:
                self._kept[name] = os.environ.pop(name)

    def reload(self) -> Guard:
        """Read tokens and allowlist again; when they cannot be used, those in force stay.

        Raises:
            ConfigError, BindRefused: says why.
        """
        guard = self._read(self.guard.attempts)
        self.check(guard)
        self.guard = guard
        self.on_reload()
        log.info("read tokens and allowlist again: %r", guard)
        return guard

    def check(self, guard: Guard | None = None) -> None:
        """Whether this server may run with these tokens.

        Raises:
            BindRefused: it listens beyond loopback without a token, or with a short one.
            ConfigError: Jupyter's own token is one of ours, which would open kernels to it.
        """
        guard = guard or self.guard
        guard.check_bind(self.host)
        if self.jupyter_token and guard.identify(self.jupyter_token.encode()) is not None:
            raise ConfigError(
                "Jupyter's own token is one of the lake's tokens, which must never open kernels",
                hint="give Jupyter another one (JUPYTER_TOKEN), or none: it then makes one up",
            )

    def lake(self, *, create: bool = False) -> Lakehouse:
        """The lake, opened on first use.

        Args:
            create: make it when there is none.

        Raises:
            LakeUnusable: there is none.
        """
        with self._opening:
            if self._lake is None:
                missing = not create and not exists(self.folder)
                # A read must not leave an empty lake behind: opening a missing one for reading says so.
                self._lake = open(self.folder, read_only=missing, settings={"query": {"progress": False}})
            return self._lake

    @cached_property
    def protection(self) -> Protection:
        """What holds SQL from strangers on this machine."""
        return protection(config.load(self.folder).query.sandbox)

    @property
    def sql_served(self) -> bool:
        """Whether SQL is: the gate alone will do for this machine only."""
        level = self.protection.level
        return level == "full" or (level == "gate-only" and is_loopback(self.host))

    async def run(self, work: Callable[[], T], *, waits: bool = False, upload: bool = False) -> T:
        """The result of `work`, run in a thread: nothing that waits runs on the event loop.

        Args:
            work: what is done.
            waits: it may take long.
            upload: it waits for a body, so its sender says how long it takes; it has no thread that others need.
        """
        pool = self._uploads if upload else self._waiting if waits else self._pool
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def told(self, text: str) -> str:
        """A text for callers: where this machine keeps the lake is not their business."""
        return text.replace(str(self.folder), "lake")

    def soon(self, work: Callable[[], None]) -> None:
        """Have something done in a thread, for which nobody waits."""
        self._pool.submit(work)

    def refused(self, address: str, error: Unauthenticated | TooManyAttempts, request: str) -> None:
        """Count and log a wrong token; the token itself goes nowhere."""
        count = self.guard.attempts.failed(address) if isinstance(error, Unauthenticated) else None
        which = "again, and has to wait" if count is None else f"{count} of {self.guard.settings.max_failures}"
        log.warning(
            "wrong token from %s (%s; %d in all), request %s", address, which, self.guard.attempts.total, request
        )

    def admit(self, request: Any) -> None:
        """Say that a request is one that may take its time."""
        if self.lobby is not None:
            self.lobby.leave(getattr(request.connection, "stream", None))

    def close(self) -> None:
        """Stop the threads and close the lake."""
        for asked in self.asked.running():
            asked.cancel()
        for pool in (self._pool, self._waiting, self._uploads):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._lake is not None:
            self._lake.close()
            self._lake = None

    def _read(self, attempts: Attempts | None = None) -> Guard:
        environ: dict[str, Any] = {**os.environ, **self._kept}
        settings = config.load(self.folder, environ=environ).auth
        if attempts is not None and (attempts.most, attempts.window) != (
            settings.max_failures,
            settings.failure_window,
        ):
            attempts = None
        return Guard(settings, environ, attempts)


def address_of(request: Any, service: Service) -> str:
    """The address of whoever sent a request; headers count only when a configured proxy wrote them."""
    context = getattr(request.connection, "context", None)
    peer = getattr(context, "_orig_remote_ip", None) or request.remote_ip or ""
    return service.guard.client(peer, request.headers.get_list("X-Forwarded-For"))
