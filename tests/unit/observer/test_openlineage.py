"""Events as OpenLineage run events: what they say, that they fit the generated classes, and endpoints that fail."""

import functools
import json
import operator
import threading
import time
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import attr
import pytest
from jsonschema import Draft202012Validator, ValidationError
from openlineage.client.event_v2 import RunEvent
from openlineage.client.generated import (
    base,
    column_lineage_dataset,
    dataset_version_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
)
from openlineage.client.serde import Serde

import lakehouse
from lakehouse import errors
from lakehouse.config import ObserverSettings, Secret
from lakehouse.observer.model import Data, Delivered, Event, Problem
from lakehouse.observer.observer import Observer
from lakehouse.observer.openlineage import OpenLineage, endpoint

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)
FACETS = {
    "parent": parent_run.ParentRunFacet,
    "errorMessage": error_message_run.ErrorMessageRunFacet,
    "processing_engine": processing_engine_run.ProcessingEngineRunFacet,
    "jobType": job_type_job.JobTypeJobFacet,
    "schema": schema_dataset.SchemaDatasetFacet,
    "version": dataset_version_dataset.DatasetVersionDatasetFacet,
    "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet,
    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def _object(required="", **properties):
    return {"type": "object", "required": required.split(), "properties": properties}


def _text(format=None):
    return {"type": "string", **({"format": format} if format else {})}


def _facet(required="", **properties):
    base = {"_producer": _text("uri"), "_schemaURL": _text("uri")}
    return _object(f"_producer _schemaURL {required}", **base, **properties)


def _facets(**known):
    return {"type": "object", "properties": known, "additionalProperties": _facet()}


_NAMED = {"namespace": _text(), "name": _text()}
_RUN_ID = _object("runId", runId=_text("uuid"))
_DATA_FACETS = _facets(
    version=_facet("datasetVersion", datasetVersion=_text()),
    schema=_facet(fields={"type": "array", "items": _object("name", name=_text(), type=_text(), description=_text())}),
    columnLineage=_facet(
        "fields",
        fields={
            "type": "object",
            "additionalProperties": _object(
                "inputFields",
                inputFields={"type": "array", "items": _object("namespace name field", **_NAMED, field=_text())},
            ),
        },
    ),
)
_COUNTED = {"rowCount": {"type": "integer"}, "size": {"type": "integer"}}
# What the published schemas ask for, in our own words: spec/OpenLineage.json and spec/facets/*.json of
# OpenLineage/OpenLineage (Apache 2.0).
RULES = Draft202012Validator(
    _object(
        "run job eventTime producer",
        eventType={"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        eventTime=_text("date-time"),
        producer=_text("uri"),
        schemaURL=_text("uri"),
        run=_object(
            "runId",
            runId=_text("uuid"),
            facets=_facets(
                parent=_facet("run job", run=_RUN_ID, job=_object("namespace name", **_NAMED)),
                errorMessage=_facet(
                    "message programmingLanguage", message=_text(), programmingLanguage=_text(), stackTrace=_text()
                ),
                processing_engine=_facet("version", version=_text(), name=_text(), openlineageAdapterVersion=_text()),
            ),
        ),
        job=_object(
            "namespace name",
            **_NAMED,
            facets=_facets(
                jobType=_facet(
                    "processingType integration", processingType=_text(), integration=_text(), jobType=_text()
                )
            ),
        ),
        inputs={
            "type": "array",
            "items": _object("namespace name", **_NAMED, facets=_DATA_FACETS, inputFacets=_facets()),
        },
        outputs={
            "type": "array",
            "items": _object(
                "namespace name",
                **_NAMED,
                facets=_DATA_FACETS,
                outputFacets=_facets(outputStatistics=_facet(**_COUNTED)),
            ),
        },
    ),
    format_checker=Draft202012Validator.FORMAT_CHECKER,
)


def event(status, **more):
    given = {"run": "r1", "workflow": "w", "node": "n", "mode": "sql", "started": START, "ended": END}
    if status in ("failed", "timeout", "interrupted"):
        given["error"] = Problem("QueryError", "bad", "line 3")
    return Event(**{**given, "status": status, **more})


def told(given, **more):
    """Run events as JSON, each checked."""
    found = [json.loads(Serde.to_json(one)) for one in OpenLineage(None, "lake", **more).run_events(given)]
    for one in found:
        check(one)
    return found


def check(one):
    """A run event keeps the rules of the published schemas, and fits the classes that openlineage-python generates from
    them: nothing unknown, nothing missing, every facet of the schema it names, times with zones, ids that are UUIDs,
    addresses that are URIs.
    """
    RULES.validate(one)
    fits(one, base.RunEvent)
    assert one["schemaURL"].startswith("https://openlineage.io/spec/")
    assert urlsplit(one["producer"]).scheme == "https"
    assert datetime.fromisoformat(one["eventTime"]).tzinfo is not None
    assert base.EventType(one["eventType"])
    fits(one["run"], base.Run)
    uuid.UUID(one["run"]["runId"])
    fits(one["job"], base.Job)
    for data, kind in [(d, base.InputDataset) for d in one.get("inputs", ())] + [
        (d, base.OutputDataset) for d in one.get("outputs", ())
    ]:
        fits(data, kind)
    every = [one["run"], one["job"], *one.get("inputs", ()), *one.get("outputs", ())]
    for holder in every:
        for name, facet in {**holder.get("facets", {}), **holder.get("outputFacets", {})}.items():
            fits(facet, FACETS[name])
            assert facet["_schemaURL"] == FACETS[name]._get_schema()
    for data in one.get("outputs", ()):
        for made_of in data["facets"].get("columnLineage", {}).get("fields", {}).values():
            fits(made_of, column_lineage_dataset.Fields)
            for field in made_of["inputFields"]:
                fits(field, column_lineage_dataset.InputField)
        for field in data["facets"].get("schema", {}).get("fields", ()):
            fits(field, schema_dataset.SchemaDatasetFacetFields)


def fits(found, kind):
    fields = {field.name: field for field in attr.fields(kind)}
    assert set(found) <= set(fields), (set(found) - set(fields), kind)
    needed = {name for name, field in fields.items() if field.default is attr.NOTHING}
    assert needed <= set(found), (needed - set(found), kind)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("eventTime", "2026-01-01T00:00:00"), ("eventType", "DONE"), ("producer", "no address"), ("run.runId", "r1"),
        ("job.name", None), ("job.facets.jobType._schemaURL", 1), ("run.facets.processing_engine.version", 2),
        ("run.facets.own", {"a": 1}), ("outputs.0.outputFacets.outputStatistics.rowCount", "3"),
        ("outputs.0.facets.schema.fields", [{"type": "INTEGER"}]), ("outputs.0.facets.columnLineage.fields", {"a": {}}),
    ],
)  # fmt: skip
def test_the_rules_can_be_broken(where, value):
    data = Data("main.t", snapshot=3, rows=2, columns={"a": "INTEGER"}, sources={"a": (("main.s", "b"),)})
    one = told(event("done", outputs=(data,)))[1]
    *path, last = [int(part) if part.isdigit() else part for part in where.split(".")]
    holder = functools.reduce(operator.getitem, path, one)
    holder[last] = value
    with pytest.raises(ValidationError):
        RULES.validate(one)


def test_the_check_can_fail():
    (one, _) = told(event("done"))
    for spoil in (
        lambda one: one.pop("job"),
        lambda one: one.update(colour=1),
        lambda one: one["run"].update(runId="r1"),
        lambda one: one.update(eventTime="2026-01-01T00:00:00"),
        lambda one: one["job"]["facets"]["jobType"].pop("integration"),
    ):
        spoiled = json.loads(json.dumps(one))
        spoil(spoiled)
        with pytest.raises((AssertionError, ValueError, ValidationError)):
            check(spoiled)


@pytest.mark.parametrize(
    ("status", "kinds"),
    [
        ("done", ["START", "COMPLETE"]), ("failed", ["START", "FAIL"]), ("timeout", ["START", "FAIL"]),
        ("interrupted", ["START", "FAIL"]), ("cancelled", ["START", "ABORT"]), ("started", ["START"]),
    ],
)  # fmt: skip
def test_what_ran_begins_and_ends(status, kinds):
    found = told(event(status))
    assert [one["eventType"] for one in found] == kinds
    assert {one["run"]["runId"] for one in found} == {found[0]["run"]["runId"]}
    assert found[0]["eventTime"] == START.isoformat()
    assert (found[0]["job"]["namespace"], found[0]["job"]["name"]) == ("lake", "w.n")
    assert ("errorMessage" in found[-1]["run"]["facets"]) == (kinds[-1] == "FAIL")


def test_what_did_not_run_is_not_said_to_have_begun():
    (one,) = told(event("not_run", reason="a failed"))
    assert one["eventType"] == "ABORT"
    assert one["run"]["facets"]["errorMessage"]["message"] == "a failed"
    assert told(event("skipped", reason="nothing changed")) == []


def test_nodes_name_the_run_of_their_workflow_and_each_attempt_is_a_run():
    (_, node), (_, again) = told(event("done")), told(event("done", attempt=2))
    (_, whole) = told(event("failed", node=None))
    assert node["run"]["facets"]["parent"]["run"]["runId"] == whole["run"]["runId"]
    assert node["run"]["facets"]["parent"]["job"]["name"] == whole["job"]["name"] == "w"
    assert len({one["run"]["runId"] for one in (node, again, whole)}) == 3
    assert whole["run"]["facets"]["errorMessage"] == {
        "_producer": whole["producer"], "_schemaURL": error_message_run.ErrorMessageRunFacet._get_schema(),
        "message": "QueryError: bad", "programmingLanguage": "PYTHON", "stackTrace": "line 3",
    }  # fmt: skip


def test_a_run_that_was_said_to_begin_begins_once():
    sink = OpenLineage(None, "lake")
    kinds = [[one.eventType.value for one in sink.run_events(event(status))] for status in ("started", "done", "done")]
    assert kinds == [["START"], ["COMPLETE"], ["START", "COMPLETE"]]


def test_data_sets():
    inputs = (
        Data("main.a", snapshot=3),
        Data("x/y", "object", hash="ab"),
        Data("/a.csv", "file"),
        Data("https://h/p?q", "url"),
    )
    (_, one) = told(event("done", inputs=inputs, outputs=(Data("main.b", rows=7, bytes=9),)))
    assert [(d["namespace"], d["name"]) for d in one["inputs"]] == [
        ("lake", "main.a"), ("lake", "objects/x/y"), ("file", "/a.csv"), ("https://h", "p"),
    ]  # fmt: skip
    assert [d["facets"].get("version", {}).get("datasetVersion") for d in one["inputs"]] == ["3", "ab", None, None]
    statistics = one["outputs"][0]["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["size"]) == (7, 9)


def test_a_lake_tells_columns_and_what_they_were_made_of(tmp_path):
    """From the setting to the file: our lineage as datasets with schema and columnLineage facets."""
    path = tmp_path / "lineage.jsonl"
    settings = {"observer": {"openlineage": f"file:{path}", "openlineage_namespace": "demo"}}
    with lakehouse.open(tmp_path / "lake", settings=settings) as lake:
        lake.sql("CREATE TABLE flights AS SELECT 'JFK' AS origin, 1.5 AS late")
        made = lake.sql("CREATE TABLE busy AS SELECT origin, sum(late) AS total FROM flights GROUP BY origin")
        lake.observer.record(
            event("done", inputs=(Data("main.flights"),), outputs=(Data("busy", snapshot=made.snapshot), Data("gone")))
        )
        lake.observer.openlineage.close()
        assert lake.observer.openlineage.counters() == Delivered(sent=2)
    start, end = map(json.loads, path.read_text().splitlines())
    for one in (start, end):
        check(one)
    assert start["inputs"] == end["inputs"]
    assert [one["name"] for one in end["inputs"]] == ["flights"]
    schema = {field["name"]: field["type"] for field in end["inputs"][0]["facets"]["schema"]["fields"]}
    assert schema == {"origin": "VARCHAR", "late": "DECIMAL(2,1)"}
    busy, gone = end["outputs"]
    sources = busy["facets"]["columnLineage"]["fields"]
    assert [(f["namespace"], f["name"], f["field"]) for f in sources["total"]["inputFields"]] == [
        ("demo", "flights", "late")
    ]
    assert gone["facets"] == {}


# endpoints


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as running:
        running.status, running.seen = 201, []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()


def observing(tmp_path, sink):
    return Observer(tmp_path / "observer", ObserverSettings(sync="never"), sink=sink)


def test_to_a_server_with_a_key(server, tmp_path):
    server.status = 201
    server.seen.clear()
    sink = OpenLineage(lambda: endpoint(server.url, Secret("the-key")), "lake")
    observer = observing(tmp_path, sink)
    observer.record(event("failed"))
    observer.close()
    assert sink.counters() == Delivered(sent=2)
    assert [(path, key) for path, key, _ in server.seen] == [("/api/v1/lineage", "Bearer the-key")] * 2
    for _, _, one in server.seen:
        check(one)
    own = OpenLineage(lambda: endpoint(f"{server.url}/own/path"), "lake")
    own.offer(event("started"))
    own.close()
    assert server.seen[-1][:2] == ("/own/path", None)


@pytest.mark.parametrize("how", ["refuses", "is not there", "breaks"])
def test_an_endpoint_that_fails_is_logged_once_and_counted(server, tmp_path, caplog, how):
    server.status = 500

    class Broken:
        def emit(self, _):
            raise RuntimeError("broken")

    make = {
        "refuses": lambda: endpoint(server.url),
        "is not there": lambda: endpoint("http://127.0.0.1:9"),
        "breaks": Broken,
    }[how]
    sink = OpenLineage(make, "lake")
    observer = observing(tmp_path, sink)
    for _ in range(5):
        assert observer.record(event("done")).persisted
    observer.close()
    assert sink.counters() == Delivered(failed=10)
    assert len([one for one in caplog.records if one.name == "lakehouse.observer"]) == 1


def test_an_endpoint_that_hangs_makes_nobody_wait(tmp_path):
    hold, entered = threading.Event(), threading.Event()

    class Hanging:
        def emit(self, _):
            entered.set()
            hold.wait(30)

    sink = OpenLineage(Hanging, "lake", waiting=3)
    observer = observing(tmp_path, sink)
    observer.record(event("done"))
    assert entered.wait(20)
    began = time.monotonic()
    for _ in range(50):
        observer.record(event("done"))
    sink.close(timeout=0)
    assert time.monotonic() - began < 20, "the endpoint would have held each for 30 s"
    assert sink.counters() == Delivered(dropped=50)
    assert observer.counters().persisted == 51
    hold.set()
    observer.close()


@pytest.mark.parametrize("target", ["", "file:", "ftp://h", "nonsense", "http://"])
def test_a_setting_that_names_no_place_is_told_at_once(tmp_path, target):
    with pytest.raises(errors.ConfigError):
        lakehouse.open(tmp_path / "lake", settings={"observer": {"openlineage": target}})


def test_the_generated_classes_are_the_ones_that_are_used():
    assert RunEvent is base.RunEvent
