"""The command starts quickly, and every verb explains itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from oomstream.agents.cli.main import main

HEAVY = ("faust", "aiokafka", "duckdb", "pyarrow", "pandas", "confluent_kafka", "sqlalchemy", "pydantic", "fastavro")
VERBS = (
    "init",
    "apply",
    "register entity",
    "register group",
    "register feature",
    "update entity",
    "update group",
    "update feature",
    "edit",
    "worker",
    "broker",
    "dev",
    "status",
    "push",
    "join",
    "export",
    "snapshot",
    "demo",
    "get meta",
    "get source",
    "get online",
    "dlq list",
    "dlq show",
)


def test_help_loads_nothing_heavy() -> None:
    """`oomstream --help` imports none of the libraries that take long to load."""
    script = (
        "import sys; from oomstream.agents.cli.main import main; code = main(['--help']); "
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]; print(loaded, file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "[]\n")


def test_a_worker_loads_no_client_of_registries() -> None:
    """A worker without a Schema Registry does not load its client, which is a sixth of what a worker loads."""
    script = "import sys, oomstream.agents.worker.runner; print('confluent_kafka.schema_registry' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "False\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_an_example_and_fits_80_columns(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each verb's help has an example that calls it, and no line is longer than an 80-column terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    assert main([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: oomstream {verb}" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_help_shows_no_type_beside_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """What takes no value looks as if it took none: there is no `--wait <bool>`."""
    for args in (["--help"], ["push", "--help"], ["get", "meta", "-h"]):
        assert main(args) == 0
        assert "bool>" not in capsys.readouterr().out


@pytest.mark.parametrize("args", [[], ["get"], ["dlq"]])
def test_no_verb_prints_help(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The command, or a family of verbs, with nothing after it shows what there is."""
    main(args)
    assert "Usage: oomstream" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints name and version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("oomstream 0.")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fly"], "No such command 'fly'."),
        (["apply"], "no definitions given"),
        (["apply", "missing.avsc"], "missing.avsc does not exist"),
        (["apply", "-f", "groups.yaml"], "groups.yaml does not exist"),
        (["register", "group", "clicks"], "Missing option '--entity' / '-e'."),
        (["update", "group", "clicks"], "Missing option '--description' / '-d'."),
        (["edit", "planet"], "'planet' is not one of 'entity', 'group', 'feature'."),
        (["push", "-g", "g"], "Missing option '--entity-key' / '-k'."),
        (["join", "--feature", "g.x", "--input-file", "no.csv"], "file 'no.csv' does not exist."),
        (["get", "meta", "planet"], "'planet' is not one of"),
        (["get", "meta", "group", "-o", "xml"], "'xml' is not one of"),
        (["push", "-g", "g", "-k", "1", "--event-time", "noon"], "'noon' is not a time such as"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong use ends with one line on standard error that names what is wrong, and exit code 2."""
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert says in err
    assert err.count("\n") == 1


def test_unknown_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt OOMSTREAM_ variable is an error that names it, exit code 2."""
    monkeypatch.setenv("OOMSTREAM_BROKR_URL", "kafka://localhost")
    assert main(["status"]) == 2
    assert "OOMSTREAM_BROKR_URL" in capsys.readouterr().err


def test_debug_adds_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """--debug is accepted at the end of the line too, and prints the traceback before the sentence."""
    assert main(["apply", "missing.avsc", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("option", ["--config", "--data-dir"])
def test_global_options_stand_anywhere(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--config and --data-dir count behind the verb as before it, as in oomcli; what is behind `--` is no option."""
    monkeypatch.setenv("OOMCLI_CONFIG", "")
    monkeypatch.setenv("OOMSTREAM_DATA_DIR", "")
    for line in (f"{option} none get meta entity", f"get meta entity {option} none", f"get {option}=none meta entity"):
        assert main(line.split()) == 2
        assert "none" in capsys.readouterr().err, line
    assert main(["get", "meta", "entity", option]) == 2
    assert f"Option '{option}' requires an argument." in capsys.readouterr().err
    assert main(["apply", "--", option]) == 2
    assert f"{option} does not exist" in capsys.readouterr().err


def test_output_cut_off_by_its_reader_is_no_traceback() -> None:
    """`oomstream … | head` prints no complaint of a broken pipe."""
    command = f"{sys.executable} -m oomstream.agents.cli.main --help | head -1"
    result = subprocess.run(
        ["/bin/bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, env={**os.environ}
    )
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("status -o xml", "'--output' / '-o': 'xml' is not one of 'ascii_table', 'column', 'csv', 'json', 'yaml'."),
        ("get meta planes", "'kind': 'planes' is not one of 'entity', 'group', 'feature', 'revision'."),
        ("dlq show plane zero 1", "'partition': it is not an integer"),
        ("verify --sample much", "'--sample': it is not an integer"),
        ("verify --sample 0", "'--sample': it must be at least 1"),
        ("dlq list --limit 0", "'--limit' / '-l': it must be at least 1"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that an option cannot have is refused in our words, not in those of the library that reads options."""
    assert main(line.split()) == 2
    assert capsys.readouterr().err.strip() == f"Error: Invalid value for {says}"


def test_an_interrupted_verb_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a verb with exit code 130 and one word on standard error."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("oomstream.agents.cli.session.settings", interrupted)
    assert main(["status"]) == 130
    assert capsys.readouterr().err == "stopped\n"
