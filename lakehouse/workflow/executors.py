"""From where the processes of nodes are started: this process, others, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from lakehouse.errors import WorkflowError

_DASK = "dask:"


@contextmanager
def named(executor: str | Executor | None) -> Iterator[Executor | None]:
    """An executor by its name; None: threads of this process. One that was given is not closed.

    Raises:
        WorkflowError: there is no executor of that name, or its package is not installed.
    """
    if executor is None or executor == "threads":
        yield None
    elif isinstance(executor, Executor):
        yield executor
    elif executor == "processes":
        # Never by forking: this process has threads.
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    elif isinstance(executor, str) and (executor == "dask" or executor.startswith(_DASK)):
        try:
            from distributed import Client
        except ImportError:
            raise WorkflowError("Dask is not installed", hint="pip install 'lakehouse-workbench[dask]'") from None
        address = executor.removeprefix(_DASK) if executor != "dask" else None
        with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            yield client.get_executor(pure=False, retries=0)
    else:
        raise WorkflowError(f"there is no executor {executor!r:.80}", hint="threads, processes, dask, or an Executor")
