"""What a running worker looks at from time to time: its lag, whether it moves, and whether its topics are the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from oomstream.agents.worker.app import WorkerApp, call_consumer
from oomstream.agents.worker.metrics import WorkerMetrics
from oomstream.schemas.errors import Fatal, InvalidSetting, StoreUnavailable
from oomstream.stores.settings import Settings
from oomstream.streams.topics import Incarnations

log = logging.getLogger(__name__)

LOOK_S = 1.0
INCARNATION_S = 3.0
STUCK_S = 60.0
COORDINATION_S = 0.5
REFUSED = (GroupAuthorizationFailedError, TopicAuthorizationFailedError)
BROKER_GONE_S = 10.0
"""How long the embedded broker may be silent: it never comes back as the same incarnation."""


class Watchdog:
    """Says when a partition has records to read and nothing has moved for too long.

    Args:
        stuck_s: How long nothing may move, seconds.
        busy_s: How much longer a batch in hand may take, seconds (the pipeline's own budget for outages).
    """

    def __init__(self, *, stuck_s: float, busy_s: float) -> None:
        self._stuck_s = stuck_s
        self._busy_s = busy_s
        self._moved: dict[TP, tuple[int | None, float]] = {}

    def look(self, tp: TP, *, done: int | None, end: int | None, busy: bool, now: float) -> None:
        """One look at one partition.

        Args:
            tp: Which.
            done: Offset up to which everything is ingested; None while it is being claimed.
            end: End of its log; None if the broker does not say.
            busy: Whether a batch, or the claim, is in hand.
            now: Monotonic clock, seconds.

        Raises:
            Fatal: It is stuck.
        """
        last, since = self._moved.get(tp, (None, now))
        if tp not in self._moved or done != last or (end is not None and done is not None and done >= end):
            self._moved[tp] = (done, now)
            return
        allowed_s = self._stuck_s + (self._busy_s if busy else 0.0)
        if now - since > allowed_s and (end is not None or busy):
            raise Fatal(
                f"{tp.topic}[{tp.partition}]: nothing has moved for {now - since:.0f} s though the log has more "
                f"(at {done}, the log ends at {end}); stopped so that another start can go on"
            )

    def keep(self, held: set[TP]) -> None:
        """Forget partitions that are not held any more."""
        self._moved = {tp: each for tp, each in self._moved.items() if tp in held}


class Watch:
    """Looks every second until something must stop the worker.

    Args:
        app: The running app.
        settings: Budgets.
        incarnations: How to look at the topics.
        expected: Incarnation of each topic when the worker began to read it.
        metrics: Where the lag goes.
        stuck_s: How long nothing may move, seconds.
    """

    def __init__(
        self,
        app: WorkerApp,
        settings: Settings,
        incarnations: Incarnations,
        expected: Mapping[str, str],
        metrics: WorkerMetrics,
        *,
        stuck_s: float = STUCK_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._incarnations = incarnations
        self._expected = expected
        self._metrics = metrics
        self._watchdog = Watchdog(stuck_s=stuck_s, busy_s=settings.outage_budget_us / 1e6)
        self._clock = clock or asyncio.get_running_loop().time
        self._adrift: dict[TP, int] = {}

    async def run(self) -> None:
        """Look until cancelled.

        Raises:
            Fatal: A topic was made again, a partition is stuck, or the broker is gone.
        """
        # Two loops, since a broker that is gone holds up every call of the consumer.
        looks = [asyncio.ensure_future(self._look_at_partitions()), asyncio.ensure_future(self._look_at_topics())]
        try:
            await asyncio.gather(*looks)
        finally:
            for look in looks:
                look.cancel()

    async def _look_at_partitions(self) -> None:
        while True:
            self._look(await self._ends())
            await asyncio.sleep(LOOK_S)

    async def _look_at_topics(self) -> None:
        silent_since: float | None = None
        while True:
            try:
                await check_incarnations(self._incarnations, self._expected)
                silent_since = None
            # A broker that restarts may for a moment refuse a user whom it let in before.
            except (StoreUnavailable, InvalidSetting) as exc:
                silent_since = self._silent(silent_since, self._clock(), exc)
            await asyncio.sleep(INCARNATION_S)

    def _silent(self, since: float | None, now: float, error: StoreUnavailable | InvalidSetting) -> float:
        """The broker did not answer.

        Raises:
            Fatal: For too long.
        """
        since = now if since is None else since
        allowed_s = BROKER_GONE_S if self._incarnations.broker.embedded else self._settings.outage_budget_us / 1e6
        if now - since >= allowed_s:
            raise Fatal(f"{error}; gave up after {now - since:.0f} s") from error
        log.warning("%s", error)
        return since

    async def _ends(self) -> Mapping[TP, int]:
        """End of each partition's log, as far as the broker says."""
        try:
            ends: Mapping[TP, int] = await call_consumer(self._app, lambda thread: thread.ends(), "lag")
        except StoreUnavailable as exc:
            log.info("%s", exc)
            return {}
        return ends

    def _look(self, ends: Mapping[TP, int]) -> None:
        now = self._clock()
        lag: int | None = 0
        held: set[TP] = set()
        for runner in self._app.partitions:
            held.add(runner.tp)
            end, done = ends.get(runner.tp), runner.done
            busy = runner.busy_since is not None or done is None
            self._watchdog.look(runner.tp, done=done, end=end, busy=busy, now=now)
            lag = None if lag is None or end is None or done is None else lag + max(0, end - done)
            self._realign(runner.tp, runner.idle_at, end)
            if self._adrift.get(runner.tp, 0) > 1:
                self._adrift.pop(runner.tp)
                runner.realign()
        self._watchdog.keep(held)
        self._metrics.lag = -1 if lag is None else lag

    def _realign(self, tp: TP, idle_at: int | None, end: int | None) -> None:
        """Count looks at which a runner waits though the consumer has read past it (a batch was dropped between)."""
        position = self._app.batch_consumer.thread.position_of(tp)
        if idle_at is not None and end is not None and idle_at < end and position not in (None, idle_at):
            self._adrift[tp] = self._adrift.get(tp, 0) + 1
        else:
            self._adrift.pop(tp, None)


async def mind_coordination(app: WorkerApp, outage_budget_s: float) -> None:
    """Take coordination errors from aiokafka, which lets it rejoin the group, until cancelled.

    Raises:
        Fatal: The broker refuses this group or topic, or rejoining has failed for the whole outage budget.
    """
    loop = asyncio.get_running_loop()
    failing_since: float | None = None
    while True:
        await asyncio.sleep(COORDINATION_S)
        try:
            error, ended = await call_consumer(app, lambda thread: thread.coordination_error(), "worker")
        except (StoreUnavailable, ConsumerNotStarted):
            continue
        if error is None:
            failing_since = failing_since if app.rebalancing else None
            continue
        failing_since = failing_since or loop.time()
        log.warning("consumer group %s: %s; joining again", app.conf.id, error)
        if ended or isinstance(error, REFUSED) or loop.time() - failing_since > outage_budget_s:
            raise Fatal(f"consumer group {app.conf.id!r}: {error}") from error


async def check_incarnations(incarnations: Incarnations, expected: Mapping[str, str]) -> None:
    """Make sure that every topic is the one that the worker began to read.

    Raises:
        Fatal: One was deleted, or deleted and made again; names it.
        StoreUnavailable: The broker does not answer.
    """
    found = await asyncio.to_thread(incarnations.of, expected)
    for topic, incarnation in expected.items():
        if found.get(topic) != incarnation:
            raise Fatal(
                f"topic {topic!r} was deleted" + (" and made again" if topic in found else "") + " while it was read; "
                "start the worker again to read the new one from its beginning"
            )
