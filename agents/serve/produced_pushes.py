"""Pushes with a broker: events are produced to their topics, and awaited until workers have brought them online."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from oomstream.agents.serve.local_pushes import Row
from oomstream.agents.serve.write_stores import WriteStores
from oomstream.schemas.errors import InvalidRequest, OomstreamError
from oomstream.schemas.online_value import packed_version
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import SourceName
from oomstream.streams.broker import Broker
from oomstream.streams.producer import FeatureProducer, Sent
from oomstream.streams.topics import Incarnations

POLL_S = 0.02
LONGEST_POLL_S = 0.25


class ProducedPushes:
    """Produces events and waits until they can be read; for any number of tasks at once.

    Args:
        stores: Where the workers write.
        broker: Where the topics are.
    """

    def __init__(self, stores: WriteStores, broker: Broker) -> None:
        self.broker = broker
        self._stores = stores
        self._timeout_s = stores.settings.call_timeout_us / 1e6
        self._producer = FeatureProducer(broker, stores.settings)
        self._incarnations = Incarnations(broker, timeout_s=self._timeout_s)
        self._watch = _Watch(stores)

    async def push(self, group: str, rows: Sequence[Row]) -> None:
        """Produce events of one group; when it returns they can be read.

        Args:
            group: Its name.
            rows: All of them are found to be right before the first is sent.

        Raises:
            InvalidEvent: A value is wrong; names the field.
            InvalidRequest: The workers refused an event: it is a dead letter.
            StoreUnavailable: The broker or a store is down; the events may be there all the same.
            TimeoutError: They are in the topic, but no worker has ingested them in time.
        """
        sent = await asyncio.to_thread(self._producer.send_rows, group, rows)
        topic = sent[0].topic
        incarnation = (await asyncio.to_thread(self._incarnations.of, [topic])).get(topic, "")
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*(self._watch.until_online(each, incarnation) for each in _last_of_each(sent)))
        except TimeoutError as exc:
            raise TimeoutError(
                f"the event is in topic {topic}, but no worker has ingested it within {self._timeout_s:g} s: is one "
                "running?"
            ) from exc

    async def close(self) -> None:
        """Wait for nothing more."""
        await self._watch.close()
        await asyncio.to_thread(self._producer.flush)


def _last_of_each(sent: Sequence[Sent]) -> list[Sent]:
    """The newest event of each entity, and the last of each partition: when they are there, all are."""
    entities: dict[bytes, Sent] = {}
    for each in sent:
        kept = entities.get(each.stored_key)
        if kept is None or each.event_time_us >= kept.event_time_us:
            entities[each.stored_key] = each
    partitions = {each.partition: each for each in sent}
    return list({(each.partition, each.offset): each for each in (*entities.values(), *partitions.values())}.values())


class _Awaited(NamedTuple):
    sent: Sent
    done: asyncio.Future[None]


class _Watch:
    """Looks for all that is awaited at once: at each source's position, and at the online rows of what is in history.

    A worker stores how far it is online with its next batch, or when it has been idle for a while; the row itself
    tells sooner.
    """

    def __init__(self, stores: WriteStores) -> None:
        self._stores = stores
        self._awaited: dict[SourceName, list[_Awaited]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def until_online(self, sent: Sent, incarnation: str) -> None:
        """Wait until an event can be read.

        Raises:
            InvalidRequest: It never will, because the workers refused it.
            StoreUnavailable: A store cannot be read.
        """
        name = SourceName(SourceKind.TOPIC, sent.topic, incarnation, sent.partition)
        awaited = _Awaited(sent, asyncio.get_running_loop().create_future())
        self._awaited.setdefault(name, []).append(awaited)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await awaited.done

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        wait_s = POLL_S
        while self._forget_done():
            for name in list(self._awaited):
                try:
                    found = await self._look_at(name)
                except OomstreamError as exc:
                    found = True
                    for each in self._awaited[name]:
                        if not each.done.done():
                            each.done.set_exception(exc)
                wait_s = POLL_S if found else min(wait_s * 1.5, LONGEST_POLL_S)
            await asyncio.sleep(wait_s)

    def _forget_done(self) -> bool:
        """Keep what is still awaited; whether there is any."""
        left = {name: [each for each in all_ if not each.done.done()] for name, all_ in self._awaited.items()}
        self._awaited = {name: all_ for name, all_ in left.items() if all_}
        return bool(self._awaited)

    async def _look_at(self, name: SourceName) -> bool:
        """Tell those whose event is online, or never will be; whether there was one."""
        history, online = await self._stores.get()
        source = await history.find_source(name)
        if source is None:
            return False
        # What is looked at must not change while the rows are read.
        in_history = [each for each in self._awaited[name] if each.sent.offset < source.next_sequence]
        stored = await online.read([each.sent.stored_key for each in in_history])
        found = False
        for (sent, done), value in zip(in_history, stored, strict=True):
            version = Version(sent.event_time_us, SourceKind.TOPIC, source.id, sent.offset).pack()
            is_there = value is not None and packed_version(value) >= version
            if done.done() or not (is_there or sent.offset < source.online_sequence):
                continue
            found = True
            if is_there:
                done.set_result(None)
            else:
                done.set_exception(
                    InvalidRequest(
                        f"the workers refused the event (topic {sent.topic}, partition {sent.partition}, offset "
                        f"{sent.offset}): `oomstream dlq list` says why"
                    )
                )
        return found
