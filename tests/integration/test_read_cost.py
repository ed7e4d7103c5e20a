"""What an online read costs, in statements and calls instead of seconds: a guard that no busy machine trips.

The rows and the requests are those of `benchmarks.reads`. A bound is about a fifth above what was counted when it was
written; who passes one has made reads slower, or has a reason to write here.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from benchmarks.our_reads import fill
from benchmarks.read_rows import SHAPES, Shape, some_keys
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.query.online import OnlineResponse
from oomstream.query.sync import FeatureStore
from oomstream.stores.settings import Settings, load_settings
from oomstream.stores.sql import sqlite_reads
from tests.calls import calls_of

ENTITIES = 120

BOUNDS = {
    "1 key x 5 features": 140,
    "100 keys x 50 features": 8_000,
    "100 keys x 3 groups of 10": 7_400,
}
"""Calls of Python and C functions of one read, from the request to a dict of lists."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Stores that hold what the benchmark reads."""
    folder: Path = tmp_path_factory.mktemp("reads")
    made = load_settings(data_dir=folder)
    asyncio.run(fill(made, ENTITIES))
    return made


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Statements that online reads send to SQLite from now on."""
    seen: list[str] = []
    connect = sqlite_reads._connect

    def traced(*arguments: Any) -> sqlite3.Connection:
        connection = connect(*arguments)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(sqlite_reads, "_connect", traced)
    return seen


def request(shape: Shape) -> tuple[list[str], list[dict[str, str]]]:
    """Features and entity rows of one read."""
    return [f"{group}.{name}" for group, name in shape.names], some_keys(random.Random(1), shape, ENTITIES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_read_is_one_statement(name: str, settings: Settings, statements: list[str]) -> None:
    """Whatever the number of groups and keys, a read is one statement and nothing beside it, awaited or not."""
    features, rows = request(SHAPES[name])
    with FeatureStore.open(settings=settings) as store:
        for _ in range(3):
            statements.clear()
            store.get_online_features(features, rows)
            assert len(statements) == 1

    async def check() -> None:
        async with AsyncFeatureStore.open(settings=settings) as store:
            for _ in range(3):
                statements.clear()
                await store.get_online_features(features, rows)
                assert len(statements) == 1

    asyncio.run(check())


@pytest.mark.parametrize("name", SHAPES)
def test_calls_of_a_read(name: str, settings: Settings) -> None:
    """A read makes few function calls, the same number each time: about one a value."""
    features, rows = request(SHAPES[name])

    def read() -> OnlineResponse:
        return store.get_online_features(features, rows)

    with FeatureStore.open(settings=settings) as store:
        answer = read()
        counts = [calls_of(lambda: read().to_dict()) for _ in range(3)]
    assert len(answer.to_dict()) == len(features) + 1
    assert counts[0] == counts[-1]
    assert counts[-1] <= BOUNDS[name], counts
