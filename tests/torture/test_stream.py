"""The stream, and the verifier's own reading of it."""

from __future__ import annotations

from itertools import islice

import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.errors import Reason
from oomstream.schemas.events import RawRecord
from tests.torture.decode import Garbage, Happened, read_record
from tests.torture.groups import torture_groups
from tests.torture.produced import Logged
from tests.torture.stream import VALID, Made, records
from tests.unit.schemas.definitions import registered

GROUPS = torture_groups(3)
COUNT = 30_000
NOT_BY_BYTES = {Reason.UNSUPPORTED_SCHEMA, Reason.UNKNOWN_FIELD, Reason.REJECTED_BY_STORE}
"""Reasons that need a Schema Registry, a caller, or a database that refuses."""


@pytest.fixture(scope="module")
def stream() -> list[Made]:
    """The beginning of a stream."""
    return list(islice(records(GROUPS, 7), COUNT))


def judged(made: Made) -> Happened | None:
    """What the verifier reads in a record; None for garbage."""
    try:
        return read_record(GROUPS[made.group], Logged(0, made.timestamp_ms, made.key, made.value, made.headers))
    except Garbage:
        return None


def test_the_stream_holds_everything(stream: list[Made]) -> None:
    """Every reason that bytes can give, repeated bytes, deletes, nulls, equal times and future times are there."""
    assert {made.meant for made in stream} == {VALID, *(str(each) for each in Reason if each not in NOT_BY_BYTES)}
    events = [(made, event) for made in stream if (event := judged(made)) is not None]
    assert any(event.deleted for _, event in events)
    assert any(None in event.values for _, event in events)
    assert any(event.time_us > made.timestamp_ms * 1000 + 999 for made, event in events)
    assert len({(made.group, event.key, event.time_us) for made, event in events}) < 0.9 * len(events)
    assert any(made.value in (other.value for other in stream[:at][-50:]) for at, made in enumerate(stream[:500]))


def test_the_verifier_reads_what_the_producers_meant(stream: list[Made]) -> None:
    """What was meant to be an event is one to the verifier, and what was meant to be garbage is not."""
    assert [made for made in stream if (judged(made) is not None) != (made.meant == VALID)] == []


def test_the_verifier_and_the_product_read_alike(stream: list[Made]) -> None:
    """Two decoders that share no code come to the same events, and the product gives the reasons that were meant."""
    decoders = {name: Decoder(_registered(name), EventLimits()) for name in GROUPS}
    for made in stream:
        raw = RawRecord(0, made.key, made.value, made.timestamp_ms, list(made.headers))
        decoded = decoders[made.group].decode([raw])
        if made.meant == VALID:
            [event] = decoded.events
            assert (event.key, event.event_time_us, event.deleted, event.values) == judged(made)
        else:
            [rejected] = decoded.rejected
            assert rejected.error.reason == made.meant


def _registered(name: str) -> RegisteredGroup:
    group = registered(GROUPS[name].avsc)
    assert group.group.fingerprint == GROUPS[name].header[2:]
    assert group_from_avsc(GROUPS[name].avsc).key_names == tuple(GROUPS[name].keys)
    return group
