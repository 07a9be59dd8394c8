"""Maintenance over HTTP; nothing goes unless `dry_run` is switched off."""

from __future__ import annotations

from typing import Any

import msgspec

from lakehouse.server.routing import Call, Route


class Compact(msgspec.Struct, forbid_unknown_fields=True):
    """Which table; null: all."""

    table: str | None = None


class Older(msgspec.Struct, forbid_unknown_fields=True):
    """How old something must be, such as `30d`; null: as the settings say."""

    older_than: str | None = None
    dry_run: bool = True


def compact(call: Call) -> dict[str, Any]:
    """Merge small files; no row changes."""
    return call.lake.maintenance.compact(call.body.table).to_dict()


def expire(call: Call) -> dict[str, Any]:
    """Give up old snapshots; tagged ones stay."""
    return call.lake.maintenance.expire(call.body.older_than, dry_run=call.body.dry_run).to_dict()


def clean(call: Call) -> dict[str, Any]:
    """Delete files that nobody needs any more."""
    return call.lake.maintenance.clean(call.body.older_than, dry_run=call.body.dry_run).to_dict()


def run(call: Call) -> list[dict[str, Any]]:
    """What should be done now and then: compact, expire, clean, as the settings say."""
    return [one.to_dict() for one in call.lake.maintenance.run()]


ROUTES = (
    Route("POST", "/maintenance/compact", "admin", compact, body=Compact),
    Route("POST", "/maintenance/expire", "admin", expire, body=Older),
    Route("POST", "/maintenance/clean", "admin", clean, body=Older),
    Route("POST", "/maintenance/run", "admin", run),
)
