"""`/health`: the only route without a token; it says that the server is there, and nothing else."""

from __future__ import annotations

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler

from lakehouse import __version__


class Health(JupyterHandler):
    """Answered on the event loop, so it says as well that nothing blocks it."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    async def prepare(self, **_: object) -> None:
        """Nobody is asked who they are."""

    @allow_unauthenticated
    def get(self) -> None:
        self.finish({"status": "ok", "version": __version__})

    head = get

    def write_error(self, status_code: int, **_: object) -> None:
        self.finish({"status": status_code})
