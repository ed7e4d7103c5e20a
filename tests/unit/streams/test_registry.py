"""Schemas of a Schema Registry: fetched once, waited for while it is down, told from those that do not exist."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from oomstream.schemas.errors import Reason, StoreUnavailable
from oomstream.schemas.events import RawRecord
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.streams.backoff import Backoff
from oomstream.streams.ingest import SourceIngest
from oomstream.streams.registry import RegistrySchemas
from tests.unit.streams.house import GROUP, NAME, T0, House

FLAT = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "at", "type": "long"},
        {"name": "sensor_id", "type": "string"},
        {"name": "value", "type": ["null", "double"]},
    ],
}
RECURSIVE = {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]}


class Answers(BaseHTTPRequestHandler):
    """A registry's one route that is needed, over real HTTP."""

    schemas: ClassVar = {7: FLAT, 8: RECURSIVE}
    asked: ClassVar[list[str]] = []
    status = 200

    def do_GET(self) -> None:
        self.asked.append(self.path)
        schema = self.schemas.get(int(self.path.partition("?")[0].rsplit("/", 1)[1]))
        found = {"schema": json.dumps(schema)} if schema else {"error_code": 40403, "message": "Schema not found"}
        status = Answers.status if Answers.status != 200 else 200 if schema else 404
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        pass


@contextmanager
def registry() -> Iterator[str]:
    """A registry on a free loopback port."""
    Answers.asked, Answers.status = [], 200
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def confluent(schema_id: int, offset: int) -> RawRecord:
    """An event in Confluent framing: the fields in the registry schema's order."""
    at = bytearray()
    zigzag = (T0 + offset) << 1
    while zigzag > 0x7F:
        at.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    body = bytes([*at, zigzag]) + b"\x02a" + b"\x00"
    return RawRecord(offset, None, b"\0" + schema_id.to_bytes(4, "big") + body, T0 // 1000 + 10)


def test_events_of_the_registry(tmp_path: Path) -> None:
    """A known id is decoded, an id that does not exist and a schema that cannot be flat events are dead letters."""

    async def scenario(url: str) -> None:
        async with House(tmp_path) as house:
            pipeline = SourceIngest(
                history=house.history,
                online=house.online,
                catalog=CatalogCache(house.history),
                dead_letters=house.sink,
                name=NAME,
                settings=house.settings,
                registry=RegistrySchemas(url, timeout_s=5),
            )
            await pipeline.start(0, 10, begin=0)
            await pipeline.ingest([confluent(7, 0), confluent(8, 1), confluent(9, 2), confluent(7, 3)], GROUP.name)
            assert [row.sequence for row in await house.rows()] == [0, 3]
            reasons = {letter.offset: letter.reason for letter in house.sink.letters}
            assert reasons == {1: Reason.UNSUPPORTED_SCHEMA, 2: Reason.UNKNOWN_SCHEMA_ID}
            await pipeline.ingest([confluent(7, 4)])
            assert sum("/7" in path for path in Answers.asked) == 1

    with registry() as url:
        asyncio.run(scenario(url))


def test_a_pipeline_waits_for_its_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 7: while the registry is down the position stays and nothing is a dead letter; afterwards all is decoded."""

    async def scenario(url: str) -> None:
        async with House(tmp_path) as house:
            pipeline = SourceIngest(
                history=house.history,
                online=house.online,
                catalog=CatalogCache(house.history),
                dead_letters=house.sink,
                name=NAME,
                settings=house.settings,
                registry=RegistrySchemas(url, timeout_s=5),
            )
            seen: list[object] = []

            async def wait(self: Backoff, error: StoreUnavailable) -> None:
                [source] = await house.history.sources()
                seen.append((source.next_sequence, len(house.sink.letters), str(error).endswith("status 503")))
                Answers.status = 503 if len(seen) < 3 else 200

            monkeypatch.setattr(Backoff, "wait", wait)
            await pipeline.start(0, 10, begin=0)
            Answers.status = 503
            await pipeline.ingest([confluent(7, 0), confluent(9, 1), confluent(7, 2)], GROUP.name)
            assert seen == [(0, 0, True)] * 3
            assert [row.sequence for row in await house.rows()] == [0, 2]
            assert [letter.offset for letter in house.sink.letters] == [1]

    with registry() as url:
        asyncio.run(scenario(url))


def test_registry_down_or_failing_is_waited_for() -> None:
    """Case 7: a registry that refuses or fails is an outage that names it without its password, never a verdict."""
    with registry() as url:
        Answers.status = 500
        with pytest.raises(StoreUnavailable, match="status 500"):
            asyncio.run(RegistrySchemas(url, timeout_s=5).fetch(frozenset({7})))
    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(RegistrySchemas("http://me:secret@127.0.0.1:9", timeout_s=5).fetch(frozenset({7})))
    assert "127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)
