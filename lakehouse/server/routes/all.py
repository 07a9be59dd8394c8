"""Every route there is."""

from __future__ import annotations

from lakehouse.server.routes import admin, catalog, ingest, maintenance, pathway, queries, reports, storage
from lakehouse.server.routing import Route

ROUTES: tuple[Route, ...] = (
    *admin.ROUTES,
    *catalog.ROUTES,
    *ingest.ROUTES,
    *maintenance.ROUTES,
    *pathway.ROUTES,
    *queries.ROUTES,
    *reports.ROUTES,
    *storage.ROUTES,
)
