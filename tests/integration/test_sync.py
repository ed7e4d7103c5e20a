"""Revisions online: sync, going back, and what readers see meanwhile, on every pair of stores."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.query.online import FeatureStatus
from oomstream.query.sync import FeatureStore
from oomstream.schemas.errors import EmptyGroup, InvalidRequest, StoreUnavailable, UnknownRevision
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import encode_key, key_prefix, seal_key
from oomstream.stores.revisions import SyncState
from oomstream.stores.testing.samples import group
from oomstream.streams.collect import collect
from oomstream.streams.forget import forget
from oomstream.streams.purge import purge_copy
from oomstream.streams.push import LocalWriter
from oomstream.streams.sync import sync_group
from tests.integration.accounts import NAMES, T0, key, raw_sql, read, stage
from tests.integration.backends import Backends

READERS, READS, SYNCS, ACCOUNTS_READ = 20, 10_000, 9, 7
_NOT_YET, _NULL, _THERE = FeatureStatus.NOT_FOUND, FeatureStatus.NULL_VALUE, FeatureStatus.PRESENT


def at(time: int) -> datetime:
    """Microseconds after T0 as a datetime."""
    return datetime.fromtimestamp((T0 + time) // 1_000_000, UTC).replace(microsecond=time)


def test_sync_and_going_back(backends: Backends) -> None:
    """Readers see nothing before the first sync, then the synced revision with its time, then an older one again."""

    async def scenario() -> None:
        async with stage(backends) as the, AsyncFeatureStore.open(settings=the.settings) as store:
            one, two = await the.publish(1, range(4), time=1), await the.publish(2, range(2, 6), time=2)
            before = await read(store, [0, 5])
            assert before["state.said"] == [None, None]
            assert before["statuses"]["state.note"] == [_NOT_YET] * 2
            for revision, values in ((one, [1, 1, 1, None]), (two, [None, None, 2, 2]), (one, [1, 1, 1, None])):
                seen: list[int] = []
                report = await the.sync(revision_id=revision.id, progress=seen.append)
                assert (report.entities, report.revision, seen[-1]) == (4, revision, 4)
                await store.refresh()
                found = await read(store, [0, 1, 3, 5])
                assert found["state.said"] == values
                there = [each is not None for each in values]
                assert found["statuses"]["state.said"] == [_THERE if each else _NOT_YET for each in there]
                time = at(revision.time_us - T0)
                assert found["times"]["state.said"] == [time if each else None for each in there]
            assert found["statuses"]["state.note"] == [_NULL, _THERE, _THERE, _NOT_YET]
            newest = await the.sync()
            assert newest.revision == two

    asyncio.run(scenario())


def test_what_cannot_be_synced(backends: Backends) -> None:
    """Groups without data, revisions of other groups, and of stream groups, are refused by name; nothing changes."""

    async def scenario() -> None:
        other = group("other", {"n": "long"}, {"account": "string"}, entity="account", category="batch")
        stream = group("clicks", {"n": "long"}, {"account": "string"}, entity="account")
        async with stage(backends, other, stream) as the:
            catalog = await the.history.load_catalog()
            for name in ("state", "clicks"):
                with pytest.raises(EmptyGroup, match=f"group {name} doesn't have any revision"):
                    await sync_group(the.history, the.online, catalog.groups[name])
            with pytest.raises(UnknownRevision, match="doesn't have revision 2"):
                await the.sync(revision_id=2)
            made = await the.publish(1, range(3))
            for revision_id in (1, made.id + 1, 999):
                with pytest.raises(UnknownRevision, match=rf"state doesn't have revision {revision_id} \(it has: 2\)"):
                    await the.sync(revision_id=revision_id)
            with pytest.raises(UnknownRevision, match="other doesn't have revision 2"):
                await sync_group(the.history, the.online, catalog.groups["other"], revision_id=made.id)
            with pytest.raises(InvalidRequest, match="stream group"):
                await sync_group(the.history, the.online, catalog.groups["clicks"], revision_id=made.id)
            with pytest.raises(InvalidRequest, match="negative"):
                await the.sync(purge_delay_s=-1)
            assert await the.history.syncs() == []
            assert await the.rows_online() == []

    asyncio.run(scenario())


def test_sync_of_a_stream_group(backends: Backends) -> None:
    """Online rows of a stream group are derived from history again; what is right stays."""

    async def scenario() -> None:
        stream = group("clicks", {"n": "long"}, {"account": "string"}, entity="account")
        async with stage(backends, stream) as the:
            async with LocalWriter(the.history, the.online, the.settings) as writer:
                for number in range(3):
                    await writer.push("clicks", {"account": key(number), "n": number})
            registered = (await the.history.load_catalog()).groups["clicks"]
            lost = [encode_key(registered.group.id, encode_entity((key(number),))) for number in range(2)]
            await the.online.delete(lost)
            report = await sync_group(the.history, the.online, registered)
            assert (report.revision, report.entities, report.written) == (None, 3, 2)
            async with AsyncFeatureStore.open(settings=the.settings) as store:
                assert (await read(store, range(4), ["clicks.n"]))["clicks.n"] == [0, 1, 2, None]

    asyncio.run(scenario())


def test_no_reader_misses_or_mixes(backends: Backends) -> None:
    """20 readers beside syncs in a loop, copies purged at once: 10,000 reads, none missing, none of two revisions."""
    accounts = range(60)

    async def scenario() -> None:
        async with stage(backends, metadata_max_age_us=500_000) as the:
            revisions = [await the.publish(of, accounts, time=of) for of in (1, 2, 3)]
            await the.sync()
            stores = [await AsyncFeatureStore.open(settings=the.settings) for _ in range(4)]
            left, seen, syncs = READS, set[int](), 0

            async def reading(number: int) -> None:
                nonlocal left
                store = stores[number % len(stores)]
                while left > 0 or syncs < SYNCS:
                    left -= 1
                    await asyncio.sleep(0)  # reads of SQLite leave the event loop to nobody
                    some = [(left * 11 + each * 7) % len(accounts) for each in range(ACCOUNTS_READ)]
                    found = (await read(store, some, ["state.said"]))["state.said"]
                    assert None not in found
                    assert len(set(found)) == 1
                    seen.update(found)

            async def syncing() -> None:
                nonlocal syncs
                while left > 0 or syncs < SYNCS:
                    await the.sync(revision_id=revisions[syncs % 3].id, purge_delay_s=0)
                    # At once, and not when readers have had their time: their seals must keep them right even then.
                    for copy in await the.history.syncs():
                        if copy.state is SyncState.RETIRED:
                            await purge_copy(the.online, copy.group_id, copy.id)
                    syncs += 1

            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(syncing())
                    for number in range(READERS):
                        tasks.create_task(reading(number))
            finally:
                for store in stores:
                    await store.close()
            assert seen == {1, 2, 3}

    asyncio.run(scenario())


def test_purges_wait_for_readers(backends: Backends) -> None:
    """A retired copy stays as long as readers need, whatever is asked; then the next sync, or gc, removes it whole."""

    async def scenario() -> None:
        async with stage(backends, metadata_max_age_us=500_000) as the:
            for of in (1, 2):
                await the.publish(of, range(1200), time=of)
            first = await the.sync(revision_id=2, purge_delay_s=0)
            assert (first.purge_delay_s, first.delay_raised, first.purged) == (0.6, True, 0)
            report = await the.sync(revision_id=3, purge_delay_s=3600)
            assert (report.purge_delay_s, report.delay_raised) == (3600, False)
            again = await the.sync(revision_id=2)
            assert (again.purged, again.delay_raised, again.purge_delay_s) == (0, False, 0.6)
            assert await the.copies_online() == {1: 1200, 2: 1200, 3: 1200}
            assert [each.id for each in await the.history.due_purges()] == []
            async with asyncio.timeout(60):  # by the history database's clock
                while (await collect(the.history, the.online)).copies == 0:
                    assert await the.copies_online() == {1: 1200, 2: 1200, 3: 1200}
            assert await the.copies_online() == {1: 1200, 3: 1200}
            assert [each.id for each in await the.history.syncs()] == [1, 3]

    asyncio.run(scenario())


def test_rows_of_a_thawed_writer_are_collected(backends: Backends) -> None:
    """Rows of a copy that the metadata does not know are removed by gc; those of copies that it knows are not."""

    async def scenario() -> None:
        async with stage(backends) as the:
            await the.publish(1, range(5))
            await the.sync()
            group_id = (await the.registered()).group.id
            [*rows] = await the.rows_online()
            stray = [row._replace(key=key_prefix(group_id, 77) + row.key[13:]) for row in rows[1:]]
            await the.online.upsert_newer(stray)
            assert await the.copies_online() == {1: 5, 77: 0}
            assert (await collect(the.history, the.online)).copies == 1
            assert await the.copies_online() == {1: 5}

    asyncio.run(scenario())


def test_forgotten_entities_of_linked_tables_stay_out(backends: Backends) -> None:
    """A linked table may still hold an entity that was forgotten: it does not come online with a revision of before."""

    async def scenario() -> None:
        async with stage(backends) as the, AsyncFeatureStore.open(settings=the.settings) as store:
            values = ", ".join(f"('{key(number)}', {number}, 'note')" for number in range(3))
            raw_sql(
                the.settings,
                "CREATE TABLE warehouse (account VARCHAR(40), said BIGINT, note VARCHAR(40))",
                f"INSERT INTO warehouse VALUES {values}",
            )
            linked = await the.history.link_revision((await the.registered()).group, "warehouse", time_us=T0)
            done = await forget(the.history, the.online, await the.history.load_catalog(), "account", [(key(1),)])
            assert done.linked == {"state": ["warehouse"]}
            report = await the.sync(revision_id=linked.id)
            assert (report.entities, report.written) == (2, 2)
            await store.refresh()
            assert (await read(store, range(3)))["state.said"] == [0, None, 2]

    asyncio.run(scenario())


def test_a_linked_table_that_was_changed_since(backends: Backends) -> None:
    """A table that cannot be a revision any more is named with its column, and what was online stays."""

    async def scenario() -> None:
        async with stage(backends) as the, AsyncFeatureStore.open(settings=the.settings) as store:
            await the.publish(1, range(3))
            await the.sync()
            for number, (change, said) in enumerate(
                (
                    ("UPDATE {} SET said = NULL", "said is null"),
                    ("UPDATE {} SET account = ''", "account is empty"),
                    ("INSERT INTO {} VALUES ('a', 5, NULL)", "twice"),
                    ("DROP TABLE {}", "not there"),
                )
            ):
                name = f"warehouse_{number}"
                raw_sql(
                    the.settings,
                    f"CREATE TABLE {name} (account VARCHAR(40), said BIGINT, note VARCHAR(40))",
                    f"INSERT INTO {name} VALUES ('a', 1, 'b')",
                )
                linked = await the.history.link_revision((await the.registered()).group, name)
                raw_sql(the.settings, change.format(name))
                with pytest.raises(InvalidRequest, match=rf"(?s){name}.*{said}"):
                    await the.sync(revision_id=linked.id)
            await store.refresh()
            assert (await read(store, range(3)))["state.said"] == [1, 1, 1]
            await collect(the.history, the.online)
            assert await the.copies_online() == {1: 3}

    asyncio.run(scenario())


def test_a_lost_copy_is_named(backends: Backends) -> None:
    """Where the copy that the metadata names is not online, readers are told so, and a sync mends it."""

    async def scenario() -> None:
        async with stage(backends) as the, AsyncFeatureStore.open(settings=the.settings) as store:
            await the.publish(1, range(3))
            await the.sync()
            await store.refresh()
            group_id = (await the.registered()).group.id
            await purge_copy(the.online, group_id, 1)
            with pytest.raises(StoreUnavailable, match="oomstream sync"):
                await read(store, [1])
            await the.sync()
            assert (await read(store, [1]))["state.said"] == [1]
            assert await the.online.read([seal_key(group_id, 2)]) != [None]

    asyncio.run(scenario())


def test_batch_and_stream_groups_in_one_read(backends: Backends) -> None:
    """One request over both kinds of groups of an entity, from code that does not await, null keys included."""
    stream = group("clicks", {"n": "long"}, {"account": "string"}, entity="account")

    async def fill() -> FeatureStore:
        async with stage(backends, stream) as the:
            async with LocalWriter(the.history, the.online, the.settings) as writer:
                await writer.push("clicks", {"account": key(1), "n": 5})
            await the.publish(1, range(2))
            await the.sync()
            return await asyncio.to_thread(FeatureStore.open, settings=the.settings)

    with asyncio.run(fill()) as store:
        names = ["clicks.n", *NAMES]
        rows = [{"account": each} for each in (key(0), None, key(1), key(1), "nobody")]
        once: Any = iter(rows)
        found = store.get_online_features(names, once).to_dict()
        assert found["clicks.n"] == [None, None, 5, 5, None]
        assert found["state.said"] == [1, None, 1, 1, None]
        assert store.get_online_features(names, []).to_dict()["state.said"] == []
