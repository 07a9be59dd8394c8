"""The statements of `sandbox_corpus/`, what must become of each, and the lake that they are sent to.

A file has `about`, defaults, and `[[entry]]` or `[[each]]` tables: `sql` (of `each` a list), or `build` for long ones,
`must` and `door` with these meanings, and `why`. In `each`, `{call}` stands for every one of `call`.

    must = "refused"  SqlRefused           "syntax"  SyntaxFault        "missing"  no such table or schema
           "passes"   runs                 "fails"   the gate lets it pass, and running it is an error that tells nothing
           "held"     the gate lets it pass; it ends by itself or at a limit
    door = "read", "write" or "both"
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lakehouse

FOLDER = Path(__file__).parent / "sandbox_corpus"


@dataclass(frozen=True)
class Entry:
    """One statement."""

    where: str
    sql: str
    must: str
    door: str
    why: str


@dataclass(frozen=True)
class Place:
    """Where the statements are tried."""

    lake: Path
    folder: Path
    """Beside the lake, with files that nobody may read or write."""
    version: int
    early: int = 0
    """The snapshot before the table `arrivals` got its column `filename`."""

    @property
    def secret(self) -> Path:
        return self.folder / "secret.csv"

    def put(self, sql: str) -> str:
        """The statement with the names of this place."""
        names = {
            "secret": self.secret,
            "folder": self.folder,
            "lake": self.lake,
            "catalog": self.lake / "catalog.sqlite",
            "version": self.version,
            "early": self.early,
        }
        for name, value in names.items():
            sql = sql.replace(f"{{{name}}}", str(value))
        return sql


def entries() -> list[Entry]:
    """All statements, in the order of their files."""
    return [entry for file in sorted(FOLDER.glob("*.toml")) for entry in _read(file)]


def make(folder: Path) -> Place:
    """A lake with tables, views and macros, two of which read a file, and a folder beside it."""
    place = Place(folder / "lake", folder / "beside", 0)
    place.folder.mkdir()
    place.secret.write_text("word\nthe secret of the house\n")
    with lakehouse.open(place.lake) as lake:
        lake.sql(
            "CREATE TABLE orders AS SELECT i AS id, i % 3 AS customer, i * 1.5 AS amount,"
            " TIMESTAMP '2026-01-01' + INTERVAL 1 HOUR * i AS placed, ['a', 'b'] AS tags, '{\"a\": 1}'::JSON AS doc"
            " FROM range(100) r(i)"
        )
        lake.sql("CREATE TABLE customers AS SELECT i AS id, 'customer ' || i AS name FROM range(3) r(i)")
        lake.sql("CREATE TABLE scratch (id BIGINT, name VARCHAR)")
        lake.sql("CREATE TABLE uploads AS SELECT 'a.csv' AS filename")
        lake.sql("CREATE TABLE arrivals AS SELECT 1 AS id")
        early = lake.catalog.metadata.current()
        lake.sql("ALTER TABLE arrivals ADD COLUMN filename VARCHAR")
        lake.sql('CREATE TABLE "odd name" AS SELECT 1 AS a')
        lake.sql('CREATE TABLE "prices.csv" AS SELECT 1 AS a')
        lake.sql("CREATE SCHEMA stage")
        lake.sql("CREATE TABLE stage.raw AS SELECT 1 AS a")
        lake.sql("CREATE VIEW big AS SELECT * FROM orders WHERE amount > 100")
        lake.sql("CREATE VIEW over_big AS SELECT count(*) AS n FROM big")
        lake.sql(f"CREATE VIEW leak AS SELECT * FROM read_csv('{place.secret}')")
        lake.sql("CREATE VIEW over_leak AS SELECT * FROM leak")
        lake.sql("CREATE VIEW places AS SELECT filename AS f FROM orders")
        lake.sql("CREATE VIEW shown AS SELECT filename AS f FROM uploads")
        lake.sql("CREATE MACRO twice(x) AS x * 2")
        lake.sql("CREATE MACRO evens(n) AS TABLE SELECT range * 2 AS a FROM range(n)")
        lake.sql("CREATE MACRO peek(f) AS (SELECT max(content) FROM read_text(f))")
        lake.sql(f"CREATE MACRO peeks() AS TABLE FROM read_csv('{place.secret}')")
        return Place(place.lake, place.folder, lake.catalog.metadata.current(), early)


def _read(file: Path) -> Iterator[Entry]:
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    number = 0
    for table in [*found.get("entry", ()), *found.get("each", ())]:
        texts = [_built(build) for build in _listed(table.get("build", ()))] or _listed(table["sql"])
        for call in table.get("call", ("",)):
            for text in texts:
                number += 1
                yield Entry(
                    f"{file.stem} {number}",
                    text.replace("{call}", call),
                    table.get("must", found.get("must", "refused")),
                    table.get("door", found.get("door", "read")),
                    table["why"],
                )


def _listed(value):
    return value if isinstance(value, list | tuple) else [value]


def _built(build: dict) -> str:
    times = build["times"]
    return f"{build['head']}{build['part'] * times}{build.get('tail', '')}{build.get('close', '') * times}"
