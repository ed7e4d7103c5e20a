"""What a user of oomstore has and does: definitions in its YAML, its command, files, labels in its form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oomstream.query.sync import FeatureStore
from oomstream.stores.settings import Settings
from tests.integration.backends import Backends, environment_of
from tests.integration.cli import Cli

BOTH = pytest.mark.parametrize("backends", ["sqlite+sqlite", "tidb+tikv"], indirect=True)
"""The two pairs of stores that oomstore's users know."""

DAY, HOUR = 1_700_006_400_000, 3_600_000
"""The beginning of a day, 2023-11-15, and the length of an hour, in milliseconds."""

DEFINITIONS = """\
kind: Entity
name: user
groups:
  - name: account
    category: batch
    features:
      - {name: state, value-type: string}
      - {name: photo, value-type: bytes}
      - {name: joined, value-type: time}
  - name: click
    category: stream
    snapshot-interval: 24h
    features:
      - {name: count, value-type: int64}
      - {name: page, value-type: string}
      - {name: raw, value-type: bytes}
      - {name: seen, value-type: time}
"""
"""A batch group, and a stream group whose events fall into intervals of a day."""

Label = tuple[str, int]
"""Entity and time in milliseconds."""


class OomstoreUser:
    """Works with oomstream as with oomstore, on stores that are made for it.

    Args:
        settings: Where the stores are.
        folder: Where files are, and the command runs.
        definitions: YAML.
    """

    def __init__(self, settings: Settings, folder: Path, definitions: str = DEFINITIONS) -> None:
        self.settings = settings
        self.folder = folder
        self._files = 0
        self.cli = Cli(folder)
        self.cli.environment.update(environment_of(settings))
        self.cli.run("init")
        (folder / "definitions.yaml").write_text(definitions, encoding="utf-8")
        self.cli.run("apply", "-f", "definitions.yaml")

    def file(self, *lines: str) -> str:
        """Write a CSV file of a name of its own; gives its name."""
        self._files += 1
        name = f"file{self._files}.csv"
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return name

    def import_clicks(self, *lines: str) -> None:
        """Import events of `click`: lines of ``user,unix_milli,count,page``."""
        file = self.file("user,unix_milli,count,page,raw,seen", *(f"{line},," for line in lines))
        said = self.cli.run("import", "-g", "click", "--input-file", file).stdout
        assert said == f"imported {len(lines)} {'rows' if len(lines) > 1 else 'row'}\n"

    def import_accounts(self, time_ms: int, *lines: str) -> None:
        """Import a revision of `account`: lines of ``user,state,photo,joined``."""
        file = self.file("user,state,photo,joined", *lines)
        said = self.cli.run("import", "-g", "account", "--input-file", file, "-r", str(time_ms)).stdout
        assert said.startswith("RevisionID: ")

    def push(self, group: str, user: str, *values: str, time_ms: int | None = None) -> None:
        """Push an event: values as ``name=value``."""
        time = () if time_ms is None else ("--event-time", time_text(time_ms))
        features = [part for value in values for part in ("--feature", value)]
        self.cli.run("push", "-g", group, "-k", user, *features, *time)

    def join_csv(self, labels: Sequence[str], *features: str) -> list[str]:
        """Lines that `join` prints for label lines of ``entity_key,unix_milli,label``, without the header."""
        file = self.file("entity_key,unix_milli,label", *labels)
        lines = self.cli.run("join", "--feature", ",".join(features), "--input-file", file).stdout.splitlines()
        assert lines[0] == ",".join(["entity_key,unix_milli,label", *features])
        return lines[1:]

    def joined(self, labels: Iterable[Label], *features: str) -> list[tuple[Any, ...]]:
        """Values that the labels see, through the query module."""
        rows = [{"user": user, "unix_milli": time} for user, time in labels]
        with FeatureStore.open(settings=self.settings) as store:
            table = store.get_historical_features(rows, features).to_arrow()
        assert table.num_rows == len(rows)
        return [tuple(row[name] for name in features) for row in table.to_pylist()]

    def online(self, users: Iterable[str], *features: str) -> list[tuple[Any, ...]]:
        """Newest values, through the query module."""
        with FeatureStore.open(settings=self.settings) as store:
            answer = store.get_online_features(features, [{"user": user} for user in users]).to_dict()
        return list(zip(*(answer[name] for name in features), strict=True))

    def exported(self, time_ms: int, *features: str) -> list[tuple[Any, ...]]:
        """Entity and values of everything valid at a time, through the query module."""
        with FeatureStore.open(settings=self.settings) as store:
            table = store.export(features, at=time_ms * 1_000).to_arrow()
        return [tuple(row.values()) for row in table.to_pylist()]

    def check_verified(self) -> None:
        """Online equals history, as the product's own check sees it."""
        verdicts = {each["group"]: each["differing"] for each in self.cli.json("verify")}
        assert verdicts
        assert not any(verdicts.values()), verdicts


def time_text(time_ms: int) -> str:
    """A time as the command takes it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat()


def using(backends: Backends, folder: Path, definitions: str = DEFINITIONS) -> OomstoreUser:
    """A user on stores that are empty."""
    return OomstoreUser(backends.fresh(), folder, definitions)
