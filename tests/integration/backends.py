"""The pairs of stores that oomstream runs on, each time empty, and the broker that goes with them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oomstream.schemas.catalog import Catalog
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.plan import make_plan
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.broker import Broker
from oomstream.streams.topics import ensure_topics, topics_of
from tests.services.mysql_protocol import SqlServer
from tests.services.tikv import TikvServer

PAIRS = ("sqlite+sqlite", "tidb+tikv", "tidb+sqlite")
"""History and online."""


@dataclass
class Backends:
    """One pair of kinds of stores.

    Attributes:
        pair: One of `PAIRS`.
        folder: Where embedded stores are made.
        tidb: The server of the history, if it is on one.
        tikv: The server of the online rows, if they are on one.
    """

    pair: str
    folder: Path
    tidb: SqlServer | None = None
    tikv: TikvServer | None = None
    _made: int = field(default=0, init=False)

    @property
    def embedded(self) -> bool:
        """Whether no server is used."""
        return self.tidb is None

    def examples(self, embedded: int) -> int:
        """How many examples a property test tries, of the number that it tries on embedded stores."""
        return embedded if self.embedded else min(10, embedded)

    def fresh(self, *, proxied: bool = False, **more: Any) -> Settings:
        """Settings with stores that do not exist yet, or are empty.

        Args:
            proxied: Reach the servers through their proxies.
            **more: Further settings.
        """
        self._made += 1
        folder = self.folder / f"stores{self._made}"
        urls: dict[str, Any] = {}
        if self.tidb is not None:
            urls["history_url"] = self.tidb.fresh_database(proxied=proxied)
        if self.tikv is not None:
            url = self.tikv.proxied_url if proxied else self.tikv.url
            urls["online_url"] = f"{url}/test_{uuid.uuid4().hex[:12]}"
        group = f"workers-{uuid.uuid4().hex[:12]}"
        return load_settings(**{"data_dir": folder, "consumer_group": group, **urls, **more})


def environment_of(settings: Settings) -> dict[str, str]:
    """Settings as a child process gets them, as far as they say where things are."""
    known = {
        "OOMSTREAM_DATA_DIR": str(settings.data_dir),
        "OOMSTREAM_HISTORY_URL": settings.history,
        "OOMSTREAM_ONLINE_URL": settings.online,
        "OOMSTREAM_BROKER_URL": settings.broker_url,
    }
    return {name: value for name, value in known.items() if value is not None}


def prepare(settings: Settings, groups: Iterable[FeatureGroup], broker: Broker | None = None) -> Catalog:
    """Make the stores, register groups and make their topics, as `oomstream init` and `apply` do."""
    return asyncio.run(prepare_async(settings, groups, broker))


async def prepare_async(settings: Settings, groups: Iterable[FeatureGroup], broker: Broker | None = None) -> Catalog:
    """As `prepare`, in an event loop."""
    async with history_store(settings.history, settings) as history, online_store(settings.online, settings) as online:
        await init_stores(history, online)
        catalog = await history.apply(make_plan(await history.load_catalog(), list(groups)))
    if broker is not None:
        ensure_topics(broker, topics_of(each.group for each in catalog.groups.values()), timeout_s=30)
    return catalog
