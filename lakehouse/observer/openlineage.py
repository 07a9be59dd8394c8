"""Events as OpenLineage run events, for Marquez, DataHub and whoever else reads them.

A node that ran gives START and COMPLETE, FAIL or ABORT, with what it read and wrote as datasets; one that was not run
gives ABORT with the reason; one that was skipped did not run, and gives nothing. The runs of the nodes name the run of
their workflow as parent. Format: the OpenLineage specification 2-0-2, https://openlineage.io/spec/2-0-2/OpenLineage.json,
through the classes of openlineage-python that are generated from it.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from lakehouse.config import Secret
from lakehouse.errors import ConfigError
from lakehouse.observer.model import Data, Delivered, Event

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent

log = logging.getLogger("lakehouse.observer")
PRODUCER = "https://pypi.org/project/lakehouse-workbench"
_ENDS = {
    "done": "COMPLETE", "failed": "FAIL", "timeout": "FAIL", "interrupted": "FAIL", "cancelled": "ABORT",
    "not_run": "ABORT",
}  # fmt: skip
_WAITING = 10_000  # events
_PATIENCE = 5.0  # seconds, for an answer and for what waits when the lake is closed
_LOG_EVERY = 60.0  # seconds
_REMEMBERED = 10_000  # runs that have begun


class Endpoint(Protocol):
    """What takes run events: a transport of openlineage-python."""

    def emit(self, event: Any) -> Any: ...


def endpoint(target: str, key: Secret | None = None, timeout: float = _PATIENCE) -> Endpoint:
    """The transport for a setting `observer.openlineage`.

    Args:
        target: `file:PATH` (lines are appended) or the address of a server, `http(s)://HOST:PORT`, with the path of
            its endpoint unless that is `/api/v1/lineage`.
        key: sent as bearer token.
        timeout: seconds to wait for an answer.

    Raises:
        ConfigError: it is neither, or openlineage-python is not installed.
    """
    kind, _, path = target.partition(":")
    if kind not in ("file", "http", "https") or not path.strip("/"):
        raise ConfigError("observer.openlineage is neither a file nor an address", hint="file:PATH or https://HOST")
    if importlib.util.find_spec("openlineage") is None or importlib.util.find_spec("openlineage.client") is None:
        raise ConfigError(
            "observer.openlineage is set, and openlineage-python is not installed",
            hint="pip install 'lakehouse-workbench[openlineage]'",
        )
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

    if kind == "file":
        return FileTransport(FileConfig(log_file_path=str(Path(path).expanduser().absolute()), append=True))
    parts = urlsplit(target)
    config = HttpConfig(
        url=f"{parts.scheme}://{parts.netloc}",
        endpoint=parts.path.strip("/") or "api/v1/lineage",
        timeout=timeout,
        retry={"total": 0},  # a lost one is counted; waiting would lose more
    )
    if key is not None:
        config.auth = ApiKeyTokenProvider({"api_key": key.reveal()})
    return HttpTransport(config)


class OpenLineage:
    """Sends events on from a thread of its own: nobody waits for the endpoint, and what it refuses is counted.

    Args:
        make: gives the endpoint when there is something to send.
        namespace: what the lake is called there.
        describe: adds columns and their sources to what was read (False) or written (True), as far as they are known.
        waiting: events that may wait for a slow endpoint.
    """

    def __init__(
        self,
        make: Callable[[], Endpoint],
        namespace: str,
        describe: Callable[[Data, bool], Data] = lambda data, _: data,
        waiting: int = _WAITING,
    ) -> None:
        self.namespace = namespace
        self._make = make
        self._describe = describe
        self._queue: queue.Queue[Event | None] = queue.Queue(waiting)
        self._lock = threading.Lock()
        self._counts = {"sent": 0, "failed": 0, "dropped": 0}
        self._thread: threading.Thread | None = None
        self._begun: OrderedDict[str, None] = OrderedDict()
        self._told = -_LOG_EVERY
        self._closed = threading.Event()

    def offer(self, event: Event) -> None:
        """Let an event wait for its turn; it is dropped and counted when too many do."""
        try:
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._work, name="lakehouse-openlineage", daemon=True)
                    self._thread.start()
            self._queue.put_nowait(event)
        except RuntimeError as error:  # the system gives no thread
            self._count("dropped", 1)
            self._complain(str(error))
        except queue.Full:
            self._count("dropped", 1)
            self._complain("more events wait for it than there is room for")

    def counters(self) -> Delivered:
        """Exact counts of run events; an event that waits, or was dropped, counts as one."""
        with self._lock:
            return Delivered(**self._counts)

    def close(self, timeout: float = _PATIENCE) -> None:
        """Send what waits, for so many seconds; the rest is counted as dropped."""
        if self._thread is None:
            return
        end = time.monotonic() + timeout
        while self._thread.is_alive() and self._queue.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)
        self._closed.set()
        left = 0
        while True:
            try:
                left += self._queue.get_nowait() is not None
            except queue.Empty:
                break
        if left:
            self._count("dropped", left)
            self._complain(f"{left} events were not sent before the lake was closed")
        self._queue.put(None)

    def _work(self) -> None:
        made: Endpoint | None = None
        while (event := self._queue.get()) is not None:
            try:
                if self._closed.is_set():
                    self._count("dropped", 1)
                    continue
                made = made or self._make()
                for one in self.run_events(event):
                    try:
                        made.emit(one)
                    except Exception as error:
                        self._count("failed", 1)
                        self._complain(f"{type(error).__name__}: {error}")
                    else:
                        self._count("sent", 1)
            except Exception as error:  # an event that cannot be told in its words costs only itself
                self._count("failed", 1)
                self._complain(f"{type(error).__name__}: {error}")
            finally:
                self._queue.task_done()

    def run_events(self, event: Event) -> Iterator[RunEvent]:
        """What an event is in OpenLineage's words: none, one or two run events."""
        from openlineage.client.event_v2 import RunEvent, RunState

        if event.status == "skipped":
            return
        run, job = self._run(event), self._job(event)
        now = event.ended or event.recorded or datetime.now(UTC)
        inputs = [self._input(self._describe(data, False)) for data in event.inputs]
        if event.status != "not_run" and run.runId not in self._begun:
            begun = event.started or now
            facets = {name: facet for name, facet in (run.facets or {}).items() if name != "errorMessage"}
            start = _run_of(run.runId, facets)
            yield RunEvent(
                eventTime=begun.isoformat(),
                producer=PRODUCER,
                run=start,
                job=job,
                eventType=RunState.START,
                inputs=inputs,
            )
        if event.status == "started":
            self._begun[run.runId] = None
            if len(self._begun) > _REMEMBERED:
                self._begun.popitem(last=False)
            return
        self._begun.pop(run.runId, None)
        yield RunEvent(
            eventTime=now.isoformat(),
            producer=PRODUCER,
            run=run,
            job=job,
            eventType=RunState[_ENDS[event.status]],
            inputs=inputs,
            outputs=[self._output(self._describe(data, True)) for data in event.outputs],
        )

    def _run(self, event: Event) -> Run:
        from openlineage.client.generated import error_message_run, parent_run, processing_engine_run

        from lakehouse import __version__

        facets: dict[str, Any] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version=__version__, name="lakehouse", producer=PRODUCER
            )
        }
        if event.error is not None or event.reason is not None:
            said = event.reason if event.error is None else f"{event.error.type}: {event.error.message}"
            where = None if event.error is None else event.error.where
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=str(said), programmingLanguage="PYTHON", stackTrace=where, producer=PRODUCER
            )
        whole = self._id(event.workflow, event.run)
        if event.node is None:
            return _run_of(whole, facets)
        if event.workflow is not None:
            facets["parent"] = parent_run.ParentRunFacet(
                run=parent_run.Run(runId=whole),
                job=parent_run.Job(namespace=self.namespace, name=event.workflow),
                producer=PRODUCER,
            )
        return _run_of(self._id(event.workflow, event.run, event.node, str(event.attempt)), facets)

    def _job(self, event: Event) -> Job:
        from openlineage.client.event_v2 import Job
        from openlineage.client.generated import job_type_job

        kind = "WORKFLOW" if event.node is None else (event.mode or "NODE").upper()
        facet = job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="LAKEHOUSE", jobType=kind, producer=PRODUCER
        )
        name = ".".join(part for part in (event.workflow, event.node) if part is not None) or event.run
        return Job(namespace=self.namespace, name=name, facets={"jobType": facet})

    def _id(self, *parts: str | None) -> str:
        """The same UUID for the same run, whoever tells of it."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "\0".join([self.namespace, *(part or "" for part in parts)])))

    def _input(self, data: Data) -> InputDataset:
        from openlineage.client.event_v2 import InputDataset

        namespace, name = self._named(data)
        return InputDataset(namespace=namespace, name=name, facets=self._facets(data))

    def _output(self, data: Data) -> OutputDataset:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.generated import output_statistics_output_dataset as statistics

        namespace, name = self._named(data)
        facets: dict[str, Any] = {}
        if data.rows is not None or data.bytes is not None:
            facets["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(
                rowCount=data.rows, size=data.bytes, producer=PRODUCER
            )
        return OutputDataset(namespace=namespace, name=name, facets=self._facets(data), outputFacets=facets)

    def _facets(self, data: Data) -> dict[str, Any]:
        from openlineage.client.generated import column_lineage_dataset, dataset_version_dataset, schema_dataset

        facets: dict[str, Any] = {}
        version = data.hash if data.snapshot is None else str(data.snapshot)
        if version is not None:
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
                datasetVersion=version, producer=PRODUCER
            )
        if data.columns is not None:
            fields = [schema_dataset.SchemaDatasetFacetFields(name=n, type=t) for n, t in data.columns.items()]
            facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields, producer=PRODUCER)
        if data.sources:
            made_of = {
                column: column_lineage_dataset.Fields(
                    inputFields=[
                        column_lineage_dataset.InputField(namespace=self.namespace, name=table, field=field)
                        for table, field in pairs
                    ]
                )
                for column, pairs in data.sources.items()
            }
            facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
                fields=made_of, producer=PRODUCER
            )
        return facets

    def _named(self, data: Data) -> tuple[str, str]:
        """Namespace and name, as OpenLineage's naming conventions have them."""
        if data.kind == "file":
            return "file", data.name
        if data.kind == "url":
            parts = urlsplit(data.name)
            return f"{parts.scheme}://{parts.hostname or ''}", parts.path.strip("/") or "/"
        return self.namespace, data.name if data.kind == "table" else f"objects/{data.name}"

    def _count(self, what: str, many: int) -> None:
        with self._lock:
            self._counts[what] += many

    def _complain(self, problem: str) -> None:
        with self._lock:
            if time.monotonic() - self._told < _LOG_EVERY:
                return
            self._told = time.monotonic()
        log.error("the OpenLineage endpoint does not get every event: %s", problem)


def _run_of(id: str, facets: dict[str, Any]) -> Run:
    from openlineage.client.event_v2 import Run

    return Run(runId=id, facets=facets)
