"""The description of the API against the server that it describes: requests made from it, by hundreds."""

import pytest
import schemathesis
from api_cases import known_names
from hypothesis import settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import PRIMARY, V1, Server, bearer

import lakehouse
from lakehouse.server.openapi import described
from lakehouse.server.routes.all import ROUTES

schema = schemathesis.openapi.from_dict(described(ROUTES))
known_names(schema)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    with lakehouse.open(folder / "lake") as lake:
        lake.sql("CREATE TABLE flights AS SELECT i AS id, 'A' || i % 3 AS origin FROM range(20) t(i)")
        lake.storage.put("flights.csv", b"id,origin\n1,A1\n")
        lake.pathway.add("who flew", uid="flights")
    (folder / "lake" / "lakehouse.toml").write_text("[query]\nthreads = 1\n[auth]\nmax_failures = 1000000\n")
    running = Server(folder, ["lakehouse.cli", "serve"], {"AUTH_TOKEN": PRIMARY})
    try:
        yield running.ready()
        assert "Traceback" not in running.log, running.log
    finally:
        running.stop()


@schema.parametrize()
@settings(max_examples=8)
def test_what_is_described_is_what_is_served(case, server):
    """No error of the server, no status or code or type or shape that the description does not have."""
    # What can be a key, a name or a trace is more than a schema can say: such a refusal is no fault.
    case.call_and_validate(
        base_url=server.url + V1, headers=bearer(PRIMARY), excluded_checks=[positive_data_acceptance]
    )
