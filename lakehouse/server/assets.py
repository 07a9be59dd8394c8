"""What a dashboard's page loads besides itself, at addresses that change when the files do: fetched once by a browser."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from jupyter_server.base.handlers import FileFindHandler
from voila.static_file_handler import MultiStaticFileHandler

_KEPT = "private, max-age=31536000, immutable"
_VERSION = "[0-9a-f]{16}"


def located(page: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The configuration of a page (Voila's `page_config_hook`), with addresses that name the versions of its files.

    Voila calls its scripts by number and the widgets' by hash; what is installed stands in the configuration.
    """
    known = {name: page.get(name) for name in ("appVersion", "federated_extensions")}
    version = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]
    base = f"{page['baseUrl']}voila/{version}"
    return page | {"fullStaticUrl": f"{base}/static", "fullLabextensionsUrl": f"{base}/labextensions"}


class _Scripts(MultiStaticFileHandler):  # type: ignore[misc]
    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", _KEPT)


class _Extensions(FileFindHandler):
    def set_headers(self) -> None:
        super().set_headers()
        self.set_header("Cache-Control", _KEPT)


_WHERE = {MultiStaticFileHandler: ("static", _Scripts), FileFindHandler: ("labextensions", _Extensions)}


def routes(voilas: list[Any]) -> list[Any]:
    """Routes for those addresses, beside Voila's own for the same files."""
    return [
        (f"/voila/{_VERSION}/{folder}/(.*)", handler, *one[2:])
        for one in voilas
        for kind, (folder, handler) in _WHERE.items()
        if one[1] is kind and f"/{folder}/" in one[0]
    ]
