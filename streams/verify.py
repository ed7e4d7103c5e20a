"""Proof that online equals history: every entity's online row is its row of greatest version.

It runs beside workers. For one look at an entity, positions are read first, then online, then history. Workers write
history before online, and store `online_sequence` after online, so that with nothing wrong

* the online row's version is one that history has, and
* a history row whose sequence lies before its source's `online_sequence` has reached online.

A newest history row behind that position may still be on its way: such an entity is looked at again later.

Source:
    design.md, section 5 (order of the steps) and section 7 (online equals history).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import decode_entity, encode_entity
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key, key_prefix
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import HistoryRow, HistoryStore, OnlineStore

PAGE = 2_000
LOOKS = 20
LOOK_AGAIN_S = 0.5
_SAMPLE_RANGE = 1 << 32


class Finding(StrEnum):
    """How an entity's online row differs from history."""

    MISSING = "missing online"
    OLDER = "older than history"
    UNKNOWN = "not in history"
    DIFFERENT = "same version, other values"
    UNREADABLE = "unreadable online"
    PENDING = "still on its way after many looks"


@dataclass(frozen=True, slots=True)
class Difference:
    """One entity that is not as it should be.

    Attributes:
        group: Its group.
        key: Its key in plain form.
        finding: What is wrong.
    """

    group: str
    key: tuple[Plain, ...]
    finding: Finding


@dataclass(slots=True)
class Verification:
    """Result of verifying one group.

    Attributes:
        group: The group.
        positions: `online_sequence` of every source when it began, by source id.
        entities: Entities looked at.
        differing: How many are not as they should be.
        first: The first few of them.
    """

    group: str
    positions: Mapping[int, int]
    entities: int = 0
    differing: int = 0
    first: list[Difference] = field(default_factory=list)


class Verifier:
    """Compares online with history, group by group, in bounded memory.

    Args:
        history: Open history store.
        online: Open online store.
        keep: How many differences to keep per group.
        sample: Share of entities to look at, chosen by a hash of their key; 1 = all.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        history: HistoryStore,
        online: OnlineStore,
        *,
        keep: int = 10,
        sample: float = 1.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._history = history
        self._online = online
        self._keep = keep
        self._bound = int(sample * _SAMPLE_RANGE)
        self._sleep = sleep

    async def verify(self, registered: RegisteredGroup) -> Verification:
        """Verify one group.

        Raises:
            StoreUnavailable: A store could not be read.
        """
        codec = BodyCodec(registered)
        result = Verification(registered.group.name, (await self._positions())[0])
        doubtful: list[tuple[Plain, ...]] = []
        after: tuple[Plain, ...] | None = None
        while page := await self._history.scan_newest(registered.group, after=after, limit=PAGE):
            after = page[-1].key
            keys = [row.key for row in page if self._sampled(row.key)]
            result.entities += len(keys)
            findings = await self._look(codec, keys)
            doubtful += findings
            if len(doubtful) >= PAGE:
                await self._look_again(codec, doubtful, result)
                doubtful = []
        doubtful += await self._without_history(registered.group, result)
        await self._look_again(codec, doubtful, result)
        return result

    def _sampled(self, key: tuple[Plain, ...]) -> bool:
        return zlib.crc32(encode_entity(key)) < self._bound

    async def _positions(self) -> tuple[dict[int, int], dict[int, SourceKind]]:
        sources = await self._history.sources()
        return {each.id: each.online_sequence for each in sources}, {each.id: each.name.kind for each in sources}

    async def _look(self, codec: BodyCodec, keys: Sequence[tuple[Plain, ...]]) -> dict[tuple[Plain, ...], Finding]:
        """One look at some entities; those that are as they should be are left out."""
        if not keys:
            return {}
        group = codec.group
        positions, _ = await self._positions()
        online = await self._online.read([encode_key(group.id, encode_entity(key)) for key in keys])
        rows = await self._history.newest(group, keys)
        _, kinds = await self._positions()  # after the rows: a source of theirs may be new
        found = {}
        for key, value, row in zip(keys, online, rows, strict=True):
            finding = _compare(codec, value, row, positions, kinds)
            if finding is not None:
                found[key] = finding
        return found

    async def _look_again(self, codec: BodyCodec, keys: Sequence[tuple[Plain, ...]], result: Verification) -> None:
        """Look at doubtful entities until each is right or wrong for good."""
        left = dict.fromkeys(keys, Finding.PENDING)
        for number in range(LOOKS):
            if number:
                await self._sleep(LOOK_AGAIN_S)
            found: dict[tuple[Plain, ...], Finding] = {}
            for page in _pages(list(left)):
                found.update(await self._look(codec, page))
            for key, finding in found.items():
                if finding is not Finding.PENDING:
                    result.differing += 1
                    if len(result.first) < self._keep:
                        result.first.append(Difference(codec.group.name, key, finding))
            left = {key: finding for key, finding in found.items() if finding is Finding.PENDING}
            if not left:
                return
        for key, finding in left.items():
            result.differing += 1
            if len(result.first) < self._keep:
                result.first.append(Difference(codec.group.name, key, finding))

    async def _without_history(self, group: FeatureGroup, result: Verification) -> list[tuple[Plain, ...]]:
        """Entities that are online but have no row in history."""
        found: list[tuple[Plain, ...]] = []
        async for rows in online_pages(self._online, group):
            keys = [key_of_row(row, group) for row in rows]
            newest = await self._history.newest(group, keys)
            missing = [key for key, row in zip(keys, newest, strict=True) if row is None and self._sampled(key)]
            result.entities += len(missing)
            found += missing
        return found


async def online_pages(online: OnlineStore, group: FeatureGroup) -> AsyncIterator[list[OnlineRow]]:
    """Every online row of a group, in pages, in key order."""
    prefix = key_prefix(group.id)
    after: bytes | None = None
    while rows := await online.scan(prefix, after=after, limit=PAGE):
        yield rows
        after = rows[-1].key


def key_of_row(row: OnlineRow, group: FeatureGroup) -> tuple[Plain, ...]:
    """Entity key, in plain form, of an online row."""
    return decode_entity(row.key[len(key_prefix(group.id)) :], group.keys)


def _pages(keys: list[tuple[Plain, ...]]) -> Iterator[list[tuple[Plain, ...]]]:
    return (keys[at : at + PAGE] for at in range(0, len(keys), PAGE))


def _compare(
    codec: BodyCodec,
    value: bytes | None,
    row: HistoryRow | None,
    positions: Mapping[int, int],
    kinds: Mapping[int, SourceKind],
) -> Finding | None:
    """What is wrong with one entity, `PENDING` if that cannot be said yet, None if nothing is."""
    if row is None:
        return None if value is None else Finding.UNKNOWN
    version = Version(row.event_time_us, kinds[row.source_id], row.source_id, row.sequence)
    reached = row.sequence < positions.get(row.source_id, 0)
    if value is None:
        return Finding.MISSING if reached else Finding.PENDING
    try:
        stored = decode_value(value)
        if stored.version > version:
            return Finding.UNKNOWN
        if stored.version < version:
            return Finding.OLDER if reached else Finding.PENDING
        same = stored.deleted == row.deleted and (
            row.deleted or codec.read(stored.fingerprint, stored.body) == codec.read(*_body(codec, row))
        )
    except (ValueError, InvalidEvent):
        return Finding.UNREADABLE
    return None if same else Finding.DIFFERENT


def _body(codec: BodyCodec, row: HistoryRow) -> tuple[bytes, bytes]:
    """Fingerprint and body that a history row stands for: read back, its values compare as online ones do."""
    return codec.group.fingerprint, codec.encode(row.key, row.event_time_us, row.values)
