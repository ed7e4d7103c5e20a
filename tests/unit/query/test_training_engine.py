"""The training join against the oracle, over any history and any labels."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.query.training import TrainingRequest, build_training_set
from oomstream.schemas.groups import EventTimeField, Feature, FeatureGroup, KeyField, TimeUnit
from oomstream.schemas.types import Kind, ValueType
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryRow
from tests.oracle import Key, Oracle, OracleEvent
from tests.unit.query.memory_history import MemoryCut, as_history

LONG, STRING = ValueType(Kind.LONG), ValueType(Kind.STRING)


def make_group(
    name: str, keys: tuple[KeyField, ...], *, entity: str = "thing", ttl_us: int | None = None
) -> FeatureGroup:
    """A group with a number and a text as features."""
    features = (
        Feature("number", LONG, nullable=True, default=None),
        Feature("text", STRING, nullable=True, default=None),
    )
    return FeatureGroup(
        name, entity, keys, EventTimeField("at", TimeUnit.MICROSECOND), features, schema={}, ttl_us=ttl_us, topic=name
    )


ONE_KEY = (KeyField("id", STRING),)
TWO_KEYS = (KeyField("a", STRING), KeyField("b", LONG))
KINDS = {1: SourceKind.TOPIC, 2: SourceKind.FILE, 3: SourceKind.PUSH, 4: SourceKind.TOPIC}

SINGLE: list[Key] = [("a",), ("a ",), ("A",), ("é",), ("e\u0301",), ("a\0",), ("\U0001f600",), ("11",)]
DOUBLE: list[Key] = [("1", 11), ("11", 1), ("1", -1), ("11", 1 << 62), ("", 1)]

times = st.integers(0, 9)
few_or_many = st.sampled_from([1, 1, 2, 3, 8])


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Groups, events in any order with any identity, labels, options and sizes of tables and ranges."""
    pools: dict[str, list[Key]] = {
        "single": draw(st.permutations(SINGLE))[: draw(few_or_many)],
        "double": draw(st.permutations(DOUBLE))[: draw(few_or_many)],
    }
    place = st.integers(0, 7)
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["single", "single", "double"]),
                place,
                times,
                st.sampled_from(list(KINDS)),
                times,
                st.sampled_from([False, False, False, True]),
                st.none() | st.integers(-5, 5),
            ),
            max_size=50,
        )
    )
    events = [
        OracleEvent(
            group=name,
            key=pools[name][at % len(pools[name])],
            event_time_us=time,
            kind=KINDS[source],
            source_id=source,
            sequence=sequence,
            ingest_time_us=ingested,
            deleted=deleted,
            values={} if deleted else {"number": value, "text": f"{name}{sequence}"},
        )
        for sequence, (name, at, time, source, ingested, deleted, value) in enumerate(drawn)
    ]
    labels = [
        (
            None if one is None else [*pools["single"], ("nobody",)][one % (len(pools["single"]) + 1)],
            None if two is None else [*pools["double"], ("1", 1)][two % (len(pools["double"]) + 1)],
            time,
        )
        for one, two, time in draw(st.lists(st.tuples(st.none() | place, st.none() | place, times), max_size=30))
    ]
    return {
        "ttl": draw(st.none() | st.integers(0, 6)),
        "events": events,
        "labels": labels,
        "as_of": draw(st.none() | times),
        "available": draw(st.booleans()),
        "table_rows": draw(st.integers(1, 8)),
        "range_rows": draw(st.sampled_from([1, 2, 3, 5, 8, 1000])),
        "pushed": draw(st.sampled_from([0, 1000])),
    }


def label_table(labels: list[Any]) -> pa.Table:
    """Labels as Arrow: three key columns, the time, and the row's number as a column to pass through."""
    return pa.table(
        {
            "id": pa.array([single and single[0] for single, _, _ in labels], pa.string()),
            "a": pa.array([double and double[0] for _, double, _ in labels], pa.string()),
            "b": pa.array([double and double[1] for _, double, _ in labels], pa.int64()),
            "event_timestamp": pa.array([time for _, _, time in labels], pa.timestamp("us")),
            "row": pa.array(range(len(labels)), pa.int32()),
        }
    )


def history_rows(events: list[OracleEvent]) -> list[HistoryRow]:
    """Events as history holds them."""
    return [
        HistoryRow(
            event.key,
            event.event_time_us,
            event.source_id,
            event.sequence,
            event.ingest_time_us,
            event.deleted,
            # A feature added with a default has it in old rows of every kind, deletes too.
            (7, "default") if event.deleted else (event.values["number"], event.values["text"]),
        )
        for event in events
    ]


@settings(deadline=None, max_examples=100)
@given(case=cases())
def test_join_equals_the_oracle(case: dict[str, Any]) -> None:
    """Any history, any labels, ttl, as_of, available, cut into ranges of any size: the oracle's answer, row by row."""
    check_case(case)


@pytest.mark.parametrize("seed", range(40))
def test_large_histories_equal_the_oracle(seed: int) -> None:
    """The same for histories that are cut many times, between entities and inside them."""
    check_case(large_case(random.Random(seed)))


def large_case(draw: random.Random) -> dict[str, Any]:
    """A history of a few hundred events and as many labels."""
    span = draw.choice([5, 20, 200])
    pools: dict[str, list[Key]] = {
        "single": draw.sample(SINGLE, draw.randint(1, 8)),
        "double": draw.sample(DOUBLE, draw.randint(1, 5)),
    }
    events = []
    for sequence in range(draw.randint(50, 300)):
        name, source, deleted = draw.choice(list(pools)), draw.choice(list(KINDS)), draw.random() < 0.2
        time = draw.randrange(span)
        ingested = draw.choice([time, draw.randrange(span), sequence])
        values = {} if deleted else {"number": draw.choice([None, sequence]), "text": f"{name}{sequence}"}
        key = draw.choice(pools[name])
        events.append(OracleEvent(name, key, time, KINDS[source], source, sequence, ingested, deleted, values))
    labels = [
        (draw.choice([*pools["single"], None]), draw.choice([*pools["double"], ("2", 2)]), draw.randrange(span + 2))
        for _ in range(draw.randint(50, 200))
    ]
    return {
        "ttl": draw.choice([None, None, span // 3]),
        "events": events,
        "labels": labels,
        "as_of": draw.choice([None, None, span // 2]),
        "available": draw.random() < 0.5,
        "table_rows": draw.choice([1, 3, 10, 100]),
        "range_rows": draw.choice([1, 4, 10, 30]),
        "pushed": draw.choice([0, 1000]),
    }


def check_case(case: dict[str, Any]) -> None:
    """Build the training set of a case and compare it with the oracle's."""
    groups = {
        "single": make_group("single", ONE_KEY, ttl_us=case["ttl"]),
        "double": make_group("double", TWO_KEYS, entity="pair"),
    }
    oracle = Oracle(case["events"])
    rows = {name: history_rows([event for event in oracle.events if event.group == name]) for name in groups}
    cut = MemoryCut(rows, KINDS, now_us=10**9, table_rows=case["table_rows"])
    request = TrainingRequest(
        [(group, feature) for group in groups.values() for feature in group.features],
        as_of_us=case["as_of"],
        available=case["available"],
        range_rows=case["range_rows"],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oomstream.query.label_columns.MAX_PUSHED_KEYS", case["pushed"])
        made = asyncio.run(build_training_set(as_history(cut), label_table(case["labels"]), request)).to_arrow()
    assert made.column("row").to_pylist() == list(range(len(case["labels"])))
    for name, place, ttl in (("single", 0, case["ttl"]), ("double", 1, None)):
        expected = oracle.training_rows(
            [(label[place], label[2]) for label in case["labels"]],
            name,
            ["number", "text"],
            ttl_us=ttl,
            as_of_us=case["as_of"],
            available=case["available"],
        )
        got = zip(made.column(f"{name}.number").to_pylist(), made.column(f"{name}.text").to_pylist(), strict=True)
        assert [list(row) for row in got] == expected
