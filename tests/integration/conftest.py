"""Fixtures of the tests that put everything together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oomstream.agents.broker import EmbeddedBroker
from oomstream.streams.broker import Broker, parse_broker
from tests.integration.backends import PAIRS, Backends


@pytest.fixture(params=PAIRS)
def backends(request: pytest.FixtureRequest, tmp_path: Path) -> Backends:
    """Each pair of stores in turn."""
    history, _, online = str(request.param).partition("+")
    return Backends(
        request.param,
        tmp_path,
        request.getfixturevalue("tidb_server") if history == "tidb" else None,
        request.getfixturevalue("tikv_server") if online == "tikv" else None,
    )


@pytest.fixture
def broker(request: pytest.FixtureRequest, backends: Backends) -> Iterator[Broker]:
    """The embedded broker beside embedded stores, Kafka beside servers; topics are the test's own to make."""
    if backends.embedded:
        with EmbeddedBroker() as embedded:
            yield embedded.broker
    else:
        yield parse_broker(request.getfixturevalue("kafka_server").url)
