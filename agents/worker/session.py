"""One stretch of work on a fixed set of topics: a Faust app from its start to its orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from oomstream.agents.worker.app import ConsumerLog, WorkerApp
from oomstream.agents.worker.assignment import Assignment
from oomstream.agents.worker.consumer_options import ConsumerOptions
from oomstream.agents.worker.metrics import WorkerMetrics
from oomstream.agents.worker.runner import PartitionRunner, Pipeline
from oomstream.agents.worker.stopping import starting_backoff
from oomstream.agents.worker.transport import COMMIT_S
from oomstream.agents.worker.watch import Watch, check_incarnations, mind_coordination
from oomstream.schemas.errors import Fatal, OomstreamError, StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.types import us_from_text
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import SourceName
from oomstream.stores.settings import Settings
from oomstream.streams.backoff import Backoff
from oomstream.streams.broker import Broker
from oomstream.streams.topics import Incarnations, ensure_topics, partition_counts, topics_of

log = logging.getLogger(__name__)

DRAIN_S = 20.0
"""How long a batch in hand may take when its partition is taken away or the worker stops, seconds."""

STOP_APP_S = 20.0
"""How long Faust may take to leave the group and end its thread, seconds."""


class Session:
    """Reads the topics of some groups until it is told to stop, the groups change, or something fails.

    Args:
        settings: Limits and budgets.
        broker: Where.
        groups: Whose topics to read.
        make_pipeline: Makes a source's pipeline.
        metrics: Figures to add to.
        ready: Set when the partitions are assigned.
        stuck_s: The watchdog's patience, seconds.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        groups: Sequence[FeatureGroup],
        make_pipeline: Callable[[SourceName], Pipeline],
        metrics: WorkerMetrics,
        *,
        ready: asyncio.Event,
        stuck_s: float,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._groups = groups
        self._make_pipeline = make_pipeline
        self._metrics = metrics
        self._ready = ready
        self._stuck_s = stuck_s
        self._timeout_s = settings.call_timeout_us / 1e6
        self._topics = sorted({group.topic for group in groups})
        self._incarnations = Incarnations(broker, timeout_s=self._timeout_s)
        self._current: dict[str, str] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._app: WorkerApp | None = None

    @property
    def elected(self) -> bool:
        """Whether this worker holds the first partition of the first topic: what Kafka gives to one worker only."""
        return self._app is not None and bool(self._topics) and TP(self._topics[0], 0) in self._app.partitions

    async def run(self, stop: asyncio.Event, changed: Coroutine[Any, Any, None]) -> None:
        """Work until `stop` is set or `changed` returns, then drain.

        Raises:
            Fatal: A promise would break, or an outage outlasted its budget.
            Stopped: `stop` was set while it waited for the broker.
        """
        watching: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(changed),
            asyncio.ensure_future(stop.wait()),
            self._failure,
        ]
        try:
            if stop.is_set() or not self._topics:
                return
            backoff = starting_backoff(self._settings, stop)
            self._current = await backoff.call(self._look_at_topics)
            await self._start(watching, backoff)
            if self._app is not None and not any(each.done() for each in watching):
                watching.append(asyncio.ensure_future(self._watch(self._app)))
                self._ready.set()
                log.info("reading %s from %s", ", ".join(self._topics), self._broker.url)
                await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end()
            self._ready.clear()
            await self._settle(watching)

    async def _look_at_topics(self) -> dict[str, str]:
        """Incarnation of every topic; on the embedded broker missing topics are made.

        Raises:
            Fatal: A topic or its dead-letter topic is missing; names it.
            StoreUnavailable: The broker does not answer.
        """
        topics = topics_of(self._groups)
        if self._broker.embedded:
            await asyncio.to_thread(ensure_topics, self._broker, topics, timeout_s=self._timeout_s)
        present = await asyncio.to_thread(partition_counts, self._broker, timeout_s=self._timeout_s)
        missing = [topic.name for topic in topics if topic.name not in present]
        if missing:
            raise Fatal(f"broker {self._broker.url} has no topic {', '.join(missing)}: `oomstream apply` makes it")
        found = await asyncio.to_thread(self._incarnations.of, self._topics)
        if len(found) < len(self._topics):
            raise StoreUnavailable(f"broker {self._broker.url} does not describe all topics yet")
        return found

    async def _start(self, watching: list[asyncio.Future[Any]], backoff: Backoff) -> None:
        """Start Faust, which returns when the first assignment is there."""
        while self._app is None and not any(each.done() for each in watching):
            self._app = app = self._make_app()
            starting = asyncio.ensure_future(app.start())
            watching.append(asyncio.ensure_future(mind_coordination(app, self._settings.outage_budget_us / 1e6)))
            await asyncio.wait([starting, *watching], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
            try:
                await starting
            except asyncio.CancelledError:
                return
            except KafkaError as exc:
                await self._end()
                await backoff.wait(
                    StoreUnavailable(f"broker {self._broker.url} does not answer: {type(exc).__name__}: {exc}")
                )

    def _make_app(self) -> WorkerApp:
        settings = self._settings
        start = settings.start if settings.start in {"earliest", "latest"} else _milliseconds(settings.start)
        partitions = Assignment(lambda tp: self._runner(app, tp, start), self._metrics, drain_s=DRAIN_S)
        options = ConsumerOptions.of(settings, self._broker)
        app = WorkerApp(self._broker, settings.consumer_group, options, partitions, lambda exc: self._crashed(app, exc))
        app.add_topics(self._topics)
        return app

    def _runner(self, app: WorkerApp, tp: TP, start: str | int) -> PartitionRunner:
        name = SourceName(SourceKind.TOPIC, tp.topic, self._current[tp.topic], tp.partition)
        return PartitionRunner(
            tp,
            partition_log=ConsumerLog(app, tp, start, self._check),
            pipeline=lambda: self._make_pipeline(name),
            settings=self._settings,
            metrics=self._metrics,
            fail=self._fail,
        )

    async def _check(self) -> None:
        """Make sure that the topics are still those that the sources are of."""
        await check_incarnations(self._incarnations, self._current)

    def _fail(self, error: BaseException) -> None:
        """Remember the first failure, which ends the session."""
        if not self._failure.done():
            self._failure.set_exception(error)

    def _crashed(self, app: WorkerApp, reason: BaseException) -> None:
        """Faust gave up: it would stay and do nothing.

        An app that could not be started, and was given up for another one, may say so late.
        """
        if app is self._app and not isinstance(reason, asyncio.CancelledError):
            error = reason if isinstance(reason, OomstreamError) else Fatal(f"Faust crashed: {reason!r}")
            self._fail(error)

    async def _watch(self, app: WorkerApp) -> None:
        watch = Watch(app, self._settings, self._incarnations, self._current, self._metrics, stuck_s=self._stuck_s)
        await watch.run()

    async def _end(self) -> None:
        """Drain the runners, commit the hint, and end Faust."""
        app, self._app = self._app, None
        if app is None:
            return
        await app.partitions.end()
        # Faust swallows cancellation while it stops, so these are waited for, and left alone past their deadlines.
        for what, work, deadline_s in (
            ("commit", app.batch_consumer.commit(), COMMIT_S + 1),
            ("end", app.stop(), STOP_APP_S),
        ):
            task = asyncio.ensure_future(work)
            done, _ = await asyncio.wait({task}, timeout=deadline_s)
            if not done:
                log.warning("Faust did not %s within %g s", what, deadline_s)
            elif error := task.exception():
                log.info("Faust did not %s: %s", what, type(error).__name__)

    async def _settle(self, watching: Sequence[asyncio.Future[Any]]) -> None:
        """End what was watched for, and raise what it found."""
        for each in watching:
            each.cancel()
        results = await asyncio.gather(*watching, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


def _milliseconds(text: str) -> int:
    """The setting `start`, when it is a time, in Kafka's unit."""
    return us_from_text(text if len(text) > 10 else f"{text}T00:00:00+00:00") // 1000
