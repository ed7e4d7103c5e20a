"""What a skilled user would write to read the same keys with tikv-client alone: fetch, decode with fastavro, columns.

Usage: python -m benchmarks.tikv_reads URL threads|tasks GROUP=ID …

It has no deadlines, no ttl, no statuses, no other schema than today's, and dies with the first error. With threads it
uses the package's synchronous interface, which wants an event loop for each thread.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import tikv_client
from fastavro import parse_schema, schemaless_reader

from benchmarks.read_rounds import (
    AsyncRead,
    Columns,
    Latencies,
    Order,
    Read,
    serve_rounds,
    tasks_round,
    threads_round,
)
from benchmarks.read_rows import GROUPS, KEY, Shape, feature_name, feature_type
from oomstream.stores.tikv.address import TikvAddress

_HEAD_BYTES = 39
"""What stands before the Avro body of a stored value."""


def _schema(group: str) -> Any:
    features = [{"name": feature_name(at), "type": ["null", feature_type(at)]} for at in range(GROUPS[group])]
    # The event time as a plain long: fastavro then makes no datetime of it, which nobody here wants.
    fields = [{"name": KEY, "type": "string"}, {"name": "at", "type": "long"}, *features]
    return parse_schema({"type": "record", "name": group, "fields": fields})


class _Reading:
    """Keys and answers of reads of one shape."""

    def __init__(self, shape: Shape, prefix: bytes, ids: Mapping[str, int]) -> None:
        self._groups = [
            (
                prefix + struct.pack(">cIQ", b"o", ids[group], 0) + b"\x01",
                _schema(group),
                [(f"{group}.{name}", name) for of_group, name in shape.names if of_group == group],
            )
            for group in shape.features
        ]

    def keys(self, rows: Sequence[Mapping[str, str]]) -> list[list[bytes]]:
        tails = [row[KEY].encode() + b"\0\0" for row in rows]
        return [[prefix + tail for tail in tails] for prefix, _, _ in self._groups]

    def answer(
        self, rows: Sequence[Mapping[str, str]], keys: list[list[bytes]], pairs: Sequence[tuple[bytes, bytes]]
    ) -> Columns:
        found = dict(pairs)
        columns: dict[str, list[Any]] = {KEY: [row[KEY] for row in rows]}
        for (_, schema, features), wanted in zip(self._groups, keys, strict=True):
            values = [found.get(key) for key in wanted]
            records: list[Any] = [
                {} if value is None else schemaless_reader(BytesIO(value[_HEAD_BYTES:]), schema, None)
                for value in values
            ]
            for full, name in features:
                columns[full] = [record.get(name) for record in records]
        return columns


def serve_threads(pd: list[str], prefix: bytes, ids: Mapping[str, int]) -> None:
    """Serve rounds with the synchronous client."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    client = tikv_client.TransactionClient.connect(pd)

    def read_of(shape: Shape) -> Read:
        asyncio.set_event_loop(asyncio.new_event_loop())  # of this thread
        reading = _Reading(shape, prefix, ids)

        def read(rows: Sequence[Mapping[str, str]]) -> Columns:
            keys = reading.keys(rows)
            snapshot = client.snapshot(client.current_timestamp(), False)
            return reading.answer(rows, keys, snapshot.batch_get([key for each in keys for key in each]))

        return read

    serve_rounds(lambda order: threads_round(order, read_of))


def serve_tasks(pd: list[str], prefix: bytes, ids: Mapping[str, int]) -> None:
    """Serve rounds with the asynchronous client."""
    with asyncio.Runner() as runner:
        client: Any = runner.run(tikv_client.asynchronous.TransactionClient.connect(pd))

        def read_of(shape: Shape) -> AsyncRead:
            reading = _Reading(shape, prefix, ids)

            async def read(rows: Sequence[Mapping[str, str]]) -> Columns:
                keys = reading.keys(rows)
                snapshot = client.snapshot(await client.current_timestamp(), False)
                return reading.answer(rows, keys, await snapshot.batch_get([key for each in keys for key in each]))

            return read

        def work(order: Order) -> Latencies:
            return runner.run(tasks_round(order, read_of))

        serve_rounds(work)


if __name__ == "__main__":
    address = TikvAddress.parse(sys.argv[1])
    group_ids = {name: int(number) for name, _, number in (each.partition("=") for each in sys.argv[3:])}
    how = serve_threads if sys.argv[2] == "threads" else serve_tasks
    how(list(address.pd), address.row_prefix, group_ids)
    time.sleep(0.5)  # its threads touch Python after the last call; at exit that can crash the process
