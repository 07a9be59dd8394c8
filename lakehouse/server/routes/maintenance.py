"""Maintenance over HTTP; nothing goes unless `dry_run` is switched off."""

from __future__ import annotations

import msgspec

from lakehouse.errors import ConfigError, SchemaNotFound, TableNotFound
from lakehouse.health.maintenance import Report
from lakehouse.server.routing import Call, Route


class Compact(msgspec.Struct, forbid_unknown_fields=True):
    """Which table; null: all."""

    table: str | None = None


class Older(msgspec.Struct, forbid_unknown_fields=True):
    """How old something must be, such as `30d`; null: as the settings say."""

    older_than: str | None = None
    dry_run: bool = True


def compact(call: Call) -> Report:
    """Merge small files; no row changes."""
    return call.lake.maintenance.compact(call.body.table)


def expire(call: Call) -> Report:
    """Give up old snapshots; tagged ones stay."""
    return call.lake.maintenance.expire(call.body.older_than, dry_run=call.body.dry_run)


def clean(call: Call) -> Report:
    """Delete files that nobody needs any more."""
    return call.lake.maintenance.clean(call.body.older_than, dry_run=call.body.dry_run)


def run(call: Call) -> list[Report]:
    """What should be done now and then: compact, expire, clean, as the settings say."""
    return call.lake.maintenance.run()


ROUTES = (
    Route("POST", "/maintenance/compact", "admin", compact, body=Compact, refuses=(TableNotFound, SchemaNotFound)),
    Route("POST", "/maintenance/expire", "admin", expire, body=Older, refuses=(ConfigError,)),
    Route("POST", "/maintenance/clean", "admin", clean, body=Older, refuses=(ConfigError,)),
    Route("POST", "/maintenance/run", "admin", run),
)
