"""The training join against the oracle, over any history and any labels."""

from __future__ import annotations

import asyncio
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
from tests.oracle import Oracle, OracleEvent
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

single_keys = st.tuples(st.sampled_from(["a", "a ", "A", "é", "e\u0301", "a\0", "\U0001f600", "11"]))
double_keys = st.tuples(st.sampled_from(["1", "11", ""]), st.sampled_from([1, 11, -1, 1 << 62]))
times = st.integers(0, 12)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Groups, events in any order with any identity, labels, options and sizes of tables and ranges."""
    ttl = draw(st.none() | st.integers(0, 6))
    events: list[OracleEvent] = []
    names = {"single": single_keys, "double": double_keys}
    few = draw(st.booleans())
    for name, keys in names.items():
        source_keys = draw(st.lists(keys, min_size=1, max_size=2 if few else 6))
        for number in range(draw(st.integers(0, 30))):
            deleted = draw(st.sampled_from([False, False, False, True]))
            source = draw(st.sampled_from(list(KINDS)))
            value = None if deleted else draw(st.none() | st.integers(-5, 5))
            events.append(
                OracleEvent(
                    group=name,
                    key=draw(st.sampled_from(source_keys)),
                    event_time_us=draw(times),
                    kind=KINDS[source],
                    source_id=source,
                    sequence=number + (1000 if name == "double" else 0),
                    ingest_time_us=draw(times),
                    deleted=deleted,
                    values={} if deleted else {"number": value, "text": f"{name}{number}"},
                )
            )
    labels = draw(st.lists(st.tuples(st.none() | single_keys, st.none() | double_keys, times), max_size=30))
    return {
        "ttl": ttl,
        "events": events,
        "labels": labels,
        "as_of": draw(st.none() | times),
        "available": draw(st.booleans()),
        "table_rows": draw(st.integers(1, 8)),
        "range_rows": draw(st.sampled_from([1, 2, 3, 5, 8, 1000])),
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
            (None, None) if event.deleted else (event.values["number"], event.values["text"]),
        )
        for event in events
    ]


@pytest.mark.parametrize("pushed", [0, 1000])
@settings(deadline=None, max_examples=100)
@given(case=cases())
def test_join_equals_the_oracle(pushed: int, case: dict[str, Any]) -> None:
    """Any history, any labels, ttl, as_of, available, cut into ranges of any size: the oracle's answer, row by row."""
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
        patch.setattr("oomstream.query.training.MAX_PUSHED_KEYS", pushed)
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
