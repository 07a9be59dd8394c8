"""Who gets a place among the open pages, with kernels that are only names."""

import asyncio
from collections import Counter

import pytest

from lakehouse.server.stage import Stage, Viewer


class Kernels(dict):
    """A kernel manager that only knows which kernels there are, and who is connected to them."""

    def __init__(self):
        self._kernel_connections = Counter()

    async def shutdown_kernel(self, kernel, *, now):
        del self[kernel]


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path, None, most=8, each=2)
    stage.manager = Kernels()
    return stage


def opens(stage, name, address="127.0.0.1", *, known=True, opened=0.0):
    """Ask for a place and take it; why there is none."""
    viewer = Viewer(name, address, known)
    why = asyncio.run(stage.refusal(viewer))
    if why is None:
        kernel = f"kernel-{len(stage.manager)}-{name}"
        stage.manager[kernel] = object()
        stage.manager._kernel_connections[kernel] = 1
        stage._owners[kernel] = (viewer, opened)
    return why


def test_one_viewer_leaves_places_to_others(stage):
    assert [opens(stage, "one") for _ in range(2)] == [None, None]
    assert "You have 2 pages open" in opens(stage, "one")
    assert opens(stage, "two") is None


def test_who_comes_without_a_pass_is_counted_by_the_address(stage):
    assert [opens(stage, f"new-{n}", known=False) for n in range(2)] == [None, None]
    assert "You have 2 pages open" in opens(stage, "new-2", known=False)
    assert opens(stage, "new-3", "127.0.0.2", known=False) is None


def test_one_address_with_many_logins_leaves_places_to_others(stage):
    assert [opens(stage, f"login-{n}", "192.0.2.1") for n in range(6)] == [None] * 6
    assert "at your address" in opens(stage, "login-7", "192.0.2.1")
    assert [opens(stage, f"other-{n}", "192.0.2.2") for n in range(2)] == [None] * 2
    assert "8 pages are open" in opens(stage, "last", "192.0.2.3")


def test_a_forsaken_page_makes_room(stage):
    opens(stage, "one", opened=-1000.0)
    opens(stage, "one", opened=-1000.0)
    assert opens(stage, "one") is not None
    kernel = next(iter(stage.manager))
    stage.manager._kernel_connections[kernel] = 0
    assert opens(stage, "one") is None
    assert kernel not in stage.manager


def test_a_place_is_taken_while_its_page_is_opening(stage):
    stage._opening = [Viewer("one", "127.0.0.1", known=True)] * 2
    assert "You have 2 pages open" in opens(stage, "one")
