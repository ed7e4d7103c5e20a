"""The plan of a run: what is done to whom, and after how much progress. The same options give the same plan.

Nothing in it depends on a clock: a step begins when the one before is over, and within it things happen when so many
records are ingested.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from oomstream.stores.crash_points import POINTS

TIMES = {"after_dlq": 2, "while_claiming": 4, "during_drain": 2}
"""How often a point is passed at most before it kills; 6 where nothing else is said."""

FIRST_PARTITIONS = 3
MOST_PARTITIONS = 8
_DEED_SHARE = 0.2

_EMBEDDED = (("freeze", 5), ("drain", 3), ("offsets", 2))
_ON_SERVERS = (*_EMBEDDED, ("delete-group", 1), ("partitions", 2), ("restart", 4), ("cut", 5))
LEFT_OUT = "partitions added, the group deleted, servers restarted or cut off: the embedded broker and SQLite have none"
"""What the embedded variant does not do, and why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for.

    Attributes:
        kills: How many workers to kill.
        workers: How many run at once.
        seed: Chooses plan and records.
        servers: Whether on Kafka, TiDB and TiKV, or on the embedded broker and SQLite.
    """

    kills: int
    workers: int
    seed: int
    servers: bool


@dataclass(frozen=True, slots=True)
class Victim:
    """A worker that dies in a step.

    Attributes:
        slot: Which one.
        at: The crash point at which it dies, as ``point:n``; None = by SIGKILL from outside.
        after: After how many more ingested records the SIGKILL comes, or the SIGTERM that a drain begins with.
    """

    slot: int
    at: str | None
    after: int

    def __str__(self) -> str:
        return f"kill {self.slot} at {self.at}" if self.at else f"kill {self.slot} after {self.after}"


@dataclass(frozen=True, slots=True)
class Deed:
    """Something else that happens in a step, before its victims die.

    Attributes:
        kind: freeze, drain, offsets, delete-group, partitions, restart or cut.
        target: The slot, the group, or the server.
        how: In which way.
        after: After how many more ingested records.
        amount: Records that others ingest while one is frozen; partitions added; seconds that a server is away.
        kills: Slots whose workers are killed by it, in order.
    """

    kind: str
    target: str
    how: str
    after: int
    amount: int
    kills: tuple[int, ...] = ()

    def __str__(self) -> str:
        words = [self.kind, self.target, self.how, f"({self.amount})" if self.amount else "", f"after {self.after}"]
        killed = f" killing {', '.join(map(str, self.kills))}" if self.kills else ""
        return " ".join(filter(None, words)) + killed


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        number: Counts from 1.
        feed: Records that are produced for it.
        deed: What happens first, if anything.
        victims: Who dies then, all at about the same time.
    """

    number: int
    feed: int
    deed: Deed | None
    victims: tuple[Victim, ...]

    @property
    def kills(self) -> int:
        """How many workers die in it."""
        return len(self.victims) + (len(self.deed.kills) if self.deed else 0)

    def __str__(self) -> str:
        parts = [str(each) for each in (self.deed, *self.victims) if each is not None]
        return f"{self.number:4d}  {self.feed:4d} records  {'; '.join(parts)}"


def make_plan(options: Options) -> list[Step]:
    """The steps of a run; together they kill exactly as many workers as are asked for."""
    steps: list[Step] = []
    left = options.kills
    for step in _Planner(options).steps():
        if step.kills > left:  # the last step kills only whom it still may
            step = Step(step.number, step.feed, None, (*step.victims, *_spare(options))[:left])
        steps.append(step)
        left -= step.kills
        if not left:
            return steps
    return steps


def _spare(options: Options) -> list[Victim]:
    return [Victim(slot, None, 100) for slot in range(options.workers)]


class _Planner:
    """Makes steps without end, knowing which slots are empty when a step begins."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._chance = random.Random(f"plan {options.seed} {options.workers} {options.servers}")
        self._points: list[str] = []
        self._partitions: dict[str, int] = {}
        self._deeds = _ON_SERVERS if options.servers else _EMBEDDED

    def steps(self) -> Iterator[Step]:
        empty = set(range(self._options.workers))
        number = 0
        while True:
            number += 1
            deed = self._deed() if number > 1 and self._chance.random() < _DEED_SHARE else None
            fresh = set(empty)
            if deed is not None and deed.kind in ("freeze", "drain", "offsets", "delete-group", "restart", "cut"):
                fresh = set()  # what the deed starts, it starts with no crash point
            victims = self._victims(fresh)
            empty = {victim.slot for victim in victims}
            yield Step(number, self._chance.randrange(500, 1_500), deed, victims)

    def _victims(self, fresh: set[int]) -> tuple[Victim, ...]:
        chance, workers = self._chance, self._options.workers
        count = min(workers, chance.choice((1, 1, 1, 2, 2, workers)))
        # Those that are started in this step come first: only they can be given a crash point.
        order = sorted(range(workers), key=lambda slot: (slot not in fresh, chance.random()))
        if chance.random() < 0.2:
            chance.shuffle(order)
        return tuple(self._victim(slot, slot in fresh and chance.random() < 0.85) for slot in sorted(order[:count]))

    def _victim(self, slot: int, at_point: bool) -> Victim:
        chance = self._chance
        after = chance.randrange(20, 500)
        if not at_point:
            return Victim(slot, None, after)
        if not self._points:
            self._points = chance.sample(POINTS, len(POINTS))  # each of them comes once in every round
        point = self._points.pop()
        return Victim(slot, f"{point}:{chance.randint(1, TIMES.get(point, 6))}", after)

    def _deed(self) -> Deed | None:
        chance, workers = self._chance, self._options.workers
        kinds, weights = zip(*self._deeds, strict=True)
        kind = chance.choices(kinds, weights)[0]
        slot, after = chance.randrange(workers), chance.randrange(20, 400)
        everybody = tuple(range(workers))
        match kind:
            case "freeze":
                how = chance.choice(("kill", "drain"))
                return Deed(
                    kind, str(slot), f"then {how}", after, chance.randrange(100, 600), (slot,) * (how == "kill")
                )
            case "drain":
                return Deed(kind, str(slot), "", after, 0)
            case "offsets":
                return Deed(kind, "group", chance.choice(("back", "forward")), after, 0, everybody)
            case "delete-group":
                return Deed(kind, "group", "", after, 0, everybody)
            case "partitions":
                return self._more_partitions(after)
            case "restart":
                server, how = chance.choice(
                    (("kafka", "order"), ("kafka", "kill"), ("tikv", "kill"), ("tidb", "order"))
                )
                return Deed(kind, server, how, after, 0, (slot,) * chance.randrange(2))
        server, how = chance.choice(("kafka", "tikv", "tidb")), chance.choice(("refuse", "reset", "blackhole"))
        return Deed(kind, server, how, after, chance.randrange(1, 4), (slot,) * chance.randrange(2))

    def _more_partitions(self, after: int) -> Deed | None:
        from tests.torture.groups import NAMES

        group, more = self._chance.choice(NAMES), self._chance.randrange(1, 3)
        now = self._partitions.get(group, FIRST_PARTITIONS)
        if now + more > MOST_PARTITIONS:
            return None
        self._partitions[group] = now + more
        return Deed("partitions", group, "", after, more)
