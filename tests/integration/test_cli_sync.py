"""`oomstream sync` and `gc` as people type them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import Cli

STATE: dict[str, Any] = {
    "type": "record",
    "name": "state",
    "entity": "account",
    "keys": ["account"],
    "category": "batch",
    "fields": [{"name": "account", "type": "string"}, {"name": "score", "type": ["null", "long"]}],
}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with a batch group `state` and a stream group `rides`."""
    cli = Cli(tmp_path)
    (tmp_path / "state.avsc").write_text(json.dumps(STATE), encoding="utf-8")
    cli.define()
    cli.run("apply", "state.avsc", "rides.avsc")
    return cli


def imported(cli: Cli, score: int, *options: str) -> str:
    """Import a revision of two accounts; what was printed."""
    (cli.folder / "state.csv").write_text(f"account,score\nann,{score}\nbob,\n", encoding="utf-8")
    return cli.run("import", "-g", "state", "--input-file", "state.csv", *options).stdout


def online(cli: Cli) -> str:
    """The values that readers get."""
    return cli.run("get", "online", "-k", "ann,bob,cy", "--feature", "state.score", "-o", "csv").stdout


def test_sync_and_back(cli: Cli) -> None:
    """In oomcli's words: an import says its id, sync what it does; an older id goes back; what stays is said."""
    assert imported(cli, 1) == "RevisionID: 2\n"
    assert online(cli) == "account,state.score\nann,\nbob,\ncy,\n"
    done = cli.run("sync", "-g", "state")
    assert done.stdout == "syncing features ...\n"
    assert "revision 2 is online, 2 entities" in done.stderr
    assert imported(cli, 2) == "RevisionID: 3\n"
    assert online(cli) == "account,state.score\nann,1\nbob,\ncy,\n"
    done = cli.run("sync", "--group-name", "state", "--purge-delay", "1")
    assert "goes after 6 s, with the next sync or gc, as readers need it for so long" in done.stderr
    assert online(cli) == "account,state.score\nann,2\nbob,\ncy,\n"
    cli.run("sync", "-g", "state", "--revision-id", "2", "--purge-delay", "60")
    assert online(cli) == "account,state.score\nann,1\nbob,\ncy,\n"


def test_wrong_syncs(cli: Cli) -> None:
    """A group that never had data, an unknown group or revision, and wrong options: one sentence each."""
    for group in ("state", "rides"):
        failed = cli.run("sync", "-g", group, code=1)
        assert failed.stderr == f"Error: failed sync features: group {group} doesn't have any revision\n"
        assert failed.stdout == "syncing features ...\n"
    assert "group is empty or does not exist" in cli.run("sync", "-g", "nothing", code=1).stderr
    imported(cli, 1)
    said = cli.run("sync", "-g", "state", "-r", "9", code=1).stderr
    assert said == "Error: failed sync features: group state doesn't have revision 9 (it has: 2)\n"
    assert "at least 1" in cli.run("sync", "-g", "state", "-r", "0", code=2).stderr
    assert "at least 0" in cli.run("sync", "-g", "state", "--purge-delay", "-1", code=2).stderr


def test_sync_of_a_stream_group(cli: Cli) -> None:
    """Its online rows are derived from history again."""
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=1.5")
    assert cli.run("sync", "-g", "rides").stderr == "(1 entity, 0 rows written)\n"


def test_gc_of_revisions(cli: Cli) -> None:
    """On request gc drops revisions that others took the place of and says which; not what is online, or newest."""
    for score, time in enumerate((1_600_000_000_000, 1_600_000_001_000, 1_600_000_002_000, 1_600_000_003_000)):
        imported(cli, score, "-r", str(time))
    cli.run("sync", "-g", "state", "-r", "3")
    assert cli.run("gc").stdout == "nothing to remove\n"
    assert cli.run("gc", "--revisions-older-than", "1h").stdout == "nothing to remove\n"  # imported just now
    assert cli.run("gc", "--revisions-older-than", "0s", "--keep-revisions", "2").stdout == (
        "group state: 1 revision removed (2)\n"
    )
    assert cli.run("gc", "--revisions-older-than", "0s").stdout == "group state: 1 revision removed (4)\n"
    assert cli.run("gc", "--revisions-older-than", "0s").stdout == "nothing to remove\n"
    assert online(cli) == "account,state.score\nann,1\nbob,\ncy,\n"
    assert "doesn't have revision 2 (it has: 3, 5)" in cli.run("sync", "-g", "state", "-r", "2", code=1).stderr
    cli.run("sync", "-g", "state")
    assert online(cli) == "account,state.score\nann,3\nbob,\ncy,\n"
    assert "duration" in cli.run("gc", "--revisions-older-than", "soon", code=2).stderr


def test_gc_of_history(cli: Cli) -> None:
    """It says of each stream group what it removed of its history."""
    for price in ("1.5", "2.5"):
        cli.run("push", "-g", "rides", "-k", "ann", "--feature", f"price={price}")
    said = cli.run("gc", "--history-older-than", "0s").stdout
    assert said == "group rides: 1 row older than 0s removed, and 0 online\n"


def test_verify_and_repair_of_a_batch_group(cli: Cli) -> None:
    """Verify says what was compared and names what differs; repair syncs the revision that is online again, whole."""
    assert "state: nothing of it is online (`oomstream sync`)" in cli.run("verify").stdout
    imported(cli, 1)
    cli.run("sync", "-g", "state")
    imported(cli, 2)
    (clean,) = cli.json("verify", "-g", "state")
    assert clean == {
        "group": "state", "entities": 2, "differing": 0, "moving": 0, "positions": [], "revision": 2, "copy": 1,
        "first": [],
    }  # fmt: skip
    said = cli.run("verify").stdout
    assert "| rides |        0 |         0 |      0 |" in said
    assert "| state |        2 " in said
    assert "| state |        2 |    1 |" in said  # the revision, the copy
    with sqlite3.connect(cli.folder / ".oomstream" / "online.db") as connection:
        newest = "SELECT max(key) FROM online WHERE substr(key, 1, 1) = x'6f'"
        connection.execute(f"DELETE FROM online WHERE key = ({newest})")
    connection.close()
    with sqlite3.connect(cli.folder / ".oomstream" / "history.db") as connection:
        connection.execute("UPDATE offline_batch_snapshot_1_2 SET score = 7 WHERE account = 'ann'")
    connection.close()
    found = cli.run("verify", code=1)
    assert "| state | ann | same version, other values |" in found.stdout
    assert "revision 2 score=1 " in found.stdout
    assert "revision 2 score=7 " in found.stdout
    assert "online differs from history in 2 entities (state ann: same version, other values; state bob: missing" in (
        found.stderr
    )
    planned = cli.run("repair", "-g", "state", "--dry-run").stdout
    assert "state: repair syncs revision 2 again, as a whole" in planned
    assert "nothing was changed" in planned
    cli.run("verify", code=1)
    done = cli.run("repair").stdout
    assert "| state |        2 |       2 |       0 |" in done
    assert "state: revision 2 was synced again, 2 entities; the copy of before goes after 6 s" in done
    assert online(cli) == "account,state.score\nann,7\nbob,\ncy,\n"
    assert cli.json("verify", "-g", "state")[0]["copy"] == 2
    assert cli.json("repair", "-g", "state", "-k", "ann,nobody")[0]["entities"] == 2


def test_a_span_of_time_is_of_events(cli: Cli) -> None:
    """Repair of a span of time leaves batch groups out and says so; asked for one by name, it is wrong use."""
    imported(cli, 1)
    said = cli.run("repair", "--since", "2026-01-01").stdout
    assert "left out, as revisions have no events in a span of time: state" in said
    assert "a batch group" in cli.run("repair", "-g", "state", "--since", "2026-01-01", code=2).stderr
