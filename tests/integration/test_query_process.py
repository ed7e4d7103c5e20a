"""A process that only reads: no Kafka, no Faust, online values from TiKV and a training set from TiDB."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from oomstream.stores.opening import history_store, online_store
from oomstream.stores.settings import Settings
from oomstream.streams.push import LocalWriter
from tests.faults.harness import ROOT
from tests.integration.backends import Backends, environment_of, prepare
from tests.services.mysql_protocol import SqlServer
from tests.services.tikv import TikvServer
from tests.unit.agents.harness import group

RUNS = 5
"""Of each of two programs."""
PROGRAM = """
import json, sys
from datetime import UTC, datetime
from oomstream import FeatureStore

with FeatureStore.open() as store:
    online = store.get_online_features(["plane.delay", "plane.carrier"], [{"tail": "N1"}, {"tail": "N2"}])
    labels = [{"tail": "N1", "event_timestamp": datetime(2024, 5, day, tzinfo=UTC)} for day in (1, 3, 5)]
    trained = store.get_historical_features(labels, ["plane.delay"])
unwanted = {"faust", "mode", "aiokafka", "confluent_kafka"} & set(sys.modules)
ours = {name for name in sys.modules if name.startswith(("oomstream.agents", "oomstream.streams"))}
print(json.dumps({
    "online": online.to_dict(),
    "trained": trained.to_arrow().column("plane.delay").to_pylist(),
    "unwanted": sorted(unwanted | ours),
}))
"""
# As a service does that is simply ended: what was opened stays open.
LEFT_OPEN = PROGRAM.replace("with FeatureStore.open() as store:", "store = FeatureStore.open()\nif True:")


@pytest.fixture
def settings(tmp_path: Path, tidb_server: SqlServer, tikv_server: TikvServer) -> Settings:
    """Stores on TiDB and TiKV that hold two events of one plane."""
    settings = Backends("tidb+tikv", tmp_path, tidb_server, tikv_server).fresh()
    prepare(settings, [group()])

    async def push() -> None:
        async with (
            history_store(settings.history, settings) as history,
            online_store(settings.online, settings) as online,
            LocalWriter(history, online, settings) as writer,
        ):
            for day, delay in ((4, 8), (2, 7)):
                at = 1_714_521_600_000_000 + (day - 1) * 86_400_000_000
                await writer.push("plane", {"tail": "N1", "at": at, "delay": delay, "carrier": "UA"})

    asyncio.run(push())
    return settings


@pytest.mark.parametrize("program", [PROGRAM, LEFT_OPEN], ids=["closed", "left open"])
def test_reads_without_kafka_and_ends_cleanly(settings: Settings, program: str) -> None:
    """Right values, no Kafka client and no Faust loaded, exit code 0 and nothing on stderr, every time."""
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", **environment_of(settings)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {
            "online": {
                "tail": ["N1", "N2"],
                "plane.delay": [8, None],
                "plane.carrier": ["UA", None],
            },
            "trained": [None, 7, 8],
            "unwanted": [],
        }
