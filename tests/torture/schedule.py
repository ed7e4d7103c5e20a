"""The plan of a run: what is done to whom, and after how much progress. The same options give the same plan.

Nothing in it depends on a clock: a step begins when the one before is over, and within it things happen when so many
records are ingested.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from oomstream.stores.crash_points import PIPELINE_POINTS
from tests.torture.groups import NAMES

POINTS = PIPELINE_POINTS
"""The crash points that a worker passes."""

TIMES = {"after_dlq": 1, "while_claiming": 3, "during_drain": 2}
"""How often a point is reached at most until it kills; 5 where nothing else is said."""

FREEZING_POINTS = tuple(point for point in POINTS if point not in ("after_dlq", "during_drain"))

FIRST_PARTITIONS = 3
MOST_PARTITIONS = 8
LEFT_OUT = (
    "partitions added, the consumer group deleted, servers restarted or cut off, and workers frozen in a transaction, "
    "for the embedded broker and SQLite have none of these"
)
"""What the embedded variant does not do, and why."""

_DEED_SHARE = 0.4
_EMBEDDED = {"freeze": 5, "drain": 3, "offsets": 2}
_ON_SERVERS = {"freeze": 6, "drain": 2, "offsets": 2, "delete-group": 1, "partitions": 2, "restart": 4, "cut": 6}
"""How often each kind of deed comes in one round."""

_RESTARTS = (("kafka", "order"), ("kafka", "kill"), ("tikv", "kill"), ("tidb", "order"))
"""TiDB in order only: its embedded storage tears transactions when it is killed (tests/services/README.md)."""

_CUTS = tuple(
    (server, how)
    for server in ("kafka", "tikv", "tidb")
    for how in ("refuse", "reset", "blackhole", "to_server", "to_client")
)


Card = TypeVar("Card")


class _Deck(Generic[Card]):
    """Cards in an order of chance, shuffled anew when all have come: each comes as often as it should."""

    def __init__(self, chance: random.Random, cards: Iterable[Card]) -> None:
        self._chance = chance
        self._cards = list(cards)
        self._left: list[Card] = []

    def draw(self) -> Card:
        if not self._left:
            self._left = self._chance.sample(self._cards, len(self._cards))
        return self._left.pop()


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
        amount: Records that others ingest while one is frozen; partitions added; seconds that a server is away, or
            bytes after which its connections are cut.
        kills: Slots whose workers are killed by it, in order.
        at: The crash point at which a worker freezes.
    """

    kind: str
    target: str = ""
    how: str = ""
    after: int = 0
    amount: int = 0
    kills: tuple[int, ...] = ()
    at: str = ""

    def __str__(self) -> str:
        words = [
            self.kind,
            self.target,
            f"at {self.at}" if self.at else "",
            self.how,
            f"({self.amount})" if self.amount else "",
            f"after {self.after}",
            f"killing {', '.join(map(str, self.kills))}" if self.kills else "",
        ]
        return " ".join(filter(None, words))


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
        if step.kills > left:  # at the end, only as many as are left
            victims = tuple(Victim(slot, None, 100) for slot in range(min(left, options.workers)))
            step = Step(step.number, step.feed, None, victims)
        steps.append(step)
        left -= step.kills
        if not left:
            break
    return steps


class _Planner:
    """Makes steps without end, knowing which slots are empty when a step begins."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._chance = random.Random(f"plan {options.seed} {options.workers} {options.servers}")
        self._points = _Deck(self._chance, POINTS)
        self._freezing = _Deck(self._chance, FREEZING_POINTS)
        self._restarts = _Deck(self._chance, _RESTARTS)
        self._cuts = _Deck(self._chance, _CUTS)
        kinds = _ON_SERVERS if options.servers else _EMBEDDED
        self._deeds = _Deck(self._chance, [kind for kind, count in kinds.items() for _ in range(count)])
        self._partitions = dict.fromkeys(NAMES, FIRST_PARTITIONS)

    def steps(self) -> Iterator[Step]:
        """The steps."""
        empty = set(range(self._options.workers))
        number = 0
        while True:
            number += 1
            deed = self._deed() if number > 1 and self._chance.random() < _DEED_SHARE else None
            # Whom a deed starts, it starts with no crash point.
            victims = self._victims(empty if deed is None else set())
            empty = {victim.slot for victim in victims}
            yield Step(number, self._chance.randrange(800, 1_800), deed, victims)

    def _victims(self, fresh: set[int]) -> tuple[Victim, ...]:
        """Mostly workers that are started in this step, for only they can be given a crash point."""
        chance, workers = self._chance, self._options.workers
        count = min(workers, chance.choice((1, 1, 2, 2, workers)))
        order = sorted(range(workers), key=lambda slot: (slot not in fresh, chance.random()))
        if chance.random() < 0.1:
            chance.shuffle(order)
        return tuple(self._victim(slot, slot in fresh and chance.random() < 0.9) for slot in sorted(order[:count]))

    def _victim(self, slot: int, at_point: bool) -> Victim:
        after = self._chance.randrange(20, 500)
        return Victim(slot, self._point() if at_point else None, after)

    def _point(self) -> str:
        point = self._points.draw()
        return f"{point}:{self._chance.randint(1, TIMES.get(point, 5))}"

    def _deed(self) -> Deed | None:
        chance = self._chance
        kind = self._deeds.draw()
        slot, after = chance.randrange(self._options.workers), chance.randrange(20, 400)
        everybody = tuple(range(self._options.workers))
        match kind:
            case "freeze":
                return self._freeze(slot, after)
            case "drain":
                return Deed(kind, str(slot), after=after)
            case "offsets":
                down = chance.random() < 0.5
                how = f"{chance.choice(('back', 'forward'))}{' while workers are down' * down}"
                return Deed(kind, "group", how, after, kills=everybody * down)
            case "delete-group":
                return Deed(kind, "group", after=after, kills=everybody)
            case "partitions":
                return self._more_partitions(after)
            case "restart":
                server, how = chance.choice(
                    (("kafka", "order"), ("kafka", "kill"), ("tikv", "kill"), ("tidb", "order"))
                )
                return Deed(kind, server, how, after, kills=(slot,) * chance.randrange(2))
        return self._cut(slot, after)

    def _freeze(self, slot: int, after: int) -> Deed:
        chance, at, killed_before = self._chance, "", 0
        end = chance.choice(("kill", "drain"))
        if self._options.servers and chance.random() < 0.7:
            at, killed_before = f"{self._freezing.draw()}:{chance.randint(1, 3)}", 1
        kills = (slot,) * (killed_before + (end == "kill"))
        return Deed("freeze", str(slot), f"then {end}", after, chance.randrange(100, 600), kills, at)

    def _more_partitions(self, after: int) -> Deed | None:
        group, more = self._chance.choice(NAMES), self._chance.randrange(1, 3)
        if self._partitions[group] + more > MOST_PARTITIONS:
            return None
        self._partitions[group] += more
        return Deed("partitions", group, after=after, amount=more)

    def _cut(self, slot: int, after: int) -> Deed:
        chance = self._chance
        server, how = self._cuts.draw()
        if how.startswith("to_"):  # in the middle of what its connections carry
            return Deed("cut", server, how, after, chance.choice((100, 700, 5_000, 20_000)))
        return Deed("cut", server, how, after, chance.randrange(1, 4), (slot,) * chance.randrange(2))
