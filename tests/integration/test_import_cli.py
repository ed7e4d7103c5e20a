"""`oomstream import` on a terminal, and what is wrong use of it."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with the group `rides`, and a file for it."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    lines = [f"r{at},{1_767_225_600_000 + at},{at},5\n" for at in range(30_000)]
    (tmp_path / "rides.csv").write_text("rider,unix_milli,price,rating\n" + "".join(lines), encoding="utf-8")
    return cli


def test_progress_on_a_terminal(cli: Cli) -> None:
    """A terminal shows what is done, of how many bytes, and the rows; the result is a line on standard output."""
    ours, theirs = pty.openpty()
    command = cli.command("import", "-g", "rides", "--input-file", "rides.csv")
    environment = {**cli.environment, "COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(
        command, cwd=cli.folder, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4_096):
                shown += block
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        assert process.stdout.read() == "imported 30,000 rows\n"
        assert process.wait(30) == 0
    os.close(ours)
    assert b"checking" in shown
    assert b"writing" in shown
    assert b"30,000 rows" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "give one of --input-file and --table-link"),
        (("--input-file", "rides.csv", "--table-link", "t"), 2, "give one of --input-file and --table-link"),
        (("--input-file", "nothing.csv"), 2, "nothing.csv"),
        (("--input-file", "rides.csv", "--delimiter", "::"), 2, "one ASCII character"),
        (("--input-file", "rides.csv", "-r", "0"), 2, "it must be at least 1"),
        (("--input-file", "rides.csv", "--delimiter", "tab"), 1, "rides.csv: line 1: column"),
        (("--table-link", "t"), 1, "group rides is a stream group"),
        (("--input-file", "rides.csv", "-g", "nothing"), 1, "group is empty or does not exist"),
    ],
)
def test_wrong_use(cli: Cli, arguments: tuple[str, ...], code: int, says: str) -> None:
    """Each mistake is one sentence that says what to do, and nothing is imported."""
    assert says in cli.run("import", "-g", "rides", *arguments, code=code).stderr
    assert cli.json("get", "source") == []
