"""An online store that was lost is not silently replaced by an empty one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli import RIDES, Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with the group `rides` and one rider, whose online store is gone."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=1")
    for file in (tmp_path / ".oomstream").glob("online.db*"):
        file.unlink()
    return cli


@pytest.mark.parametrize(
    "verb",
    [
        ("push", "-g", "rides", "-k", "bob", "--feature", "price=1"),
        ("apply", "rides.avsc"),
        ("dev",),
        ("verify",),
        ("repair",),
    ],
)
def test_writers_refuse_a_lost_online_store(cli: Cli, verb: tuple[str, ...]) -> None:
    """Whatever opens the stores for writing refuses while online lost what history holds, and names the way out."""
    said = cli.run(*verb, code=2).stderr
    assert "online.db is gone or empty" in said
    assert "run `oomstream init`, then `oomstream repair`" in said
    assert not (cli.folder / ".oomstream" / "online.db").exists()


def test_a_worker_refuses_a_lost_online_store(cli: Cli) -> None:
    """A worker ends with the same sentence rather than go on with an empty store."""
    with cli.running("broker", until="embedded://"):
        done = subprocess.run(
            cli.command("worker"),
            cwd=cli.folder,
            env=cli.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert "`oomstream repair`" in done.stderr
    assert not (cli.folder / ".oomstream" / "online.db").exists()


def test_init_and_repair_fill_a_lost_online_store(cli: Cli) -> None:
    """`init` says that history holds data; after `repair` verify finds nothing, and `init` has nothing more to say."""
    hint = "history holds data, but the online store is new and empty: run `oomstream repair`"
    assert cli.run("init").stdout.splitlines()[-1] == hint
    assert cli.json("repair")[0]["written"] == 1
    assert cli.json("verify")[0]["differing"] == 0
    assert cli.run("init").stdout.endswith("initialised\n")


def test_batch_groups_alone(tmp_path: Path) -> None:
    """A lost store that held copies of revisions only is noticed too, and filled by `repair`; what was online is."""
    cli = Cli(tmp_path)
    definition = {**RIDES, "category": "batch", "fields": [RIDES["fields"][0], RIDES["fields"][2]]}
    del definition["event_time"], definition["partitions"]
    (tmp_path / "rides.avsc").write_text(json.dumps(definition), encoding="utf-8")
    cli.run("apply", "rides.avsc")
    (tmp_path / "rides.csv").write_text("rider_id,price\nann,1\nbob,2\n", encoding="utf-8")
    cli.run("import", "-g", "rides", "--input-file", "rides.csv")
    online = tmp_path / ".oomstream" / "online.db"

    def lose() -> None:
        for file in online.parent.glob("online.db*"):
            file.unlink()

    lose()  # nothing was in it
    cli.run("sync", "-g", "rides")
    lose()
    for verb in (("sync", "-g", "rides"), ("verify",)):
        assert "online.db is gone or empty" in cli.run(*verb, code=2).stderr
        assert not online.exists()
    assert cli.run("init").stdout.endswith("the online store is new and empty: run `oomstream repair`\n")
    said = cli.run("verify", code=1).stderr
    assert "in 2 entities (rides (the whole copy): no reader can use its copy, which has no seal" in said
    assert cli.json("repair")[0]["written"] == 2
    assert cli.json("verify")[0]["differing"] == 0
    read = cli.run("get", "online", "-k", "ann,bob", "--feature", "rides.price", "-o", "csv").stdout
    assert read == "rider,rides.price\nann,1.0\nbob,2.0\n"
