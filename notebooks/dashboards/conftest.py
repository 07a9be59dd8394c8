"""The dashboards run as tests on a lake that the demo has filled."""

import os
from pathlib import Path

import pytest

import lakehouse
from lakehouse import demo


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before the first cell: the cells' kernel starts after this, and inherits the environment."""
    if Path(str(item.path)).parent != Path(__file__).parent:
        return
    lake = Path(os.environ["LAKEHOUSE_PATH"]).with_name("dashboards")
    if not lake.exists():
        with lakehouse.open(lake) as opened:
            demo.load(opened, lambda _: None)
    os.environ["LAKEHOUSE_PATH"] = str(lake)


def pytest_runtest_teardown(item):
    if Path(str(item.path)).parent == Path(__file__).parent:
        os.environ["LAKEHOUSE_PATH"] = str(Path(os.environ["LAKEHOUSE_PATH"]).with_name("lake"))
