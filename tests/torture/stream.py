"""The stream of records: everything that a topic may hold, the same for the same seed.

Keys that differ by little, late and equal event times, times in the future, nulls, deletes, repeated bytes, two
framings, entities spread over partitions, and garbage of each kind that the worker refuses.
"""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Any

from fastavro import schemaless_writer

from tests.torture.garbage import garbage
from tests.torture.groups import TortureGroup, avro_kind

START_MS = int(datetime(2024, 5, 1, tzinfo=UTC).timestamp() * 1000)
"""Kafka timestamp of the first record, UTC milliseconds."""

STEP_MS = 20
WINDOW_S = 3_000
EVENT_TIME_HEADER = "oomstream.event_time"
VALID = "valid"
"""What a record is meant to be that is an event; else the reason for which it must be refused."""

_CARRIERS = ("UA", "DL", "é", "", " ", None)
_STATES = ("OPEN", "HELD", "SOLD")
_RECENT = 50
_EPOCH = date(1970, 1, 1)

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Made:
    """One record to be produced.

    Attributes:
        group: Name of its group.
        pick: Its partition is this number modulo how many there are.
        timestamp_ms: Its Kafka timestamp.
        key: Message key.
        value: Message value.
        headers: Message headers.
        meant: `VALID`, or the reason for which it must be refused.
    """

    group: str
    pick: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    meant: str


def records(groups: Mapping[str, TortureGroup], seed: int) -> Iterator[Made]:
    """Records without end."""
    chance = random.Random(f"records {seed}")
    names = list(groups)
    recent: deque[Made] = deque(maxlen=_RECENT)
    at_ms = START_MS
    while True:
        at_ms += STEP_MS
        kind = chance.random()
        if kind < 0.03 and recent:
            made = replace(chance.choice(recent), timestamp_ms=at_ms)
            if made.value is not None:  # a delete's time may be its timestamp, so it would be another one
                yield made
                continue
        made = _fresh(groups[chance.choice(names)], chance, kind, at_ms)
        recent.append(made)
        yield made


def _fresh(group: TortureGroup, chance: random.Random, kind: float, at_ms: int) -> Made:
    event = _event(group, chance, at_ms)
    key = message_key(group, event)
    pick = zlib.crc32(key) if chance.random() < 0.85 else chance.getrandbits(32)
    if kind < 0.08:
        headers: Headers = ()
        if chance.random() < 0.8:
            headers = ((EVENT_TIME_HEADER, str(event["at"] * group.time_unit_us).encode()),)
        return Made(group.name, pick, at_ms, key, None, headers, VALID)
    as_json = chance.random() < 0.5
    if kind < 0.11:
        bad = garbage(group, chance, event)
        return Made(group.name, pick, at_ms, bad.key if bad.keyed else key, bad.value, bad.headers, bad.reason)
    value = json_bytes(group, event, chance) if as_json else avro_bytes(group, event)
    return Made(group.name, pick, at_ms, key, value, (), VALID)


def _event(group: TortureGroup, chance: random.Random, at_ms: int) -> dict[str, Any]:
    """Values by field, as Avro encodes them, in the order of the schema."""
    second = at_ms // 1000
    moment = chance.random()
    if moment < 0.25:
        second -= second % 60  # many events of one entity at the very same time
    elif moment < 0.97:
        second -= chance.randrange(WINDOW_S)
    elif moment < 0.99:
        second += chance.randrange(290)  # in the future, but not too far
    ticks = second * 1_000_000 // group.time_unit_us
    number = chance.randrange(1 << 31)
    match group.name:
        case "plane":
            tail = chance.choice(("N{}", "n{}", "N{} ", "é{}", "N{}\0")).format(chance.randrange(60))
            return {"tail": tail, "at": ticks, "delay": number - (1 << 30), "carrier": chance.choice(_CARRIERS)}
        case "sensor":
            return {
                "site": chance.choice((1, 11, -1, 1 << 40)),
                "slot": bytes(chance.choice((0, 1, 255)) for _ in range(chance.randrange(1, 5))),
                "at": ticks,
                "level": chance.choice((0.0, 1.5, -2e300, number / 7)),
                "trace": [chance.randrange(-5, 5) for _ in range(chance.randrange(4))],
                "ok": chance.choice((True, False, None)),
            }
    price = chance.randrange(-(10**9) + 1, 10**9)
    return {
        "day": 19_000 + chance.randrange(20),
        "zone": chance.choice(("a", "a ", "A", "á", "aa")),
        "at": ticks,
        "seats": number - (1 << 30),
        "state": chance.choice(_STATES),
        "seen": START_MS + chance.randrange(10**9),
        "price": None if chance.random() < 0.2 else unscaled_bytes(price),
    }


def unscaled_bytes(unscaled: int) -> bytes:
    """Shortest two's complement of an unscaled decimal."""
    size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return unscaled.to_bytes(size, "big", signed=True)


def avro_bytes(group: TortureGroup, event: Mapping[str, Any]) -> bytes:
    """Single-object encoding."""
    body = BytesIO()
    schemaless_writer(body, group.bare, event)
    return group.header + body.getvalue()


def json_object(group: TortureGroup, event: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    """The JSON form of an event; times sometimes as text, nulls sometimes left out."""
    found: dict[str, Any] = {}
    for name, value in event.items():
        kind, _ = avro_kind(group.fields[name])
        if value is None:
            if chance.random() < 0.5:
                found[name] = None
        elif kind == "bytes":
            found[name] = base64.b64encode(value).decode()
        elif kind == "date":
            found[name] = (_EPOCH + timedelta(days=value)).isoformat()
        elif kind == "decimal":
            found[name] = f"{int.from_bytes(value, 'big', signed=True) / 100:.2f}"
        elif name == "at" and chance.random() < 0.3:
            found[name] = datetime.fromtimestamp(value * group.time_unit_us // 1_000_000, UTC).isoformat()
        else:
            found[name] = value
    return found


def json_bytes(group: TortureGroup, event: Mapping[str, Any], chance: random.Random) -> bytes:
    """A JSON event, now and then with a field that the group does not have."""
    found = json_object(group, event, chance)
    if chance.random() < 0.1:
        found["extra"] = {"any": [1, "thing"]}
    return json.dumps(found, ensure_ascii=chance.random() < 0.5).encode()


def message_key(group: TortureGroup, event: Mapping[str, Any]) -> bytes:
    """The message key of an entity, from which a delete is read."""
    if group.name == "plane":
        return str(event["tail"]).encode()
    if group.name == "sensor":
        return json.dumps([event["site"], base64.b64encode(event["slot"]).decode()]).encode()
    day = (_EPOCH + timedelta(days=event["day"])).isoformat()
    return json.dumps([day, event["zone"]], ensure_ascii=False).encode()
