"""An online store that was lost is not silently replaced by an empty one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.cli import Cli


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
