"""Names with `-` and names that begin with a digit, through definitions, both stores and back, on every pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomstream.query.sync import FeatureStore
from oomstream.stores.settings import Settings
from tests.integration.backends import Backends, environment_of
from tests.integration.cli import Cli

DEFINITIONS = """\
kind: Entity
name: user-account
groups:
  - name: 2-clicks
    category: stream
    features:
      - {name: 2fa, value-type: bytes}
      - {name: a-b, value-type: time}
      - {name: a_b, value-type: string}
  - name: my-batch
    category: batch
    features:
      - {name: 9-lives, value-type: int64}
"""
FEATURES = ["2-clicks.2fa", "2-clicks.a-b", "2-clicks.a_b", "my-batch.9-lives"]


@pytest.fixture
def settings(backends: Backends) -> Settings:
    """Stores that nobody has made yet."""
    return backends.fresh()


@pytest.fixture
def cli(tmp_path: Path, settings: Settings) -> Cli:
    """The command on them, with two events of ann, one of bob, and a revision of both."""
    cli = Cli(tmp_path)
    cli.environment.update(environment_of(settings))
    cli.run("init")
    (tmp_path / "names.yaml").write_text(DEFINITIONS, encoding="utf-8")
    cli.run("apply", "-f", "names.yaml")
    push = ["push", "-g", "2-clicks", "-k"]
    values = ["--feature", "2fa=AP8=", "--feature", "a-b=2026-01-01T00:00:00Z", "--feature", "a_b="]
    cli.run(*push, "ann", *values, "--event-time", "2026-01-02T00:00:00Z")
    cli.run(*push, "ann", "--feature", "a_b=older", "--event-time", "2026-01-01T00:00:00Z")
    (tmp_path / "batch.csv").write_text("9-lives,user-account\n9,ann\n7,bob\n", encoding="utf-8")
    cli.run("import", "-g", "my-batch", "--input-file", "batch.csv", "-r", "1767225600000")
    cli.run("sync", "-g", "my-batch")
    return cli


def test_values_are_read_under_odd_names(cli: Cli, settings: Settings) -> None:
    """Online, in a training set and in an export, every value comes back under the name it was defined with."""
    assert cli.run("get", "online", "-k", "bob,ann", "--feature", ",".join(FEATURES), "-o", "csv").stdout == (
        "user-account,2-clicks.2fa,2-clicks.a-b,2-clicks.a_b,my-batch.9-lives\n"
        "bob,,,,7\n"
        "ann,AP8=,2026-01-01T00:00:00Z,,9\n"
    )
    (cli.folder / "labels.csv").write_text(
        "entity_key,unix_milli,seen\nann,1767312000000,1\nann,1767268800000,2\nbob,1000000000000,3\n", encoding="utf-8"
    )
    assert cli.run("join", "--feature", ",".join(FEATURES), "--input-file", "labels.csv").stdout == (
        "entity_key,unix_milli,seen,2-clicks.2fa,2-clicks.a-b,2-clicks.a_b,my-batch.9-lives\n"
        "ann,1767312000000,1,AP8=,2026-01-01T00:00:00Z,,9\n"
        "ann,1767268800000,2,,,older,9\n"
        "bob,1000000000000,3,,,,\n"
    )
    with FeatureStore.open(settings=settings) as store:
        exported = store.export(["2-clicks.2fa", "2-clicks.a_b", "my-batch.9-lives"]).to_arrow()
    assert exported.column_names == ["user-account", "2-clicks.2fa", "2-clicks.a_b", "my-batch.9-lives"]
    assert [list(row.values()) for row in exported.to_pylist()] == [["ann", b"\0\xff", "", 9], ["bob", None, None, 7]]


def test_a_feature_is_added_to_a_live_group_of_odd_names(cli: Cli) -> None:
    """A column of an odd name is added to a table that holds rows; repair and verify find both stores alike."""
    cli.run("register", "feature", "3-d", "-g", "2-clicks", "--value-type", "array<float>")
    cli.run("push", "-g", "2-clicks", "-k", "ann", "--feature", "3-d=[0.5, 1]")
    assert cli.run("get", "online", "-k", "ann", "--feature", "2-clicks.3-d", "-o", "csv").stdout == (
        'user-account,2-clicks.3-d\nann,"[0.5, 1.0]"\n'
    )
    assert [each["differing"] for each in cli.json("verify")] == [0, 0]
    cli.run("repair")
    cli.run("forget", "-k", "ann", "--entity", "user-account", "--yes")
    assert cli.run("get", "online", "-k", "ann", "--feature", "2-clicks.a_b,my-batch.9-lives", "-o", "csv").stdout == (
        "user-account,2-clicks.a_b,my-batch.9-lives\nann,,\n"
    )
