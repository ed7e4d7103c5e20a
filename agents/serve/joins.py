"""Training sets over the wire: file to file, or stream to stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.agents.serve.registered import Registered, entity_row, key_columns
from oomstream.agents.serve.shared_files import SharedFiles
from oomstream.agents.serve.wire_values import to_wire
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.query.label_columns import UNIX_MILLI
from oomstream.schemas.errors import InvalidLabels, InvalidRequest
from oomstream.schemas.groups import KeyField

ENTITY_KEY = "entity_key"
MAX_STREAMED_LABELS = 2_000_000
"""Label rows of one stream are in memory together; more are a file's work."""

_ROWS_AT_A_TIME = 1_000


class Joins:
    """Joins labels with the values that they saw at their times.

    Args:
        store: Open for as long as the agent answers.
        registered: Definitions.
        files: What clients may name.
    """

    def __init__(self, store: AsyncFeatureStore, registered: Registered, files: SharedFiles) -> None:
        self._store = store
        self._registered = registered
        self._files = files

    async def join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        """Label rows of a file into a file; the output appears when it is complete."""
        labels, output = self._files.input(request.input_file), self._files.output(request.output_file)
        if output.exists() and output.samefile(labels):
            raise InvalidRequest(f"{request.output_file!r} is the label file, which would be overwritten")
        training = await self._store.get_historical_features(labels, list(request.features))
        await asyncio.to_thread(training.write, output)
        return pb.JoinResponse()

    async def channel_join(
        self, requests: AsyncIterator[pb.ChannelJoinRequest]
    ) -> AsyncIterator[pb.ChannelJoinResponse]:
        """Label rows of a stream into a stream, in their order, when the last of them has come."""
        labels = _Labels()
        columns: Mapping[str, KeyField] = {}
        async for request in requests:
            if not labels.features:
                labels.begin(request)
                columns = key_columns(await self._registered.groups_of(labels.features))
            if request.HasField("entity_row"):
                labels.add(request.entity_row, columns)
        if not labels.features:
            raise InvalidRequest("the stream ended before its first message, which names join_features")
        header = [ENTITY_KEY, UNIX_MILLI, *labels.existed, *labels.features]
        if not labels.keys:
            yield pb.ChannelJoinResponse(header=header)
            return
        training = await self._store.get_historical_features(labels.table(columns), labels.features)
        joined = (await asyncio.to_thread(training.to_arrow)).select(labels.full_names)
        for start in range(0, joined.num_rows, _ROWS_AT_A_TIME):
            rows = await asyncio.to_thread(_rows, joined.slice(start, _ROWS_AT_A_TIME))
            for at, row in enumerate(rows, start):
                known = [to_wire(labels.keys[at]), to_wire(labels.times[at]), *map(to_wire, labels.values[at])]
                yield pb.ChannelJoinResponse(header=header if at == 0 else (), joined_row=[*known, *map(to_wire, row)])


class _Labels:
    """Label rows of a stream, as they came."""

    def __init__(self) -> None:
        self.features: list[str] = []
        self.existed: list[str] = []
        self.keys: list[str] = []
        self.times: list[int] = []
        self.values: list[Sequence[str]] = []
        self._rows: list[dict[str, Any]] = []

    @property
    def full_names(self) -> list[str]:
        """The features by the names that results have."""
        return [name.replace(":", ".", 1) if "." not in name else name for name in self.features]

    def begin(self, request: pb.ChannelJoinRequest) -> None:
        """Take what the first message says."""
        self.features, self.existed = list(request.join_features), list(request.existed_features)
        if not self.features:
            raise InvalidRequest("the first message of the stream must name join_features")

    def add(self, row: pb.EntityRow, columns: Mapping[str, KeyField]) -> None:
        """Take one row."""
        at = len(self.keys)
        if len(row.values) != len(self.existed):
            raise InvalidLabels(
                f"row {at} (from 0) has {len(row.values)} values for {len(self.existed)} existed_features"
            )
        if at == MAX_STREAMED_LABELS:
            raise InvalidLabels(f"more than {MAX_STREAMED_LABELS:,} label rows in one stream: join a file instead")
        self._rows.append(entity_row(row.entity_key, columns))
        self.keys.append(row.entity_key)
        self.times.append(row.unix_milli)
        self.values.append(tuple(row.values))

    def table(self, columns: Mapping[str, KeyField]) -> pa.Table:
        """The label table to join: key columns and the label time."""
        keys = {name: pa.array([row[name] for row in self._rows], key.type.arrow()) for name, key in columns.items()}
        return pa.table({**keys, UNIX_MILLI: pa.array(self.times, pa.int64())})


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
