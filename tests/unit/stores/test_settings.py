"""Settings from the environment and from files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OOMSTREAM_")]:
        monkeypatch.delenv(name)


def test_defaults_need_no_environment() -> None:
    """With nothing set, both stores are SQLite files in the data folder."""
    settings = load_settings()
    assert settings.online == "sqlite:///.oomstream/online.db"
    assert settings.history == "sqlite:///.oomstream/history.db"
    assert load_settings(data_dir="/data").history == "sqlite:////data/history.db"


def test_environment_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read in people's units; an override wins; None means not given."""
    monkeypatch.setenv("OOMSTREAM_MAX_FUTURE", "1h30m")
    monkeypatch.setenv("OOMSTREAM_MIN_EVENT_TIME", "2001-01-01")
    monkeypatch.setenv("OOMSTREAM_BATCH_ROWS", "10")
    monkeypatch.setenv("OOMSTREAM_CONSUMER_GROUP", "")
    settings = load_settings(batch_rows=20, consumer_group=None)
    assert settings.max_future_us == 5_400_000_000
    assert settings.min_event_time_us == 978_307_200_000_000
    assert (settings.batch_rows, settings.consumer_group) == (20, "oomstream")


@pytest.mark.parametrize(
    "name", ["OOMSTREAM_ONLINE", "OOMSTREAM_TYPO_FILE", "OOMSTREAM_MAX_FUTURE_US", "oomstream_start"]
)
def test_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable of ours that no setting has is named, not ignored."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(InvalidSetting, match=f"unknown setting {name} "):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("OOMSTREAM_BATCH_ROWS", "many", "integer"),
        ("OOMSTREAM_BATCH_ROWS", "0", "greater than or equal to 1"),
        ("OOMSTREAM_BATCH_BYTES", "1", "greater"),
        ("OOMSTREAM_MAX_FUTURE", "5x", "'5x' is not a duration such as"),
        ("OOMSTREAM_CALL_TIMEOUT", "0s", "greater"),
        ("OOMSTREAM_OUTAGE_BUDGET", "-1s", "not a duration"),
        ("OOMSTREAM_MIN_EVENT_TIME", "yesterday", "RFC 3339"),
        ("OOMSTREAM_START", "newest", "'newest' is not earliest, latest or RFC 3339 text"),
        ("OOMSTREAM_ON_LOST_RANGE", "maybe", "'stop' or 'skip'"),
        ("OOMSTREAM_DLQ_MAX_CONSECUTIVE", "-1", "greater"),
        ("OOMSTREAM_DLQ_MAX_RATIO", "2", "less than or equal to 1"),
        ("OOMSTREAM_DLQ_WINDOW", "1", "greater"),
    ],
)
def test_wrong_value_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str) -> None:
    """A wrong value gives one line that names the variable and what is wrong with it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting) as caught:
        load_settings()
    message = str(caught.value)
    assert message.startswith(f"setting {name}: ")
    assert why in message
    assert "\n" not in message


def test_settings_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OOMSTREAM_X_FILE names a file that holds the value of OOMSTREAM_X, for every setting."""
    (tmp_path / "url").write_text("tidb://me:secret@host:4000/features\n")
    (tmp_path / "future").write_text(" 2m\n")
    monkeypatch.setenv("OOMSTREAM_HISTORY_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("OOMSTREAM_MAX_FUTURE_FILE", str(tmp_path / "future"))
    settings = load_settings()
    assert settings.history == "tidb://me:secret@host:4000/features"
    assert settings.max_future_us == 120_000_000


def test_wrong_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that cannot be read, or a value given twice, is an error that names variable and path."""
    missing = tmp_path / "missing"
    monkeypatch.setenv("OOMSTREAM_HISTORY_URL_FILE", str(missing))
    with pytest.raises(InvalidSetting, match=rf"OOMSTREAM_HISTORY_URL_FILE: {missing} cannot be read"):
        load_settings()
    missing.write_bytes(b"\xff")
    with pytest.raises(InvalidSetting, match="not UTF-8"):
        load_settings()
    monkeypatch.setenv("OOMSTREAM_HISTORY_URL", "sqlite:///x.db")
    with pytest.raises(InvalidSetting, match="OOMSTREAM_HISTORY_URL and OOMSTREAM_HISTORY_URL_FILE are both set"):
        load_settings()


def test_every_setting_says_what_it_is() -> None:
    """Each setting has a description, from which the documentation is made."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
