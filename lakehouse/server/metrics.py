"""What the server counts, for Prometheus; in a registry of its own, beside the one that Jupyter keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.server.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format that every Prometheus reads."""
Why = Literal["address", "proxy", "elsewhere"]
"""Why the gate refuses."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counts of one server; nothing of them outlives it.

    Args:
        service: what is asked when somebody looks.
    """

    def __init__(self, service: Service) -> None:
        self._registry = registry = CollectorRegistry()
        route = ("method", "route")
        self._requests = Counter(
            "lakehouse_http_requests", "Requests that were answered.", (*route, "status"), registry=registry
        )
        self._seconds = Histogram(
            "lakehouse_http_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            route,
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge("lakehouse_http_requests_in_flight", "Requests being worked on.", registry=registry)
        self._received = Counter(
            "lakehouse_http_received_bytes", "Bytes of bodies that came.", route, registry=registry
        )
        self._sent = Counter("lakehouse_http_sent_bytes", "Bytes of bodies that went out.", route, registry=registry)
        self._refused = Counter(
            "lakehouse_http_refused",
            "Requests refused in front of every route: address, proxy (passed on, and no token is configured), elsewhere"
            " (a token for what is not the lake's).",
            ("why",),
            registry=registry,
        )
        for why in get_args(Why):
            self._refused.labels(why)
        ProcessCollector(namespace="lakehouse", registry=registry)
        registry.register(_Lake(service))

    def begun(self) -> None:
        """A request came."""
        self._in_flight.inc()

    def ended(self, method: str, route: str, status: str, seconds: float, received: int, sent: int) -> None:
        """It was answered, or its reader went away.

        Args:
            method: as it is written; one that no route has counts as `other`.
            route: the path with its holes, such as `/tables/{table}`; `none` for a path of no route.
            status: what was answered; `closed` when it broke off.
            seconds: what it took.
            received: bytes of its body.
            sent: bytes of the answer's body.
        """
        self._in_flight.dec()
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)
        self._received.labels(method, route).inc(received)
        self._sent.labels(method, route).inc(sent)

    def refused(self, why: Why) -> None:
        """A request was refused before it was looked at."""
        self._refused.labels(why).inc()

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self._registry)


class _Lake(Collector):
    """What the lake tells when it is asked: a part that cannot tell is left out, and `lakehouse_up` is 0."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the lake before somebody looks."""
        return ()

    def collect(self) -> Iterator[Metric]:
        service = self._service
        wrong = service.guard.attempts.total
        yield CounterMetricFamily("lakehouse_auth_failures", "Wrong tokens since the start.", value=wrong)
        if service.lobby is not None:
            waiting, away = len(service.lobby), service.lobby.turned_away
            yield GaugeMetricFamily("lakehouse_connections_waiting", "Connections without a request.", value=waiting)
            yield CounterMetricFamily("lakehouse_connections_turned_away", "Closed for newer ones.", value=away)
        up = 1
        for family in (self._snapshot, self._journals, self._queries):
            try:
                yield from family()
            except (LakehouseError, OSError):
                up = 0
        yield GaugeMetricFamily("lakehouse_up", "Whether all that is asked of the lake could be told.", value=up)

    def _snapshot(self) -> Iterator[Metric]:
        newest = self._service.lake().catalog.current_snapshot()
        yield GaugeMetricFamily("lakehouse_snapshot_id", "The newest snapshot of the lake.", value=newest.id)
        seconds = newest.time.timestamp()
        yield GaugeMetricFamily("lakehouse_snapshot_time_seconds", "When it was committed (Unix time).", value=seconds)

    def _journals(self) -> Iterator[Metric]:
        sizes = GaugeMetricFamily("lakehouse_journal_bytes", "Size of a journal of the lake.", labels=["journal"])
        for path in journals(self._service.folder):
            sizes.add_metric([path.relative_to(self._service.folder).as_posix()], path.stat().st_size)
        yield sizes

    def _queries(self) -> Iterator[Metric]:
        lake = self._service.lake()
        running = len(lake.running()) + len(self._service.asked.running())
        yield GaugeMetricFamily("lakehouse_queries_running", "Queries under way in this server.", value=running)
        workers = GaugeMetricFamily("lakehouse_sandbox_workers", "Processes for SQL from strangers.", labels=["state"])
        count, busy = lake.sandbox().workers
        workers.add_metric(["busy"], busy)
        workers.add_metric(["idle"], count - busy)
        yield workers


def journals(lake: Path) -> list[Path]:
    """The journals of a lake."""
    from lakehouse.health.journals import find

    return list(find(lake)) if lake.is_dir() else []
