"""A script of oomcli's users runs unchanged, and prints what it printed, through the name `oomcli`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import feather

from oomstream.agents.cli.config_file import read_config
from oomstream.stores.settings import Settings
from oomstream.stores.urls import StoreUrl
from tests.integration.backends import Backends

BOTH = pytest.mark.parametrize("backends", ["sqlite+sqlite", "tidb+tikv"], indirect=True)
NAMES = ("oomcli", "oomstream")

DEFINITIONS = """
kind: Entity
name: user
description: old words
groups:
  - name: account
    category: batch
    snapshot-interval: 0s
    description: from the CRM
    features:
      - {name: state, value-type: string, description: where they live}
      - {name: 2fa_installed, value-type: bool}
---
kind: Group
name: user-click
entity-name: user
category: stream
snapshot-interval: 24h
---
items:
  - {kind: Feature, name: clicks, group-name: user-click, value-type: int64, description: today}
"""
FILES = {
    "first.csv": "user,state,2fa_installed\n1,NV,true\n2,,false\n",
    "second.csv": "2fa_installed|user|state\nfalse|3|SC\n",
    "bad.csv": "user,state,2fa_installed\n1,NV,true\n2,SC,perhaps\n",
    "wrong.csv": "user,state\n1,NV\n",
    "clicks.csv": "user,unix_milli,clicks,last-page\n2,1600000000000,5,/a\n1,1600000000000,1,/b\n"
    "1,1500000000000,0,/c\n",
    "labels.csv": "entity_key,unix_milli,label\n1,1600000000000,x\n9,4102444800000,y\n1,1599999999999,z\n"
    "2,4102444800000,\n",
}

Step = tuple[str, str]
"""A line of the script, and what it prints; where that begins with `Error: `, it fails with that."""

SCRIPT: list[Step] = [
    ("init", "…"),
    ("init", "…"),
    ("apply -f /dev/stdin", "…applied\n"),
    ("register entity device --description 'a phone'", ""),
    ("register group phone -e device -c batch --description 'of the maker'", ""),
    ("register feature price -g phone --value-type float64 --description 'when new'", ""),
    ("register feature last-page -g user-click --value-type string", ""),
    ("get meta entity -o csv", "ID,NAME,DESCRIPTION\n1,user,old words\n2,device,a phone\n"),
    (
        "get meta group -o csv",
        "ID,NAME,ENTITY,CATEGORY,SNAPSHOT-INTERVAL,DESCRIPTION\n1,account,user,batch,0s,from the CRM\n"
        "2,user-click,user,stream,24h0m0s,\n3,phone,device,batch,0s,of the maker\n",
    ),
    (
        "get meta feature -o csv -g user-click",
        "ID,NAME,GROUP,ENTITY,CATEGORY,VALUE-TYPE,DESCRIPTION\n3,clicks,user-click,user,stream,int64,today\n"
        "5,last-page,user-click,user,stream,string,\n",
    ),
    ("update entity user --description 'new words'", ""),
    ("update group account --description 'from the new CRM'", ""),
    ("update feature account.state --description 'where they are'", ""),
    ("edit group phone", "…applied\n"),
    ("get meta group phone -o csv", "…3,phone,device,batch,0s,of its maker\n"),
    (
        "get meta feature account.state -o yaml",
        "kind: Feature\nname: state\ngroup-name: account\nvalue-type: string\ndescription: where they are\n",
    ),
    ("get meta entity -o column", "ID  NAME    DESCRIPTION\n 1  user    new words\n 2  device  a phone\n"),
    ("sync -g account", "Error: failed sync features: group account doesn't have any revision\n"),
    ("import -g account --input-file bad.csv", "Error: …bad.csv…line 3…2fa_installed…"),
    ("import -g account --input-file wrong.csv", "Error: …wrong.csv…2fa_installed…"),
    ("get meta revision -o csv", "ID,REVISION,GROUP,SNAPSHOT-TABLE,CDC-TABLE,DESCRIPTION\n"),
    ("import -g account --input-file first.csv -r 1600000000000 --description first", "RevisionID: 2\n"),
    ("import -g account --input-file second.csv --delimiter '|' -r 1700000000000", "RevisionID: 3\n"),
    (
        "get meta revision -o csv",
        "ID,REVISION,GROUP,SNAPSHOT-TABLE,CDC-TABLE,DESCRIPTION\n"
        "1,0,account,offline_batch_snapshot_1_1,,dummy revision\n"
        "2,1600000000000,account,offline_batch_snapshot_1_2,,first\n"
        "3,1700000000000,account,offline_batch_snapshot_1_3,,\n",
    ),
    ("sync -g account -r 2 --purge-delay 0", "syncing features ...\n"),
    ("get online -k 1,3,2 --feature account.state,account.2fa_installed -o csv",
     "user,account.state,account.2fa_installed\n1,NV,true\n3,,\n2,,false\n"),
    ("sync -g account", "syncing features ...\n"),
    ("get online -k 3,1 --feature account.2fa_installed,account.state -o csv",
     "user,account.2fa_installed,account.state\n3,false,SC\n1,,\n"),
    ("import --group user-click --input-file clicks.csv", "imported 3 rows\n"),
    # oomcli takes these for a stream group too, where they say nothing.
    ("import --group user-click --input-file clicks.csv -r 1600000000000 --description first",
     "imported 3 rows; 3 of them had been imported before\n"),
    ("push --entity-key 1 --group user-click --feature clicks=7 --feature last-page=", "…"),
    ("push -k 1 -g nothing --feature clicks=7", "Error: …group is empty or does not exist…"),
    ("push -k 1 -g account --feature state=NV", "Error: group account is a batch group…"),
    ("sync --group-name user-click", "syncing features ...\n"),
    (
        "get online -k 1,2 --feature user-click.clicks,user-click.last-page -o ascii_table",
        "+------+-------------------+----------------------+\n"
        "| user | user-click.clicks | user-click.last-page |\n"
        "+------+-------------------+----------------------+\n"
        "| 1    |                 7 |                      |\n"
        "| 2    |                 5 | /a                   |\n"
        "+------+-------------------+----------------------+\n",
    ),
    ("snapshot user-click", "nothing to do: training sets and exports read history directly\n"),
    ("snapshot", "nothing to do: training sets and exports read history directly\n"),
    ("snapshot nothing", "Error: failed to take snapshot for the group nothing: …does not exist…"),
    ("export --feature account.state,user-click.clicks --unix-milli 1600000000000 -o csv",
     "user,account.state,user-click.clicks\n1,NV,1\n2,,5\n"),
    ("export --feature user-click.clicks,account.state -u 4102444800000 -o csv",
     "user,user-click.clicks,account.state\n1,7,\n2,5,\n3,,SC\n"),
    ("export --feature user-click.clicks -u 4102444800000 --limit 1", "user,user-click.clicks\n1,7\n"),
    ("export --feature user-click.clicks -u 1000", "user,user-click.clicks\n"),
    (
        "export --feature account.state -u 1600000000000 -l 1 -o ascii_table",
        "+------+---------------+\n| user | account.state |\n+------+---------------+\n"
        "| 1    | NV            |\n+------+---------------+\n",
    ),
    ("export --feature account.state -u 1600000000000 -l 1 -o json",
     '[\n  {\n    "user": "1",\n    "account.state": "NV"\n  }\n]\n'),
    ("export --feature a.b,account.state,a.c -u 1",
     "Error: failed exporting features: invalid feature names [a.b a.c]\n"),
    ("export --feature phone.price,account.state -u 1", "Error: failed exporting features: …one row per entity…"),
    ("join --feature account.state,user-click.clicks --input-file labels.csv -o csv",
     "entity_key,unix_milli,label,account.state,user-click.clicks\n1,1600000000000,x,NV,1\n9,4102444800000,y,,\n"
     "1,1599999999999,z,,0\n2,4102444800000,,,5\n"),
    (
        "join --feature user-click.clicks --input-file labels.csv -o ascii_table",
        "+------------+---------------+-------+-------------------+\n"
        "| entity_key |    unix_milli | label | user-click.clicks |\n"
        "+------------+---------------+-------+-------------------+\n"
        "| 1          | 1600000000000 | x     |                 1 |\n"
        "| 9          | 4102444800000 | y     |                   |\n"
        "| 1          | 1599999999999 | z     |                 0 |\n"
        "| 2          | 4102444800000 |       |                 5 |\n"
        "+------------+---------------+-------+-------------------+\n",
    ),
]  # fmt: skip


class Done(NamedTuple):
    """What a call printed, and its exit code."""

    code: int
    stdout: str
    stderr: str


def call(folder: Path, name: str, line: str, **environment: str) -> Done:
    """Run a line through a shell, as scripts do."""
    clean = {each: value for each, value in os.environ.items() if not each.startswith(("OOMSTREAM_", "OOMCLI_"))}
    found = Path(sys.executable).parent / name
    assert found.exists(), f"{name} is not installed: pip install -e . (make install)"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{found} {line}"],
        cwd=folder,
        env={**clean, "COLUMNS": "80", "EDITOR": "sed -i 's/of the maker/of its maker/'", **environment},
        input=DEFINITIONS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def matches(text: str, expected: str) -> bool:
    """Whether a text is the expected one, in which … stands for anything."""
    at = 0
    parts = expected.split("…")
    if len(parts) == 1:
        return text == expected
    for part in parts:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return text.startswith(parts[0]) and text.endswith(parts[-1])


def section(url: str) -> dict[str, object]:
    """A store as oomcli's configuration file names it."""
    parsed = StoreUrl.parse(url)
    if parsed.is_file:
        return {parsed.scheme: {"db-file": parsed.path}}
    if parsed.scheme == "tikv":
        return {"tikv": {"pd-addrs": [f"{host}:{port}" for host, port in parsed.hosts], "namespace": parsed.path}}
    ((host, port),) = parsed.hosts
    login = {"user": parsed.user or "", "password": parsed.password or ""}
    return {parsed.scheme: {"host": host, "port": port, **login, "database": parsed.path}}


def write_config(folder: Path, settings: Settings) -> Path:
    """A configuration file of oomcli for these stores."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    history = section(settings.history)
    stores = {"online-store": section(settings.online), "offline-store": history, "metadata-store": history}
    file = folder / "oomstore.yaml"
    file.write_text(yaml.safe_dump(stores), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the script's files."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@BOTH
def test_a_script_of_oomcli(backends: Backends, folder: Path) -> None:
    """Every verb of oomcli prints what oomcli prints, errors on standard error with exit code 1."""
    config = write_config(folder, backends.fresh())
    for line, expected in SCRIPT:
        done = call(folder, "oomcli", f"--config {config} {line}")
        failed = expected.startswith("Error: ")
        assert done.code == failed, (line, done)
        assert matches(done.stderr if failed else done.stdout, expected), (line, done)
        assert done.stderr.count("\n") <= 1, (line, done)


def test_one_file_may_hold_both_stores(folder: Path) -> None:
    """A configuration of one SQLite file for everything works; a variable names it as well as the option."""
    store = {"sqlite": {"db-file": "all.db"}}
    names = ("online-store", "offline-store", "metadata-store")
    (folder / "oomstore.yaml").write_text(yaml.safe_dump(dict.fromkeys(names, store)), encoding="utf-8")
    features = "--feature account.state,user-click.clicks"
    for line, expected in (
        ("init", "…"),
        ("apply -f /dev/stdin", "…"),
        ("import -g account --input-file first.csv -r 1600000000000", "RevisionID: 2\n"),
        ("sync -g account", "syncing features ...\n"),
        ("push -k 1 -g user-click --feature clicks=7", "…"),
        (f"get online -k 1,2 {features} -o csv", "user,account.state,user-click.clicks\n1,NV,7\n2,,\n"),
        (f"export {features}", "user,account.state,user-click.clicks\n1,NV,7\n2,,\n"),
    ):
        done = call(folder, "oomcli", line, OOMCLI_CONFIG="oomstore.yaml")
        assert (done.code, matches(done.stdout, expected)) == (0, True), (line, done)
    assert not (folder / ".oomstream").exists()


def test_exports_to_files(folder: Path) -> None:
    """`export -O` writes what is printed, in each format; a wrong name or feature leaves no file."""
    for line in ("init", "apply -f /dev/stdin", "import -g account --input-file first.csv -r 1600000000000"):
        assert call(folder, "oomcli", line).code == 0
    right = pa.table({"user": ["1", "2"], "account.2fa_installed": [True, False]})
    for suffix in ("csv", "parquet", "arrow"):
        line = f"export --feature account.2fa_installed -u 1600000000000 -O out.{suffix}"
        assert call(folder, "oomcli", line).stdout == f"2 rows written to out.{suffix}\n"
    assert (folder / "out.csv").read_text(encoding="utf-8") == '"user","account.2fa_installed"\n"1",true\n"2",false\n'
    assert pq.read_table(folder / "out.parquet").equals(right)
    assert feather.read_table(folder / "out.arrow").equals(right)
    there = sorted(each.name for each in folder.iterdir())
    assert call(folder, "oomcli", "export --feature account.state -O out.xml").code == 2
    assert call(folder, "oomcli", "export --feature account.no -O no.csv").code == 1
    assert call(folder, "oomcli", "export --feature account.state -u 99999999999999999").code == 2
    assert sorted(each.name for each in folder.iterdir()) == there


def test_an_export_whose_reader_leaves(folder: Path) -> None:
    """`export | head` ends without a word, although much is left to print."""
    rows = "".join(f"{number},{'x' * 100},true\n" for number in range(5_000))
    (folder / "many.csv").write_text(f"user,state,2fa_installed\n{rows}", encoding="utf-8")
    for line in ("init", "apply -f /dev/stdin", "import -g account --input-file many.csv"):
        assert call(folder, "oomcli", line).code == 0
    done = call(folder, "oomcli", "export --feature account.state | head -1")
    assert (done.stdout, done.stderr) == ("user,account.state\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_help_and_completion_have_the_name_that_was_called(name: str, folder: Path) -> None:
    """Help shows the name by which the command was called, and the shell completes it under that name."""
    assert f"Usage: {name} " in call(folder, name, "--help").stdout
    variable = f"_{name.upper()}_COMPLETE"
    for shell in ("bash", "zsh", "fish"):
        # Typer asks which shell it runs in, unless this is set; then the shell is named.
        named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        script = call(folder, name, f"--show-completion {shell}", **named).stdout
        assert variable in script, shell
        assert f"{'oomstream' if name == 'oomcli' else 'oomcli'}" not in script
    words = {variable: "complete_bash", "COMP_WORDS": f"{name} exp", "COMP_CWORD": "1"}
    assert call(folder, name, "", **words).stdout.split() == ["export"]


def test_what_from_oomstore_shows(tmp_path: Path) -> None:
    """The session on docs/from-oomstore.md prints what the page says, and its configuration file is right."""
    page = (Path(__file__).parents[2] / "docs" / "from-oomstore.md").read_text(encoding="utf-8")
    (console,) = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    steps = [each.partition("\n") for each in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]]
    assert len(steps) > 10
    for line, _, expected in steps:
        # A line of the page, as it is, not behind a program's path.
        done = call(tmp_path, "oomcli", f"--version >/dev/null; {line}", PATH=path)
        assert (done.code, matches(done.stdout, expected)) == (0, True), (line, done)
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "page.yaml").write_text(text, encoding="utf-8")
    assert read_config(tmp_path / "page.yaml") == {
        "online_url": "tikv://127.0.0.1:2379/features",
        "history_url": "tidb://oomstream_worker:a%20password@127.0.0.1:4000/oomstream",
    }


def test_from_oomstore_names_tests_that_there_are() -> None:
    """Every fault of oomstore in the page's table is shown right by tests of those names."""
    page = (Path(__file__).parents[2] / "docs" / "from-oomstore.md").read_text(encoding="utf-8")
    there = "".join(each.read_text(encoding="utf-8") for each in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > 10
    assert [name for name in named if f"def {name}(" not in there] == []


def test_a_store_that_there_is_not(folder: Path) -> None:
    """A configuration of stores that are not here is one sentence, without the password."""
    (folder / "redis.yaml").write_text("online-store: {redis: {host: h, password: geheim}}\n", encoding="utf-8")
    done = call(folder, "oomcli", "--config redis.yaml init")
    assert done.code == 2
    assert done.stderr == (
        "Error: configuration redis.yaml: online-store: there is no store of kind 'redis' "
        "(there are: mariadb, mysql, sqlite, tidb, tikv)\n"
    )
