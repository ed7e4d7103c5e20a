"""`oomstream verify`, `repair` and `gc` on embedded stores."""

from __future__ import annotations

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
    assert cli.json("verify") == [
        {"group": "rides", "entities": 3, "differing": 0, "positions": {"1": 3}, "first": []}
    ]  # fmt: skip
    lose_online_rows(cli)
    found = cli.run("verify", code=1)
    assert "|        3 |         3 |" in found.stdout
    assert found.stderr == (
        "Error: online differs from history in 3 entities (rides ann: missing online; rides bob: missing online; "
        "rides eve: missing online): `oomstream repair` derives them again\n"
    )
    assert cli.json("repair", "-g", "rides") == [{"group": "rides", "entities": 3, "written": 3, "removed": 0}]
    assert cli.json("verify")[0]["differing"] == 0


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
        assert b"verifying rides (group 1 of 1; 0 entities so far)" in os.read(ours, 100_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == b"GROUP,ENTITIES,DIFFERING\nrides,3,0\n"
    assert cli.run("verify").stderr == ""


def test_unknown_group_is_named(cli: Cli) -> None:
    """A group that does not exist is an error that lists those that do."""
    assert "rides" in cli.run("verify", "-g", "ride", code=1).stderr
    assert "rides" in cli.run("repair", "-g", "ride", code=1).stderr


def test_gc_says_what_it_did(cli: Cli) -> None:
    """A store that keeps no replaced values has nothing to forget; a time that is too short is refused."""
    assert cli.run("gc").stdout == "nothing to do for this store\n"
    assert "duration" in cli.run("gc", "--older-than", "soon", code=2).stderr
