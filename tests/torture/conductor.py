"""Carries out a plan: starts workers, waits for progress, kills, and in the end lets everything come to rest."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.harness import holding_write
from tests.torture.database import Database
from tests.torture.errors import TortureFailed
from tests.torture.feed import TortureFeed
from tests.torture.letters import LetterBox
from tests.torture.schedule import Deed, Options, Step, Victim
from tests.torture.stage import Stage
from tests.torture.workers import TortureWorker, WorkerNursery

STALL_S = 120.0
"""For how long nothing may move: then something hangs, and the run fails."""

_MISSED_AFTER = 600
"""How many records may be ingested before a crash point counts as missed."""

_POLL_S = 0.01
_NOT_READY = -signal.SIGTERM
"""How a process ends that is asked to before it has said what it wants to do then."""

_KILLED = -signal.SIGKILL


@dataclass
class Tally:
    """What was done so far.

    Attributes:
        kills: Workers killed.
        points: Of them, how many at each crash point, and ``random``.
        missed: Crash points that were not reached in time; the worker was killed at random instead.
        freezes: Workers frozen and thawed.
        drains: Workers that drained after SIGTERM.
        offsets: Times that the consumer group was set back, set forward or deleted.
        partitions: Partitions added.
        restarts: Servers restarted.
        cuts: Servers cut off.
        unasked: Workers that ended by themselves.
    """

    kills: int = 0
    points: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    freezes: int = 0
    drains: int = 0
    offsets: int = 0
    partitions: int = 0
    restarts: int = 0
    cuts: int = 0
    unasked: list[str] = field(default_factory=list)


class Conductor:
    """Carries out the steps of one run.

    Args:
        stage: Where.
        options: What was asked for.
        nursery: Starts workers.
        database: The history database.
        letters: Read as they come.
    """

    def __init__(
        self, stage: Stage, options: Options, nursery: WorkerNursery, database: Database, letters: LetterBox
    ) -> None:
        self.tally = Tally()
        self.ingested = 0
        self._stage = stage
        self._nursery = nursery
        self._database = database
        self._letters = letters
        self._feed: TortureFeed | None = None
        self._slots: dict[int, TortureWorker | None] = dict.fromkeys(range(options.workers))
        self._extra: list[TortureWorker] = []
        self._moved_at = time.monotonic()

    def use(self, feed: TortureFeed) -> None:
        """Let this feed produce what steps ask for."""
        self._feed = feed

    @property
    def _records(self) -> TortureFeed:
        assert self._feed is not None
        return self._feed

    def step(self, step: Step) -> None:
        """Carry out one step.

        Raises:
            TortureFailed: Nothing moves any more.
        """
        self._letters.read()
        self._records.ask(step.feed)
        armed = {victim.slot: victim.at for victim in step.victims}
        self._fill(armed if step.deed is None else {})
        if step.deed is not None:
            self._until_moved(step.deed.after)
            self._do(step.deed)
            self._fill({})
        self._kill(step.victims)

    def finish(self) -> None:
        """Drain everybody, start anew, wait until all is ingested, and drain again."""
        self._drain_all()
        self._fill({})
        records = self._records
        self._until(lambda: self.ingested == records.acknowledged == records.wanted, "ingesting the rest")
        self._drain_all()
        self._letters.finish()

    def _fill(self, armed: dict[int, str | None]) -> None:
        """Start a worker in every empty slot."""
        for slot, worker in self._slots.items():
            if worker is None:
                self._slots[slot] = self._nursery.start(armed.get(slot))

    def _look(self) -> None:
        """Look how far workers are, and whether one has ended by itself."""
        self._records.check()
        done = sum(source.next_sequence for source in self._database.sources())
        if done != self.ingested:
            self.ingested, self._moved_at = done, time.monotonic()
        elif time.monotonic() - self._moved_at > STALL_S:
            raise TortureFailed(f"nothing has moved for {STALL_S:g} s, at {done} of {self._records.wanted} records")
        for slot, worker in self._slots.items():
            if worker is not None and worker.code is not None:
                self._unasked(worker)
                self._slots[slot] = None

    def _unasked(self, worker: TortureWorker) -> None:
        self.tally.unasked.append(f"worker {worker.number} ended with code {worker.code}: {worker.log_path}")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for progress."""
        self._moved_at = time.monotonic()
        while True:
            try:
                self._look()
            except TortureFailed as exc:
                raise TortureFailed(f"{what}: {exc}") from exc
            if condition():
                return
            self._fill({})
            time.sleep(_POLL_S)

    def _until_moved(self, records: int) -> None:
        """Wait until so many more records are ingested, or all there are."""
        goal = self.ingested + records
        self._until(lambda: self.ingested >= goal or self._all_done, f"waiting for {records} records")

    @property
    def _all_done(self) -> bool:
        return self.ingested >= self._records.wanted

    def _kill(self, victims: tuple[Victim, ...]) -> None:
        """Wait until every victim has died, or kill it."""
        start = self.ingested
        doomed = {victim.slot: (victim, self._take(victim.slot)) for victim in victims}
        told: set[int] = set()
        self._moved_at = time.monotonic()
        while doomed:
            for slot, (victim, worker) in list(doomed.items()):
                moved = self.ingested - start
                if worker.code is None:
                    due = moved >= victim.after or self._all_done
                    missed = moved >= victim.after + _MISSED_AFTER or self._all_done
                    if victim.at is not None and victim.at.startswith("during_drain"):
                        if due and slot not in told:
                            told.add(slot)
                            worker.signal(signal.SIGTERM)
                        continue
                    if due if victim.at is None else missed:
                        worker.kill()
                        self.tally.missed += victim.at is not None
                        self._count("random")
                        del doomed[slot]
                elif worker.code == _KILLED:
                    self._count("random" if victim.at is None else victim.at.partition(":")[0])
                    del doomed[slot]
                elif worker.code in (0, _NOT_READY) and slot in told:
                    # It had nothing to drain: another one takes its place, and is killed.
                    self.tally.missed += 1
                    doomed[slot] = (Victim(slot, None, 0), self._nursery.start())
                else:
                    self._unasked(worker)
                    doomed[slot] = (Victim(slot, None, 0), self._nursery.start())
            self._look()
            time.sleep(_POLL_S)

    def _take(self, slot: int) -> TortureWorker:
        worker, self._slots[slot] = self._slots[slot], None
        return worker if worker is not None else self._nursery.start()

    def _count(self, how: str) -> None:
        self.tally.kills += 1
        self.tally.points[how] += 1

    def _do(self, deed: Deed) -> None:
        match deed.kind:
            case "freeze":
                self._freeze(int(deed.target), deed)
            case "drain":
                self._drain(self._take(int(deed.target)))

    def _freeze(self, slot: int, deed: Deed) -> None:
        """Freeze a worker until all partitions have gone to others and those have worked; then thaw and end it."""
        frozen = self._take(slot)
        if self._stage.embedded:
            # Frozen within a transaction it would stop every writer of SQLite (guarantees.md).
            with holding_write(self._stage.settings):
                stopped = frozen.signal(signal.SIGSTOP)
        else:
            stopped = frozen.signal(signal.SIGSTOP)
        before = {source.id: source.owner for source in self._database.sources()}
        self._fill({})
        if stopped:
            self._until(lambda: self._claimed_since(before), "claiming what a frozen worker held")
            self._until_moved(deed.amount)
            frozen.signal(signal.SIGCONT)
            self.tally.freezes += 1
            self._until_moved(100)
        if deed.kills:
            frozen.kill()
            self._count("random")
        else:
            self._drain(frozen)

    def _claimed_since(self, before: dict[int, int]) -> bool:
        now = {source.id: source.owner for source in self._database.sources()}
        return all(now[source] > owner for source, owner in before.items())

    def _drain(self, worker: TortureWorker) -> None:
        """SIGTERM: it must end by itself, in order."""
        worker.signal(signal.SIGTERM)
        if worker.wait(STALL_S) in (0, _NOT_READY):
            self.tally.drains += 1
        else:
            self._unasked(worker)

    def _drain_all(self) -> None:
        workers = [worker for worker in self._slots.values() if worker is not None]
        for slot in self._slots:
            self._slots[slot] = None
        for worker in workers:
            worker.signal(signal.SIGTERM)
        for worker in workers:
            self._drain(worker)
