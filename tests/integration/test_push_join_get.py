"""`oomstream init`, `apply`, `push`, `get` and `join` with no broker, and `FeatureStore`, on every pair of stores."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from oomstream.query.sync import FeatureStore
from oomstream.stores.settings import Settings
from tests.integration.backends import Backends, environment_of
from tests.integration.cli import Cli

LABELS = """event_timestamp,rider_id,tipped
2026-01-01T12:00:00Z,ann,1
2026-01-03,ann,0
2026-01-03,bob,1
2026-01-01T12:00:00Z,ann,1
"""


@pytest.fixture
def settings(backends: Backends) -> Settings:
    """Stores that nobody has made yet."""
    return backends.fresh()


@pytest.fixture
def cli(tmp_path: Path, settings: Settings) -> Cli:
    """The command on them, with two events of ann, the later one pushed first."""
    cli = Cli(tmp_path)
    cli.environment.update(environment_of(settings))
    cli.define()
    assert "initialised" in cli.run("init").stdout
    cli.run("apply", "rides.avsc")
    for time, price, rating in (("2026-01-02T10:00:00Z", "8.25", ""), ("2026-01-01T10:00:00Z", "12.5", "5")):
        values = ["--feature", f"price={price}", "--feature", f"rating={rating}"]
        cli.run("push", "-g", "rides", "-k", "ann", *values, "--event-time", time)
    (tmp_path / "labels.csv").write_text(LABELS, encoding="utf-8")
    return cli


def test_push_get_join(cli: Cli) -> None:
    """The newest event time wins online; each label gets the values of its time; a delete counts from its time on."""
    get = ["get", "online", "-k", "bob,ann", "--feature", "rides.rating,rides.price", "-o", "csv"]
    assert cli.run(*get).stdout == "rider,rides.rating,rides.price\nbob,,\nann,,8.25\n"
    join = ["join", "--feature", "rides.price,rides.rating", "--input-file", "labels.csv"]
    assert cli.run(*join).stdout == (
        "event_timestamp,rider_id,tipped,rides.price,rides.rating\n"
        "2026-01-01T12:00:00Z,ann,1,12.5,5\n"
        "2026-01-03,ann,0,8.25,\n"
        "2026-01-03,bob,1,,\n"
        "2026-01-01T12:00:00Z,ann,1,12.5,5\n"
    )
    cli.run("push", "-g", "rides", "-k", "ann", "--delete", "--event-time", "2026-01-02T12:00:00Z")
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=1", "--event-time", "2026-01-02T11:00:00Z")
    (row,) = cli.json("get", "online", "-k", "ann", "--feature", "rides.price", "--statuses")
    assert row["rides.price status"] == "NOT_FOUND"
    assert cli.run(*join).stdout.splitlines()[2] == "2026-01-03,ann,0,,"
    assert all(source["next"] == source["online"] for source in cli.json("get", "source"))


def test_feature_store(cli: Cli, settings: Settings) -> None:
    """What was pushed is read by the feature store: statuses, event times, training set."""
    with FeatureStore.open(settings=settings) as store:
        answer = store.get_online_features(["rides.price", "rides.rating"], [{"rider_id": "ann"}, {"rider_id": "bob"}])
        assert answer.to_dict() == {
            "rider_id": ["ann", "bob"],
            "rides.price": [8.25, None],
            "rides.rating": [None, None],
        }
        assert answer.statuses["rides.rating"] == ["NULL_VALUE", "NOT_FOUND"]
        labels = [{"rider_id": "ann", "event_timestamp": datetime(2026, 1, day, 12, tzinfo=UTC)} for day in (1, 2)]
        made = store.get_historical_features(labels, ["rides.price"]).to_arrow()
        assert made.column("rides.price").to_pylist() == [12.5, 8.25]
