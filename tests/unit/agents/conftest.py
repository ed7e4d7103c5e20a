"""The broker that these tests run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oomstream.agents.broker import EmbeddedBroker
from oomstream.streams.broker import Broker


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker with no topics; the embedded one."""
    with EmbeddedBroker() as embedded:
        yield embedded.broker
