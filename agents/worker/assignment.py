"""The partitions that this worker holds, each with its runner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from faust.types import TP

from oomstream.agents.worker.batches import FetchedBatch
from oomstream.agents.worker.metrics import WorkerMetrics
from oomstream.agents.worker.runner import Acknowledge, PartitionRunner


class Assignment:
    """Runners by partition.

    Args:
        make_runner: Makes a partition's runner.
        metrics: Figures to add to.
        drain_s: How long a runner may take to finish its batch when its partition is taken away, seconds.
    """

    def __init__(self, make_runner: Callable[[TP], PartitionRunner], metrics: WorkerMetrics, *, drain_s: float) -> None:
        self._make_runner = make_runner
        self._metrics = metrics
        self._drain_s = drain_s
        self._runners: dict[TP, PartitionRunner] = {}
        self._ended = False

    def __iter__(self) -> Iterator[PartitionRunner]:
        return iter(tuple(self._runners.values()))

    def __contains__(self, tp: TP) -> bool:
        return tp in self._runners

    def assign(self, partitions: Iterable[TP]) -> None:
        """Give each partition a runner; one that has its runner still is read from where that stands.

        A rebalance may come to its end while the app already stops: then nobody would end what began now.
        """
        if self._ended:
            return
        for tp in partitions:
            runner = self._runners.get(tp)
            if runner is None:
                self._runners[tp] = runner = self._make_runner(tp)
                runner.start()
            else:
                runner.realign()
        self._metrics.partitions = len(self._runners)

    async def revoke(self, partitions: Iterable[TP]) -> None:
        """Let the runners of these partitions finish or drop what they hold, all at once, within the deadline."""
        runners = [self._runners.pop(tp) for tp in set(partitions) if tp in self._runners]
        self._metrics.partitions = len(self._runners)
        await asyncio.gather(*(runner.stop(self._drain_s) for runner in runners))

    async def end(self) -> None:
        """As `revoke`, for every partition, and for good."""
        self._ended = True
        await self.revoke(tuple(self._runners))

    def wanting(self) -> set[TP]:
        """Partitions whose runners have room for another batch."""
        return {tp for tp, runner in self._runners.items() if runner.willing}

    def offer(self, tp: TP, batch: FetchedBatch, acknowledge: Acknowledge) -> None:
        """Hand a fetched batch to its partition's runner; without one it is dropped, unacknowledged."""
        runner = self._runners.get(tp)
        if runner is not None:
            runner.offer(batch, acknowledge)
