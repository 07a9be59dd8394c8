"""Connections of which nobody knows yet who they are, and how many of them there may be.

Jupyter leaves it to Tornado, which waits an hour for the headers of a request, and keeps every connection until the
process has no file left to open: then nobody gets in any more. Here a connection waits in the lobby until its request
is admitted, and again after the answer. When too many wait, the one that has waited longest is closed, so that who
comes anew is always heard (ADR-062).
"""

from __future__ import annotations

import socket
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate

from lakehouse.server.service import log

MOST = 1000
"""Connections that may wait; of the 4,096 files that Jupyter asks for, the others are left for work."""
HEADER_PATIENCE = 60.0
"""Seconds for the headers of a request, and between two requests of a connection."""
BODY_PATIENCE = 120.0
"""Seconds for the whole body of a request for a route of Jupyter's own, which is kept in memory."""
SILENCE = 600.0
"""Seconds after which a peer that acknowledges nothing, or takes nothing of what is sent, is gone."""
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": int(SILENCE * 1000)}


class Lobby:
    """Who waits on one server, longest first.

    Args:
        most: how many may wait.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.turned_away = 0
        """Connections that were closed because others came."""
        self._waiting: dict[Any, None] = {}

    def watch(self, server: HTTPServer) -> None:
        """Stand in front of a server that does not listen yet."""
        server.conn_params.header_timeout = HEADER_PATIENCE
        server.conn_params.body_timeout = BODY_PATIENCE
        start, end = server.start_request, server.on_close

        def start_request(connection: Any, request: HTTPConnection) -> HTTPMessageDelegate:
            self._enter(connection.stream)
            return start(connection, request)

        def on_close(connection: Any) -> None:
            self.leave(connection.stream)
            end(connection)

        server.start_request, server.on_close = start_request, on_close  # type: ignore[method-assign, assignment]

    def leave(self, stream: Any) -> None:
        """Its request is admitted, or it is gone."""
        self._waiting.pop(stream, None)

    def __len__(self) -> int:
        return len(self._waiting)

    def _enter(self, stream: Any) -> None:
        _keep_alive(stream.socket)
        self._waiting[stream] = None
        if len(self._waiting) > self.most:
            oldest = next(iter(self._waiting))
            self.leave(oldest)
            oldest.close()
            self.turned_away += 1
            if self.turned_away % self.most == 1:
                log.warning("%d connections wait; the oldest are closed (%d so far)", self.most, self.turned_away)


def _keep_alive(connection: socket.socket | None) -> None:
    """Let the system find out when the other end has gone without a word."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not every system has all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
