"""Events for a topic, how far they are ingested, and workers that ingest them."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.base import Source
from oomstream.stores.opening import history_store
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from oomstream.streams.producer import FeatureProducer
from tests.faults.harness import WorkerProcess
from tests.integration.topic_oracle import GARBAGE
from tests.unit.agents.harness import group

DEADLINE_S = 120.0
"""Nothing that a test waits for takes longer on the slowest machine."""

PLANES = 300
START = datetime(2024, 5, 1, tzinfo=UTC)
CARRIERS = ("UA", "DL", "é", None)


def plane_group(partitions: int) -> FeatureGroup:
    """The group `plane` on a topic that no other test uses."""
    return group(partitions=partitions, topic=f"plane-{uuid.uuid4().hex[:12]}")


class Events:
    """Late, equal, repeated and null events, deletes and garbage, chosen by a seed."""

    def __init__(self, settings: Settings, broker: Broker, catalog: Catalog, seed: int) -> None:
        self._group = catalog.group("plane")
        self._producer = FeatureProducer(broker, settings, catalog)
        self._foreign = Producer(broker.client_config(30))
        self._chance = random.Random(seed)
        self.made = 0

    def produce(self, count: int) -> None:
        """Write so many records and wait until the broker has them."""
        chance = self._chance
        for _ in range(count):
            at = START + timedelta(seconds=chance.randrange(3_000))
            tail, kind = f"N{chance.randrange(PLANES)}", chance.random()
            if kind < 0.02:
                self._producer.produce_delete("plane", [tail], at)
            elif kind < 0.03:
                partition = chance.randrange(self._group.partitions)
                self._foreign.produce(self._group.topic, GARBAGE + chance.randbytes(20), tail, partition)
            else:
                values = {"tail": tail, "at": at, "delay": self.made, "carrier": chance.choice(CARRIERS)}
                self._producer.produce("plane", values)
            self.made += 1
        self._producer.flush()
        assert self._foreign.flush(30) == 0

    def close(self) -> None:
        """Let go of the broker."""
        self._producer.close()


class Progress:
    """Asks the history database how far a topic is ingested, around workers and proxies; for one thread."""

    def __init__(self, settings: Settings) -> None:
        self._runner = asyncio.Runner()
        self._history = history_store(settings.history, settings)

    def __enter__(self) -> Self:
        self._runner.run(self._history.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._history.close())
        self._runner.close()

    def done(self) -> int:
        """Records of the topic that are in history or dead-lettered; waits for a server that is just away."""
        return sum(source.next_sequence for source in self.sources())

    def sources(self) -> list[Source]:
        """Every source with its position; waits for a server that is just away."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                return self._runner.run(self._history.sources())
            except StoreUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.05)


class Feed:
    """Goes on producing in a thread of its own until `stop`, never far ahead of what is ingested.

    So there is always work when a test does something to workers or servers, however long that takes.

    Args:
        settings: The stores' own addresses.
        broker: The broker's own address.
        catalog: The definitions.
        seed: Chooses the events.
        ahead: How many records at most are produced and not ingested.
    """

    def __init__(self, settings: Settings, broker: Broker, catalog: Catalog, seed: int, ahead: int = 3_000) -> None:
        self._settings = settings
        self._ahead = ahead
        self._events = Events(settings, broker, catalog, seed)
        self._end = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    @property
    def made(self) -> int:
        """Records produced so far."""
        return self._events.made

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(DEADLINE_S)
        self._events.close()

    def stop(self) -> None:
        """End producing, so that `made` stays as it is."""
        self._end.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            with Progress(self._settings) as progress:
                while not self._end.is_set():
                    if self.made - progress.done() < self._ahead:
                        self._events.produce(500)
                    else:
                        self._end.wait(0.02)
        except BaseException as exc:
            self._failed = exc


class Watching:
    """Waits for what happens to workers, and fails when one of them ends by itself.

    Args:
        progress: How far they are.
        *workers: Those that must go on; more may be added.
    """

    def __init__(self, progress: Progress, *workers: WorkerProcess) -> None:
        self.workers = list(workers)
        self._progress = progress

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            for worker in self.workers:
                worker.check()
            assert time.monotonic() < deadline, "the condition never held:\n" + "\n".join(w.log for w in self.workers)
            time.sleep(0.02)

    def until_more(self, records: int) -> None:
        """Wait until so many more records are ingested."""
        goal = self._progress.done() + records
        self.until(lambda: self._progress.done() >= goal)

    def drain(self, records: int) -> None:
        """Wait until so many records are ingested in all, then end the workers by SIGTERM, and see that they drain."""
        self.until(lambda: self._progress.done() == records)
        for worker in self.workers:
            ended = worker.drain()
            assert ended.code == 0, ended.log
            assert "Traceback" not in ended.log, ended.log
        self.workers.clear()


@contextmanager
def workers_on(settings: Settings, broker: Broker, **more: Any) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers on some stores, each with settings of its own; those that still run at the end are killed."""
    started: list[WorkerProcess] = []
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    given = {
        "history_url": settings.history,
        "online_url": settings.online,
        "broker_url": broker.url,
        "consumer_group": settings.consumer_group,
        **more,
    }

    def start(**own: Any) -> WorkerProcess:
        started.append(WorkerProcess(settings.data_dir, **{**given, **own}))
        return started[-1]

    try:
        yield start
    finally:
        for worker in started:
            worker.end()


def assigned(broker: Broker, consumer_group: str) -> list[int]:
    """How many partitions each member of a consumer group holds now, ascending."""
    admin = AdminClient(broker.client_config(30))
    described = admin.describe_consumer_groups([consumer_group])[consumer_group].result(30)
    return sorted(len(member.assignment.topic_partitions) for member in described.members if member.assignment)
