"""Values of SQL as JSON that gives them back: what JSON has stands as it is, the rest as `{"$type": text}`."""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

LOST = "$lost"
"""Marks a value that could not be kept; what follows is its type."""

_WIDE = 1 << 53
"""From here on other readers of JSON take whole numbers for floats."""

_READ: dict[str, Callable[[Any], Any]] = {
    "$int": int,
    "$float": float,
    "$decimal": Decimal,
    "$timestamp": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$interval": lambda seconds: timedelta(seconds=seconds),
    "$blob": base64.b64decode,
    "$uuid": uuid.UUID,
    "$map": lambda pairs: {_key(decoded(key)): decoded(value) for key, value in pairs},
}
_WRITTEN: dict[type, tuple[str, Callable[[Any], Any]]] = {  # a datetime is a date as well: the first that fits counts
    Decimal: ("$decimal", str),
    datetime: ("$timestamp", datetime.isoformat),
    date: ("$date", date.isoformat),
    time: ("$time", time.isoformat),
    timedelta: ("$interval", timedelta.total_seconds),
    bytes: ("$blob", lambda raw: base64.b64encode(raw).decode()),
    bytearray: ("$blob", lambda raw: base64.b64encode(raw).decode()),
    uuid.UUID: ("$uuid", str),
}


def encoded(value: Any) -> Any:
    """A value as JSON; one that cannot be kept as `{"$lost": its type}`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _WIDE else {"$int": str(value)}
    if isinstance(value, str):
        return value if _unicode(value) else {LOST: "str"}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encoded(item) for key, item in value.items()}
        return {"$map": [[encoded(key), encoded(item)] for key, item in value.items()]}
    return _tagged(value)


def decoded(value: Any) -> Any:
    """The value that `encoded` was given.

    Raises:
        ValueError: it could not be kept.
    """
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        (name, content), *_ = value.items()
        if name == LOST:
            raise ValueError(f"a {content} could not be kept")
        if name in _READ:
            return _READ[name](content)
    return {key: decoded(item) for key, item in value.items()}


def _tagged(value: Any) -> Any:
    for kind, (name, text) in _WRITTEN.items():
        if isinstance(value, kind):
            return {name: text(value)}
    item = getattr(value, "item", None)  # a scalar of numpy
    if callable(item) and getattr(value, "ndim", None) == 0:
        return encoded(item())
    return {LOST: type(value).__name__}


def _unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
