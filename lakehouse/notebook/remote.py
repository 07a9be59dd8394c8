"""A lake behind a server in a notebook: connecting to it, and what completion needs to know of it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from getpass import getpass
from typing import TYPE_CHECKING, Any, TypeAlias

from lakehouse.catalog.names import split
from lakehouse.errors import LakehouseError, Unauthenticated
from lakehouse.notebook import completion
from lakehouse.notebook.completion import Names

if TYPE_CHECKING:
    from lakehouse.client.lake import Client
    from lakehouse.client.table import RemoteTable
    from lakehouse.lake import Lakehouse

    Lake: TypeAlias = Lakehouse | Client
    """What the magics work on."""


def is_url(word: str) -> bool:
    """Whether `%lake WORD` means a server."""
    return word.lower().startswith(("http://", "https://"))


def is_client(value: Any) -> bool:
    """Whether a value is a `Client`; where nobody has connected there is none."""
    module = sys.modules.get("lakehouse.client.lake")
    return module is not None and isinstance(value, module.Client)


def connected(url: str) -> Client:
    """A client of a server, with the token of the environment, or one that the user is asked for.

    Raises:
        Unauthenticated: the token is wrong, or there is none and nobody can be asked.
    """
    from lakehouse.client.address import TOKEN
    from lakehouse.client.lake import connect

    try:
        return connect(url)
    except Unauthenticated as error:
        if os.environ.get(TOKEN) is not None:
            raise
        try:
            token = getpass(f"token for {url}: ")
        except Exception:  # of any kind: a notebook that runs by itself has nobody to ask
            token = ""
        if not token.strip():
            raise Unauthenticated(
                error.message, hint=f"set {TOKEN} in the environment, or %lake $client after lakehouse.connect(…)"
            ) from None
    return connect(url, token)


def taken(client: Client) -> set[str]:
    """Lower-cased names that mean a table of the lake before any variable."""
    return {name for schema, name in (split(one.full_name.lower()) for one in _listed(client)) if schema == "main"}


def names(client: Client, functions: Sequence[str], table_functions: Sequence[str]) -> Names:
    """What a query may name there; columns are asked for when they are needed."""
    relations = {
        (one.schema_name.lower(), one.name.lower()): completion.Relation(
            one.schema_name, one.name, one.kind, functools.cache(functools.partial(_columns, one))
        )
        for one in _listed(client)
    }
    schemas = client.catalog.schemas()
    return Names(relations=relations, schemas=schemas, functions=functions, table_functions=table_functions)


def _listed(client: Client) -> list[RemoteTable]:
    return [*client.catalog.tables(), *client.catalog.views()]


def _columns(table: RemoteTable) -> Sequence[str]:
    try:
        return [column.name for column in table.schema]
    except LakehouseError:
        return []  # a view whose query no longer runs, or no connection
