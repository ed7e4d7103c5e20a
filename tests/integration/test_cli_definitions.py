"""`oomstream init`, `apply` and `get meta` on embedded stores."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import yaml

from tests.integration.cli import RIDES, Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in an empty folder."""
    return Cli(tmp_path)


def test_init_twice_does_no_harm(cli: Cli) -> None:
    """Init makes the stores; a second one changes nothing."""
    assert "initialised" in cli.run("init").stdout
    cli.define()
    cli.run("apply", "rides.avsc")
    assert "initialised" in cli.run("init").stdout
    assert [each["name"] for each in cli.json("get", "meta", "group")] == ["rides"]


def test_dry_run_prints_the_plan_and_makes_nothing(cli: Cli) -> None:
    """--dry-run prints what would change and leaves not even a file."""
    cli.define()
    out = cli.run("apply", "rides.avsc", "--dry-run").stdout
    assert "new feature rides.price double" in out
    assert "nothing was changed" in out
    assert not (cli.folder / ".oomstream").exists()


def test_apply_again_changes_nothing(cli: Cli) -> None:
    """Apply is idempotent: the second time it says that there are no changes."""
    cli.define()
    assert cli.run("apply", "rides.avsc").stdout.endswith("applied\n")
    assert cli.run("apply", "-f", "rides.avsc").stdout == (
        "no changes: everything is registered like this already\napplied\n"
    )


def test_apply_takes_folders(cli: Cli) -> None:
    """A folder means all .avsc files in it, and nothing else in it."""
    (cli.folder / "groups").mkdir()
    cli.define("groups/rides.avsc")
    cli.define("groups/tips.avsc", name="tips")
    (cli.folder / "groups" / "README.md").write_text("not a schema", encoding="utf-8")
    cli.run("apply", "groups")
    assert [each["name"] for each in cli.json("get", "meta", "group")] == ["rides", "tips"]


def test_a_new_feature_is_added_and_the_old_definition_is_kept_readable(cli: Cli) -> None:
    """A compatible change prints its plan and raises the version."""
    cli.define()
    cli.run("apply", "rides.avsc")
    cli.define(fields=[*RIDES["fields"], {"name": "tip", "type": ["null", "double"]}])
    assert "tip" in cli.run("apply", "rides.avsc").stdout
    assert cli.json("get", "meta", "group", "rides")[0]["version"] == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "broken.avsc: not JSON"),
        ('{"type": "record", "name": "rides", "fields": []}', "broken.avsc"),
        ("[1, 2]", "broken.avsc: the schema is not an Avro record"),
    ],
)
def test_a_file_with_an_error_is_named(cli: Cli, text: str, says: str) -> None:
    """A definition that breaks a rule is one sentence with the file, exit code 1, and changes nothing."""
    (cli.folder / "broken.avsc").write_text(text, encoding="utf-8")
    assert says in cli.run("apply", "broken.avsc", code=1).stderr
    assert not (cli.folder / ".oomstream").exists()


def test_two_files_of_one_group_are_both_named(cli: Cli) -> None:
    """A group that two files define is refused with the names of both, and nothing is changed."""
    cli.define()
    cli.define("again.avsc")
    said = cli.run("apply", ".", code=1).stderr
    assert said == "Error: group rides: defined twice, in again.avsc and in rides.avsc\n"
    assert not (cli.folder / ".oomstream").exists()


def test_an_incompatible_change_names_field_and_rule(cli: Cli) -> None:
    """A changed type is refused with the field's name; what is registered stays."""
    cli.define()
    cli.run("apply", "rides.avsc")
    fields = [{**each, "type": "long"} if each["name"] == "price" else each for each in RIDES["fields"]]
    cli.define(fields=fields)
    assert "price" in cli.run("apply", "rides.avsc", code=1).stderr
    assert cli.json("get", "meta", "feature", "rides.price")[0]["value-type"] == "float64"


def test_get_meta_has_oomcli_columns(cli: Cli) -> None:
    """The csv columns of get meta are oomcli's, narrow and wide."""
    cli.define()
    cli.run("apply", "rides.avsc")
    narrow = {
        "entity": "ID,NAME,DESCRIPTION",
        "group": "ID,NAME,ENTITY,CATEGORY,SNAPSHOT-INTERVAL,DESCRIPTION",
        "feature": "ID,NAME,GROUP,ENTITY,CATEGORY,VALUE-TYPE,DESCRIPTION",
    }
    for kind, columns in narrow.items():
        assert cli.run("get", "meta", kind, "-o", "csv").stdout.splitlines()[0] == columns
    assert cli.run("get", "meta", "feature", "-o", "csv").stdout.splitlines()[1:] == [
        "1,price,rides,rider,stream,float64,",
        "2,rating,rides,rider,stream,int,1 to 5.",
    ]
    wide = list(csv.DictReader(io.StringIO(cli.run("get", "meta", "group", "-w", "-o", "csv").stdout)))
    assert list(wide[0])[-3:] == ["ONLINE-REVISION-ID", "CREATE-TIME", "MODIFY-TIME"]
    assert wide[0]["ONLINE-REVISION-ID"] == "<NULL>"
    document = yaml.safe_load(cli.run("get", "meta", "entity", "rider", "-o", "yaml").stdout)
    assert (document["kind"], document["name"]) == ("Entity", "rider")
    assert [each["name"] for each in document["groups"]] == ["rides"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["group", "trips"], "no feature group named 'trips' (registered: rides)"),
        (["entity", "driver"], "no entity named 'driver' (registered: rider)"),
        (["feature", "rides.speed"], "rides.speed"),
        (["feature", "-e", "driver"], "no entity named 'driver'"),
    ],
)
def test_unknown_names_are_one_sentence(cli: Cli, args: list[str], says: str) -> None:
    """A name that is not registered is named, with those that are."""
    cli.define()
    cli.run("apply", "rides.avsc")
    assert says in cli.run("get", "meta", *args, code=1).stderr


def test_reading_what_was_never_made_says_what_to_do(cli: Cli) -> None:
    """Without init, readers name the store and the verb that makes it, and make no files."""
    err = cli.run("get", "meta", "group", code=2).stderr
    assert ".oomstream/history.db" in err
    assert "oomstream init" in err
    assert not (cli.folder / ".oomstream").exists()


def test_data_dir_option_wins(cli: Cli) -> None:
    """--data-dir chooses the folder of the stores, over the environment."""
    cli.run("--data-dir", "here", "init", OOMSTREAM_DATA_DIR="there")
    assert (cli.folder / "here" / "history.db").exists()
    assert not (cli.folder / "there").exists()
