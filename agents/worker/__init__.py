"""The worker: Faust agents that hand whole partition batches to the ingest pipeline."""

from oomstream.agents.worker.metrics import METRICS, Metric, MetricKind, WorkerMetrics
from oomstream.agents.worker.process import EXIT_DEADLINE, worker_main
from oomstream.agents.worker.worker import Worker, run_worker

__all__ = [
    "EXIT_DEADLINE",
    "METRICS",
    "Metric",
    "MetricKind",
    "Worker",
    "WorkerMetrics",
    "run_worker",
    "worker_main",
]
