"""docs/importing.md says what is so: its groups, files, commands and Python run one after the other."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from tests.integration.cli import Cli
from tests.integration.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "importing.md"


def test_the_page_runs(tmp_path: Path) -> None:
    """Every command prints what the page shows, and the Python makes the next revision."""
    cli = Cli(tmp_path)
    for name, schema in zip(("account", "clicks"), blocks(PAGE, "json"), strict=True):
        (tmp_path / f"{name}.avsc").write_text(schema, encoding="utf-8")
    cli.run("apply", "account.avsc", "clicks.avsc")
    for name, file in zip(("account", "clicks"), blocks(PAGE, "csv"), strict=True):
        (tmp_path / f"{name}.csv").write_text(file, encoding="utf-8")
    for console in blocks(PAGE, "console"):
        for each in console.removeprefix("$ ").split("\n$ "):
            command, _, shown = each.partition("\n")
            program, *args = shlex.split(command, comments=True)
            assert program == "oomstream"
            done = cli.run(*args)
            # A terminal shows both: what a script reads, then the remarks for people.
            assert (done.stdout + done.stderr).rstrip("\n") == shown.rstrip("\n")
    (python,) = blocks(PAGE, "python")
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-c", python],
        cwd=tmp_path,
        env=cli.environment,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout
    assert printed == "2 4\n"
