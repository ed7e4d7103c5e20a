"""`oomstream forget` on embedded stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with the group `rides` and two riders."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    for rider in ("ann", "bob"):
        cli.run("push", "-g", "rides", "-k", rider, "--feature", "price=1", "--event-time", "2026-01-01")
    return cli


def test_a_rider_is_forgotten(cli: Cli) -> None:
    """Reads find nothing of the rider, an old event does not bring it back, a new one does, and verify is content."""
    done = cli.run("forget", "-e", "rider", "-k", "ann", "--yes")
    assert done.stdout == (
        "+-------+--------+---------+\n"
        "| GROUP | ERASED | IN      |\n"
        "+-------+--------+---------+\n"
        "| rides |      1 | history |\n"
        "+-------+--------+---------+\n"
    )
    assert done.stderr == "(1 entity is forgotten; the online store frees the keys in some minutes)\n"
    reads = ("get", "online", "-k", "ann,bob", "--feature", "rides.price", "-o", "csv")
    assert cli.run(*reads).stdout.splitlines()[1:] == ["ann,", "bob,1.0"]
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=2", "--event-time", "2026-01-02")
    assert cli.run(*reads).stdout.splitlines()[1:] == ["ann,", "bob,1.0"]
    assert cli.json("verify")[0]["differing"] == 0
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=3")
    assert cli.run(*reads).stdout.splitlines()[1:] == ["ann,3.0", "bob,1.0"]
    assert cli.json("verify")[0]["differing"] == 0


def test_what_is_asked_first(cli: Cli) -> None:
    """Without --yes it asks, an unknown entity is named, and a wrong key is wrong use; nothing is erased."""
    cli.run("forget", "-e", "rider", "-k", "ann", code=1)
    refused = cli.run("forget", "-e", "plane", "-k", "ann", "--yes", code=1)
    assert refused.stderr == "Error: no entity named 'plane' that has a group (registered: rider)\n"
    cli.run("forget", "-e", "rider", "-k", "rider=ann", "--yes", code=2)
    assert cli.run("get", "online", "-k", "ann", "--feature", "rides.price", "-o", "csv").stdout.endswith("ann,1.0\n")
