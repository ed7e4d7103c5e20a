"""Where a run of the demo keeps its data: in its folder, or on the servers that the settings name.

On a server, each run has a database, a namespace, topics and a consumer group of its own, named after the time at which
it began. It never touches what was there before.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from oomstream.schemas.errors import InvalidRequest
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.settings import PREFIX, Settings, load_settings
from oomstream.stores.urls import StoreUrl, mask_url, url_with_path
from oomstream.streams.broker import Broker, find_broker

SETTINGS_FILE = "settings.sh"

_PATHS = frozenset({"tidb", "mysql", "mariadb", "tikv"})
"""Schemes whose URL ends with the name of a place that `init` makes."""

_NAME_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run keeps its data.

    Attributes:
        settings: Settings of the run's own; a broker URL in them is a server's.
        broker: The broker on a server; None = the embedded one.
        run: Name of the run, which topics begin with on a server.
    """

    settings: Settings
    broker: Broker | None
    run: str

    @property
    def on_servers(self) -> bool:
        """Whether anything of it is on a server."""
        stores = (self.settings.online, self.settings.history)
        return self.broker is not None or any(StoreUrl.parse(url).scheme != "sqlite" for url in stores)

    @property
    def lines(self) -> list[str]:
        """The place in words, passwords masked."""
        return [
            f"broker   {self.broker.url if self.broker is not None else 'embedded'}",
            f"history  {mask_url(self.settings.history)}",
            f"online   {mask_url(self.settings.online)}",
        ]

    def topic(self, group: str) -> str | None:
        """Topic of a group; None = named after the group."""
        return None if self.broker is None else f"{self.run}_{group}"

    def write_settings(self, folder: Path) -> None:
        """Write the run's settings as shell commands; readable by their owner only, since a URL may hold a password."""
        values = {
            "DATA_DIR": str(folder),
            "BROKER_URL": self.broker.url if self.broker is not None else None,
            "HISTORY_URL": self.settings.history,
            "ONLINE_URL": self.settings.online,
            "CONSUMER_GROUP": self.settings.consumer_group,
        }
        lines = [f"unset {' '.join(f'{PREFIX}{name}_FILE' for name in values)}"]
        lines += [f"export {PREFIX}{name}={shlex.quote(value)}" for name, value in values.items() if value is not None]
        file = folder / SETTINGS_FILE
        file.touch(mode=0o600)
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")


def choose_place(folder: Path, run: str) -> Place:
    """Choose where a run keeps its data: on each server that the settings name, and else in the folder.

    Args:
        folder: The demo's own folder.
        run: Name of the run, letters, digits and ``_``.

    Raises:
        InvalidSetting: A setting is wrong.
    """
    given = load_settings(data_dir=folder)
    broker = find_broker(given) if given.broker_url is not None else None
    if broker is not None and broker.embedded:
        broker = None  # it could not hold a topic that somebody's worker does not read
    settings = load_settings(
        data_dir=folder,
        history_url=_own(given.history_url, f"sqlite:///{folder / 'history.db'}", run),
        online_url=_own(given.online_url, f"sqlite:///{folder / 'online.db'}", run),
        consumer_group=f"oomstream_{run}" if broker is not None else None,
    )
    return Place(settings, broker, run)


def _own(url: str | None, in_folder: str, run: str) -> str:
    if url is None:
        return in_folder
    parsed = StoreUrl.parse(url)
    if parsed.scheme == "sqlite":
        return in_folder
    if parsed.scheme not in _PATHS:
        return url
    return url_with_path(url, f"{(parsed.path or 'oomstream')[:_NAME_CHARACTERS]}_{run}")


async def check_unused(history: HistoryStore, online: OnlineStore) -> None:
    """Make sure that two opened stores hold nothing.

    Raises:
        InvalidRequest: One of them was initialised before; nothing was touched.
    """
    for store in (history, online):
        if await store.pairing_id() is not None:
            raise InvalidRequest(f"store {store.url} is in use: the demo needs one that holds nothing yet")
