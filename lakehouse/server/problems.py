"""The one shape of all errors."""

from __future__ import annotations

from http.client import responses
from typing import Any

CODES = {
    400: "request_invalid", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    413: "body_too_large", 415: "media_type_unsupported", 416: "range_invalid", 500: "internal_error",
}  # fmt: skip
"""Of errors that are nobody's but HTTP's, by status."""


def problem(status: int, code: str, detail: str, request_id: str, hint: str | None = None) -> dict[str, Any]:
    """The one shape of all errors (RFC 9457)."""
    shape = {"type": f"urn:lakehouse:error:{code}", "title": responses.get(status, "Error"), "status": status}
    shape |= {"detail": detail, "code": code, "request_id": request_id}
    return shape if hint is None else {**shape, "hint": hint}
