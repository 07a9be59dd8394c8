"""The routes of the server of dashboards, and the messages that a viewer may send to a kernel."""

from __future__ import annotations

import json
import logging
from typing import Any

from jupyter_server.base.handlers import FileFindHandler, JupyterHandler
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.handlers import _kernel_id_regex
from jupyterlab_server.themes_handler import ThemesHandler
from tornado import web
from tornado.iostream import StreamClosedError
from voila.static_file_handler import MultiStaticFileHandler, TemplateStaticFileHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler, read_header_from_binary_message

from lakehouse.errors import LakehouseError
from lakehouse.server import assets, viewpages
from lakehouse.server.stage import Stage, Viewer
from lakehouse.server.viewing import Door, Login, Logout, Plain, give_pass

_KEPT = (MultiStaticFileHandler, TemplateStaticFileHandler, ThemesHandler, FileFindHandler)
_HIDDEN = ("execute_input", "error")
"""What a kernel says that is not for viewers: its code, and tracebacks of it."""
_TARGETS = ("jupyter.widget.control",)
"""Comms that a viewer may open: the one that asks for the widgets there are. Widgets are the notebook's to make."""
log = logging.getLogger("lakehouse.dashboards")


def routes(voilas: list[Any], door: Door, stage: Stage) -> list[Any]:
    """The route table: of Voila's the static files, else ours; what is not in it is not there."""
    ours = {"door": door, "stage": stage}
    return [
        ("/", Index, ours),
        ("/login", Login, {"door": door}),
        ("/logout", Logout, {"door": door}),
        (r"/voila/render/([A-Za-z0-9_-]+)\.ipynb", Show, ours),
        (f"/api/kernels/{_kernel_id_regex}", Model, ours),
        (f"/api/kernels/{_kernel_id_regex}/channels", Channels, ours),
        (f"/voila/api/shutdown/{_kernel_id_regex}", Leave, ours),
        *assets.routes(voilas),
        *(one for one in voilas if issubclass(one[1], _KEPT)),
        ("/.*", Missing),
    ]


class Missing(Plain):
    """There is nothing else."""

    def prepare(self) -> None:
        """Whatever the method."""
        self.set_status(404)
        self.finish(viewpages.refusal(404, "The address is wrong, or the dashboard is no longer published."))


class _Ours(Plain):
    def initialize(self, door: Door, stage: Stage) -> None:
        self.door, self.stage = door, stage


class Index(_Ours):
    """The first page."""

    def get(self) -> None:
        self.finish(viewpages.index(self.stage.published(), leave=self.door.guard.has_token))


class Show(JupyterHandler):
    """A dashboard, sent as its cells are done."""

    def initialize(self, door: Door, stage: Stage) -> None:
        self.door, self.stage = door, stage

    async def get(self, name: str) -> None:
        try:
            file = await self.stage.ready(name)
        except LakehouseError as error:
            self._refuse(404, f"{error.message[:1].upper()}{error.message[1:]}.")
            return
        address, given = self.door.address(self.request), ""
        who = self.door.viewer(self.request)
        if who is not None:
            viewer = Viewer(who, address, known=True)
        else:  # who needs no pass, or has a token, still needs a name for the kernel to belong to
            new, given = self.door.new()
            viewer = Viewer(new, address, known=False)
        why = await self.stage.refusal(viewer)
        if why is not None:
            self._refuse(503, why)
            return
        if given:
            give_pass(self, given)
        making, made, kernel = await self.stage.take(file, viewer)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        try:
            await self._send(making, made)
        except StreamClosedError:  # the viewer has gone before the page was there
            await self.stage.give_back(kernel)

    async def _send(self, making: Any, made: list[str]) -> None:
        sent = len(made)
        self.write("".join(made[:sent]))
        await self.flush()
        pieces, rest = await making
        self.write("".join(pieces[sent:]))
        await self.flush()
        async for piece, _ in rest:
            self.write(piece)
            await self.flush()

    def write_error(self, status_code: int, **_: Any) -> None:
        """A sentence; the log has the rest."""
        self._refuse(status_code, "The server's log says more.")

    def _refuse(self, status: int, detail: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", viewpages.POLICY)
        self.finish(viewpages.refusal(status, detail))


def _own(door: Door, stage: Stage, handler: web.RequestHandler) -> None:
    """Refuse a kernel of another viewer, in the words for one that is not there."""
    if not stage.owns(door.viewer(handler.request), handler.path_kwargs["kernel_id"]):
        raise web.HTTPError(404)


class Model(_Ours):
    """That a kernel is there, which the page asks for."""

    def get(self, kernel_id: str) -> None:
        _own(self.door, self.stage, self)
        if kernel_id not in self.stage.manager:
            raise web.HTTPError(404)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(self.stage.manager.kernel_model(kernel_id), default=str))


class Leave(_Ours):
    """A page that is closed gives its kernel back."""

    async def post(self, kernel_id: str) -> None:
        _own(self.door, self.stage, self)
        await self.stage.give_back(kernel_id)
        self.set_status(204)


class Channels(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """The messages of a viewer's own kernel."""

    def initialize(self, door: Door, stage: Stage) -> None:
        self.door, self.stage = door, stage
        super().initialize()

    async def prepare(self) -> None:
        """Before anything is upgraded."""
        _own(self.door, self.stage, self)
        await super().prepare()

    def write_error(self, status_code: int, **_: Any) -> None:
        """No page: nobody reads it."""
        self.set_status(status_code)
        self.finish()

    def write_message(self, message: Any, binary: bool = False) -> Any:
        """What the kernel says, without what is not for viewers."""
        if isinstance(message, bytes):
            header = read_header_from_binary_message(message)
        else:
            header = (message if isinstance(message, dict) else json.loads(message)).get("header")
        if header and header.get("msg_type") in _HIDDEN:
            return None
        return super().write_message(message, binary)


class Connection(ZMQChannelsWebsocketConnection):
    """Passes on only what widgets say; the kinds of messages are the manager's to allow."""

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """One message from the page."""
        try:
            good = self._is_fine(incoming_msg)
        except Exception:
            good = False
        if not good:
            log.warning("a viewer sent what no page of ours sends")
            return
        super().handle_incoming_message(incoming_msg)

    def _is_fine(self, message: Any) -> bool:
        if self.subprotocol == "v1.kernel.websocket.jupyter.org":
            channel, parts = deserialize_msg_from_ws_v1(message)  # type: ignore[no-untyped-call]
            header = self.session.unpack(parts[0])
            content = self.session.unpack(parts[3])
        else:
            binary = isinstance(message, bytes)
            found = deserialize_binary_message(message) if binary else json.loads(message)  # type: ignore[no-untyped-call]
            channel, header, content = found["channel"], found["header"], found["content"]
        if channel != "shell" or header["msg_type"] not in self.multi_kernel_manager.allowed_message_types:
            return False
        return header["msg_type"] != "comm_open" or content["target_name"] in _TARGETS
