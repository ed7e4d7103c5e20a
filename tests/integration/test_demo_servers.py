"""The demo on Kafka, TiDB and TiKV: the same figures, the same training set, and nothing of anybody else touched."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from oomstream.agents.demo.places import SETTINGS_FILE, check_unused, choose_place
from oomstream.agents.demo.run import TRAINING_FILE
from oomstream.schemas.errors import InvalidRequest
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.settings import load_settings
from tests.integration.flights_oracle import differing_rows
from tests.integration.test_demo import FIGURES
from tests.services.server import Server


def test_same_figures_and_training_set(kafka_server: Server, tidb_url: str, tikv_url: str, tmp_path: Path) -> None:
    """On the three servers, figures and training set are those of the data; what to type next works as printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OOMSTREAM_")}
    environment = {**clean, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    servers = {"OOMSTREAM_BROKER_URL": kafka_server.url, "OOMSTREAM_HISTORY_URL": tidb_url}
    command = [sys.executable, "-m", "oomstream.agents.cli.main", "demo"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**environment, **servers, "OOMSTREAM_ONLINE_URL": tikv_url},
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for shown in (*servers.values(), tikv_url):
        assert shown in done.stdout
    for name, figure in FIGURES.items():
        assert re.search(rf"^ +{name} +{re.escape(figure)}\b", done.stdout, re.MULTILINE), (name, done.stdout)
    folder = tmp_path / ".oomstream" / "demo"
    assert differing_rows(pq.read_table(folder / TRAINING_FILE).to_pandas()) == 0
    assert (folder / SETTINGS_FILE).stat().st_mode & 0o077 == 0

    script = done.stdout.split("(while the servers run)", 1)[1]
    # The settings come from the file that the first line names: nothing is set around it.
    typed = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert typed.returncode == 0, typed.stderr
    assert typed.stderr == ""
    assert "336,776 rows written" in typed.stdout
    assert "ingested" in typed.stdout
    assert re.search(r"JFK +\| +70\.0 \| +12\.0", typed.stdout)


def test_every_run_has_names_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Database, namespace, topics and consumer group hold the run's name; password and options stay as they were."""
    monkeypatch.setenv("OOMSTREAM_BROKER_URL", "kafka://broker:9092")
    monkeypatch.setenv("OOMSTREAM_HISTORY_URL", "tidb://me:p%2Fw@host:4000/shop?tls=true")
    monkeypatch.setenv("OOMSTREAM_ONLINE_URL", "tikv://pd1,pd2")
    place = choose_place(tmp_path, "demo_1")
    assert place.settings.history == "tidb://me:p%2Fw@host:4000/shop_demo_1?tls=true"
    assert place.settings.online == "tikv://pd1,pd2/oomstream_demo_1"
    assert place.settings.consumer_group == "oomstream_demo_1"
    assert place.topic("plane") == "demo_1_plane"
    assert "p%2Fw" not in "".join(place.lines)


def test_a_store_in_use_is_left_alone(tmp_path: Path) -> None:
    """A store that was initialised before is refused by its URL, and keeps what it holds."""
    settings = load_settings(data_dir=tmp_path)

    async def check() -> None:
        async with (
            history_store(settings.history, settings) as history,
            online_store(settings.online, settings) as online,
        ):
            mine = await init_stores(history, online)
            with pytest.raises(InvalidRequest, match=r"history\.db is in use"):
                await check_unused(history, online)
            assert await history.pairing_id() == mine

    asyncio.run(check())
