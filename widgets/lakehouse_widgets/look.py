"""How every widget looks, before what is of each alone: colours and fonts of JupyterLab's theme, where there is one."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def styled(*names: str) -> str:
    """The common style sheet, and behind it those of widgets."""
    return "".join((_HERE / name).read_text("utf-8") for name in ("look.css", *names))
