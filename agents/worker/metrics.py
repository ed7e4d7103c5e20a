"""What a worker counts: every metric once, by name and kind, and the figures of one worker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class MetricKind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: Field of `WorkerMetrics`.
        kind: Counter (only rises) or gauge.
        help: What it says, for people.
    """

    name: str
    kind: MetricKind
    help: str


METRICS: tuple[Metric, ...] = (
    Metric("events", MetricKind.COUNTER, "Valid events written to history and online."),
    Metric("dead_letters", MetricKind.COUNTER, "Records sent to a dead-letter topic."),
    Metric("ignored_fields", MetricKind.COUNTER, "Unknown JSON fields that were ignored."),
    Metric("batches", MetricKind.COUNTER, "Batches taken through the pipeline."),
    Metric("claims", MetricKind.COUNTER, "Times a partition was claimed: at assignment and after it was fenced."),
    Metric("partitions", MetricKind.GAUGE, "Partitions that this worker holds now."),
    Metric("lag", MetricKind.GAUGE, "Records in the log of its partitions that are not ingested yet; -1 = not known."),
)
"""Every metric of a worker."""


@dataclass(slots=True)
class WorkerMetrics:
    """Figures of one worker since it was made; `METRICS` says what each is."""

    events: int = 0
    dead_letters: int = 0
    ignored_fields: int = 0
    batches: int = 0
    claims: int = 0
    partitions: int = 0
    lag: int = -1

    def snapshot(self) -> dict[str, int]:
        """The figures by name, in the order of `METRICS`."""
        return {metric.name: getattr(self, metric.name) for metric in METRICS}
