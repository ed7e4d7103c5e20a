"""Training sets: the rules, one by one, by the numbers of the list of cases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from oomstream.query.training_set import TrainingSet
from oomstream.schemas.errors import InvalidLabels, InvalidRequest, InvalidTime, UnknownFeature
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import SourceName
from oomstream.stores.testing.samples import group
from tests.unit.query.conftest import Fill, Run
from tests.unit.query.filled import T0, Filled

SECOND = 1_000_000
FILE = SourceName(SourceKind.FILE, "old.csv", "sha")
PUSH = SourceName(SourceKind.PUSH, "local", "uuid")


def at(time_us: int) -> datetime:
    """A time as labels have it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


def train(run: Run, filled: Filled, labels: Any, features: Sequence[str] = ("plane.n",), **options: Any) -> TrainingSet:
    """One training set through a feature store of its own."""

    async def once() -> TrainingSet:
        async with filled.store() as store:
            return await store.get_historical_features(labels, features, **options)

    made: TrainingSet = run(once())
    return made


def values(run: Run, filled: Filled, labels: Sequence[tuple[Any, int]], **options: Any) -> list[Any]:
    """Values of plane.n for labels of (key, label time)."""
    rows = [{"k": key, "event_timestamp": at(time_us)} for key, time_us in labels]
    column: list[Any] = train(run, filled, rows, **options).to_arrow().column("plane.n").to_pylist()
    return column


def test_label_time_equal_to_event_time_counts(fill: Fill, run: Run) -> None:
    """Case 31: an event at exactly the label time is seen; one a microsecond later is not."""
    filled = fill(group("plane"))
    run(filled.write("plane", ("a",), T0, 1))
    assert values(run, filled, [("a", T0 - 1), ("a", T0), ("a", T0 + 1)]) == [None, 1, 1]


def test_ttl_is_exact(fill: Fill, run: Run) -> None:
    """Case 31: exactly the ttl is valid, a microsecond more is null with the row present; 500 ms works."""
    filled = fill(group("plane", ttl="500ms"))
    run(filled.write("plane", ("a",), T0, 1))
    assert values(run, filled, [("a", T0 + 500_000), ("a", T0 + 500_001)]) == [1, None]


def test_an_expired_newest_row_is_not_replaced_by_an_older_one(fill: Fill, run: Run) -> None:
    """The newest row decides; if it is too old, nothing older is taken either, and a delete hides what was before."""
    filled = fill(group("plane", ttl="1s"))
    run(filled.write("plane", ("a",), T0, 1))
    run(filled.write("plane", ("a",), T0 + 1, deleted=True))
    run(filled.write("plane", ("a",), T0 + 2, 3))
    assert values(run, filled, [("a", T0), ("a", T0 + 1), ("a", T0 + 2)]) == [1, None, 3]


def test_the_whole_row_wins(fill: Fill, run: Run) -> None:
    """A null in the newest row is null; it is not filled from an older row."""
    filled = fill(group("plane", {"n": ["null", "long"], "m": ["null", "long"]}))
    run(filled.write("plane", ("a",), T0, 1, 2))
    run(filled.write("plane", ("a",), T0 + 1, None, 3))
    made = train(run, filled, [{"k": "a", "event_timestamp": at(T0 + 1)}], ["plane.m", "plane.n"]).to_arrow()
    assert made.to_pylist() == [{"k": "a", "event_timestamp": at(T0 + 1), "plane.m": 3, "plane.n": None}]


def test_future_unknown_and_null_keys_are_nulls_with_the_row_present(fill: Fill, run: Run) -> None:
    """Case 32: events only in the future, an entity never seen, a null key: the row is there, with nulls."""
    filled = fill(group("plane"))
    run(filled.write("plane", ("a",), T0 + SECOND, 1))
    assert values(run, filled, [("a", T0), ("nobody", T0), (None, T0), ("", T0)]) == [None] * 4
    assert values(run, filled, [(None, T0)]) == [None]


def test_labels_alike_but_for_the_label_stay_two_rows(fill: Fill, run: Run) -> None:
    """Case 33: the same entity and time twice, with different labels, are two rows."""
    filled = fill(group("plane"))
    run(filled.write("plane", ("a",), T0, 1))
    rows = [{"k": "a", "event_timestamp": at(T0), "label": label} for label in (False, True, True)]
    made = train(run, filled, rows).to_arrow()
    assert made.column("label").to_pylist() == [False, True, True]
    assert made.column("plane.n").to_pylist() == [1, 1, 1]


def test_count_and_order_of_labels_are_kept(fill: Fill, run: Run) -> None:
    """Case 34: found, unknown and null rows in any mix come back in their order; none is lost or doubled."""
    filled = fill(group("plane"))
    for number in range(10):
        run(filled.write("plane", (f"k{number % 3}",), T0 + number, number))
    labels = [(["k0", "k1", "k2", "x", None][number % 5], T0 + (number * 7) % 12) for number in range(60)]
    expected = [
        max((n for n in range(10) if f"k{n % 3}" == key and T0 + n <= time), default=None) for key, time in labels
    ]
    assert values(run, filled, labels) == expected
    none: dict[str, list[Any]] = {"k": [], "event_timestamp": []}
    assert train(run, filled, none).to_arrow().column_names == ["k", "event_timestamp", "plane.n"]


def test_equal_event_times_are_decided_by_the_version(fill: Fill, run: Run) -> None:
    """Case 35: at equal event time a topic beats a push beats a file, then the later source, then the later event."""
    filled = fill(group("plane"))
    other = SourceName(SourceKind.TOPIC, "plane", "first", 1)
    run(filled.write("plane", ("a",), T0, 1))
    run(filled.write("plane", ("a",), T0, 2))
    run(filled.write("plane", ("a",), T0, 3, source=PUSH))
    run(filled.write("plane", ("a",), T0, 4, source=FILE))
    assert values(run, filled, [("a", T0)]) == [2]
    run(filled.write("plane", ("b",), T0, 1, source=PUSH))
    run(filled.write("plane", ("b",), T0, 2, source=FILE))
    run(filled.write("plane", ("c",), T0, 1, source=other))
    run(filled.write("plane", ("c",), T0, 2))
    assert values(run, filled, [("b", T0), ("c", T0)]) == [1, 1]


def test_an_event_twice_in_the_log_is_one_row_out(fill: Fill, run: Run) -> None:
    """Case 36: the same event under two sequences gives one row per label."""
    filled = fill(group("plane"))
    for _ in range(2):
        run(filled.write("plane", ("a",), T0, 1))
    assert values(run, filled, [("a", T0)]) == [1]


def test_event_time_beats_arrival(fill: Fill, run: Run) -> None:
    """Case 37: a late older event takes its place in time; `as_of` before its arrival does not see it."""
    filled = fill(group("plane"))
    filled.now_us = T0 + 100 * SECOND
    run(filled.write("plane", ("a",), T0, 1))
    filled.now_us = T0 + 200 * SECOND
    run(filled.write("plane", ("a",), T0 - 10, 2))
    filled.now_us = T0 + 10_000 * SECOND
    labels = [("a", T0 - 5), ("a", T0 + 1)]
    assert values(run, filled, labels) == [2, 1]
    for as_of in (T0 + 150 * SECOND, at(T0 + 150 * SECOND), at(T0 + 150 * SECOND).isoformat()):
        assert values(run, filled, labels, as_of=as_of) == [None, 1]
    assert values(run, filled, labels, as_of=T0 + 200 * SECOND) == [2, 1]
    assert values(run, filled, labels, as_of=T0 + 100 * SECOND - 1) == [None, None]


def test_available_needs_the_row_to_have_been_ingested(fill: Fill, run: Run) -> None:
    """With `available`, a row counts only for labels at or after its ingest time; an older one wins until then."""
    filled = fill(group("plane"))
    filled.now_us = T0 + 5
    run(filled.write("plane", ("a",), T0, 1))
    filled.now_us = T0 + 20
    run(filled.write("plane", ("a",), T0 + 10, 2))
    filled.now_us = T0 + 30
    run(filled.write("plane", ("a",), T0 + 9, 3))
    labels = [("a", T0 + time) for time in (4, 5, 19, 20, 30)]
    assert values(run, filled, labels, available=True) == [None, 1, 1, 2, 2]


def test_as_of_must_be_settled(fill: Fill, run: Run) -> None:
    """`as_of` younger than a transaction can last is refused, and the message names the newest that is possible."""
    filled = fill(group("plane"))
    limit_us = int(filled.history.transaction_limit_s * SECOND)
    newest = filled.now_us - limit_us
    assert values(run, filled, [("a", T0)], as_of=newest) == [None]
    with pytest.raises(InvalidTime, match="not settled"):
        values(run, filled, [("a", T0)], as_of=newest + 1)
    before, after = timezone(timedelta(hours=5)), timezone(timedelta(hours=-5))
    edges = (datetime.min.replace(tzinfo=before), datetime.max.replace(tzinfo=after), "0001-01-01T00:00:00+05:00")
    for wrong in ("yesterday", 1.5, "2024-01-01", 10**30, -(10**30), *edges):
        with pytest.raises(InvalidTime, match="as_of"):
            values(run, filled, [("a", T0)], as_of=wrong)


def test_composite_keys_never_collide(fill: Fill, run: Run) -> None:
    """Case 38: ("1", "11") and ("11", "1") are two entities; so are "a", "a " and "A"."""
    filled = fill(group("pair", keys={"a": "string", "b": "string"}))
    keys = [("1", "11"), ("11", "1"), ("a", "b"), ("a ", "b"), ("A", "b"), ("a\0", "b"), ("é", "b"), ("e\u0301", "b")]
    for number, key in enumerate(keys):
        run(filled.write("pair", key, T0, number))
    rows = [{"a": a, "b": b, "event_timestamp": at(T0)} for a, b in keys]
    assert train(run, filled, rows, ["pair.n"]).to_arrow().column("pair.n").to_pylist() == list(range(len(keys)))


def test_groups_of_different_entities_in_one_request(fill: Fill, run: Run) -> None:
    """Case 39: each group is joined by its own keys; columns come in the order asked; `entity.key` names a key."""
    filled = fill(
        group("plane", keys={"id": "long"}), group("airport", keys={"id": "string"}), group("route", keys={"r": "long"})
    )
    run(filled.write("plane", (7,), T0, 1))
    run(filled.write("airport", ("EWR",), T0, 2))
    run(filled.write("route", (7,), T0, 3))
    row = {"plane.id": 7, "airport.id": "EWR", "r": 7, "event_timestamp": at(T0)}
    made = train(run, filled, [row], ["route.n", "plane.n", "airport.n"]).to_arrow()
    assert made.to_pylist() == [row | {"route.n": 3, "plane.n": 1, "airport.n": 2}]
    assert made.column_names[-3:] == ["route.n", "plane.n", "airport.n"]
    with pytest.raises(InvalidLabels, match=r"'id' could mean plane\.id or airport\.id"):
        train(run, filled, [{"id": 7, "event_timestamp": at(T0)}], ["plane.n", "airport.n"])


@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (["plane.nope"], [{"k": "a", "event_timestamp": "2024-01-01"}], UnknownFeature, "plane.nope"),
        (["nope.n"], [{"k": "a", "event_timestamp": "2024-01-01"}], UnknownFeature, "nope.n"),
        (["plane.n"], [{"event_timestamp": "2024-01-01"}], InvalidLabels, r"'k'.*'plane'"),
        (["plane.n"], [{"k": "a"}], InvalidLabels, "no column 'event_timestamp' or 'unix_milli'; .*--timestamp-column"),
        (["plane.n"], [{"k": "a", "event_timestamp": None}], InvalidLabels, r"'event_timestamp', row 0.*null"),
        (["plane.n"], [{"k": "a", "event_timestamp": "soon"}], InvalidLabels, r"'event_timestamp', row 0"),
        (
            ["plane.n"],
            [{"k": 5, "event_timestamp": "2024-01-01"}],
            InvalidLabels,
            r"'k', row 0.*: the value is not text",
        ),
        (["plane.n"], [{"k": "a", "plane.n": 1, "event_timestamp": "2024-01-01"}], InvalidLabels, r"'plane\.n'"),
        (["plane.n"], 5, InvalidLabels, "labels: int is no type of table"),
        (["plane.n"], "nowhere.csv", InvalidLabels, "nowhere.csv: No such file"),
        (["plane.n"], "labels.xlsx", InvalidLabels, r"labels\.xlsx is none of"),
        ("plane.n", [], InvalidRequest, "pass a list"),
    ],
)
def test_wrong_requests_name_what_is_wrong(
    fill: Fill, run: Run, features: Any, labels: Any, error: type[Exception], message: str
) -> None:
    """Case 46: each wrong request is a typed error that names the feature, column, row or file."""
    filled = fill(group("plane"))
    with pytest.raises(error, match=message):
        train(run, filled, labels, features)
