"""Exports: every entity's newest valid values at a moment, on every pair of stores."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream import FeatureStore
from oomstream.query.ranges import RangeCutter
from oomstream.schemas.errors import InvalidRequest, InvalidTime, UnknownFeature
from oomstream.stores.testing.samples import group
from tests.integration.backends import Backends
from tests.integration.test_training_oracle import DOUBLE, FEATURES, SINGLE, TTLS, events, fill
from tests.oracle import Oracle
from tests.unit.query.filled import T0, Filled

THING = [f"{name}.{feature}" for name in ("single", "other") for feature in FEATURES]


def expected(oracle: Oracle, keys: list[Any], ttls: dict[str, int | None], at_us: int) -> list[tuple[Any, ...]]:
    """What an export must give: one row per entity of which a group has valid values, by key."""
    rows = []
    for key in sorted(keys, key=lambda parts: [part.encode() if isinstance(part, str) else part for part in parts]):
        values = [oracle.at(name, key, at_us, ttl_us=ttl) for name, ttl in ttls.items()]
        if any(each is not None for each in values):
            rows.append((*key, *(None if each is None else each[name] for each in values for name in FEATURES)))
    return rows


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows of a table."""
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_exports_equal_the_oracle(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any interleaving, at any moment and in pieces of any size, an export is the oracle's."""
    original = RangeCutter.__init__

    @settings(deadline=None, max_examples=backends.examples(60))
    @given(
        ttl=st.sampled_from(list(TTLS)),
        written=events,
        at=st.integers(-1, 14),
        limit=st.none() | st.integers(0, 4),
        piece=st.sampled_from([1, 2, 3, 1_000]),
    )
    def check(ttl: str | None, written: list[Any], at: int, limit: int | None, piece: int) -> None:
        def small(self: RangeCutter, *args: Any, **options: Any) -> None:
            original(self, *args, **{**options, "max_rows": piece})

        async def scenario() -> None:
            filled = await fill(backends, ttl, written, [])
            try:
                oracle = Oracle(filled.events)
                right = expected(oracle, SINGLE, {"single": TTLS[ttl], "other": None}, T0 + at)
                async with filled.store() as store:
                    table = (await store.export(THING, at=T0 + at, limit=limit)).to_arrow()
                    assert table.column_names == ["id", *THING]
                    assert rows_of(table) == (right if limit is None else right[:limit])
                    pieces = [each async for each in store.export_tables(THING, at=T0 + at, limit=limit)]
                    assert pa.concat_tables(pieces).equals(table)
                    double = await store.export(["double.text", "double.number"], at=T0 + at)
                    right = expected(oracle, DOUBLE, {"double": TTLS[ttl]}, T0 + at)
                    assert rows_of(double.to_arrow()) == [(a, b, text, number) for a, b, number, text in right]
            finally:
                await filled.close()

        with monkeypatch.context() as patch:
            patch.setattr(RangeCutter, "__init__", small)
            asyncio.run(scenario())

    check()


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    """Features of two entities, a negative limit, an unknown feature, a time that is none: named; nothing: no rows."""

    async def make() -> None:
        await (await Filled(tmp_path, [group("plane"), group("boat")]).open()).close()

    asyncio.run(make())
    with FeatureStore.open(f"sqlite:///{tmp_path / 'online.db'}", f"sqlite:///{tmp_path / 'history.db'}") as store:
        with pytest.raises(InvalidRequest, match="group 'plane' is of entity 'plane' and group 'boat' of 'boat'"):
            store.export(["plane.n", "boat.n"])
        with pytest.raises(InvalidRequest, match="limit is -1"):
            store.export(["plane.n"], limit=-1)
        with pytest.raises(UnknownFeature, match=r"invalid feature names \[plane\.x\]"):
            store.export(["plane.x"])
        with pytest.raises(InvalidTime, match="at is outside"):
            store.export(["plane.n"], at=1 << 62)
        empty = store.export(["plane.n"]).to_arrow()
        assert (empty.num_rows, empty.column_names) == (0, ["k", "plane.n"])
        assert [column.type for column in empty.columns] == [pa.string(), pa.int64()]
