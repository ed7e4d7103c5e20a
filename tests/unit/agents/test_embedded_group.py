"""How members of a consumer group on the embedded broker agree on who reads what."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from oomstream.agents.worker.transport import LATE_SYNC_S, EmbeddedAssignor


class Cluster(NamedTuple):
    """What an assignor asks of a cluster."""

    partitions: frozenset[int]

    def partitions_for_topic(self, _: str) -> frozenset[int]:
        """The same partitions for every topic."""
        return self.partitions


def members(count: int) -> dict[str, Any]:
    """So many members that read the topic `plane`."""
    return {f"m{number}": ConsumerProtocolMemberMetadata(0, ["plane"], b"") for number in range(count)}


def test_the_leader_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member gets what round robin gives it, but not before the others can have asked; alone nobody waits."""
    waits: list[float] = []
    monkeypatch.setattr("oomstream.agents.worker.transport.time.sleep", waits.append)
    cluster = Cluster(frozenset(range(5)))
    for count in (1, 3):
        given = EmbeddedAssignor.assign(cluster, members(count))
        usual = RoundRobinPartitionAssignor.assign(cluster, members(count))
        assert {name: each.encode() for name, each in given.items()} == {
            name: each.encode() for name, each in usual.items()
        }
    assert waits == [LATE_SYNC_S]
    assert EmbeddedAssignor.name == RoundRobinPartitionAssignor.name
