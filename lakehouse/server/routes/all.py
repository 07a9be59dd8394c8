"""Every route there is."""

from __future__ import annotations

from lakehouse.server.routes import (
    admin,
    catalog,
    ingest,
    maintenance,
    observer,
    pathway,
    queries,
    reports,
    saved,
    storage,
    tables,
    workflows,
)
from lakehouse.server.routing import Route

ROUTES: tuple[Route, ...] = (
    *admin.ROUTES,
    *catalog.ROUTES,
    *ingest.ROUTES,
    *maintenance.ROUTES,
    *observer.ROUTES,
    *pathway.ROUTES,
    *queries.ROUTES,
    *reports.ROUTES,
    *saved.ROUTES,
    *storage.ROUTES,
    *tables.ROUTES,
    *workflows.ROUTES,
)
