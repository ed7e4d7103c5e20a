"""YAML definitions, `register`, `update` and `edit`, and what `get meta` then says, as oomcli's users know it."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.cli import Cli

DEFINITIONS = """\
kind: Entity
name: user
description: a user of the site
groups:
  - name: account
    category: batch
    description: from the CRM
    features:
      - name: 2fa_installed
        value-type: bool
        description: on any of their devices
      - name: age
        value-type: int64
  - name: user-click
    category: stream
    snapshot-interval: 24h
    features:
      - name: newest
        value-type: string
---
kind: Group
name: score
entity-name: user
category: stream
snapshot-interval: 1s
---
items:
  - kind: Feature
    name: risk
    group-name: score
    value-type: float64
    description: 0 to 1
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with initialised stores."""
    cli = Cli(tmp_path)
    cli.run("init")
    return cli


@pytest.fixture
def defined(cli: Cli) -> Cli:
    """The same, with definitions applied."""
    (cli.folder / "all.yaml").write_text(DEFINITIONS, encoding="utf-8")
    cli.run("apply", "-f", "all.yaml")
    return cli


def _rows(cli: Cli, *args: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(cli.run("get", "meta", *args, "-o", "csv").stdout)))


def _editor(cli: Cli, script: str) -> str:
    """A command for EDITOR that changes the file as a script of sed says, and ends."""
    file = cli.folder / "editor.sh"
    file.write_text(f"#!/bin/sh\nsed -i '{script}' \"$1\"\n", encoding="utf-8")
    file.chmod(0o755)
    return str(file)


def test_yaml_from_standard_input(cli: Cli) -> None:
    """`apply -f /dev/stdin` takes several documents and `items:`, and ends with `applied`; again changes nothing."""
    for begins in ("new entity user, keys (user string)\n", "no changes"):
        done = subprocess.run(
            cli.command("apply", "-f", "/dev/stdin"),
            cwd=cli.folder,
            env=cli.environment,
            input=DEFINITIONS,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.startswith(begins)
        assert done.stdout.endswith("\napplied\n")
    assert [each["NAME"] for each in _rows(cli, "feature")] == ["2fa_installed", "age", "newest", "risk"]


def test_the_yaml_of_the_docs_is_right(cli: Cli) -> None:
    """The YAML on docs/schemas.md can be applied, and its type names are all there are."""
    page = (Path(__file__).parents[2] / "docs" / "schemas.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (cli.folder / "docs.yaml").write_text(text, encoding="utf-8")
    cli.run("apply", "docs.yaml")
    names = re.findall(r"`([^`]+)`", page[page.index("`value-type` is") : page.index("YAML says less")])[1:]
    for number, name in enumerate(names):
        cli.run("register", "feature", f"f{number}", "-g", "account", "--value-type", name)
    assert [each["VALUE-TYPE"] for each in _rows(cli, "feature", "-g", "account")] == ["int64", *names]


def test_listings_of_yaml_definitions(defined: Cli) -> None:
    """Ids count from 1 in order of creation, types have oomstore's names, intervals are Go's."""
    assert (
        defined.run("get", "meta", "entity", "-o", "csv").stdout == "ID,NAME,DESCRIPTION\n1,user,a user of the site\n"
    )
    assert defined.run("get", "meta", "group", "-o", "csv").stdout == (
        "ID,NAME,ENTITY,CATEGORY,SNAPSHOT-INTERVAL,DESCRIPTION\n"
        "1,account,user,batch,0s,from the CRM\n"
        "2,user-click,user,stream,24h0m0s,\n"
        "3,score,user,stream,1s,\n"
    )
    assert defined.run("get", "meta", "feature", "-o", "csv").stdout == (
        "ID,NAME,GROUP,ENTITY,CATEGORY,VALUE-TYPE,DESCRIPTION\n"
        "1,2fa_installed,account,user,batch,bool,on any of their devices\n"
        "2,age,account,user,batch,int64,\n"
        "3,newest,user-click,user,stream,string,\n"
        "4,risk,score,user,stream,float64,0 to 1\n"
    )
    assert defined.run("get", "meta", "group", "user-click", "-o", "column").stdout == (
        "ID  NAME        ENTITY  CATEGORY  SNAPSHOT-INTERVAL  DESCRIPTION\n 2  user-click  user    stream    24h0m0s\n"
    )


def test_yaml_of_one_object_is_the_object(defined: Cli) -> None:
    """YAML of one is the object, indented as oomcli does, with the interval as it was given."""
    assert defined.run("get", "meta", "group", "user-click", "-o", "yaml").stdout == (
        "kind: Group\n"
        "name: user-click\n"
        "entity-name: user\n"
        "category: stream\n"
        "snapshot-interval: 24h\n"
        "description: ''\n"
        "features:\n"
        "  - name: newest\n"
        "    value-type: string\n"
        "    description: ''\n"
    )
    several = yaml.safe_load(defined.run("get", "meta", "feature", "-g", "account", "-o", "yaml").stdout)
    assert [(each["kind"], each["group-name"], each["name"]) for each in several["items"]] == [
        ("Feature", "account", "2fa_installed"),
        ("Feature", "account", "age"),
    ]


@pytest.mark.parametrize("kind", ["entity", "group", "feature"])
def test_yaml_that_get_meta_prints_can_be_applied(defined: Cli, kind: str) -> None:
    """What `get meta -o yaml` prints means what is registered."""
    (defined.folder / "again.yml").write_text(defined.run("get", "meta", kind, "-o", "yaml").stdout, encoding="utf-8")
    assert defined.run("apply", "again.yml").stdout.startswith("no changes")


def test_yaml_that_contradicts_changes_nothing(defined: Cli) -> None:
    """One wrong document among good ones: one sentence naming file and rule, and nothing is registered."""
    text = "kind: Entity\nname: shop\n---\nkind: Feature\nname: age\ngroup-name: account\nvalue-type: string\n"
    (defined.folder / "wrong.yaml").write_text(text, encoding="utf-8")
    said = defined.run("apply", "-f", "wrong.yaml", code=1).stderr
    assert "group account: feature 'age' cannot change its type from int64 to string" in said
    assert [each["NAME"] for each in _rows(defined, "entity")] == ["user"]


def test_two_yaml_files_of_one_group_are_both_named(cli: Cli) -> None:
    """What two files define is refused with the names of both."""
    for name in ("one.yaml", "two.yaml"):
        (cli.folder / name).write_text(DEFINITIONS, encoding="utf-8")
    said = cli.run("apply", "one.yaml", "-f", "two.yaml", code=1).stderr
    assert said == "Error: entity user: defined twice, in one.yaml and in two.yaml\n"


def test_yaml_and_avro_definitions_go_together(cli: Cli) -> None:
    """One apply takes both; a YAML feature may be of a group that an Avro schema registered before."""
    cli.define()
    (cli.folder / "all.yaml").write_text(DEFINITIONS, encoding="utf-8")
    cli.run("apply", "rides.avsc", "all.yaml")
    text = "kind: Feature\nname: tip\ngroup-name: rides\nvalue-type: float64\n"
    (cli.folder / "tip.yaml").write_text(text, encoding="utf-8")
    assert "new feature rides.tip double or null" in cli.run("apply", "tip.yaml", "--dry-run").stdout
    cli.run("apply", "tip.yaml")
    assert [each["NAME"] for each in _rows(cli, "feature", "-g", "rides")] == ["price", "rating", "tip"]
    assert cli.json("get", "meta", "group", "rides")[0]["event-time"] == {"field": "ended_at", "unit": "us"}


def test_register_one_by_one(cli: Cli) -> None:
    """Entities, groups and features are registered with oomcli's flags, without a word, and can be used."""
    said = [
        cli.run("register", "entity", "user", "--description", "a user"),
        cli.run("register", "group", "account", "-e", "user", "-c", "batch", "--description", "CRM"),
        cli.run("register", "group", "clicks", "--entity", "user", "--category", "stream", "--snapshot_interval", "1m"),
        cli.run("register", "feature", "age", "-g", "account", "--value-type", "int64", "--description", "years"),
        cli.run("register", "feature", "newest", "--group", "clicks", "--value-type", "bytes"),
    ]
    assert said == [("", "")] * 5
    assert [each["SNAPSHOT-INTERVAL"] for each in _rows(cli, "group")] == ["0s", "1m0s"]
    assert cli.run("get", "meta", "feature", "-o", "csv").stdout.splitlines()[1:] == [
        "1,age,account,user,batch,int64,years",
        "2,newest,clicks,user,stream,bytes,",
    ]
    (cli.folder / "account.csv").write_text("user,age\nann,41\n", encoding="utf-8")
    cli.run("import", "-g", "account", "--input-file", "account.csv")
    cli.run("sync", "-g", "account")
    assert cli.run("get", "online", "-k", "ann", "--feature", "account.age", "-o", "csv").stdout == (
        "user,account.age\nann,41\n"
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("register entity user", "failed registering new entity: entity 'user' is already registered"),
        ("register entity _x", "failed registering new entity: entity _x: "),
        ("register group score -e user", "failed registering new group: group 'score' is already registered"),
        ("register group g -e shop", "failed registering new group: no entity named 'shop' (registered: user)"),
        ("register group g -e user -c stream -s 1d", "failed registering new group: group g: snapshot-interval '1d'"),
        ("register feature age -g account --value-type int64", "feature 'account.age' is already registered"),
        ("register feature x -g shop --value-type int64", "no feature group named 'shop'"),
        ("register feature x -g account --value-type i64", "group account: feature 'x': value-type 'i64' is none of"),
        ("register feature user -g account --value-type int64", "feature 'user' is part of the entity key"),
        ("update entity shop --description D", "failed updating entity shop: no entity named 'shop'"),
        ("update group shop --description D", "failed updating group shop: no feature group named 'shop'"),
        ("update feature account.x --description D", "failed updating feature account.x: invalid feature names"),
    ],
)
def test_what_cannot_be_registered_is_one_sentence(defined: Cli, line: str, says: str) -> None:
    """A refused registration says what failed and why in one line, exit code 1, and changes nothing."""
    before = defined.json("get", "meta", "feature", "-w"), defined.json("get", "meta", "group", "-w")
    assert says in defined.run(*line.split(), code=1).stderr
    assert (defined.json("get", "meta", "feature", "-w"), defined.json("get", "meta", "group", "-w")) == before


def test_update_changes_descriptions_only(defined: Cli) -> None:
    """`update` describes anew; the rest of the definition stays as it is."""
    before = defined.json("get", "meta", "group")
    defined.run("update", "entity", "user", "--description", "whoever came")
    defined.run("update", "group", "user-click", "--description", "what they did")
    defined.run("update", "feature", "account.age", "--description", "in years")
    assert _rows(defined, "entity")[0]["DESCRIPTION"] == "whoever came"
    assert _rows(defined, "feature", "account.age")[0]["DESCRIPTION"] == "in years"
    after = defined.json("get", "meta", "group")
    assert after[1]["description"] == "what they did"
    kept = ("id", "name", "category", "snapshot-interval", "keys", "event-time", "topic")
    assert [[each[name] for name in kept] for each in after] == [[each[name] for name in kept] for each in before]


def test_a_feature_has_times_of_its_own(defined: Cli) -> None:
    """CREATE-TIME and MODIFY-TIME of a feature are its own: another feature's registration does not move them."""
    columns = ("CREATE-TIME", "MODIFY-TIME")
    before = [[each[name] for name in columns] for each in _rows(defined, "feature", "-g", "account", "-w")]
    defined.run("register", "feature", "new", "-g", "account", "--value-type", "time")
    defined.run("update", "feature", "account.age", "--description", "in years")
    after = {
        each["NAME"]: [each[name] for name in columns] for each in _rows(defined, "feature", "-g", "account", "-w")
    }
    assert after["2fa_installed"] == before[0]
    assert after["age"][0] == before[1][0] == before[1][1] < after["new"][0] == after["new"][1] < after["age"][1]


def test_edit_applies_what_was_written(defined: Cli) -> None:
    """`edit` gives the YAML to $EDITOR, and applies what it leaves; the file is gone afterwards."""
    said = defined.run("edit", "group", "account", EDITOR=_editor(defined, "s/from the CRM/by hand/")).stdout
    assert said.endswith("applied\n")
    assert _rows(defined, "group", "account")[0]["DESCRIPTION"] == "by hand"
    unchanged = defined.run("edit", "entity", EDITOR="true").stdout
    assert unchanged == "no changes: everything is registered like this already\napplied\n"


def test_edit_keeps_what_was_written_where_it_is_refused(defined: Cli) -> None:
    """A text that is refused changes nothing, and is named so that it is not lost."""
    editor = _editor(defined, "s/int64/string/")
    said = defined.run("edit", "feature", "account.age", EDITOR=editor, TMPDIR=str(defined.folder), code=1).stderr
    found = re.search(r"nothing was changed; what you wrote is in (\S+)\)", said)
    assert found
    file = Path(found[1])
    assert "value-type: string" in file.read_text(encoding="utf-8")
    file.unlink()
    assert _rows(defined, "feature", "account.age")[0]["VALUE-TYPE"] == "int64"


@pytest.mark.parametrize(
    ("editor", "says"),
    [
        ("false", "editor 'false' ended with 1: nothing was changed\n"),
        ("/no/such/editor", "editor '/no/such/editor' cannot be started (No such file or directory): set EDITOR"),
        ("vi 'x", "EDITOR is not a command"),
    ],
)
def test_an_editor_that_fails_changes_nothing(defined: Cli, editor: str, says: str) -> None:
    """An editor that cannot be started, or ends with an error, is one sentence."""
    assert says in defined.run("edit", "entity", EDITOR=editor, code=1).stderr


def test_edit_without_editor_and_terminal_does_not_wait(defined: Cli) -> None:
    """Where nobody can answer, `edit` says so instead of starting an editor of its own choice."""
    done = subprocess.run(
        defined.command("edit", "entity"),
        cwd=defined.folder,
        env={**defined.environment, "EDITOR": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: there is no terminal to edit on: set EDITOR")


def test_revisions_are_listed_with_the_dummy(defined: Cli) -> None:
    """A group's first import makes revisions 1 (dummy) and 2; one that is given a time is anchored to it."""
    assert _rows(defined, "revision") == []
    (defined.folder / "account.csv").write_text("user,2fa_installed,age\nann,true,41\n", encoding="utf-8")
    args = ("import", "-g", "account", "--input-file", "account.csv")
    assert defined.run(*args).stdout == "RevisionID: 2\n"
    assert defined.run(*args, "-r", "1600000000000", "--description", "old").stdout == "RevisionID: 3\n"
    out = defined.run("get", "meta", "revision", "-o", "csv").stdout.splitlines()
    assert out[0] == "ID,REVISION,GROUP,SNAPSHOT-TABLE,CDC-TABLE,DESCRIPTION"
    assert out[1] == "1,0,account,offline_batch_snapshot_1_1,,dummy revision"
    assert re.fullmatch(r"2,\d{13},account,offline_batch_snapshot_1_2,,", out[2])
    assert out[3] == "3,1600000000000,account,offline_batch_snapshot_1_3,,old"
    wide = _rows(defined, "revision", "-g", "account", "-w")
    assert list(wide[0])[-3:] == ["ANCHORED", "CREATE-TIME", "MODIFY-TIME"]
    assert [(each["CDC-TABLE"], each["ANCHORED"]) for each in wide] == [
        ("", "true"),
        ("", "false"),
        ("", "true"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", wide[0]["CREATE-TIME"])
    assert yaml.safe_load(defined.run("get", "meta", "revision", "3", "-o", "yaml").stdout)["revision"] == 1600000000000
    assert _rows(defined, "revision", "-g", "score") == []
    assert "no revision of id '4'" in defined.run("get", "meta", "revision", "4", code=1).stderr


def test_the_online_revision_is_in_the_wide_form(defined: Cli) -> None:
    """ONLINE-REVISION-ID is that of the copy that readers see; `<NULL>` before the first, and for stream groups."""
    (defined.folder / "account.csv").write_text("user,2fa_installed,age\nann,true,41\n", encoding="utf-8")
    defined.run("import", "-g", "account", "--input-file", "account.csv")
    assert {each["ONLINE-REVISION-ID"] for each in _rows(defined, "group", "-w")} == {"<NULL>"}
    defined.run("sync", "-g", "account")
    assert [each["ONLINE-REVISION-ID"] for each in _rows(defined, "group", "-w")] == ["2", "<NULL>", "<NULL>"]
    assert [each["ONLINE-REVISION-ID"] for each in _rows(defined, "feature", "-w", "-g", "account")] == ["2", "2"]


def test_filters_of_get_meta(defined: Cli) -> None:
    """`-e` and `-g` narrow every listing; a feature's group stands in its name or in `-g`, if several have the name."""
    defined.run("register", "entity", "shop")
    defined.run("register", "group", "sales", "-e", "shop")
    assert [each["NAME"] for each in _rows(defined, "entity", "-g", "sales")] == ["shop"]
    assert [each["NAME"] for each in _rows(defined, "group", "-e", "shop")] == ["sales"]
    assert _rows(defined, "group", "account", "-e", "shop") == []
    assert _rows(defined, "feature", "-e", "shop") == []
    assert _rows(defined, "feature", "age", "-g", "account") == _rows(defined, "feature", "account.age")
    assert _rows(defined, "feature", "age") == _rows(defined, "feature", "account.age")
    defined.run("register", "feature", "age", "-g", "sales", "--value-type", "int64")
    said = defined.run("get", "meta", "feature", "age", code=1).stderr
    assert said == "Error: invalid feature names [age]: write the group, too (account.age, sales.age)\n"


def _completed(cli: Cli, line: str, **settings: str) -> tuple[list[str], str]:
    """What the shell is told at the end of a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_OOMSTREAM_COMPLETE": "complete_bash"}
    done = subprocess.run(
        ["oomstream"],
        cwd=cli.folder,
        env={**cli.environment, **words, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split(), done.stderr


@pytest.mark.skipif(os.name != "posix", reason="asks as bash does")
def test_the_shell_completes_names(defined: Cli) -> None:
    """Names of what is registered are completed, after a comma too, by the folder that the line names."""
    assert _completed(defined, "oomstream get meta group ") == (["account", "score", "user-click"], "")
    assert _completed(defined, "oomstream update feature account.") == (["account.2fa_installed", "account.age"], "")
    assert _completed(defined, "oomstream edit group sc") == (["score"], "")
    line = "oomstream get online -k ann --feature score.risk,acc"
    assert _completed(defined, line)[0] == ["score.risk,account.2fa_installed", "score.risk,account.age"]
    defined.run("--data-dir", "other", "init")
    defined.run("--data-dir", "other", "register", "entity", "shop")
    assert _completed(defined, "oomstream --data-dir other update entity ") == (["shop"], "")


@pytest.mark.parametrize("url", ["mysql://127.0.0.1:9/none", "rubbish", "sqlite:////no/such/folder/history.db"])
def test_completion_never_fails(defined: Cli, url: str) -> None:
    """Without a store to ask there are no names, and not a word on the terminal."""
    assert _completed(defined, "oomstream get meta group ", OOMSTREAM_HISTORY_URL=url) == ([], "")
