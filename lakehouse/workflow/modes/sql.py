"""Mode `sql`: a query into a table, or a query that tells whether something holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from lakehouse.errors import NodeFailed
from lakehouse.workflow.model import Node

if TYPE_CHECKING:
    from lakehouse.workflow.site import Site
    from lakehouse.workflow.work import Work

_SHOWN = 3  # rows of a check that failed


class Sql(Node, frozen=True, kw_only=True):
    """A query; `$name` in it is the value of a parameter, never text that becomes SQL."""

    mode: ClassVar[str] = "sql"
    reusable: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("sqlglot.dialects.duckdb",)
    sql: str
    table: str | None = None
    """Where its rows go; None: it is a check, and `expect` says of what."""
    write: Literal["replace", "append"] = "replace"
    """Whether its rows become the whole table, or are added by the names of their columns."""
    expect: Literal["no rows", "rows"] | None = None
    """What a check must give; its first rows stand in the error when it does not."""

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        statement = site.statement(self.sql)
        if isinstance(statement, str):
            yield "sql", statement
        elif "1" in statement.parameters:
            yield "sql", "a parameter is written $name, not ?"
        if self.table is None and self.expect is None:
            yield "table", "it is missing (a query without a table is a check, and says what to expect)"
        if self.table is not None and self.expect is not None:
            yield "expect", "a query into a table expects nothing (let a check come after it)"
        if self.table is not None and (why := site.target(self.table)):
            yield "table", why

    def reads(self, site: Site) -> tuple[str, ...] | None:
        return site.query_reads(self.sql)

    def writes(self, site: Site) -> tuple[str, ...]:
        return () if self.table is None else (self.table,)

    def uses(self, site: Site) -> frozenset[str]:
        statement = site.statement(self.sql)
        return frozenset() if isinstance(statement, str) else statement.parameters

    def run(self, work: Work) -> None:
        used = self.uses(work.site)
        params = {name: value for name, value in work.params.items() if name in used}
        reads = self.reads(work.site)
        work.read_tables(reads or ())
        work.stage("middle")
        if self.table is not None:
            work.write_query(self.table, self.sql, params, append=self.write == "append", reads=reads)
            return
        result = work.query(self.sql, params, reads, limit=_SHOWN)
        rows = result.fetchall()
        work.stage("write")
        if bool(rows) is not (self.expect == "rows"):
            said = "no row" if not rows else "rows, such as " + "; ".join(str(tuple(row))[:200] for row in rows)
            raise NodeFailed(f"the check expects {self.expect}, and the query gave {said}")
