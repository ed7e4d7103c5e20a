"""Every pair of stores against the oracle: any interleaving of events, read online and as training sets."""

from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import SourceName
from oomstream.stores.testing.samples import group
from tests.integration.backdated import Backdated
from tests.integration.backends import Backends
from tests.oracle import Oracle
from tests.unit.query.filled import T0, Filled

SOURCES = [
    SourceName(SourceKind.TOPIC, "events", "first", 0),
    SourceName(SourceKind.TOPIC, "events", "first", 1),
    SourceName(SourceKind.FILE, "old.csv", "sha"),
    SourceName(SourceKind.PUSH, "local", "uuid"),
]
FEATURES = {"number": ["null", "long"], "text": ["null", "string"]}
SINGLE = [("a",), ("a ",), ("A",), ("é",), ("e\u0301",), ("a\0",)]
DOUBLE = [("1", 11), ("11", 1), ("1", -1), ("11", 1 << 62)]
KEYS: dict[str, list[tuple[Any, ...]]] = {"single": SINGLE, "other": SINGLE, "double": DOUBLE}
TTLS = {None: None, "3us": 3, "1us": 1}

times = st.integers(0, 12)
events = st.lists(
    st.tuples(
        st.sampled_from(list(KEYS)),
        st.integers(0, 5),
        times,
        st.sampled_from(SOURCES),
        st.none() | st.integers(-3, 3),
        st.sampled_from([False, False, False, True]),
        st.integers(0, 3),
    ),
    max_size=25,
)
labels = st.lists(st.tuples(st.none() | st.integers(0, 5), times), max_size=20)


async def fill(backends: Backends, ttl: str | None, written: list[Any], order: list[int]) -> Filled:
    """Write the events: into history as they come, into the online store in another order, some twice."""
    limits = {"ttl": ttl} if ttl is not None else {}
    groups = [
        group("single", FEATURES, {"id": "string"}, entity="thing", **limits),
        group("other", FEATURES, {"id": "string"}, entity="thing"),
        group("double", FEATURES, {"a": "string", "b": "long"}, **limits),
    ]
    fresh = backends.fresh()
    filled: Filled
    if backends.tidb is None:
        fresh.data_dir.mkdir()
        filled = await Filled(fresh.data_dir, groups).open()
    else:
        filled = await Backdated(fresh.data_dir, groups, fresh).open()
    for name, key, time, source, number, deleted, passed in written:
        keys = KEYS[name]
        filled.now_us += passed
        values = (number, f"{name}{time}")
        await filled.write(
            name, keys[key % len(keys)], T0 + time, *values, deleted=deleted, source=source, online=False
        )
    if written:
        await filled.flush(order)
    return filled


def test_stores_equal_the_oracle(backends: Backends) -> None:
    """Case 42: after any interleaving, online reads at T and training sets, at T and at any label, are the oracle's.

    The latest event time is at most T, so the online values at T also are the training set's at T.
    """

    @settings(deadline=None, max_examples=backends.examples(60))
    @given(
        ttl=st.sampled_from(list(TTLS)),
        written=events,
        order=st.lists(st.integers(0, 24), max_size=20),
        asked=labels,
        now=st.integers(12, 30),
        as_of=st.none() | times,
        available=st.booleans(),
    )
    def check(
        ttl: str | None,
        written: list[Any],
        order: list[int],
        asked: list[Any],
        now: int,
        as_of: int | None,
        available: bool,
    ) -> None:
        async def scenario() -> None:
            filled = await fill(backends, ttl, written, order)
            try:
                oracle = Oracle(filled.events)
                filled.now_us = T0 + now
                limit_us = int(filled.history.transaction_limit_s * 1_000_000)
                await check_online_and_training_at(filled, oracle, TTLS[ttl], T0 + now)
                filled.now_us = T0 + 100 + limit_us
                as_of_us = as_of if as_of is None else T0 + as_of
                await check_training(filled, oracle, TTLS[ttl], asked, as_of_us, available=available)
            finally:
                await filled.close()

        asyncio.run(scenario())

    check()


async def check_online_and_training_at(filled: Filled, oracle: Oracle, ttl_us: int | None, now_us: int) -> None:
    """Every key of every group: the oracle's answer online, and the same values in a training set at that time."""
    rows = [
        {"id": SINGLE[at % len(SINGLE)][0], "a": DOUBLE[at % len(DOUBLE)][0], "b": DOUBLE[at % len(DOUBLE)][1]}
        for at in range(len(SINGLE))
    ]
    names = [f"{name}.{feature}" for name in KEYS for feature in FEATURES]
    async with filled.store() as store:
        answer = await store.get_online_features(names, rows)
        stamped = pa.Table.from_pylist(rows).append_column(
            "event_timestamp", pa.array([now_us] * len(rows), pa.timestamp("us"))
        )
        trained = (await store.get_historical_features(stamped, names)).to_arrow()
    online = answer.to_dict()
    for name in names:
        assert online[name] == trained.column(name).to_pylist()
    for at, row in enumerate(rows):
        for name in KEYS:
            key = (row["id"],) if name != "double" else (row["a"], row["b"])
            right = oracle.online(name, key, now_us, None if name == "other" else ttl_us)
            for feature in FEATURES:
                value = right.values[feature] if right.values is not None else None
                status = "NULL_VALUE" if right.status == "PRESENT" and value is None else right.status
                assert online[f"{name}.{feature}"][at] == value
                assert answer.statuses[f"{name}.{feature}"][at] == status


async def check_training(
    filled: Filled, oracle: Oracle, ttl_us: int | None, asked: list[Any], as_of_us: int | None, *, available: bool
) -> None:
    """Training sets of any labels, with any options, are the oracle's."""
    single = [None if place is None else SINGLE[place % len(SINGLE)] for place, _ in asked]
    double = [None if place is None else DOUBLE[place % len(DOUBLE)] for place, _ in asked]
    table = pa.table(
        {
            "id": pa.array([key and key[0] for key in single], pa.string()),
            "a": pa.array([key and key[0] for key in double], pa.string()),
            "b": pa.array([key and key[1] for key in double], pa.int64()),
            "event_timestamp": pa.array([T0 + time for _, time in asked], pa.timestamp("us", "UTC")),
        }
    )
    names = [f"{name}.{feature}" for name in KEYS for feature in FEATURES]
    async with filled.store() as store:
        made = (await store.get_historical_features(table, names, as_of=as_of_us, available=available)).to_arrow()
    assert made.select(table.column_names).equals(table)
    for name in KEYS:
        keys = double if name == "double" else single
        right = oracle.training_rows(
            [(key, T0 + time) for key, (_, time) in zip(keys, asked, strict=True)],
            name,
            list(FEATURES),
            ttl_us=None if name == "other" else ttl_us,
            as_of_us=as_of_us,
            available=available,
        )
        columns = [made.column(f"{name}.{feature}").to_pylist() for feature in FEATURES]
        assert [list(row) for row in zip(*columns, strict=True)] == right
