"""DuckDB extensions: from the installed wheels first, from the network only when there is no wheel."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakeError

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

CORE = ("ducklake", "sqlite_scanner")


def connect(config: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
    """A new database in memory with the extensions of the lake loaded.

    To check a signature DuckDB hashes the whole file, 70 MB at every opening of a lake. The wheels' files come by the
    same way as this code and lie beside it, so for them that is left out; for what is loaded later it is not.

    Raises:
        LakeError: there is no wheel for this DuckDB and an extension cannot be downloaded.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config={**config, "allow_unsigned_extensions": True})
    try:
        shipped = [name for name in CORE if wheel(name, duckdb.__version__)]
        load(connection, *shipped)
        connection.execute("SET allow_unsigned_extensions = false")  # DuckDB refuses the way back
        load(connection, *(name for name in CORE if name not in shipped))
    except BaseException:
        connection.close()
        raise
    return connection


def load(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    """Load extensions by name into the database of `connection`.

    Raises:
        LakeError: there is no wheel for this DuckDB and the extension cannot be downloaded.
    """
    import duckdb

    for name in names:
        if path := wheel(name, duckdb.__version__):
            connection.execute(f"LOAD '{str(path).replace(chr(39), chr(39) * 2)}'")
            continue
        log.warning("no wheel of the DuckDB extension %s for %s: asking the network", name, duckdb.__version__)
        try:
            connection.execute(f"INSTALL {name}; LOAD {name}")
        except duckdb.Error as error:
            raise LakeError(
                f"the DuckDB extension '{name}' is not installed and could not be downloaded: {error}",
                hint=f"pip install duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}",
            ) from None


def wheel(name: str, version: str) -> Path | None:
    """The signed extension file that the wheel `duckdb-extension-<name>` ships for this DuckDB, if installed."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "extensions", f"v{version}", f"{name}.duckdb_extension")
        if path.is_file():
            return path
    return None
