"""Memory of `verify`, of `repair` and of `verify --from-topic` does not grow with what they look through."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid

import pytest

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.framing import frame
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker, parse_broker
from tests.faults.harness import ROOT
from tests.integration.backends import Backends, environment_of, prepare
from tests.integration.taking import taking
from tests.services.mysql_protocol import SqlServer
from tests.services.server import Server
from tests.services.tikv import TikvServer

WIDTH = 4_000
SMALL, LARGE = 6_000, 30_000
GROUP = {
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
from oomstream.streams.verify import Verifier
from oomstream.streams.verify_log import LogVerifier

async def look(what):
    settings = load_settings()
    async with open_stores(settings) as (history, online):
        registered = (await history.load_catalog()).groups["plane"]
        if what == "verify":
            found = await Verifier(history, online).verify(registered)
            print(found.entities, found.differing, peak_kib())
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
