"""What a topic must have become, worked out from the topic itself, read again from its first offset.

Nothing here is shared with the decoder, the pipeline or the stores' writing side: events are decoded by fastavro, and
kept in plain lists.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

from confluent_kafka import Message
from fastavro import parse_schema, schemaless_reader
from fastavro.types import Schema

from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import decode_value, encode_key
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryStore, OnlineStore, Source
from oomstream.stores.opening import history_store, online_store
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from oomstream.streams.dlq_topic import read_dead_letters
from oomstream.streams.verify import Verifier
from tests.oracle import Oracle, OracleEvent
from tests.topic_log import TopicReader

TIMEOUT_S = 60.0
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "plane",
    "fields": [
        {"name": "tail", "type": "string"},
        {"name": "at", "type": "long"},
        {"name": "delay", "type": "long"},
        {"name": "carrier", "type": ["null", "string"]},
    ],
}
"""The schema of the tests' group, as plain Avro."""

GARBAGE = b"garbage"
"""What a value begins with that is no event."""


class Place(NamedTuple):
    """Where a record is."""

    partition: int
    offset: int


class Happened(NamedTuple):
    """One valid record of the topic."""

    tail: str
    at_us: int
    deleted: bool
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Topic:
    """A topic's records, each as it was meant.

    Attributes:
        events: Valid ones by place.
        garbage: Places of the others.
        ends: End of every partition.
    """

    events: dict[Place, Happened]
    garbage: set[Place]
    ends: dict[int, int]


def read_topic(broker: Broker, name: str) -> Topic:
    """Read every partition from its first offset to its end, as any Kafka client does."""
    parsed = parse_schema(SCHEMA)
    found = Topic({}, set(), {})
    with closing(TopicReader(broker)) as reader:
        for partition in reader.partitions(name):
            found.ends[partition] = reader.end(name, partition)
            for message in reader.messages(name, partition):
                _take(found, message, parsed)
    return found


def _take(found: Topic, message: Message, schema: Schema) -> None:
    place = Place(message.partition() or 0, message.offset() or 0)
    value, key = message.value(), message.key()
    if value is None:
        headers: dict[str, Any] = dict(message.headers() or [])
        assert key is not None
        found.events[place] = Happened(bytes(key).decode(), int(headers["oomstream.event_time"]), True, ())
    elif bytes(value).startswith(GARBAGE):
        found.garbage.add(place)
    else:
        record: Any = schemaless_reader(BytesIO(bytes(value)[10:]), schema, None)
        found.events[place] = Happened(record["tail"], record["at"], False, (record["delay"], record["carrier"]))


@dataclass(frozen=True)
class Outcome:
    """How the stores differ from the topic: all but `events` must be 0.

    Attributes:
        events: Valid events in the topic.
        lost: Of them, how many history does not hold.
        doubled: Rows of history beyond one for each event.
        wrong: Rows of history that say something else than their event.
        letters: Invalid records without exactly one identity among the dead letters, and letters of valid ones.
        behind: Partitions whose position is not the end, or whose online rows are not marked as written.
        online_differs: Entities whose online row is not that of the greatest version in the topic.
        verifier_differs: Entities that our own verifier finds to differ between online and history.
    """

    events: int
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    letters: int = 0
    behind: int = 0
    online_differs: int = 0
    verifier_differs: int = 0


@dataclass(frozen=True)
class Check:
    """The outcome, and the events as the oracle takes them."""

    outcome: Outcome
    oracle: Oracle


def check(settings: Settings, broker: Broker, topic: str) -> Check:
    """Compare both stores and the dead letters with the topic of the group `plane`; no worker runs any more."""
    read = read_topic(broker, topic)
    letters = {
        Place(letter.partition, letter.offset) for letter in read_dead_letters(broker, topic, timeout_s=TIMEOUT_S)
    }
    return asyncio.run(_check(settings, topic, read, letters))


async def _check(settings: Settings, topic: str, read: Topic, letters: set[Place]) -> Check:
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        catalog = await history.load_catalog()
        codec = BodyCodec(catalog.groups["plane"])
        sources = {each.name.partition: each for each in await history.sources() if each.name.name == topic}
        rows: list[tuple[Place, Happened, int]] = []
        for partition, source in sources.items():
            for row in await history.rows_of_source(codec.group, source.id, 0, 1 << 40, limit=10_000_000):
                values = () if row.deleted else row.values
                happened = Happened(str(row.key[0]), row.event_time_us, row.deleted, values)
                rows.append((Place(partition, row.sequence), happened, row.ingest_time_us))
        ingested = {place: ingest_us for place, _, ingest_us in rows}
        oracle = Oracle(
            OracleEvent(
                "plane",
                (each.tail,),
                each.at_us,
                int(SourceKind.TOPIC),
                sources[place.partition].id,
                place.offset,
                ingested.get(place, 0),
                each.deleted,
                dict(zip(("delay", "carrier"), each.values, strict=False)),
            )
            for place, each in read.events.items()
            if place.partition in sources
        )
        outcome = Outcome(
            events=len(read.events),
            lost=len(read.events.keys() - ingested.keys()),
            doubled=len(rows) - len(ingested),
            wrong=sum(read.events.get(place) != happened for place, happened, _ in rows),
            letters=len(letters ^ read.garbage),
            behind=_behind(read, sources),
            online_differs=await _online_differs(codec, online, oracle),
            verifier_differs=await _verifier_differs(history, online),
        )
    return Check(outcome, oracle)


def _behind(read: Topic, sources: dict[int, Source]) -> int:
    return sum(
        end != (sources[partition].next_sequence if partition in sources else 0)
        or (partition in sources and sources[partition].online_sequence != end)
        for partition, end in read.ends.items()
    )


async def _online_differs(codec: BodyCodec, online: OnlineStore, oracle: Oracle) -> int:
    newest = {event.key: event for event in oracle.events}  # in order of version: the last one stays
    stored = await online.read([encode_key(codec.group.id, encode_entity(key)) for key in newest])
    differing = 0
    for event, raw in zip(newest.values(), stored, strict=True):
        value = None if raw is None else decode_value(raw)
        right = (event.version, event.deleted, tuple(event.values.values()))
        if value is None or right != (
            tuple(value.version),
            value.deleted,
            () if value.deleted else codec.read(value.fingerprint, value.body),
        ):
            differing += 1
    return differing


async def _verifier_differs(history: HistoryStore, online: OnlineStore) -> int:
    catalog = await history.load_catalog()
    return (await Verifier(history, online).verify(catalog.groups["plane"])).differing
