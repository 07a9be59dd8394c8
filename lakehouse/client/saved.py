"""`client.saved`: the saved queries of a lake behind a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lakehouse.client.wire import LONG, Wire, path
from lakehouse.query.saved import Saved, SavedQuery, check_name
from lakehouse.query.statements import Parser


class RemoteSaved(Saved):
    """Saved queries over HTTP; they are put before a query here, where its own text is.

    Args:
        wire: the server.
        parser: gives the parser that looks at queries before they are sent.
    """

    def __init__(self, wire: Wire, parser: Callable[[], Parser]) -> None:
        self._wire = wire
        self._parser = parser

    def add(self, name: str, sql: str, *, with_: Sequence[str] = (), replace: bool = True) -> SavedQuery:
        """Save one SELECT under a name; see `Saved.add`.

        Raises:
            QueryError: it is not one SELECT, or the server's gate would not let it run (`SqlRefused`).
            NotFound: one of `with_` is not saved, or a table that it reads is not there.
            AlreadyExists: the name is taken and `replace` is off.
        """
        check_name(name)
        uses = [with_] if isinstance(with_, str) else [*with_]
        body = {"sql": self._one_select(sql), "uses": uses, "replace": replace}
        kept: SavedQuery = self._wire.json("PUT", path("/saved/{}", name), SavedQuery, body=body, wait=LONG)
        return kept

    def list(self) -> list[SavedQuery]:
        """All saved queries, sorted by name."""
        return list(self._wire.json("GET", "/saved", dict[str, list[SavedQuery]])["saved"])

    def delete(self, name: str, *, force: bool = False) -> None:
        """Give up a saved query; see `Saved.delete`."""
        name = self.get(name).name
        self._wire.send("DELETE", path("/saved/{}", name), query={"force": force})

    def __repr__(self) -> str:
        return f"<saved queries of {self._wire.base}>"
