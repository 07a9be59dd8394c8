"""The HTTP door: an extension of Jupyter Server with the operations of a lake under `/lakehouse/v1`.

It is enabled by `lakehouse serve`, by `lakehouse lab`, by `jupyter_server_config.py`, and where the package is
installed with its Jupyter configuration.
"""

from __future__ import annotations


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "lakehouse.server.extension"}]
