"""The demo's stream part: events over a broker into a worker in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from oomstream.agents.broker import EmbeddedBroker
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import Fatal
from oomstream.stores.base import HistoryStore, Source
from oomstream.stores.opening import history_store
from oomstream.stores.settings import PREFIX, Settings
from oomstream.streams.broker import Broker
from oomstream.streams.dlq_topic import read_dead_letters
from oomstream.streams.producer import FeatureProducer
from oomstream.streams.topics import ensure_topics, topics_of

STEP = 500
"""After how many produced events the progress is told of."""
START_S = 60.0
END_S = 60.0
_LOOK_S = 0.2


@dataclass(slots=True)
class Progress:
    """How far the stream is; written by the producing thread and the watching loop, read by the display.

    Attributes:
        total: How many events there are.
        produced: How many the broker was given.
        ingested: How many are in history (and, but for the batch in hand, online).
    """

    total: int
    produced: int = 0
    ingested: int = 0


class Streamed(NamedTuple):
    """How a stream went.

    Attributes:
        seconds: From the first event's production until the last one was in history.
        dead_letters: How many events were refused.
    """

    seconds: float
    dead_letters: int


def stream(
    settings: Settings,
    server: Broker | None,
    catalog: Catalog,
    events: Iterable[tuple[str, dict[str, Any]]],
    progress: Progress,
    show: Callable[[Progress], None],
    *,
    log_file: Path,
) -> Streamed:
    """Produce events while a worker ingests them; both stores hold all of them when this returns.

    Args:
        settings: Where the stores are, with the definitions in them.
        server: The broker; None = an embedded one, for as long as this takes.
        catalog: The same definitions.
        events: Group name and values, in the order to produce them.
        progress: Kept up to date.
        show: Called a few times a second.
        log_file: Where the worker's output goes.

    Returns:
        How it went.

    Raises:
        Fatal: The worker ended before it was done; names its log.
        StoreUnavailable: The broker or a store failed.
    """
    timeout_s = settings.call_timeout_us / 1e6
    with _broker(settings, server) as broker, _worker(settings, broker, log_file, catalog) as process:
        _await_start(settings, process, log_file)
        began = time.perf_counter()
        failure: list[BaseException] = []
        thread = threading.Thread(
            target=_produce, args=(broker, settings, catalog, events, progress, failure), daemon=True
        )
        thread.start()
        asyncio.run(_watch(settings, process, progress, show, failure, log_file))
        seconds = time.perf_counter() - began
        thread.join()
        topics = [each.group.topic for each in catalog.groups.values()]
        letters = sum(1 for topic in topics for _ in read_dead_letters(broker, topic, timeout_s=timeout_s))
        return Streamed(seconds, letters)


@contextmanager
def _broker(settings: Settings, server: Broker | None) -> Iterator[Broker]:
    if server is not None:
        yield server
        return
    with EmbeddedBroker(settings.data_dir) as embedded:
        yield embedded.broker


def _produce(
    broker: Broker,
    settings: Settings,
    catalog: Catalog,
    events: Iterable[tuple[str, dict[str, Any]]],
    progress: Progress,
    failure: list[BaseException],
) -> None:
    try:
        with FeatureProducer(broker, settings, catalog) as producer:
            for at, (group, values) in enumerate(events, 1):
                producer.produce(group, values)
                if at % STEP == 0:
                    progress.produced = at
        progress.produced = progress.total
    except BaseException as exc:
        failure.append(exc)


async def _watch(
    settings: Settings,
    process: subprocess.Popen[bytes],
    progress: Progress,
    show: Callable[[Progress], None],
    failure: list[BaseException],
    log_file: Path,
) -> None:
    async with history_store(settings.history, settings) as history:
        while progress.ingested < progress.total:
            if failure:
                raise failure[0]
            if process.poll() is not None:
                raise Fatal(f"the worker ended with exit code {process.returncode}: see {log_file}")
            progress.ingested = sum(each.next_sequence for each in await history.sources())
            show(progress)
            await asyncio.sleep(_LOOK_S)


@contextmanager
def _worker(settings: Settings, broker: Broker, log_file: Path, catalog: Catalog) -> Iterator[subprocess.Popen[bytes]]:
    if not broker.embedded:
        topics = topics_of(each.group for each in catalog.groups.values())
        ensure_topics(broker, topics, timeout_s=settings.call_timeout_us / 1e6)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    if not broker.embedded:
        environment |= {name: value for name, value in os.environ.items() if name.startswith(f"{PREFIX}KAFKA_")}
    environment |= {
        f"{PREFIX}DATA_DIR": str(settings.data_dir),
        f"{PREFIX}BROKER_URL": broker.url,
        f"{PREFIX}ONLINE_URL": settings.online,
        f"{PREFIX}HISTORY_URL": settings.history,
        f"{PREFIX}CONSUMER_GROUP": settings.consumer_group,
    }
    command = [sys.executable, "-m", "oomstream.agents.cli.main", "worker"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        code = process.wait(END_S)
        if code:
            raise Fatal(f"the worker ended with exit code {code}: see {log_file}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _await_start(settings: Settings, process: subprocess.Popen[bytes], log_file: Path) -> None:
    """Wait until the worker has claimed every partition, so that its start is not counted as ingest time."""

    async def claimed() -> None:
        async with history_store(settings.history, settings) as history:
            partitions = sum(each.group.partitions for each in (await history.load_catalog()).groups.values())
            while len(await _claimed(history)) < partitions:
                if process.poll() is not None:
                    raise Fatal(f"the worker ended with exit code {process.returncode}: see {log_file}")
                await asyncio.sleep(0.05)

    async def bounded() -> None:
        try:
            async with asyncio.timeout(START_S):
                await claimed()
        except TimeoutError as exc:
            raise Fatal(f"the worker was not ready within {START_S:g} s: see {log_file}") from exc

    asyncio.run(bounded())


async def _claimed(history: HistoryStore) -> list[Source]:
    return [each for each in await history.sources() if each.owner > 0]
