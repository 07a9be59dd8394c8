"""Requests made up from the description of the API, sent to a server of its own, and their answers checked by it."""

import zlib
from contextlib import contextmanager

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import PRIMARY, V1, Server, bearer

import lakehouse
from lakehouse.server.openapi import described
from lakehouse.server.routes.all import ROUTES

SETTINGS = "[query]\nthreads = 1\nsandbox_threads = 1\n[auth]\nmax_failures = 1000000\n"


def described_api():
    """The description, with half of the requests about what is there: a table, an object and a trace called flights."""
    schema = schemathesis.openapi.from_dict(described(ROUTES)).exclude(path="/observer/stream")  # it has no end

    def half(value):
        return zlib.crc32(repr(value).encode("utf-8", "replace")) % 2

    @schema.hook
    def map_path_parameters(context, parameters):
        if context.operation.label == "DELETE /tables/{table}":
            return parameters  # it is asked about afterwards
        return {name: "flights" if half(value) else value for name, value in (parameters or {}).items()}

    @schema.hook
    def filter_query(context, query):
        """Not what vanishes on its way into a URL: then nothing wrong is sent, and rightly nothing is refused."""
        return all(value not in (None, [], {}, [None]) for value in (query or {}).values())

    @schema.hook
    def map_body(context, body):
        if not isinstance(body, dict) or "sql" not in body or not half(body):
            return body
        read = "query" in context.operation.path
        return {**body, "sql": "SELECT * FROM flights" if read else "UPDATE flights SET origin = 'B' WHERE id = 1"}

    return schema


@contextmanager
def api_server(folder):
    """A server on a small lake."""
    with lakehouse.open(folder / "lake") as lake:
        lake.sql("CREATE TABLE flights AS SELECT i AS id, 'A' || i % 3 AS origin FROM range(20) t(i)")
        lake.storage.put("flights", b"id,origin\n1,A1\n")
        lake.pathway.add("who flew", uid="flights")
    (folder / "lake" / "lakehouse.toml").write_text(SETTINGS)
    running = Server(folder, ["lakehouse.cli", "serve"], {"AUTH_TOKEN": PRIMARY})
    try:
        yield running.ready()
    finally:
        running.stop()
    assert "Traceback" not in running.log, running.log


def check(case, server):
    """Send a request: no error of the server, no status, code, type or shape that is not described."""
    # What can be a key, a name or a trace is more than a schema can say: such a refusal is no fault.
    case.call_and_validate(
        base_url=server.url + V1, headers=bearer(PRIMARY), excluded_checks=[positive_data_acceptance]
    )
