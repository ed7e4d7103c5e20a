"""Fixtures of the query tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from oomstream.schemas.groups import FeatureGroup
from tests.unit.query.filled import Filled

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Fill = Callable[..., Filled]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs coroutines in one event loop."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def fill(run: Run, tmp_path: Path) -> Iterator[Fill]:
    """Makes a pair of SQLite stores with these groups registered."""
    made: list[Filled] = []

    def make(*groups: FeatureGroup) -> Filled:
        made.append(run(Filled(tmp_path, groups).open()))
        return made[-1]

    yield make
    for each in made:
        run(each.close())
