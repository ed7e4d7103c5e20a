"""Online reads: values, statuses, order, keys, errors."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from oomstream.query.online import FeatureStatus, OnlineResponse
from oomstream.schemas.errors import InvalidKey, InvalidRequest, UnknownFeature
from oomstream.stores.testing.samples import TYPES, group
from tests.unit.query.conftest import Fill, Run
from tests.unit.query.filled import T0, Filled

SECOND = 1_000_000


def read(run: Run, filled: Filled, features: list[str], rows: Any) -> OnlineResponse:
    """One online read through a feature store of its own."""

    async def once() -> OnlineResponse:
        async with filled.store() as store:
            return await store.get_online_features(features, rows)

    answer: OnlineResponse = run(once())
    return answer


def test_four_different_answers(fill: Fill, run: Run) -> None:
    """Case 45: present null, never seen, deleted and expired are told apart."""
    filled = fill(group("plane", {"delay": ["null", "long"]}, ttl="10s"))
    run(filled.write("plane", ("null",), T0, None))
    run(filled.write("plane", ("gone",), T0, 1))
    run(filled.write("plane", ("gone",), T0 + 1, deleted=True))
    run(filled.write("plane", ("late",), T0 + 2, 1))
    run(filled.write("plane", ("old",), T0 - 1, 1))
    run(filled.write("plane", ("fresh",), T0, 0))
    filled.now_us = T0 + 10 * SECOND
    rows = [{"k": key} for key in ("null", "never", "gone", "old", "fresh")]
    answer = read(run, filled, ["plane.delay"], rows)
    assert answer.to_dict()["plane.delay"] == [None, None, None, None, 0]
    assert answer.statuses["plane.delay"] == [
        FeatureStatus.NULL_VALUE,
        FeatureStatus.NOT_FOUND,
        FeatureStatus.NOT_FOUND,
        FeatureStatus.OUTSIDE_MAX_AGE,
        FeatureStatus.PRESENT,
    ]
    seen = [
        None if time is None else time - datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
        for time in answer.event_times["plane.delay"]
    ]
    us = timedelta(microseconds=1)
    assert seen == [0 * us, None, 1 * us, -1 * us, 0 * us]


def test_exactly_the_ttl_is_still_valid(fill: Fill, run: Run) -> None:
    """Case 31, online: an age of exactly the ttl counts, one microsecond more does not; below a second too."""
    filled = fill(group("plane", ttl="500ms"))
    run(filled.write("plane", ("a",), T0, 1))
    for age_us, status in ((500_000, "PRESENT"), (500_001, "OUTSIDE_MAX_AGE")):
        filled.now_us = T0 + age_us
        assert read(run, filled, ["plane.n"], [{"k": "a"}]).statuses == {"plane.n": [status]}


def test_order_and_duplicates_of_rows_are_kept(fill: Fill, run: Run) -> None:
    """Rows come back in the order asked, as often as asked; zero rows give zero rows."""
    filled = fill(group("plane"))
    for number in range(5):
        run(filled.write("plane", (f"k{number}",), T0, number))
    order = [3, 1, 3, 0, 4, 3]
    answer = read(run, filled, ["plane.n"], [{"k": f"k{number}"} for number in order])
    assert answer.to_dict() == {"k": [f"k{number}" for number in order], "plane.n": order}
    assert read(run, filled, ["plane.n"], []).to_dict() == {"k": [], "plane.n": []}
    assert read(run, filled, ["plane.n"], {"k": ["k1", "k1"]}).to_dict()["plane.n"] == [1, 1]


def test_one_read_for_all_groups_and_rows(fill: Fill, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 39: groups of different entities are answered with one read of the online store."""
    filled = fill(
        group("plane", entity="plane", keys={"tail": "string"}),
        group("weather", keys={"origin": "string"}),
        group("engine", entity="plane", keys={"tail": "string"}),
    )
    for name, key in (("plane", "N1"), ("engine", "N1"), ("weather", "EWR")):
        run(filled.write(name, (key,), T0, len(name)))
    asked: list[list[bytes]] = []

    async def scenario() -> OnlineResponse:
        async with filled.store() as store:
            inner = store._online.read

            async def counted(keys: Any) -> Any:
                asked.append(list(keys))
                return await inner(keys)

            monkeypatch.setattr(store._online, "read", counted)
            rows = [{"tail": "N1", "origin": "EWR"}, {"tail": "N1", "origin": "JFK"}]
            return await store.get_online_features(["weather.n", "plane:n", "engine.n"], rows)

    answer = run(scenario()).to_dict()
    assert answer == {
        "origin": ["EWR", "JFK"],
        "tail": ["N1", "N1"],
        "weather.n": [7, None],
        "plane.n": [5, 5],
        "engine.n": [6, 6],
    }
    assert [len(keys) for keys in asked] == [4]


def test_keys_never_collide(fill: Fill, run: Run) -> None:
    """Case 38: composite keys, trailing spaces, case, NUL and Unicode forms are different entities."""
    filled = fill(group("pair", keys={"a": "string", "b": "string"}))
    keys = [("1", "11"), ("11", "1"), ("a", "b"), ("a ", "b"), ("A", "b"), ("a\0", "b"), ("é", "b"), ("e\u0301", "b")]
    for number, key in enumerate(keys):
        run(filled.write("pair", key, T0, number))
    answer = read(run, filled, ["pair.n"], [{"a": a, "b": b} for a, b in keys])
    assert answer.to_dict()["pair.n"] == list(range(len(keys)))


def test_every_type_comes_back_as_it_went_in(fill: Fill, run: Run) -> None:
    """Values have their type's Python form, and to_arrow their exact Arrow type; nulls beside integers are exact."""
    filled = fill(group("types", {name: ["null", kind] for name, kind in TYPES.items()}))
    plain = (True, -1, (1 << 53) + 1, 0.5, 0.1, "é\0", b"\0\xff", -1, -1000, 1, "1.0000000001", "RED", "[0.1,2.0]")
    run(filled.write("types", ("a",), T0, *plain))
    names = [f"types.{name}" for name in TYPES]
    answer = read(run, filled, names, [{"k": "a"}, {"k": "b"}])
    values = [column[0] for column in answer.to_dict().values()][1:]
    assert values == [
        True,
        -1,
        (1 << 53) + 1,
        0.5,
        0.1,
        "é\0",
        b"\0\xff",
        date(1969, 12, 31),
        datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        Decimal("1.0000000001"),
        "RED",
        [0.1, 2.0],
    ]
    table = answer.to_arrow()
    assert [str(field.type) for field in table.schema] == [
        "string",
        "bool",
        "int32",
        "int64",
        "float",
        "double",
        "string",
        "binary",
        "date32[day]",
        "timestamp[us, tz=UTC]",
        "timestamp[us, tz=UTC]",
        "decimal128(38, 10)",
        "string",
        "list<item: double>",
    ]
    assert table.column("types.a_long").to_pylist() == [(1 << 53) + 1, None]
    frame = answer.to_pandas()
    assert str(frame["types.a_long"].dtype) == "Int64"
    assert frame["types.a_long"][0] == (1 << 53) + 1


def test_entity_dot_key_where_two_entities_call_their_key_alike(fill: Fill, run: Run) -> None:
    """`entity.key` is accepted as a column; a plain name that could mean two entities is refused by both names."""
    filled = fill(group("plane", keys={"id": "long"}), group("airport", keys={"id": "string"}))
    run(filled.write("plane", (7,), T0, 1))
    run(filled.write("airport", ("EWR",), T0, 2))
    features = ["plane.n", "airport.n"]
    answer = read(run, filled, features, [{"plane.id": 7, "airport.id": "EWR"}])
    assert answer.to_dict() == {"plane.id": [7], "airport.id": ["EWR"], "plane.n": [1], "airport.n": [2]}
    with pytest.raises(InvalidKey, match=r"'id' could mean plane\.id or airport\.id"):
        read(run, filled, features, [{"id": 7}])
    assert read(run, filled, ["plane.n"], [{"id": 7}]).to_dict()["plane.n"] == [1]


def test_a_null_key_is_not_found(fill: Fill, run: Run) -> None:
    """Case 32, online: a row whose key is null is answered like an unknown entity, as in a training set."""
    filled = fill(group("plane"))
    assert read(run, filled, ["plane.n"], [{"k": None}]).statuses == {"plane.n": ["NOT_FOUND"]}


@pytest.mark.parametrize(
    ("features", "rows", "error", "message"),
    [
        (["plane.nope", "x.y"], [{"k": "a"}], UnknownFeature, "plane.nope x.y"),
        (["plane.n"], [{"q": "a"}], InvalidKey, r"entity_rows\[0\]: key column 'k'.*'plane'"),
        (["plane.n"], [{"k": "a"}, {}], InvalidKey, r"entity_rows\[1\]: key column 'k'"),
        (["plane.n"], [{"k": "a"}, {"k": 5}], InvalidKey, r"entity_rows\[1\]: k is not text"),
        (["plane.n"], [{"k": ""}], InvalidKey, r"entity_rows\[0\]: k is empty"),
        (["plane.n"], [["a"]], InvalidRequest, r"entity_rows\[0\] is a list"),
        (["plane.n"], {"k": ["a"], "l": []}, InvalidRequest, "different lengths"),
        ("plane.n", [{"k": "a"}], InvalidRequest, "pass a list"),
        ([], [{"k": "a"}], InvalidRequest, "no features"),
    ],
)
def test_wrong_requests_name_what_is_wrong(
    fill: Fill, run: Run, features: Any, rows: Any, error: type[Exception], message: str
) -> None:
    """Case 46: each wrong request is a typed error that names the feature, row or key."""
    filled = fill(group("plane"))
    with pytest.raises(error, match=message):
        read(run, filled, features, rows)


@pytest.mark.parametrize(
    "make",
    [
        pd.DataFrame,
        pl.DataFrame,
        pl.LazyFrame,
        pa.table,
        lambda columns: pa.RecordBatch.from_pydict(columns),
        lambda columns: pd.DataFrame(columns, index=range(5, 8)).convert_dtypes(),
    ],
)
def test_entity_rows_in_a_frame(make: Any, fill: Fill, run: Run) -> None:
    """Entity rows may be any table that labels may be; a null key (for pandas a NaN) is NOT_FOUND."""
    filled = fill(group("plane", keys={"k": "long"}))
    run(filled.write("plane", (7,), T0, 1))

    async def ask() -> Any:
        async with filled.store() as store:
            rows = make({"k": [7, None, 8], "other": ["x", None, "z"]})
            return await store.get_online_features(["plane.n"], rows)

    answer = run(ask())
    assert answer.to_dict() == {"k": [7, None, 8], "plane.n": [1, None, None]}


@pytest.mark.parametrize("rows", [5, None, pd.DataFrame([["a", "b"]], columns=["k", "k"]), pd.Series(["a"])])
def test_rows_that_are_no_rows(rows: Any, fill: Fill, run: Run) -> None:
    """What is no table, or names a column twice, is a typed error about entity_rows."""
    filled = fill(group("plane"))

    async def ask() -> None:
        async with filled.store() as store:
            await store.get_online_features(["plane.n"], rows)

    with pytest.raises(InvalidRequest, match="entity_rows"):
        run(ask())
