"""What a server refuses, as the errors of this product; and what goes wrong on the way to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from lakehouse.errors import (
    AnswerBroken,
    Forbidden,
    LakeClosed,
    LakehouseError,
    LockTimeout,
    NotFound,
    PreconditionFailed,
    RemoteError,
    ServerUnreachable,
    TooManyAttempts,
    Unauthenticated,
)


class Problem(msgspec.Struct):
    """The shape of all errors over HTTP (RFC 9457, with what the server adds)."""

    detail: str
    code: str
    status: int
    request_id: str | None = None
    hint: str | None = None


def _below(kind: type[LakehouseError]) -> Iterator[type[LakehouseError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _below(one)


def error_of(code: str, detail: str, hint: str | None = None, request_id: str | None = None) -> LakehouseError:
    """The error that a code stands for; of a code that is not known here, a `RemoteError`."""
    kind = {one.code: one for one in _below(LakehouseError)}.get(code)
    if kind is None:
        kind = RemoteError
        hint = hint or (f"request {request_id}: the server's log tells more" if request_id else None)
    error = kind(detail, hint=hint)
    error.request_id = request_id
    return error


def refusal(status: int, headers: Mapping[str, str], content: bytes, url: str) -> LakehouseError:
    """The error that an answer is."""
    try:
        if "application/problem+json" not in headers.get("content-type", ""):
            raise ValueError
        if not content:
            return _bodiless(status, headers.get("X-Request-Id"), url)
        problem = msgspec.json.decode(content, type=Problem)
    except ValueError:
        return _foreign(status, url)
    return error_of(problem.code, problem.detail, problem.hint, problem.request_id)


def _bodiless(status: int, request_id: str | None, url: str) -> LakehouseError:
    """The refusal of a HEAD, of which only the status comes."""
    known = (NotFound, PreconditionFailed, Unauthenticated, Forbidden, TooManyAttempts, LockTimeout)
    kind = next((one for one in known if one.status == status), RemoteError)
    error = kind(f"{url} answers {status}, and to HEAD no more")
    error.request_id = request_id
    return error


def _foreign(status: int, url: str) -> LakehouseError:
    """An answer of somebody else: a proxy, or another server."""
    if 300 <= status < 400:
        return RemoteError(f"{url} answers with a redirection ({status})", hint="connect to the address it leads to")
    if status == 404:
        return NotFound(f"there is no lakehouse at {url}", hint="is a path missing, such as /jupyter?")
    if status in (502, 503, 504):
        return ServerUnreachable(f"{url} answers {status}: the server behind it does not", hint="try again later")
    return RemoteError(f"{url} answers {status}, in no form that lakehouse gives", hint="is it a lakehouse server?")


@contextmanager
def translated(url: str, *, answering: bool = False) -> Iterator[None]:
    """Errors of the connection in our words.

    Args:
        url: where it goes.
        answering: whether the answer has begun, so that what ends now is not whole.
    """
    try:
        yield
    except httpx.TimeoutException as error:
        what = "no connection in time" if isinstance(error, httpx.ConnectTimeout) else "no answer in time"
        raise ServerUnreachable(f"{url}: {what}", hint="is it under load? timeout= gives it longer") from None
    except httpx.TransportError as error:
        raise _broken(error, url, answering=answering) from None
    except (httpx.InvalidURL, httpx.DecodingError, httpx.TooManyRedirects) as error:
        raise AnswerBroken(f"{url}: {error}") from None
    except httpx.StreamError as error:
        raise AnswerBroken(f"{url}: {error}", hint="read an answer once, inside its block") from None
    except RuntimeError as error:
        if "client has been closed" not in str(error):
            raise
        raise LakeClosed(f"the client of {url} is closed", hint="connect again") from None


def _broken(error: httpx.TransportError, url: str, *, answering: bool) -> LakehouseError:
    text = str(error) or type(error).__name__
    if answering or "complete message body" in text:
        return AnswerBroken(
            f"the answer of {url} ended before it was whole: {text}", hint="nothing of it was used; ask again"
        )
    hint = "is the server running, and is this its address?"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "a certificate of your own authority: ca_file= names its file"
    elif "SSL" in text:
        hint = "is it https there?"
    return ServerUnreachable(f"{url} cannot be reached: {text}", hint=hint)


def value(content: bytes, kind: Any, url: str) -> Any:
    """What an answer says, as `kind`.

    Raises:
        AnswerBroken: it says something else.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AnswerBroken(
            f"the answer of {url} is not as expected: {error}", hint="is the server of another version?"
        ) from None
