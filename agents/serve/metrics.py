"""What `oomstream serve` counts: every metric once, by name and kind, in Prometheus' text form."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class MetricKind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: Its name; Prometheus shows it behind ``oomstream_serve_``, a counter with ``_total`` behind it.
        kind: How it moves.
        help: What it says, for people.
        labels: What it is told apart by.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("requests", MetricKind.COUNTER, "Requests answered.", ("interface", "method", "code")),
    Metric("request_seconds", MetricKind.HISTOGRAM, "How long their answers took.", ("interface", "method")),
    Metric("requests_in_flight", MetricKind.GAUGE, "Requests that are being answered now.", ("interface",)),
    Metric("store_errors", MetricKind.COUNTER, "Requests that failed through a store or the broker.", ("interface",)),
    Metric("online_values", MetricKind.COUNTER, "Online values given.", ("status",)),
    Metric("pushed_events", MetricKind.COUNTER, "Pushed events that can be read.", ("interface",)),
)
"""Every metric of a server, beside those of the process itself."""

_CLASSES: dict[MetricKind, Any] = {
    MetricKind.COUNTER: Counter,
    MetricKind.GAUGE: Gauge,
    MetricKind.HISTOGRAM: Histogram,
}


class Timed:
    """One request while it is answered.

    Attributes:
        code: Its outcome; whoever answers it says it.
        of_a_store: Whether it failed through a store or the broker.
    """

    __slots__ = ("code", "of_a_store")

    def __init__(self) -> None:
        self.code = "CANCELLED"
        self.of_a_store = False


class ServeMetrics:
    """Figures of one server since it started."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._all: dict[str, Any] = {}
        for metric in METRICS:
            more = {"buckets": _BUCKETS} if metric.kind is MetricKind.HISTOGRAM else {}
            self._all[metric.name] = _CLASSES[metric.kind](
                f"oomstream_serve_{metric.name}", metric.help, metric.labels, registry=self._registry, **more
            )

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Raise a counter of `METRICS`."""
        self._all[name].labels(*labels).inc(by)

    @contextmanager
    def timed(self, interface: str, method: str) -> Iterator[Timed]:
        """Count a request while it is answered, and its outcome.

        Args:
            interface: ``http`` or ``grpc``.
            method: Which request.
        """
        request, began = Timed(), time.perf_counter()
        in_flight = self._all["requests_in_flight"].labels(interface)
        in_flight.inc()
        try:
            yield request
        finally:
            in_flight.dec()
            self._all["request_seconds"].labels(interface, method).observe(time.perf_counter() - began)
            self.count("requests", interface, method, request.code)
            if request.of_a_store:
                self.count("store_errors", interface)

    def text(self) -> bytes:
        """All figures in Prometheus' text form."""
        return generate_latest(self._registry)
