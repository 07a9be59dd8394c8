"""`client.maintenance`: the keeping of a lake behind a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse.client.wire import LONG, Wire
from lakehouse.health.maintenance import Age, Report


class RemoteMaintenance:
    """Maintenance over HTTP; the methods are those of `lake.maintenance`.

    Args:
        wire: the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def compact(self, table: str | None = None) -> Report:
        """Merge small files; no row changes. See `Maintenance.compact`."""
        return self._done("compact", {"table": table})

    def expire(self, older_than: Age | None = None, *, dry_run: bool = True) -> Report:
        """Give up reading the lake as of snapshots that are older than this. See `Maintenance.expire`."""
        return self._done("expire", {"older_than": _age(older_than), "dry_run": dry_run})

    def clean(self, older_than: Age | None = None, *, dry_run: bool = True) -> Report:
        """Delete files that no snapshot reads. See `Maintenance.clean`."""
        return self._done("clean", {"older_than": _age(older_than), "dry_run": dry_run})

    def run(self) -> list[Report]:
        """What should be done now and then: compact, expire, clean, as the server's settings say."""
        return list(self._wire.json("POST", "/maintenance/run", list[Report], wait=LONG))

    def _done(self, what: str, body: dict[str, Any]) -> Report:
        report: Report = self._wire.json("POST", f"/maintenance/{what}", Report, body=body, wait=LONG)
        return report


def _age(older_than: Age | None) -> str | None:
    """An age as text; that of a moment is reckoned from this machine's clock."""
    if isinstance(older_than, datetime):
        older_than = datetime.now(UTC) - older_than.astimezone(UTC)
    return f"{older_than.total_seconds():.3f}s" if isinstance(older_than, timedelta) else older_than
