"""Online rows made again from history are the rows that the pipeline would have written."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.online_value import decode_value, encode_key
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.opening import history_store, init_stores, online_store
from oomstream.stores.rebuild import online_row, rebuild_source
from oomstream.stores.settings import load_settings
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import EXTREMES, all_types, event, group


def _stores(folder: Path, name: str) -> tuple[HistoryStore, OnlineStore]:
    return history_store(f"sqlite:///{folder / name}-h.db", load_settings()), online_store(
        f"sqlite:///{folder / name}-o.db", load_settings()
    )


def test_every_type_survives_the_way_over_history(tmp_path: Path) -> None:
    """An online row made from a history row holds, byte for byte, the body of the event itself."""

    async def check() -> None:
        history, online = _stores(tmp_path, "all")
        async with history, online:
            await init_stores(history, online)
            [mine] = await register(history, all_types())
            registered = (await history.load_catalog()).groups[mine.name]
            codec = BodyCodec(registered)
            source = await history.claim(topic(mine.name))
            width = max(map(len, EXTREMES.values()))
            events = [
                event(at, f"k{at}", at, *((*EXTREMES[each.name], *[None] * width)[at] for each in mine.features))
                for at in range(width)
            ]
            ingest_time_us = await append(history, source, mine, *events)
            assert await rebuild_source(history, online, registered, source, 0, width) == width
            stored = await online.read([encode_key(mine.id, each.entity) for each in events])
            for each, value in zip(events, stored, strict=True):
                assert value is not None
                decoded = decode_value(value)
                assert decoded.body == codec.encode(each.key, each.event_time_us, each.values)
                assert list(map(repr, codec.read(decoded.fingerprint, decoded.body))) == list(map(repr, each.values))
                assert decoded.version == Version(each.event_time_us, SourceKind.TOPIC, source.id, each.sequence)
                assert (decoded.ingest_time_us, decoded.fingerprint) == (ingest_time_us, mine.fingerprint)

    asyncio.run(check())


def test_range_and_pages(tmp_path: Path) -> None:
    """Only sequences of the range are taken, over any number of pages; doing it again writes nothing."""

    async def check() -> None:
        history, online = _stores(tmp_path, "pages")
        async with history, online:
            await init_stores(history, online)
            [mine] = await register(history, group())
            registered = (await history.load_catalog()).groups[mine.name]
            source = await history.claim(topic())
            await append(history, source, mine, *(event(at, f"k{at % 9_000}", at) for at in range(12_000)))
            assert await rebuild_source(history, online, registered, source, 100, 200) == 100
            await rebuild_source(history, online, registered, source, 0, 12_000)
            assert await rebuild_source(history, online, registered, source, 0, 12_000) == 0
            rows = await online.scan(b"o", limit=20_000)
            assert len(rows) == 9_000
            newest = await history.scan_newest(mine, limit=20_000)
            codec = BodyCodec(registered)
            assert sorted(rows) == sorted(online_row(codec, row, SourceKind.TOPIC) for row in newest)

    asyncio.run(check())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    events=st.lists(st.tuples(st.sampled_from("ab"), st.integers(-1, 1), st.booleans()), max_size=8),
    split=st.integers(0, 8),
)
def test_any_order_gives_the_newest(events: list[tuple[str, int, bool]], split: int) -> None:
    """Cases 28, 43, 44: in two parts, in any order, twice over: online is the newest version of history."""

    async def check(folder: Path) -> None:
        history, online = _stores(folder, "any")
        async with history, online:
            await init_stores(history, online)
            [mine] = await register(history, group())
            registered = (await history.load_catalog()).groups[mine.name]
            source = await history.claim(topic())
            made = [event(at, key, time, deleted=deleted) for at, (key, time, deleted) in enumerate(events)]
            if made:
                await append(history, source, mine, *made)
            for start, end in ((split, 8), (0, split), (0, 8)):
                await rebuild_source(history, online, registered, source, start, end)
            expected = {
                each.entity: each for each in sorted(made, key=lambda each: (each.event_time_us, each.sequence))
            }
            found = {row.key: decode_value(row.value) for row in await online.scan(b"o")}
            assert {key: (value.version.sequence, value.deleted) for key, value in found.items()} == {
                encode_key(mine.id, entity): (each.sequence, each.deleted) for entity, each in expected.items()
            }

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))
