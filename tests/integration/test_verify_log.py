"""`verify --from-topic` names every way in which history or dead letters can differ from the log, and no other."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.framing import frame
from oomstream.schemas.groups import FeatureGroup
from oomstream.streams.broker import Broker, parse_broker
from oomstream.streams.dead_letters import DeadLetter
from oomstream.streams.dlq_topic import dlq_topic
from oomstream.streams.log_result import LogFinding
from oomstream.streams.topic_log import Stretch, TopicLog
from tests.integration.backends import Backends, prepare, prepare_async
from tests.integration.feed import Events, plane_group
from tests.integration.taking import Taken, taking
from tests.services.server import Server
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


def test_what_the_log_dropped_is_counted(backends: Backends, broker: Broker) -> None:
    """Offsets that retention has taken are counted and said, and their rows are neither lost nor extra."""

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        if broker.embedded:
            wide = [event(f"N{at}", at, carrier="x" * 900_000) for at in range(7)]  # the mock keeps about 5 MB
            for value in wide:
                taken.produce(value)
                await taken.take()
        else:
            admin = AdminClient(broker.client_config(30))
            for future in admin.delete_records([TopicPartition(taken.group.topic, 0, 3)]).values():
                future.result(30)
        found = await taken.check()
        [check] = found.partitions
        assert found.wrong == 0
        assert check.dropped >= 3
        assert check.dropped + check.records == check.position
        taken.planting.history("DELETE FROM history_plane WHERE `_sequence` IN (1, 5)")
        lost = (await taken.check()).first
        assert [(each.finding, each.offset) for each in lost] == ([] if check.dropped > 5 else [(LogFinding.LOST, 5)])

    run(backends, broker, scenario)


def test_what_the_log_drops_while_it_is_read(broker: Broker, backends: Backends) -> None:
    """A log that drops records between two reads is read on from what it still has, and the gap is told."""

    class Late(TopicLog):
        """Has an old idea of where the log begins, once."""

        stale = True

        def bounds(self, partition: int) -> tuple[int, int]:
            first, end = super().bounds(partition)
            if self.stale:
                self.stale = False
                return 0, end
            return first, end

    async def scenario(taken: Taken) -> None:
        if broker.embedded:
            for at in range(7):
                taken.produce(event("N0", at, carrier="x" * 900_000))
        else:
            taken.produce(*(event("N0", at) for at in range(7)))
            admin = AdminClient(broker.client_config(30))
            for future in admin.delete_records([TopicPartition(taken.group.topic, 0, 3)]).values():
                future.result(30)
        with Late(broker, taken.group.topic, timeout_s=30) as log:
            first, *rest = log.read(0, 0, 7)
            assert first.dropped
            assert first.start == 0
            assert first.end == log.bounds(0)[0] > 0
            assert [record.offset for stretch in rest for record in stretch.records] == list(range(first.end, 7))
            assert rest[-1].end == 7
            assert list(log.read(0, 7, 9)) == [Stretch(7, 9)]

    run(backends, broker, scenario)


def test_what_lies_before_the_start(backends: Backends, broker: Broker) -> None:
    """With OOMSTREAM_START=latest or a time, what lies before a source's beginning is counted, not called lost."""

    async def scenario(taken: Taken) -> None:
        taken.produce(event("N0", 1), event("N1", 2))
        await taken.take()
        taken.produce(event("N2", 3), GARBAGE, event("N3", 4))
        await taken.take()
        found = await taken.check()
        [check] = found.partitions
        assert (found.wrong, check.before_start, check.records, check.events) == (0, 2, 3, 2)

    run(backends, broker, scenario, start="latest")


def test_a_start_time(backends: Backends, broker: Broker) -> None:
    """A start time before all records leaves nothing out; one after all of them leaves nothing to compare."""

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        [check] = (await taken.check()).partitions
        assert (check.before_start, check.records) == (0, 6)
        taken.settings = taken.settings.model_copy(update={"start": "2999-01-01"})
        [check] = (await taken.check()).partitions
        # The embedded broker knows no times: there a source began where its first row or letter is.
        assert (check.before_start, check.records) == ((0, 6) if broker.embedded else (6, 0))

    run(backends, broker, scenario, start="2020-01-01T00:00:00Z")


def test_logs_of_the_past(backends: Backends, broker: Broker) -> None:
    """Sources of an earlier incarnation, and of a topic that is gone, are said and not compared."""

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        taken.planting.history("UPDATE source SET incarnation = 'earlier'")
        found = await taken.check()
        assert (found.exists, found.earlier, found.partitions, found.wrong) == (True, 1, [], 0)

    run(backends, broker, scenario)


def test_a_group_with_no_topic(backends: Backends, broker: Broker) -> None:
    """A group whose topic the broker does not have is said to have none, and asking does not make it."""
    settings, group = backends.fresh(broker_url=broker.url), plane_group(1)
    prepare(settings, [group])

    async def scenario() -> None:
        async with taking(settings, broker, group) as taken:
            for _ in range(2):
                found = await taken.check()
                assert (found.exists, found.wrong) == (False, 0)

    asyncio.run(scenario())


def redefined(group: FeatureGroup, *fields: dict[str, object], without: str = "") -> FeatureGroup:
    """The group with further fields, or without one."""
    kept = [each for each in group.schema["fields"] if each["name"] != without]
    return group_from_avsc({**group.schema, "fields": [*kept, *fields]})


def test_fields_that_were_unknown_when_the_event_came(backends: Backends, broker: Broker) -> None:
    """A field that a JSON event had before the definition did is no difference; a wrong value of it is one."""

    async def scenario(taken: Taken) -> None:
        taken.produce(event("N0", 1, seats=7, unit="F"))
        await taken.take()
        # As if it had come long before the change: within two minutes of it, either definition may have been in use.
        taken.planting.history("UPDATE history_plane SET `_ingest_time` = `_ingest_time` - 600000000")
        await prepare_async(
            taken.settings,
            [
                redefined(
                    taken.group,
                    {"name": "seats", "type": ["null", "int"]},
                    {"name": "unit", "type": "string", "default": "C"},
                )
            ],
        )
        taken.produce(event("N1", 2, seats=8, unit="F"))
        await taken.take()
        assert (await taken.check()).wrong == 0
        taken.planting.history("UPDATE history_plane SET `_ingest_time` = `_ingest_time` + 600000000")
        taken.planting.history("UPDATE history_plane SET seats = 9 WHERE `_sequence` = 0")
        assert [each.finding for each in (await taken.check()).first] == [LogFinding.DIFFERENT]

    run(backends, broker, scenario)


def test_a_feature_that_was_retired_for_a_while(backends: Backends, broker: Broker) -> None:
    """What an event said of a feature that was retired when it came, and is back, is no difference."""

    async def scenario(taken: Taken) -> None:
        taken.produce(event("N0", 1))
        await taken.take()
        await prepare_async(taken.settings, [redefined(taken.group, without="carrier")])
        taken.produce(event("N0", 2))
        await taken.take()
        await prepare_async(taken.settings, [taken.group])
        taken.produce(event("N0", 3))
        await taken.take()
        assert (await taken.check()).wrong == 0

    run(backends, broker, scenario)


def test_letters_of_events_that_would_be_valid_today(backends: Backends, broker: Broker) -> None:
    """An event that was refused by the definition of its time is not lost while its letter is there, and is counted."""

    async def scenario(taken: Taken) -> None:
        newer = redefined(taken.group, {"name": "seats", "type": ["null", "int"]})
        record = {"tail": "N0", "at": AT, "delay": 1, "carrier": None, "seats": 3}
        taken.produce(frame(newer.fingerprint, BodyCodec(RegisteredGroup(newer, {})).encode_python(record).body))
        await taken.take()
        await prepare_async(taken.settings, [newer])
        found = await taken.check()
        assert (found.wrong, found.partitions[0].waiting) == (0, 1)
        await insert(taken, "N0", 0)
        taken.planting.history("UPDATE history_plane SET seats = 3")
        found = await taken.check()
        assert (found.wrong, found.partitions[0].taken_in, found.partitions[0].waiting) == (0, 1, 0)

    run(backends, broker, scenario)


def test_the_same_bytes_twice_are_two_events(backends: Backends, broker: Broker) -> None:
    """Two records with the same bytes have two identities, and a row each."""

    async def scenario(taken: Taken) -> None:
        taken.produce(event("N0", 1), event("N0", 1), GARBAGE, GARBAGE)
        await taken.take()
        found = await taken.check()
        [check] = found.partitions
        assert (found.wrong, check.events, check.letters) == (0, 2, 2)
        taken.planting.history("DELETE FROM history_plane WHERE `_sequence` = 1")
        assert [(each.finding, each.offset) for each in (await taken.check()).first] == [(LogFinding.LOST, 1)]

    run(backends, broker, scenario)


def test_letters_written_twice_count_once(backends: Backends, broker: Broker) -> None:
    """A letter that is there twice under one identity, as after a crash, is one."""

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        taken.produce_letters(letter(taken, 3), letter(taken, 3))
        found = await taken.check()
        assert (found.wrong, found.partitions[0].letters) == (0, 1)

    run(backends, broker, scenario)


def test_gaps_of_transactions(tmp_path: Path, kafka_server: Server) -> None:
    """Transaction markers and aborted records are no events; a row under the offset of a marker is extra."""
    backends, broker = Backends("sqlite+sqlite", tmp_path), parse_broker(kafka_server.url)

    async def scenario(taken: Taken) -> None:
        transact(taken, commit=True)
        transact(taken, commit=False)
        transact(taken, commit=True)
        await taken.take()
        found = await taken.check()
        assert (found.wrong, found.partitions[0].records, found.partitions[0].position) == (0, 4, 9)
        await insert(taken, "N0", 2)
        assert [(each.finding, each.offset) for each in (await taken.check()).first] == [(LogFinding.EXTRA, 2)]

    run(backends, broker, scenario)


def transact(taken: Taken, *, commit: bool) -> None:
    """Two events and a marker."""
    producer = Producer({**taken.broker.client_config(30), "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    for at in range(2):
        producer.produce(taken.group.topic, event("N1", at), partition=0)
    assert producer.flush(30) == 0
    (producer.commit_transaction if commit else producer.abort_transaction)(30)


def test_compacted_topics(tmp_path: Path, kafka_server: Server) -> None:
    """Where the topic is compacted a row without its event says nothing; a row with other values does."""
    backends, broker = Backends("sqlite+sqlite", tmp_path), parse_broker(kafka_server.url)
    settings, group = backends.fresh(broker_url=broker.url), plane_group(1)
    admin = AdminClient(broker.client_config(30))
    compacted = NewTopic(group.topic, 1, 1, config={"cleanup.policy": "compact"})
    for future in admin.create_topics([compacted]).values():
        future.result(30)
    prepare(settings, [group], broker)

    async def scenario() -> None:
        async with taking(settings, broker, group) as taken:
            taken.produce(event("N0", 1), key=b"N0")
            transact_keyed(taken)
            await taken.take()
            await insert(taken, "N0", 2)
            found = await taken.check()
            assert (found.compacted, found.wrong, found.partitions[0].unjudged) == (True, 0, 1)
            taken.planting.history("UPDATE history_plane SET delay = 5 WHERE `_sequence` = 0")
            assert [each.finding for each in (await taken.check()).first] == [LogFinding.DIFFERENT]

    asyncio.run(scenario())


def transact_keyed(taken: Taken) -> None:
    """An event with a key, and a marker behind it."""
    producer = Producer({**taken.broker.client_config(30), "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(taken.group.topic, event("N1", 1), b"N1", partition=0)
    producer.commit_transaction(30)


def test_letters_that_the_topic_dropped(tmp_path: Path, kafka_server: Server) -> None:
    """Where the dead-letter topic has dropped letters, none counts as missing."""
    backends, broker = Backends("sqlite+sqlite", tmp_path), parse_broker(kafka_server.url)

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        admin = AdminClient(broker.client_config(30))
        partition = TopicPartition(dlq_topic(taken.group.topic), 0, OFFSET_END)
        for future in admin.delete_records([partition]).values():
            future.result(30)
        found = await taken.check()
        assert (found.wrong, found.letters_dropped, found.partitions[0].unjudged) == (0, 1, 1)

    run(backends, broker, scenario)


def test_beside_a_running_writer(backends: Backends, broker: Broker) -> None:
    """While events come in and are taken in, nothing is called lost, extra or missing."""

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        ended = asyncio.Event()

        async def write() -> None:
            for turn in range(6):
                await asyncio.to_thread(
                    taken.produce, *(event(f"N{at % 9}", at) if at % 17 else GARBAGE for at in range(turn, 400))
                )
                await taken.take()
            ended.set()

        async def check() -> None:
            while not ended.is_set():
                assert (await taken.check()).wrong == 0

        await asyncio.gather(write(), check())
        found = await taken.check()
        assert (found.wrong, found.partitions[0].records) == (0, 6 + sum(range(395, 401)))

    run(backends, broker, scenario)


def test_both_sides_of_a_difference(backends: Backends, broker: Broker) -> None:
    """Both sides of a difference are given: what the log says and what history says."""

    async def scenario(taken: Taken) -> None:
        await first_ones(taken)
        await change_value(taken)
        (found,) = (await taken.check()).first
        assert found.key == ("N0",)
        assert found.log is not None
        assert found.history is not None
        assert found.log.version == found.history.version
        assert found.log.values == {"delay": 3, "carrier": "UA"}
        assert found.history.values == {"delay": 99, "carrier": "UA"}

    run(backends, broker, scenario)
