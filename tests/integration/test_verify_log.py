"""`verify --from-topic` names every way in which history or dead letters can differ from the log, and no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from oomstream.streams.broker import Broker
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.log_result import LogFinding
from tests.integration.backends import Backends, prepare
from tests.integration.feed import Events, plane_group
from tests.integration.taking import Taken, taking
from tests.unit.streams.house import KeptLetters

AT = 1_700_000_000_000_000
GARBAGE = b"\x07no event"

Plant = Callable[[Taken], Awaitable[None]]


def event(tail: str, at: int = 0, **values: object) -> bytes:
    """A JSON event of the group `plane`."""
    return json.dumps({"tail": tail, "at": AT + at, "delay": at, "carrier": "UA", **values}).encode()


def run(backends: Backends, broker: Broker, scenario: Callable[[Taken], Awaitable[None]], **more: Any) -> None:
    """Run a scenario on a group with a topic of its own, of one partition."""
    settings, group = backends.fresh(broker_url=broker.url, **more), plane_group(1)
    prepare(settings, [group], broker)

    async def run_it() -> None:
        async with taking(settings, broker, group) as taken:
            await scenario(taken)

    asyncio.run(run_it())


async def first_ones(taken: Taken) -> None:
    """Offsets 0 to 5: three events, garbage, two events."""
    taken.produce(event("N0", 1), event("N1", 2), event("N0", 3), GARBAGE, event("N2", 4), event("N1", 5))
    await taken.take()


def test_nothing_is_wrong(backends: Backends, broker: Broker) -> None:
    """Late, equal, null and repeated events, deletes and garbage of several partitions are found as they should be."""
    settings, group = backends.fresh(broker_url=broker.url), plane_group(3)
    catalog = prepare(settings, [group], broker)
    events = Events(settings, broker, catalog, seed=5)
    events.produce(3_000)
    events.close()

    async def scenario() -> None:
        async with taking(settings, broker, group) as taken:
            await taken.take()
            found = await taken.check()
            assert (found.wrong, found.first, found.earlier, found.letters_dropped) == (0, [], 0, 0)
            assert sum(each.records for each in found.partitions) == 3_000
            assert [each.position for each in found.partitions] == [each.records for each in found.partitions]
            garbage = 3_000 - sum(each.events for each in found.partitions)
            assert garbage == sum(each.letters for each in found.partitions) > 10
            zeros = ("dropped", "before_start", "taken_in", "waiting", "unjudged")
            assert all(getattr(each, name) == 0 for each in found.partitions for name in zeros)

    asyncio.run(scenario())


async def lose(taken: Taken) -> None:
    """A row is lost."""
    taken.planting.history("DELETE FROM history_plane WHERE `_sequence` = 1")


async def invent(taken: Taken) -> None:
    """A row of an offset that the log does not have."""
    await raise_position(taken, 10)
    await insert(taken, "N7", 8)


async def double(taken: Taken) -> None:
    """A second row of one offset, under another key."""
    await insert(taken, "N7", 4)


async def accept_garbage(taken: Taken) -> None:
    """A row of the offset that holds garbage."""
    await insert(taken, "N7", 3)


async def change_value(taken: Taken) -> None:
    """Another value."""
    taken.planting.history("UPDATE history_plane SET delay = 99 WHERE `_sequence` = 2")


async def change_to_null(taken: Taken) -> None:
    """No value."""
    taken.planting.history("UPDATE history_plane SET carrier = NULL WHERE `_sequence` = 2")


async def change_key(taken: Taken) -> None:
    """Another entity's row."""
    taken.planting.history("UPDATE history_plane SET tail = ? WHERE `_sequence` = 2", taken.planting.key("N0 "))


async def change_time(taken: Taken) -> None:
    """Another event time."""
    taken.planting.history("UPDATE history_plane SET `_event_time` = `_event_time` + 1 WHERE `_sequence` = 2")


async def make_delete(taken: Taken) -> None:
    """The row says that the entity was deleted."""
    taken.planting.history("UPDATE history_plane SET `_deleted` = 1 WHERE `_sequence` = 2")


async def pass_over(taken: Taken) -> None:
    """The position lies behind a valid event that was never taken."""
    taken.produce(event("N3", 6))
    await raise_position(taken, 7)


async def swallow(taken: Taken) -> None:
    """A record is refused, and its letter written nowhere."""
    taken.produce(GARBAGE)
    await taken.take(KeptLetters())


async def write_stray_letter(taken: Taken) -> None:
    """A letter of an offset that the log does not have; one more of a known one, and one of another incarnation."""
    await raise_position(taken, 10)
    taken.produce_letters(letter(taken, 9), letter(taken, 3), letter(taken, 4, incarnation="another"))


def letter(taken: Taken, offset: int, incarnation: str | None = None) -> DeadLetter:
    """A dead letter of partition 0."""
    return DeadLetter(
        topic=taken.group.topic,
        incarnation=incarnation or taken.incarnation,
        partition=0,
        offset=offset,
        timestamp=AT // 1000,
        stage="decode",
        reason="unknown_framing",
        message="no",
        key=None,
        value=GARBAGE,
        headers=(),
    )


async def raise_position(taken: Taken, to: int) -> None:
    """Move the source's position."""
    taken.planting.history("UPDATE source SET next_sequence = ?, online_sequence = ?", to, to)


async def insert(taken: Taken, tail: str, sequence: int) -> None:
    """Insert a row."""
    names = ("tail", "_event_time", "_source", "_sequence", "_ingest_time", "_deleted", "delay", "carrier")
    taken.planting.history(
        f"INSERT INTO history_plane ({', '.join(f'`{name}`' for name in names)}) VALUES (?, ?, 1, ?, ?, 0, 1, NULL)",
        taken.planting.key(tail),
        AT,
        sequence,
        AT,
    )


@pytest.mark.parametrize(
    ("plant", "finding", "offset"),
    [
        (lose, LogFinding.LOST, 1),
        (pass_over, LogFinding.LOST, 6),
        (invent, LogFinding.EXTRA, 8),
        (double, LogFinding.DOUBLED, 4),
        (accept_garbage, LogFinding.REFUSED, 3),
        (change_value, LogFinding.DIFFERENT, 2),
        (change_to_null, LogFinding.DIFFERENT, 2),
        (change_key, LogFinding.DIFFERENT, 2),
        (change_time, LogFinding.DIFFERENT, 2),
        (make_delete, LogFinding.DIFFERENT, 2),
        (swallow, LogFinding.LETTER_MISSING, 6),
        (write_stray_letter, LogFinding.LETTER_EXTRA, 9),
    ],
)
def test_each_fault_is_named(
    backends: Backends, broker: Broker, plant: Plant, finding: LogFinding, offset: int
) -> None:
    """A fault planted around the product is found once, at its offset, and nothing else is."""

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        assert (await taken.check()).wrong == 0
        await plant(taken)
        found = await taken.check()
        assert [(each.finding, each.partition, each.offset) for each in found.first] == [(finding, 0, offset)]
        assert found.wrong == 1

    run(backends, broker, scenario)
