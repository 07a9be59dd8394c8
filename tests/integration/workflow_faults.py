"""Loaded into the processes of nodes: `MODE__STAGE__FAULT` as the name of a node says what goes wrong in it, and where."""

import os
import signal
import sys
import time

from lakehouse.workflow.work import Work

_stage = Work.stage


def stage(work, name):
    _stage(work, name)
    _, _, fault = work.task.node.partition(f"__{name}__")
    if fault == "raise":
        raise RuntimeError("on purpose")
    if fault == "exit":
        sys.exit(0)
    if fault == "vanish":
        os._exit(0)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(600)


Work.stage = stage


def frame():
    import pyarrow as pa

    return pa.table({"a": [1, 2]})


def nothing():
    pass
