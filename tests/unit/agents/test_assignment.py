"""Runners begin and end with the assignment of their partitions."""

from __future__ import annotations

import asyncio

from faust.types import TP

from oomstream.agents.worker.assignment import Assignment
from oomstream.agents.worker.metrics import WorkerMetrics
from oomstream.agents.worker.runner import PartitionRunner
from oomstream.stores.settings import load_settings
from tests.unit.agents.harness import until
from tests.unit.agents.test_runner import Ingested, Log

ONE, TWO = TP("plane", 0), TP("plane", 1)


def test_nothing_begins_after_the_end() -> None:
    """Case 29: a rebalance that ends while the worker already stops starts nothing, which nobody would end."""

    async def scenario() -> None:
        metrics, pipelines = WorkerMetrics(), {ONE: Ingested(), TWO: Ingested()}

        def runner(tp: TP) -> PartitionRunner:
            return PartitionRunner(
                tp,
                partition_log=Log(),
                pipeline=lambda: pipelines[tp],
                settings=load_settings(),
                metrics=metrics,
                fail=lambda error: None,
            )

        assignment = Assignment(runner, metrics, drain_s=5)
        assignment.assign([ONE])
        await until(lambda: pipelines[ONE].claims == 1)
        await assignment.end()
        assert pipelines[ONE].flushes
        assignment.assign([TWO])
        assert TWO not in assignment
        assert (metrics.partitions, len(asyncio.all_tasks())) == (0, 1)

    asyncio.run(scenario())
