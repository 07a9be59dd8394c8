"""The description of the API against the server that it describes: requests made from it, by hundreds."""

import pytest
from api_cases import api_server, check, described_api
from hypothesis import settings

schema = described_api()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with api_server(tmp_path_factory.mktemp("api")) as running:
        yield running


@schema.parametrize()
@settings(max_examples=8)
def test_what_is_described_is_what_is_served(case, server):
    check(case, server)
