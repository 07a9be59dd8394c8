"""Mode `http`: one request to a host that the settings allow; what is answered may be kept as an object."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from lakehouse.errors import LakehouseError, NodeFailed
from lakehouse.observer.model import Data
from lakehouse.storage.base import check_key
from lakehouse.workflow.model import Node, bound

if TYPE_CHECKING:
    from lakehouse.workflow.site import Site
    from lakehouse.workflow.work import Work

_ENVIRONMENT = re.compile(r"env:([A-Za-z_]\w*)")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_WAIT = 60.0  # seconds for each step of the connection
_CHUNK = 1 << 20


class Http(Node, frozen=True, kw_only=True):
    """A request. Redirects are not followed: an answer other than `status` is a failure."""

    mode: ClassVar[str] = "http"
    reusable: ClassVar[bool] = True
    url: str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """`env:NAME` takes the value of a variable when it runs, so that no secret stands in the definition."""
    json: Any = None
    """A body; `$name` in it is the value of a parameter."""
    status: tuple[int, ...] = (200, 201, 202, 204)
    """What is a success."""
    object: str | None = None
    """The key under which the answer is kept."""

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        url = _split(self.url)
        if url is None:
            yield "url", "expected http://host/… or https://host/… with no user and no blank in it"
        elif not _allowed(url, site.lake.settings.workflow.allowed_hosts):
            yield "url", f"the host '{url.netloc}' is not one of workflow.allowed_hosts"
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or re.search(r"[\r\n\0]", value):
                yield f"headers.{name}"[:100], "it cannot be a header"
        if self.object is not None:
            try:
                check_key(self.object)
            except LakehouseError as error:
                yield "object", error.message

    def reads(self, site: Site) -> tuple[str, ...] | None:
        return None

    def run(self, work: Work) -> None:
        url = _split(self.url)
        if url is None or not _allowed(url, work.lake.settings.workflow.allowed_hosts):
            raise NodeFailed(f"{self.url} is not at an allowed host")
        headers = {name: _value(value) for name, value in bound(self.headers, work.params).items()}
        headers.setdefault("User-Agent", "lakehouse")
        headers.setdefault("Idempotency-Key", f"{work.task.run}/{work.task.node}")
        body = None
        if self.json is not None:
            body = json.dumps(bound(self.json, work.params)).encode()
            headers.setdefault("Content-Type", "application/json")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=_WAIT)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request(self.method, target, body, headers)
            answer = connection.getresponse()
            work.fields["status"] = answer.status
            if answer.status not in self.status:
                raise NodeFailed(
                    f"{url.netloc} answered {answer.status}: {answer.read(300).decode('utf-8', 'replace')}"
                )
            work.stage("middle")
            self._keep(work, answer)
        except (OSError, http.client.HTTPException) as error:
            raise NodeFailed(f"{url.netloc} gave no whole answer: {type(error).__name__}: {error}") from None
        finally:
            connection.close()

    def _keep(self, work: Work, answer: http.client.HTTPResponse) -> None:
        digest = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                yield chunk
            if answer.length:  # closed early: http.client says nothing of it when it reads by pieces
                raise http.client.IncompleteRead(b"", answer.length)
            work.stage("write")

        if self.object is None:
            for _ in pieces():
                pass
        else:
            receipt = work.lake.storage.put(self.object, pieces())
            work.outputs.append(Data(receipt.key, "object", hash=receipt.sha256, bytes=receipt.size))
        work.inputs.append(Data(self.url, "url", hash=digest.hexdigest()))


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - it raises when it is none
    except ValueError:
        return None
    sound = (
        url.scheme in ("http", "https") and url.hostname and "@" not in url.netloc and not re.search(r"[\s\0]", text)
    )
    return url if sound and text.isascii() and text.isprintable() else None


def _allowed(url: SplitResult, hosts: tuple[str, ...]) -> bool:
    """Whether host, or host and port, stand in the list; a host alone allows only the usual port."""
    usual = {"http": 80, "https": 443}[url.scheme]
    host, port = (url.hostname or "").lower(), url.port or usual
    return any(one.lower() in (f"{host}:{port}", *([host] if port == usual else [])) for one in hosts)


def _value(text: str) -> str:
    match = _ENVIRONMENT.fullmatch(text)
    if match is None:
        return text
    if match[1] not in os.environ:
        raise NodeFailed(f"the variable {match[1]} is not set")
    return os.environ[match[1]]
