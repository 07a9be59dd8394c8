"""Rows to their place: appended, in place of all others, or merged by key."""

from __future__ import annotations

from dataclasses import replace

from lakehouse.ingest import upsert
from lakehouse.ingest.land import Landing, land
from lakehouse.ingest.place import Work
from lakehouse.ingest.receipt import Counts


def written(work: Work, landing: Landing, reading: str, source: str) -> Counts:
    """Write the rows that a FROM clause gives, in the mode of the load."""
    place = (work.database, work.catalog, work.run)
    if work.target.mode != "upsert":
        return Counts(inserted=land(*place, landing, reading, work.undo))
    key = upsert.check_key(work.target.key, landing.columns, source)
    twice = upsert.stage(work.run, landing, reading, key, source)
    inserted = updated = 0
    if landing.create:
        inserted = land(*place, replace(landing, given=landing.columns), upsert.STAGE, work.undo)
    else:
        inserted, updated = upsert.merge(work.run, landing, key)
    upsert.clear(work.run)
    return Counts(inserted=inserted, updated=updated, deduplicated=twice)
