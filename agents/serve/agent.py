"""What the agent answers to each rpc of oomstore's protocol, but for those that move many rows.

Source:
    oomagent.proto; oomstore's published clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.agents.serve.metrics import ServeMetrics
from oomstream.agents.serve.pushes import Pushes
from oomstream.agents.serve.registered import Registered, entity_row, key_columns
from oomstream.agents.serve.wire_values import from_wire, to_wire
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.query.online import OnlineResponse
from oomstream.schemas.errors import InvalidEvent, InvalidKey, InvalidRequest
from oomstream.schemas.groups import FeatureGroup


class Agent:
    """Online reads, pushes and what is about the server itself.

    Args:
        store: Open for as long as the agent answers.
        registered: Definitions.
        pushes: Where pushed events go.
        metrics: Counts what is read and pushed.
    """

    def __init__(self, store: AsyncFeatureStore, registered: Registered, pushes: Pushes, metrics: ServeMetrics) -> None:
        self._store = store
        self._registered = registered
        self._pushes = pushes
        self._metrics = metrics

    async def health_check(self, _: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        """Answers if the online store does."""
        await self._store.ping()
        return pb.HealthCheckResponse()

    async def online_get(self, request: pb.OnlineGetRequest) -> pb.OnlineGetResponse:
        """Newest values of an entity; null where there is none, as oomstore's clients expect of an unknown entity."""
        (values,) = await self._values([request.entity_key], request.features)
        return pb.OnlineGetResponse(result=values)

    async def online_multi_get(self, request: pb.OnlineMultiGetRequest) -> pb.OnlineMultiGetResponse:
        """Newest values of entities, by the texts of their keys; one read of the online store."""
        keys = list(dict.fromkeys(request.entity_keys))
        values = await self._values(keys, request.features) if keys else []
        return pb.OnlineMultiGetResponse(result=dict(zip(keys, values, strict=True)))

    async def push(self, request: pb.PushRequest) -> pb.PushResponse:
        """Writes an event of now; features that are not given take their defaults."""
        group = await self._registered.group(request.group, with_features=request.feature_values)
        event = {**push_key(group, request.entity_key), **self._features(group, request)}
        await self._pushes.push(group, [event], request.ByteSize())
        self._metrics.count("pushed_events", "grpc")
        return pb.PushResponse()

    async def snapshot(self, request: pb.SnapshotRequest) -> pb.SnapshotResponse:
        """Does nothing, since history is read directly; the group must be there."""
        await self._registered.group(request.group)
        return pb.SnapshotResponse()

    async def _values(self, keys: Sequence[str], features: Sequence[str]) -> list[pb.FeatureValueMap]:
        names = list(features)
        columns = key_columns(await self._registered.groups_of(names))
        rows = [entity_row(key, columns) for key in keys]
        response = await self._store.get_online_features(names, rows)
        count_statuses(self._metrics, response)
        values = response.to_dict()
        # By the names that were asked for: `group:feature` is a synonym of `group.feature`.
        found = [(name, values[name.replace(":", ".", 1) if "." not in name else name]) for name in names]
        return [
            pb.FeatureValueMap(map={name: to_wire(column[at]) for name, column in found}) for at in range(len(rows))
        ]

    def _features(self, group: FeatureGroup, request: pb.PushRequest) -> dict[str, Any]:
        event: dict[str, Any] = {}
        for given, value in request.feature_values.items():
            name = given.removeprefix(f"{group.name}.")
            feature = group.feature(name)
            if feature is None:
                known = ", ".join(each.name for each in group.features)
                raise InvalidRequest(f"group {group.name} has no feature {given[:80]!r} (it has: {known})")
            if name in event:
                raise InvalidRequest(f"feature {name!r} is given twice")
            try:
                event[name] = from_wire(feature.type, value)
            except InvalidEvent as exc:
                raise InvalidEvent(exc.reason, f"{group.name}.{name} {exc}") from exc
        return event


def push_key(group: FeatureGroup, text: str) -> dict[str, Any]:
    """The key fields of an event of a group, from the text of its entity key.

    Raises:
        InvalidKey: The text is no key of this group; names the field.
    """
    if not text:
        raise InvalidKey(f"group {group.name}: the entity key is empty")
    return entity_row(text, {key.name: key for key in group.keys})


def count_statuses(metrics: ServeMetrics, response: OnlineResponse) -> None:
    """Count the values of an answer by their status."""
    for status, number in Counter(chain.from_iterable(response.statuses.values())).items():
        metrics.count("online_values", status.value, by=number)
