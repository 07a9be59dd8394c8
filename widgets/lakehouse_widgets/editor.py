"""The editor that widgets use for SQL: Ace (https://ace.c9.io, BSD), as the package django-ace carries it.

Of that package only these files are read; neither it nor Django is imported. They go to a page once, when its first
editor asks for them, and are no part of a widget's state.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lakehouse import LakehouseError

_PACKAGE = "django_ace"
_FILES = ("ace.js", "mode-sql.js", "ext-language_tools.js")


def scripts() -> list[bytes]:
    """The scripts in the order in which a page runs them.

    Raises:
        LakehouseError: they are not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)  # finds the folder, runs nothing of it
    places = found.submodule_search_locations if found is not None else None
    try:
        folder = Path((places or [])[0]) / "static" / _PACKAGE / "ace"
        return [(folder / name).read_bytes() for name in _FILES]
    except (IndexError, OSError):
        raise LakehouseError("the editor is not installed", hint="pip install django-ace") from None
