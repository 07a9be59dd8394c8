"""One real server for all contracts, and a client of it."""

import sys
from pathlib import Path

import pytest

import lakehouse

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from serving import PRIMARY, TOKENS, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    lakehouse.open(folder / "lake").close()
    settings = "[storage]\nmax_put_bytes = 40000000\n[storage.put_caps]\n'small/' = 10\n[query]\nthreads = 1\n"
    (folder / "lake" / "lakehouse.toml").write_text(settings)
    running = Server(folder, ["lakehouse.cli", "serve"], TOKENS)
    try:
        yield running.ready()
        assert "Traceback" not in running.log, running.log
    finally:
        running.stop()


@pytest.fixture(scope="session")
def client(server):
    with lakehouse.connect(server.url, PRIMARY) as connected:
        yield connected
