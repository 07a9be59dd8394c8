"""A server that cannot be guarded does not start."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from lakehouse.errors import LakehouseError

EXIT_CODE = 2
P = ParamSpec("P")


def stops_the_start(work: Callable[P, None]) -> Callable[P, None]:
    """Make every failure of a step end the process: one line, exit code 2.

    Jupyter only logs what goes wrong in an extension and starts without it; here that would be without its guard.
    """

    @wraps(work)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            work(*args, **kwargs)
        except LakehouseError as error:
            hint = f"; {error.hint}" if error.hint else ""
            print(f"lakehouse: {error.message}{hint}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_CODE) from None
        except Exception:
            logging.getLogger("lakehouse.server").exception("the server does not start")
            raise SystemExit(EXIT_CODE) from None

    return guarded
