"""Where a run takes place: the embedded broker and SQLite, with their settings and what can be done to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oomstream.agents.broker import EmbeddedBroker
from oomstream.schemas.avsc import group_from_avsc
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.broker import Broker
from oomstream.streams.topics import partition_counts
from tests.integration.backends import prepare
from tests.torture.groups import TortureGroup, torture_groups
from tests.torture.schedule import FIRST_PARTITIONS, Options

SESSION_US = 1_100_000
"""The embedded broker waits for members that do not join again for so much longer than a second."""
BATCH_ROWS = 150
CONSUMER_GROUP = "torture"


@dataclass(frozen=True)
class Stage:
    """Where a run takes place.

    Attributes:
        folder: The working folder.
        settings: The stores' own addresses.
        broker: The broker's own address.
        groups: The groups by name.
        worker_settings: Settings of the workers, as JSON.
    """

    folder: Path
    settings: Settings
    broker: Broker
    groups: dict[str, TortureGroup]
    worker_settings: dict[str, Any]

    @property
    def embedded(self) -> bool:
        """Whether no server is used."""
        return self.broker.embedded

    def partitions(self) -> dict[str, int]:
        """How many partitions each group's topic has now."""
        counts = partition_counts(self.broker, timeout_s=30)
        return {name: counts[group.topic] for name, group in self.groups.items()}


def open_stage(folder: Path, options: Options) -> AbstractContextManager[Stage]:
    """The stage that the options ask for."""
    return embedded_stage(folder)


@contextmanager
def embedded_stage(folder: Path) -> Iterator[Stage]:
    """The embedded broker, SQLite, and the groups."""
    data = folder / "data"
    with EmbeddedBroker(data) as running:
        settings = load_settings(data_dir=data, broker_url=running.url, consumer_group=CONSUMER_GROUP)
        groups = torture_groups(FIRST_PARTITIONS)
        prepare(settings, [group_from_avsc(each.avsc) for each in groups.values()], running.broker)
        worker = {
            "data_dir": str(data),
            "broker_url": running.url,
            "consumer_group": CONSUMER_GROUP,
            "session_timeout_us": SESSION_US,
            "batch_rows": BATCH_ROWS,
        }
        yield Stage(folder, settings, running.broker, groups, worker)
