"""`oomstream verify`, `repair` and `gc` on embedded stores."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with the group `rides` and three riders."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    for rider in ("ann", "bob", "eve"):
        cli.run("push", "-g", "rides", "-k", rider, "--feature", "price=1", "--event-time", "2026-01-01")
    return cli


def lose_online_rows(cli: Cli) -> None:
    """Delete every online row behind the store's back."""
    with sqlite3.connect(cli.folder / ".oomstream" / "online.db") as connection:
        connection.execute("DELETE FROM online WHERE substr(key, 1, 1) = x'6f'")
    connection.close()


def test_verify_then_repair(cli: Cli) -> None:
    """Verify counts entities and differences and names keys; repair mends them, after which verify finds none."""
    (clean,) = cli.json("verify")
    assert clean == {
        "group": "rides", "entities": 3, "differing": 0, "moving": 0, "positions": clean["positions"], "first": []
    }  # fmt: skip
    (source,) = clean["positions"]
    assert (source["source"], source["kind"], source["name"], source["position"]) == (1, "push", "local", 3)
    lose_online_rows(cli)
    found = cli.run("verify", code=1)
    assert "| rides |        3 |         3 |      0 |" in found.stdout
    assert "| rides | push | local  |           |        3 |" in found.stdout
    assert "| rides | ann | missing online |        | 2026-01-01T00:00:00Z local 0 |" in found.stdout
    assert found.stderr == (
        "Error: online differs from history in 3 entities (rides ann: missing online; rides bob: missing online; "
        "rides eve: missing online): `oomstream repair` derives them again\n"
    )
    planned = cli.json("repair", "-g", "rides", "--dry-run")
    assert cli.run("verify", code=1).stderr == found.stderr
    done = cli.json("repair", "-g", "rides")
    assert done == planned
    assert {name: done[0][name] for name in ("group", "entities", "written", "removed")} == {
        "group": "rides", "entities": 3, "written": 3, "removed": 0
    }  # fmt: skip
    assert cli.json("verify")[0]["differing"] == 0


def test_verify_shows_both_values(cli: Cli) -> None:
    """Of a row with the right version and another value, both values are shown."""
    with sqlite3.connect(cli.folder / ".oomstream" / "history.db") as connection:
        connection.execute("UPDATE history_rides SET price = 7.5 WHERE rider_id = 'bob'")
    connection.close()
    cli.run("verify", code=1)
    printed = cli.run("verify", "-o", "json", code=1).stdout
    assert json.loads(printed)[0]["first"] == [
        {
            "key": "bob",
            "finding": "same version, other values",
            "online": "2026-01-01T00:00:00Z local 1 price=1.0",
            "history": "2026-01-01T00:00:00Z local 1 price=7.5",
        }
    ]


def test_verify_a_sample(cli: Cli) -> None:
    """A sample looks at so many entities, the same ones for the same seed."""
    lose_online_rows(cli)

    def looked_at(seed: str) -> list[str]:
        (found,) = json.loads(cli.run("verify", "--sample", "2", "--seed", seed, "-o", "json", code=1).stdout)
        assert found["entities"] == found["differing"] == 2
        return [each["key"] for each in found["first"]]

    assert looked_at("1") == looked_at("1")
    assert len({tuple(looked_at(str(seed))) for seed in range(8)}) > 1
    assert "--sample" in cli.run("verify", "--sample", "0", code=2).stderr


def test_repair_some_entities(cli: Cli) -> None:
    """Repair takes keys as `get online` does, or a span of event time, and leaves the rest alone."""
    cli.run("push", "-g", "rides", "-k", "eve", "--feature", "price=2", "--event-time", "2026-01-03")
    lose_online_rows(cli)

    def missing() -> list[str]:
        printed = json.loads(cli.run("verify", "-o", "json", code=1).stdout)
        return [each["key"] for each in printed[0]["first"]]

    assert cli.json("repair", "-k", "rider_id=bob")[0]["written"] == 1
    assert missing() == ["ann", "eve"]
    assert cli.json("repair", "--since", "2026-01-02")[0]["entities"] == 1
    assert missing() == ["ann"]
    assert cli.json("repair", "--until", "2026-01-01")[0]["entities"] == 0
    assert cli.json("repair", "-k", "nobody,ann", "--dry-run")[0]["written"] == 1
    assert cli.json("repair", "--since", "2026-01-01", "--until", "2026-01-02")[0]["written"] == 1
    assert cli.json("verify")[0]["differing"] == 0


def test_wrong_use_of_repair(cli: Cli) -> None:
    """Keys together with times, keys of several entities, and a wrong field of a key are wrong use."""
    assert "--since" in cli.run("repair", "-k", "ann", "--since", "2026-01-01", code=2).stderr
    assert "rider_id" in cli.run("repair", "-k", "rider=ann", code=2).stderr
    cli.define("cars.avsc", name="cars", entity="car")
    cli.run("apply", "cars.avsc")
    said = cli.run("repair", "-k", "ann", code=2).stderr
    assert "car, rider" in said
    assert cli.json("repair", "-g", "rides", "-k", "ann")[0]["written"] == 0


def test_one_entity_is_not_entities(cli: Cli) -> None:
    """A single difference is told in the singular."""
    with sqlite3.connect(cli.folder / ".oomstream" / "online.db") as connection:
        connection.execute("DELETE FROM online WHERE key = (SELECT max(key) FROM online)")
    connection.close()
    assert "differs from history in 1 entity (rides eve" in cli.run("verify", code=1).stderr


def test_verify_shows_on_a_terminal_where_it_is(cli: Cli) -> None:
    """On a terminal verify says which group it looks at; elsewhere standard error stays empty."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            cli.command("verify", "-o", "csv"),
            cwd=cli.folder,
            env={**cli.environment, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=60,
            check=True,
        )
        assert b"verifying rides (group 1 of 1; " in os.read(ours, 100_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == b"GROUP,ENTITIES,DIFFERING,MOVING\nrides,3,0,0\n"
    assert cli.run("verify").stderr == ""


def test_unknown_group_is_named(cli: Cli) -> None:
    """A group that does not exist is an error that lists those that do."""
    assert "rides" in cli.run("verify", "-g", "ride", code=1).stderr
    assert "rides" in cli.run("repair", "-g", "ride", code=1).stderr


def test_gc_says_what_it_did(cli: Cli) -> None:
    """A store that keeps no replaced values has nothing to forget; a time that is too short is refused."""
    assert cli.run("gc").stdout == "nothing to remove\n"
    assert "duration" in cli.run("gc", "--older-than", "soon", code=2).stderr


def test_verify_from_topic(tmp_path: Path) -> None:
    """With --from-topic verify reads the log again: counts by partition, what differs with both sides, exit code 1."""
    cli = Cli(tmp_path)
    cli.define(partitions=1)
    cli.run("apply", "rides.avsc")
    cli.run("push", "-g", "rides", "-k", "zoe", "--feature", "price=1", "--event-time", "2026-01-01")
    with cli.running("dev", until="reading rides"):
        for rider in ("ann", "bob"):
            cli.run("push", "-g", "rides", "-k", rider, "--feature", "price=2", "--event-time", "2026-01-02", "--wait")
        cli.produce("rides", b"\xff no event")
        cli.run("push", "-g", "rides", "-k", "eve", "--feature", "price=3", "--event-time", "2026-01-03", "--wait")
        clean = cli.run("verify", "--from-topic").stdout
        assert "1 source of pushes and imports: they have no topic, and are checked in the stores alone" in clean
        (partition,) = cli.json("verify", "--from-topic")[0]["log"]["partitions"]
        assert [partition[name] for name in ("position", "records", "events", "letters", "dropped")] == [4, 4, 3, 1, 0]
        with sqlite3.connect(cli.folder / ".oomstream" / "history.db") as connection:
            connection.execute("DELETE FROM history_rides WHERE rider_id = 'ann'")
            connection.execute("UPDATE history_rides SET rating = 5 WHERE rider_id = 'eve'")
        connection.close()
        found = cli.run("verify", "--from-topic", code=1)
        assert "history differs from the log at 2 offsets (rides[0] 0: valid in the log, not in history" in found.stderr
        printed = json.loads(cli.run("verify", "--from-topic", "-o", "json", code=1).stdout)
    (partition,) = printed[0]["log"]["partitions"]
    assert (partition["lost"], partition["differing"], partition["extra"]) == (1, 1, 0)
    lost, differing = printed[0]["log"]["first"]
    assert (lost["key"], lost["offset"], lost["history"]) == ("ann", 0, None)
    assert differing == {
        "partition": 0,
        "offset": 3,
        "finding": "same identity, other values",
        "key": "eve",
        "log": "2026-01-03T00:00:00Z rating=null",
        "history": "2026-01-03T00:00:00Z rating=5",
    }


def test_verify_from_topic_needs_a_broker(cli: Cli) -> None:
    """Without a broker --from-topic is wrong use, and says what is missing."""
    assert "no broker" in cli.run("verify", "--from-topic", code=2).stderr
