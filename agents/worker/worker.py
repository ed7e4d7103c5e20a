"""One worker, from its start-up checks to its orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from oomstream.agents.worker.metrics import WorkerMetrics
from oomstream.agents.worker.runner import Pipeline
from oomstream.agents.worker.self_check import check_faust
from oomstream.agents.worker.session import Session
from oomstream.agents.worker.stopping import Stopped, sleep_until, starting_backoff
from oomstream.agents.worker.stores import wait_for_stores
from oomstream.agents.worker.tidying import tidy
from oomstream.agents.worker.watch import STUCK_S
from oomstream.schemas.catalog import Catalog
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.stores.base import SourceName
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.opening import Stores
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker, need_broker
from oomstream.streams.dlq_topic import KafkaDeadLetterSink
from oomstream.streams.ingest import SourceIngest

log = logging.getLogger(__name__)

NEW_GROUPS_S = 3.0
"""How often the catalog is looked at for new groups."""


class Worker:
    """Reads topics into the stores until it is stopped. Make it in the event loop that runs it.

    Args:
        settings: Where the broker and the stores are, and every limit.
        groups: Names of the groups to read; None = every stream group, those that come later included.
        broker: The broker; None = the one that the settings name or the data folder tells of.
        stuck_s: The watchdog's patience, seconds.
    """

    def __init__(
        self,
        settings: Settings,
        groups: Sequence[str] | None = None,
        *,
        broker: Broker | None = None,
        stuck_s: float = STUCK_S,
    ) -> None:
        self.metrics = WorkerMetrics()
        self._settings = settings
        self._groups = groups
        self._broker = broker
        self._stuck_s = stuck_s
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()

    def stop(self) -> None:
        """Finish the batches in hand, store the positions, and end; call it in the worker's own loop."""
        self._stop.set()

    async def wait_ready(self) -> None:
        """Wait until the worker has joined its consumer group and has its partitions."""
        await self._ready.wait()

    async def run(self) -> None:
        """Work until `stop`.

        Raises:
            Fatal: Going on would break a promise, or an outage outlasted its budget.
            InvalidSetting: The settings do not say which broker or stores.
            UnknownGroup: A group that was asked for is not registered.
        """
        check_faust()
        broker = self._broker or need_broker(self._settings)
        with suppress(Stopped):
            await self._run(broker)

    async def _run(self, broker: Broker) -> None:
        async with wait_for_stores(self._settings, self._stop) as stores:
            catalog = CatalogCache(stores.history)
            pipelines = self._pipelines(stores, catalog, broker)
            tidying = asyncio.ensure_future(tidy(*stores, lambda: session is not None and session.elected))
            session: Session | None = None
            try:
                while not self._stop.is_set():
                    groups = await self._find_groups(catalog)
                    session = Session(
                        self._settings,
                        broker,
                        groups,
                        pipelines,
                        self.metrics,
                        ready=self._ready,
                        stuck_s=self._stuck_s,
                    )
                    await session.run(self._stop, self._new_groups(catalog, groups))
            finally:
                tidying.cancel()

    def _pipelines(self, stores: Stores, catalog: CatalogCache, broker: Broker) -> Callable[[SourceName], Pipeline]:
        settings = self._settings
        timeout_s = settings.call_timeout_us / 1e6
        sink = KafkaDeadLetterSink(broker, timeout_s=timeout_s)
        url = settings.schema_registry_url
        registry = None
        if url:
            from oomstream.streams.registry import RegistrySchemas  # its HTTP client is a sixth of a worker's start

            registry = RegistrySchemas(url, timeout_s=timeout_s)

        def make(name: SourceName) -> Pipeline:
            return SourceIngest(
                history=stores.history,
                online=stores.online,
                catalog=catalog,
                dead_letters=sink,
                name=name,
                settings=settings,
                registry=registry,
            )

        return make

    def _wanted(self, catalog: Catalog) -> list[FeatureGroup]:
        """The groups to read; those asked for by name must be there."""
        names = sorted(catalog.groups) if self._groups is None else self._groups
        return [group for group in map(catalog.group, names) if group.category is Category.STREAM]

    async def _find_groups(self, catalog: CatalogCache) -> list[FeatureGroup]:
        """The groups to read now; waits for the first if there is none; none if the worker is stopped meanwhile."""
        backoff = starting_backoff(self._settings, self._stop)
        said = False
        while not self._stop.is_set():
            groups = self._wanted(await backoff.call(catalog.reload))
            if groups:
                return groups
            if not said:
                log.info("no stream group is registered yet: waiting for `oomstream apply`")
                said = True
            await sleep_until(self._stop, NEW_GROUPS_S)
        return []

    async def _new_groups(self, catalog: CatalogCache, reading: Sequence[FeatureGroup]) -> None:
        """Return when there is a topic to read that is not read yet."""
        topics = {group.topic for group in reading}
        while True:
            await asyncio.sleep(NEW_GROUPS_S)
            try:
                fresh = {group.topic for group in self._wanted(await catalog.reload())} - topics
            except StoreUnavailable as exc:
                log.info("%s", exc)
                continue
            if fresh:
                log.info("new topics to read: %s", ", ".join(sorted(fresh)))
                return


async def run_worker(settings: Settings, groups: Sequence[str] | None = None, *, broker: Broker | None = None) -> None:
    """Run one worker in this event loop until its task is cancelled, which drains it.

    Raises:
        Fatal: As `Worker.run`.
    """
    worker = Worker(settings, groups, broker=broker)
    task = asyncio.ensure_future(worker.run())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        worker.stop()
        await task
        raise
