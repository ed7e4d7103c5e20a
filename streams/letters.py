"""Going through dead letters: some of them, in chunks, by source, in order, and which of them are replayed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from oomstream.schemas.errors import InvalidEvent
from oomstream.schemas.framing import parse_tombstone_key
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryStore, SourceName
from oomstream.stores.forgetting import Marks
from oomstream.streams.dead_letters import DeadLetter

_CHUNK_LETTERS = 5_000
_CHUNK_BYTES = 4 << 20
_in_order = attrgetter("topic", "partition", "offset", "incarnation")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters of a topic are meant; what is None does not matter.

    Attributes:
        partition: Partition of the original record.
        offset: Its offset.
        reason: Code of the reason for which it was refused.
        since_us: Kafka timestamp of the original record, not before it; UTC microseconds.
        until_us: Kafka timestamp of the original record, before it; UTC microseconds.
    """

    partition: int | None = None
    offset: int | None = None
    reason: str | None = None
    since_us: int | None = None
    until_us: int | None = None

    def holds(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant."""
        time_us = letter.timestamp * 1000
        return (
            self.partition in {None, letter.partition}
            and self.offset in {None, letter.offset}
            and self.reason in {None, letter.reason}
            and (self.since_us is None or self.since_us <= time_us)
            and (self.until_us is None or time_us < self.until_us)
        )


class Listed(NamedTuple):
    """A dead letter in a list, without the event's key, value and headers, of which a list may hold many.

    Attributes:
        letter: The rest of it.
        replayed: Whether its event is in history by now.
    """

    letter: DeadLetter
    replayed: bool


async def first_letters(
    history: HistoryStore,
    by_group: Iterable[tuple[FeatureGroup, Iterable[DeadLetter]]],
    selection: Selection,
    *,
    limit: int,
    only_open: bool = False,
) -> list[Listed]:
    """The first dead letters in order of topic, partition and offset, with what became of them.

    Args:
        history: Open history store.
        by_group: Each group with the letters of its topic, in any order; read in a thread.
        selection: Which letters are meant.
        limit: At most this many; memory holds so many of each group, and one chunk of letters.
        only_open: Leave out those that are replayed.

    Raises:
        StoreUnavailable: History or the broker cannot be read.
    """
    first: list[Listed] = []
    for group, letters in by_group:
        meant = (letter for letter in letters if selection.holds(letter))
        first += await _first_of_group(history, group, meant, limit, only_open)
    return heapq.nsmallest(limit, first, key=lambda each: _in_order(each.letter))


async def _first_of_group(
    history: HistoryStore, group: FeatureGroup, letters: Iterable[DeadLetter], limit: int, only_open: bool
) -> list[Listed]:
    first: list[DeadLetter] = []
    read = chunks(letters)
    while chunk := await asyncio.to_thread(next, read, None):
        if only_open:
            done = await replayed_identities(history, group, chunk)
            chunk = [letter for letter in chunk if letter.identity not in done]
        slim = [replace(letter, key=None, value=None, headers=()) for letter in chunk]
        first = heapq.nsmallest(limit, [*first, *slim], key=_in_order)
    done = await replayed_identities(history, group, first)
    listed = [Listed(letter, letter.identity in done) for letter in first]
    return [each for each in listed if not (only_open and each.replayed)]


async def replayed_identities(
    history: HistoryStore, group: FeatureGroup, letters: Iterable[DeadLetter]
) -> set[tuple[str, int, int]]:
    """Identities of those letters of a group's topic whose event is in history by now.

    Args:
        history: Open history store.
        group: The group.
        letters: At most some thousands: each source is asked once.

    Raises:
        StoreUnavailable: Do it again.
    """
    found: set[tuple[str, int, int]] = set()
    for name, of_source in by_source(letters):
        source = await history.find_source(name)
        if source is not None:
            offsets = [letter.offset for letter in of_source]
            stored = await history.identities_in_history(group, source.id, offsets)
            found.update((name.incarnation, name.partition, offset) for offset in stored)
    return found


def by_source(letters: Iterable[DeadLetter]) -> Iterator[tuple[SourceName, list[DeadLetter]]]:
    """Letters of each source, by offset."""
    in_order = sorted(letters, key=attrgetter("topic", "incarnation", "partition", "offset"))
    grouped = groupby(in_order, key=attrgetter("topic", "incarnation", "partition"))
    for (topic, incarnation, partition), some in grouped:
        yield SourceName(SourceKind.TOPIC, topic, incarnation, partition), list(some)


def chunks(letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Letters in lists of bounded length and size; the last letter of one may be large."""
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        chunk.append(letter)
        size += len(letter.value or b"") + len(letter.key or b"") + sum(len(raw or b"") for _, raw in letter.headers)
        if len(chunk) == _CHUNK_LETTERS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def not_forgotten(marks: Marks | None, group: FeatureGroup, letters: Iterable[DeadLetter]) -> Iterable[DeadLetter]:
    """Leave out letters whose message key is that of an entity that was forgotten after them.

    They end with their topic's retention. What a refused value says is nobody's to know: only the message key counts.
    """
    if marks is None or not marks.concern(group.entity):
        return letters
    return (letter for letter in letters if not _forgotten(marks, group, letter))


def _forgotten(marks: Marks, group: FeatureGroup, letter: DeadLetter) -> bool:
    try:
        key = parse_tombstone_key(letter.key, group.keys)
    except InvalidEvent:
        return False
    return marks.cover(group.entity, encode_entity(key), letter.timestamp * 1000)
