"""Carries out a plan: starts workers, waits for progress, kills, and in the end lets everything come to rest."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from tests.faults.harness import holding_write
from tests.torture import deeds
from tests.torture.database import Database
from tests.torture.errors import TortureFailed
from tests.torture.feed import TortureFeed
from tests.torture.letters import LetterBox
from tests.torture.schedule import Deed, Options, Step, Victim
from tests.torture.stage import Stage
from tests.torture.workers import TortureWorker, WorkerNursery

STALL_S = 120.0
"""For how long nothing may move: then something hangs, and the run fails."""

_MISSED_AFTER = 1_000
"""How many records may be ingested before a crash point counts as missed."""

_POLL_S = 0.01
_NOT_READY = -signal.SIGTERM
"""How a process ends that is asked to before it has said what it wants to do then."""

_KILLED = -signal.SIGKILL
_FENCED = "has claimed the source"


@dataclass
class Tally:
    """What was done so far.

    Attributes:
        kills: Workers killed.
        points: Of them, how many at each crash point, and ``random``.
        missed: Crash points that were not reached in time, by point; the worker was killed at random instead.
        freezes: Workers frozen and thawed.
        fenced: Times that a worker that thawed found its partition taken by another one.
        drains: Workers that drained after SIGTERM.
        offsets: Times that the consumer group was set back, set forward or deleted.
        partitions: Partitions added.
        restarts: Servers restarted, by name.
        cuts: Servers cut off, by name.
        unasked: Workers that ended by themselves.
    """

    kills: int = 0
    points: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)
    fenced: int = 0
    drains: int = 0
    offsets: Counter[str] = field(default_factory=Counter)
    partitions: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
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
        armed = {victim.slot: victim.at for victim in step.victims if victim.at is not None}
        self._fill(armed)
        self._joined(*(worker for slot, worker in self._slots.items() if worker is not None and slot in armed))
        self._records.ask(step.feed)
        if step.deed is not None:
            self._until_moved(step.deed.after)
            self._do(step.deed)
            self._fill()
        self._kill(step.victims)

    def finish(self) -> None:
        """Drain everybody, start anew, wait until all is ingested, and drain again."""
        self._drain_all()
        self._fill()
        records = self._records
        self._until(lambda: self.ingested == records.acknowledged == records.wanted, "ingesting the rest")
        self._drain_all()
        self._letters.finish()

    def _fill(self, armed: dict[int, str] | None = None) -> None:
        """Start a worker in every empty slot."""
        for slot, worker in self._slots.items():
            if worker is None:
                self._slots[slot] = self._nursery.start((armed or {}).get(slot))

    def _joined(self, *workers: TortureWorker) -> None:
        """Wait until workers have claimed partitions: others would leave them nothing to do, nor points to reach."""
        self._wait(
            lambda: all(worker.code is not None or worker.claims or worker.stopped for worker in workers),
            "joining the group",
            self._measure,
        )

    def _look(self) -> None:
        """Look how far workers are, and whether one has ended by itself."""
        self._measure()
        for slot, worker in self._slots.items():
            if worker is not None and worker.code is not None:
                self._unasked(worker)
                self._slots[slot] = None

    def _measure(self) -> None:
        """Look how far workers are.

        Raises:
            TortureFailed: Nothing has moved for too long.
        """
        self._records.check()
        done = sum(source.next_sequence for source in self._database.sources())
        if done != self.ingested:
            self.ingested, self._moved_at = done, time.monotonic()
        elif time.monotonic() - self._moved_at > STALL_S:
            raise TortureFailed(f"nothing has moved for {STALL_S:g} s, at {done} of {self._records.wanted} records")

    def _unasked(self, worker: TortureWorker) -> None:
        self.tally.unasked.append(f"worker {worker.number} ended with code {worker.code}: {worker.log_path}")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for progress, with a worker in every slot."""

        def look() -> None:
            self._look()
            self._fill()

        self._wait(condition, what, look)

    def _wait(self, condition: Callable[[], bool], what: str, look: Callable[[], None]) -> None:
        self._moved_at = time.monotonic()
        while not condition():
            try:
                look()
            except TortureFailed as exc:
                raise TortureFailed(f"{what}: {exc}") from exc
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
                    if due and slot not in told and (victim.at or "").startswith("during_drain"):
                        told.add(slot)
                        worker.signal(signal.SIGTERM)
                    if victim.at is not None:
                        due = moved >= victim.after + _MISSED_AFTER or self._all_done
                    if due and slot not in told:
                        self._miss(victim)
                        self._kill_one(worker)
                        del doomed[slot]
                elif worker.code == _KILLED:
                    self._count("random" if victim.at is None else victim.at.partition(":")[0])
                    del doomed[slot]
                else:
                    if worker.code in (0, _NOT_READY) and slot in told:
                        self._miss(victim)  # it had nothing to drain
                    else:
                        self._unasked(worker)
                    told.discard(slot)
                    doomed[slot] = (Victim(slot, None, 0), self._nursery.start())
            self._look()
            time.sleep(_POLL_S)

    def _take(self, slot: int) -> TortureWorker:
        """The worker of a slot, which is empty then."""
        worker, self._slots[slot] = self._slots[slot], None
        return worker if worker is not None else self._nursery.start()

    def _kill_one(self, worker: TortureWorker) -> None:
        worker.kill()
        self._count("random")

    def _count(self, how: str) -> None:
        self.tally.kills += 1
        self.tally.points[how] += 1

    def _miss(self, victim: Victim) -> None:
        if victim.at is not None:
            self.tally.missed[victim.at.partition(":")[0]] += 1

    def _do(self, deed: Deed) -> None:
        stage, tally = self._stage, self.tally
        match deed.kind:
            case "freeze":
                self._freeze(int(deed.target), deed)
            case "drain":
                self._drain(self._take(int(deed.target)))
            case "offsets":
                for slot in deed.kills:
                    self._kill_one(self._take(slot))
                if deed.kills and not stage.embedded:
                    deeds.alter_group(stage, deed.how)
                else:
                    deeds.join_and_commit(stage, deed.how)
                tally.offsets[deed.how.partition(" ")[0]] += 1
            case "delete-group":
                for slot in deed.kills:
                    self._kill_one(self._take(slot))
                deeds.delete_group(stage)
                tally.offsets["deleted"] += 1
            case "partitions":
                self._records.grow(deed.target, deeds.add_partitions(stage, deed.target, deed.amount))
                tally.partitions += deed.amount
            case "restart":
                tally.restarts[deed.target] += 1
                self._without(deeds.server_away(stage.servers[deed.target], deed.how), deed)
            case "cut":
                tally.cuts[deed.target] += 1
                self._cut(deed)

    def _without(self, away: AbstractContextManager[None], deed: Deed) -> None:
        """While a server is away, kill workers and start others, which must wait for it."""
        with away:
            for slot in deed.kills:
                self._kill_one(self._take(slot))
                self._slots[slot] = self._nursery.start()

    def _cut(self, deed: Deed) -> None:
        server = self._stage.servers[deed.target]
        if deed.how in ("to_server", "to_client"):
            with deeds.connections_cut(server, deed.how, deed.amount):
                self._until_moved(300)
        else:
            self._without(deeds.server_cut_off(server, deed.how, deed.amount), deed)

    def _freeze(self, slot: int, deed: Deed) -> None:
        """Freeze a worker until all partitions have gone to others and those have worked; then thaw and end it."""
        frozen, how = self._take(slot), "anywhere"
        if deed.at:
            self._kill_one(frozen)
            frozen, how = self._freeze_at(deed.at)
        # On SQLite a worker frozen within a transaction would stop every writer (guarantees.md).
        with holding_write(self._stage.settings) if self._stage.embedded else nullcontext():
            # A thread that is in the middle of a system call finishes it first: the lock must not be free by then.
            stopped = frozen.signal(signal.SIGSTOP) and frozen.wait_stopped()
        before = {source.id: source.owner for source in self._database.sources()}
        self._fill()
        if stopped:
            self._until(lambda: self._claimed_since(before), "claiming what a frozen worker held")
            self._until_moved(deed.amount)
            frozen.signal(signal.SIGCONT)
            self.tally.freezes[how] += 1
            self._until_moved(100)
        if deed.how.endswith("kill"):
            self._kill_one(frozen)
        else:
            self._drain(frozen)
        self.tally.fenced += frozen.log.count(_FENCED)

    def _freeze_at(self, at: str) -> tuple[TortureWorker, str]:
        """A new worker that freezes at a crash point by itself, or will have to be frozen, for it never got there."""
        frozen = self._nursery.start(f"{at}:freeze")
        self._joined(frozen)
        goal = self.ingested + _MISSED_AFTER
        self._until(lambda: frozen.stopped or self.ingested >= goal or self._all_done, f"freezing at {at}")
        return frozen, at.partition(":")[0] if frozen.stopped else "anywhere"

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
