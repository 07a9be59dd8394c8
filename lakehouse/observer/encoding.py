"""Events as JSON: whatever is in one, it can be written."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from lakehouse.errors import EventInvalid
from lakehouse.observer.model import Event, Problem

LONGEST = 1 << 20
"""Bytes of an event; of a longer one the free fields and the end of the error's message are left out, which it says."""
_MESSAGE = 10_000  # characters
_DEPTH = 50
_LEFT_OUT = "left_out"

_encoder = msgspec.json.Encoder(enc_hook=str)
_decoder = msgspec.json.Decoder(Event)


def encoded(event: Event) -> bytes:
    """An event as it is kept: without its place, and with text for whatever is no JSON.

    Raises:
        EventInvalid: it is no event.
    """
    if not isinstance(event, Event):
        raise EventInvalid(f"{type(event).__name__} is not an event", hint="Event(run=…, status=…)")
    if event.seq is not None or event.recorded is not None:
        event = msgspec.structs.replace(event, seq=None, recorded=None)
    try:
        text = _encoder.encode(event)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        event = _cleaned(event)
        text = _encoder.encode(event)
    if len(text) <= LONGEST:
        return text
    error = event.error
    if error is not None and len(error.message) > _MESSAGE:
        error = Problem(error.type, error.message[:_MESSAGE] + "…", error.where)
    fields = {_LEFT_OUT: f"the event had {len(text):,} bytes, and has at most {LONGEST:,}"}
    return _encoder.encode(msgspec.structs.replace(event, error=error, fields=fields))


def decoded(text: bytes | msgspec.Raw) -> Event:
    """The event in a JSON text.

    Raises:
        ValueError, EventInvalid: it is none.
    """
    return _decoder.decode(text)


def _cleaned(event: Event) -> Event:
    """The same with text that is Unicode and fields that are JSON."""
    clean: Event = msgspec.structs.replace(
        _again(event),
        error=None if event.error is None else _again(event.error),
        inputs=tuple(map(_again, event.inputs)),
        outputs=tuple(map(_again, event.outputs)),
    )
    return clean


def _again(struct: Any) -> Any:
    """The same struct with plain values, but for its times and the structs in it."""
    values = msgspec.structs.asdict(struct)
    nested = ("error", "inputs", "outputs")
    plain = {
        name: value if name in nested or isinstance(value, datetime) else _plain(value)
        for name, value in values.items()
    }
    return type(struct)(**plain)


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON can have it."""
    if depth > _DEPTH:
        return "…"
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    try:
        return _plain(msgspec.to_builtins(value, enc_hook=str), depth + 1)
    except Exception:  # its own way to be text may fail in any way
        return f"<{type(value).__name__}>"
