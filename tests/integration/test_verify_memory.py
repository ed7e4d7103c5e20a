"""Memory of `verify`, of `repair` and of `verify --from-topic` does not grow with what they look through."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.framing import frame
from oomstream.stores.opening import open_stores
from oomstream.stores.revisions import RevisionRow
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker, parse_broker
from oomstream.streams.sync import sync_group
from tests.faults.harness import ROOT
from tests.integration.backends import Backends, environment_of, prepare
from tests.integration.taking import taking
from tests.services.mysql_protocol import SqlServer
from tests.services.server import Server
from tests.services.tikv import TikvServer

WIDTH = 4_000
SMALL, MIDDLE, LARGE = 6_000, 18_000, 30_000
GROUP: dict[str, Any] = {
    "type": "record",
    "name": "plane",
    "entity": "plane",
    "keys": ["tail"],
    "event_time": "at",
    "partitions": 1,
    "fields": [
        {"name": "tail", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "carrier", "type": "string"},
    ],
}
PROGRAM = """
import asyncio, sys
from benchmarks.memory import peak_kib
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import load_settings
from oomstream.streams.broker import need_broker
from oomstream.streams.repair import repair
from oomstream.streams.repair_copy import CopyRepairer
from oomstream.streams.verify import Verifier
from oomstream.streams.verify_copy import CopyVerifier
from oomstream.streams.verify_log import LogVerifier

async def look(what):
    settings = load_settings()
    async with open_stores(settings) as (history, online):
        registered = (await history.load_catalog()).groups["plane"]
        if what == "verify":
            found = await Verifier(history, online).verify(registered)
            print(found.entities, found.differing, peak_kib())
        elif what == "copy":
            found = await CopyVerifier(history, online).verify(registered)
            print(found.entities, found.differing, peak_kib())
        elif what == "repair_copy":
            found = await CopyRepairer(history, online).repair(registered)
            print(found.synced.entities, found.entities - found.written, peak_kib())
        elif what == "repair":
            found = await repair(history, online, registered)
            print(found.entities, found.entities - found.written, peak_kib())
        else:
            found = await LogVerifier(history, need_broker(settings), settings).verify(registered)
            print(found.partitions[0].records, found.wrong, peak_kib())

asyncio.run(look(sys.argv[1]))
"""


def fill(backends: Backends, broker: Broker, rows: int, letters: int) -> Settings:
    """A topic of so many wide events of as many entities, and of some letters, taken in."""
    group = group_from_avsc({**GROUP, "topic": f"plane-{uuid.uuid4().hex[:12]}"})
    settings = backends.fresh(broker_url=broker.url, dlq_max_ratio=1.0, dlq_max_consecutive=0)
    codec = BodyCodec(prepare(settings, [group], broker).groups["plane"])

    async def take() -> None:
        async with taking(settings, broker, group) as taken:
            for start in range(0, rows, 1_000):
                values = [
                    codec.encode_python(
                        {"tail": f"N{at}", "at": 1_700_000_000_000_000 + at, "carrier": f"{at}".ljust(WIDTH, ".")}
                    )
                    for at in range(start, start + 1_000)
                ]
                taken.produce(*(frame(group.fingerprint, each.body) for each in values))
            taken.produce(*(b"\7garbage" for _ in range(letters)))
            await taken.take()

    asyncio.run(take())
    return settings


def fill_copy(backends: Backends, rows: int) -> Settings:
    """A revision of so many wide rows, online."""
    batch = {name: value for name, value in GROUP.items() if name not in {"event_time", "partitions"}}
    fields = [each for each in batch["fields"] if each["name"] != "at"]
    settings = backends.fresh()
    prepare(settings, [group_from_avsc({**batch, "category": "batch", "fields": fields})])

    async def fill() -> None:
        async with open_stores(settings) as (history, online):
            registered = (await history.load_catalog()).groups["plane"]
            draft = await history.begin_revision(registered.group)
            for start in range(0, rows, 500):
                some = [RevisionRow((f"N{at}",), (f"{at}".ljust(WIDTH, "."),)) for at in range(start, start + 500)]
                await history.load_revision(registered.group, draft, some)
            await history.publish_revision(registered.group, draft)
            await sync_group(history, online, registered)

    asyncio.run(fill())
    return settings


def peak_kib(settings: Settings, what: str) -> int:
    """Peak memory of a process that looks through everything and finds nothing wrong."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        env={"PATH": "/usr/bin:/bin", "MALLOC_ARENA_MAX": "1", **environment_of(settings)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    looked_at, wrong, peak = map(int, done.stdout.split())
    assert looked_at >= SMALL
    assert wrong == 0
    return peak


@pytest.fixture(scope="module")
def places(
    _kafka: Server, _tidb: SqlServer, _tikv: TikvServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Settings]:
    """A little and five times as much, on servers: SQLite keeps up to 64 MiB of each file in memory."""
    backends = Backends("tidb+tikv", tmp_path_factory.mktemp("memory"), _tidb, _tikv)
    broker = parse_broker(_kafka.url)
    return fill(backends, broker, SMALL, 500), fill(backends, broker, LARGE, 3_000)


@pytest.mark.parametrize("what", ["verify", "log"])
def test_memory_does_not_grow(places: tuple[Settings, Settings], what: str) -> None:
    """With five times as much to look through, the peak grows by less than a fifth of what came to it."""
    small, large = (peak_kib(each, what) for each in places)
    assert large - small < (LARGE - SMALL) * WIDTH / 1024 / 5


def test_memory_of_repair_does_not_grow(places: tuple[Settings, Settings]) -> None:
    """Filling a lost online store takes no more memory where there is more to fill in."""
    peaks = []
    for each in places:
        empty = each.model_copy(update={"online_url": f"{each.online_url}_again"})
        prepare(empty, [])
        peaks.append(peak_kib(empty, "repair"))
    assert peaks[1] - peaks[0] < (LARGE - SMALL) * WIDTH / 1024 / 5


def test_memory_of_copies_does_not_grow(tidb_server: SqlServer, tikv_server: TikvServer, tmp_path: Path) -> None:
    """Verifying a batch group, and bringing one of a lost online store back, take no more memory for more rows."""
    backends = Backends("tidb+tikv", tmp_path, tidb_server, tikv_server)
    places = [fill_copy(backends, rows) for rows in (SMALL, MIDDLE)]
    empty = [each.model_copy(update={"online_url": f"{each.online_url}_again"}) for each in places]
    for each in empty:
        prepare(each, [])
    for what, of in (("copy", places), ("repair_copy", empty)):
        small, large = (peak_kib(each, what) for each in of)
        assert large - small < (MIDDLE - SMALL) * WIDTH / 1024 / 5
