"""PyPI's `oomclient`, unmodified, does all of its calls against `oomstream serve`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent_groups import GROUPS
from tests.integration.backends import Backends, prepare
from tests.integration.served import Served

SCRIPT = """
import asyncio, json, os, sys, time
from oomclient import Client

async def refused(call):
    try:
        await call
    except Exception as exc:
        return str(exc)

async def main():
    said = {}
    client = await Client.connect(sys.argv[1])
    said["health_check"] = await client.health_check()

    said["import_"] = await client.import_("account", None, "the first", "accounts.csv", ",")
    said["sync"] = await client.sync("account", None, 0)
    said["online_get"] = await client.online_get("ann", ["account.state", "account.score"])
    said["import_ with a revision"] = await client.import_("account", 1_700_000_000_000, None, "older.csv", None)
    said["sync of a revision"] = await client.sync("account", said["import_ with a revision"], 0)
    said["online_get of it"] = await client.online_get("ann", ["account.state", "account.score"])

    event = {"title": "1,3,5", "number": 30, "share": 2, "is_new": True, "seen": 1_700_000_000_123, "raw": b"ab"}
    said["push"] = await client.push("clicks", "ann", event)
    said["snapshot"] = await client.snapshot("clicks")
    features = [f"clicks.{name}" for name in event] + ["account.state"]
    said["online_multi_get"] = await client.online_multi_get(["ann", "nobody"], features)

    now = round(time.time() * 1000) + 1
    with open("labels.csv", "w") as file:
        file.write(f"entity_key,unix_milli,age\\nann,{now},20\\nann,1700000000000,21\\nnobody,{now},22\\n")
    said["join"] = await client.join(["account.score", "clicks.number"], "labels.csv", "joined.csv")
    said["export"] = await client.export(["account.score", "clicks.number"], now, "exported.csv", 20)
    said["export of one"] = await client.export(["account.score"], now, "one.csv", 1)

    said["unknown feature"] = await refused(client.online_get("ann", ["account.nothing"]))
    said["unknown group"] = await refused(client.push("nothing", "ann", {"a": 1}))
    said["wrong file"] = await refused(client.import_("account", None, None, "wrong.csv", None))
    said["another file"] = await refused(client.import_("account", None, None, "/etc/hostname", None))
    print(json.dumps(said), flush=True)
    os._exit(0)  # the client's threads now and then crash an interpreter that ends in order

asyncio.run(main())
"""


@pytest.fixture
def said(backends: Backends, tmp_path: Path, oomclient_folder: Path) -> dict[str, Any]:
    """What the script's calls gave, run by the client in a process of its own in the folder that the server shares."""
    settings = backends.fresh()
    prepare(settings, GROUPS)
    (tmp_path / "accounts.csv").write_text("user,state,score\nann,Ohio,1\nbob,,2\n")
    (tmp_path / "older.csv").write_text("user,state,score\nann,Utah,7\n")
    (tmp_path / "wrong.csv").write_text("user,state,score\nann,Utah,seven\n")
    with Served(settings, tmp_path) as server:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, server.grpc],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(oomclient_folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows(file: Path) -> list[list[str]]:
    """Rows of a CSV file."""
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def test_every_call(said: dict[str, Any], tmp_path: Path) -> None:
    """Imports, syncs, pushes, reads, joins and exports give what the client's users expect; wrong calls say why."""
    assert [said[name] for name in ("health_check", "sync", "push", "snapshot", "join", "export")] == [None] * 6
    assert (said["import_"], said["import_ with a revision"]) == (2, 3)
    assert said["online_get"] == {"account.state": "Ohio", "account.score": 1}
    assert said["online_get of it"] == {"account.state": "Utah", "account.score": 7}
    assert said["online_multi_get"] == {
        "ann": {
            "clicks.title": "1,3,5",
            "clicks.number": 30,
            "clicks.share": 2.0,
            "clicks.is_new": True,
            "clicks.seen": 1_700_000_000_123,
            "clicks.raw": [97, 98],  # how the client gives bytes
            "account.state": "Utah",
        },
        "nobody": dict.fromkeys(
            [
                *(f"clicks.{name}" for name in ("title", "number", "share", "is_new", "seen", "raw")),
                "account.state",
            ]
        ),
    }
    joined = rows(tmp_path / "joined.csv")
    assert joined[0] == ["entity_key", "unix_milli", "age", "account.score", "clicks.number"]
    assert [[row[0], *row[2:]] for row in joined[1:]] == [
        ["ann", "20", "1", "30"],
        ["ann", "21", "7", ""],
        ["nobody", "22", "", ""],
    ]
    assert rows(tmp_path / "exported.csv") == [
        ["user", "account.score", "clicks.number"],
        ["ann", "1", "30"],
        ["bob", "2", ""],
    ]
    assert rows(tmp_path / "one.csv") == [["user", "account.score"], ["ann", "1"]]
    for name, code, sentence in (
        ("unknown feature", "InvalidArgument", "invalid feature names [account.nothing]"),
        ("unknown group", "NotFound", "'nothing'"),
        ("wrong file", "InvalidArgument", "line 2"),
        ("another file", "InvalidArgument", "OOMSTREAM_SERVE_FILES"),
    ):
        assert f"code: {code}" in said[name]
        assert sentence in said[name]
