"""What can be wrong with the copy of a revision that readers see is named by verify, and mended by repair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key, encode_value, key_prefix, seal_key
from oomstream.stores.revisions import Revision, Sync, SyncState
from oomstream.stores.testing.samples import group
from oomstream.streams.collect import collect
from oomstream.streams.forget import forget
from oomstream.streams.judging import Finding
from oomstream.streams.purge import purge_copy
from oomstream.streams.repair import Repaired
from oomstream.streams.repair_copy import CopyRepairer
from oomstream.streams.verification import Verification
from oomstream.streams.verify_copy import CopyVerifier
from tests.integration.accounts import T0, Accounts, key, raw_sql, read, stage
from tests.integration.backends import Backends, prepare_async
from tests.integration.planting import Planting
from tests.unit.streams.house import no_wait

ACCOUNTS = range(40)


class Copies:
    """A batch group of which a revision is online, and a way around its stores."""

    def __init__(self, the: Accounts, group_id: int) -> None:
        self.the = the
        self.group_id = group_id
        self.planting = Planting(the.settings)

    def key(self, number: int, sync_id: int = 1) -> bytes:
        """Online key of an account."""
        return encode_key(self.group_id, encode_entity((key(number),)), sync_id)

    async def value(self, number: int) -> bytes:
        """What an account has online in the first copy."""
        [value] = await self.the.online.read([self.key(number)])
        assert value is not None
        return value

    async def verify(self, *, sample: int | None = None, seed: int = 0) -> Verification:
        """Verify without waiting."""
        verifier = CopyVerifier(self.the.history, self.the.online, sleep=no_wait, sample=sample, seed=seed)
        return await verifier.verify(await self.the.registered())

    async def repair(self, *numbers: int, dry_run: bool = False) -> Repaired:
        """Repair the group, looking at some accounts only."""
        repairer = CopyRepairer(self.the.history, self.the.online, dry_run=dry_run, sleep=no_wait)
        return await repairer.repair(await self.the.registered(), [(key(number),) for number in numbers] or None)


@asynccontextmanager
async def copies_on(backends: Backends) -> AsyncIterator[Copies]:
    """Forty accounts online, of a revision that got its time from its sync, after an older one."""
    async with stage(backends) as the:
        await the.publish(1, range(50), time=1)
        await the.publish(2, ACCOUNTS)
        await the.sync()
        yield Copies(the, (await the.registered()).group.id)


def changed(value: bytes, body: bytes | None = None, *, ingest_time_us: int | None = None, **version: int) -> bytes:
    """An online value of another version, body or ingest time."""
    stored = decode_value(value)
    return encode_value(
        stored.version._replace(**version).pack(),
        stored.ingest_time_us if ingest_time_us is None else ingest_time_us,
        stored.fingerprint,
        stored.deleted,
        stored.body if body is None else body,
    )


async def remove(rows: Copies, number: int) -> None:
    """The row is gone."""
    await rows.planting.remove_online(rows.key(number))


async def rewind(rows: Copies, number: int) -> None:
    """The row is of the revision before."""
    await rows.planting.put_online(rows.key(number), changed(await rows.value(number), event_time_us=1, sequence=2))


async def invent(rows: Copies, number: int) -> None:
    """The row is of a revision that is not there yet."""
    await rows.planting.put_online(rows.key(number), changed(await rows.value(number), sequence=99))


async def falsify(rows: Copies, number: int) -> None:
    """The row has another value."""
    body = decode_value(await rows.value(number)).body
    other = body[:-1] + bytes([body[-1] ^ 1])
    await rows.planting.put_online(rows.key(number), changed(await rows.value(number), other))


async def misdate(rows: Copies, number: int) -> None:
    """The row says that its revision was published at another time."""
    await rows.planting.put_online(rows.key(number), changed(await rows.value(number), ingest_time_us=1))


async def scribble(rows: Copies, number: int) -> None:
    """The value is nothing of ours."""
    await rows.planting.put_online(rows.key(number), b"\xff" * 30)


FAULTS = [
    (remove, Finding.MISSING),
    (rewind, Finding.OLDER),
    (invent, Finding.UNKNOWN),
    (falsify, Finding.DIFFERENT),
    (misdate, Finding.DIFFERENT),
    (scribble, Finding.UNREADABLE),
]


@pytest.mark.parametrize(("plant", "finding"), FAULTS)
def test_each_fault_is_named_and_mended(
    backends: Backends, plant: Callable[[Copies, int], Awaitable[None]], finding: Finding
) -> None:
    """A fault planted around the product is named; a dry run says it; repair syncs the same revision again."""

    async def scenario() -> None:
        async with copies_on(backends) as rows, AsyncFeatureStore.open(settings=rows.the.settings) as store:
            clean = await rows.verify()
            assert clean.copy is not None
            assert (clean.entities, clean.differing, clean.moving, clean.first) == (40, 0, 0, [])
            assert (clean.copy.sync.id, clean.copy.revision.id) == (1, 3)
            await plant(rows, 7)
            found = await rows.verify()
            assert [(each.key, each.finding) for each in found.first] == [((key(7),), finding)]
            assert (found.entities, found.differing) == (40, 1)
            dry = await rows.repair(dry_run=True)
            assert await rows.the.copies_online() == {1: 39 if finding is Finding.MISSING else 40}
            unasked = await rows.repair(3, 4)
            assert (unasked.entities, unasked.written, unasked.synced) == (2, 0, None)
            done = await rows.repair(7)
            assert dict(dry.found) == dict(done.found) == {finding: 1}
            assert dry.synced is None
            assert done.synced is not None
            assert (done.synced.revision_id, done.synced.entities) == (3, 40)
            again = await rows.verify()
            assert again.copy is not None
            assert (again.entities, again.differing, again.copy.sync.id) == (40, 0, 2)
            await store.refresh()
            assert (await read(store, [6, 7]))["state.note"] == [None, "note 2"]

    asyncio.run(scenario())


def test_rows_of_nobody(backends: Backends) -> None:
    """Rows of accounts that the revision does not have, and keys that are no account's, are named."""

    async def scenario() -> None:
        async with copies_on(backends) as rows:
            strays = [rows.key(45), seal_key(rows.group_id, 1) + b"\x09"]
            for stray in strays:
                await rows.planting.put_online(stray, await rows.value(7))
            await rows.planting.put_online(key_prefix(rows.group_id, 77) + b"\x09", b"of a copy that nobody sees")
            found = await rows.verify()
            assert {each.finding for each in found.first} == {Finding.UNKNOWN}
            assert {each.key for each in found.first} == {(key(45),), (strays[1],)}
            assert (found.entities, found.differing) == (42, 2)
            done = await rows.repair()
            assert (done.written, done.removed) == (0, 2)
            assert (await rows.verify()).differing == 0

    asyncio.run(scenario())


def test_a_copy_that_no_reader_can_use(backends: Backends) -> None:
    """Without the copy, or without its seal alone, all its entities count as wrong, and repair brings them back."""

    async def scenario() -> None:
        async with copies_on(backends) as rows:
            await rows.the.online.delete([seal_key(rows.group_id, 1)])
            for sync_id in (1, 2):
                found = await rows.verify()
                assert (found.entities, found.differing) == (40, 40)
                assert [(each.key, each.finding) for each in found.first] == [((), Finding.UNSEALED)]
                assert (await rows.verify(sample=7)).differing == 7
                done = await rows.repair()
                assert (done.entities, done.written) == (40, 40)
                assert (await rows.verify()).differing == 0
                await purge_copy(rows.the.online, rows.group_id, sync_id + 1)

    asyncio.run(scenario())


def test_a_sample(backends: Backends) -> None:
    """A sample is of so many entities of the revision, the same ones for the same seed."""

    async def scenario() -> None:
        async with copies_on(backends) as rows:
            for number in ACCOUNTS:
                await falsify(rows, number)
            samples = [await rows.verify(sample=5, seed=seed) for seed in (1, 1, 2)]
            assert [(each.entities, each.differing) for each in samples] == [(5, 5)] * 3
            one, same, other = ([each.key for each in sample.first] for sample in samples)
            assert one == same != other

    asyncio.run(scenario())


def test_nothing_online(backends: Backends) -> None:
    """A group without data, and one that was never synced, have nothing that could differ and nothing to mend."""

    async def scenario() -> None:
        async with stage(backends) as the:
            rows = Copies(the, (await the.registered()).group.id)
            for _ in range(2):
                found = await rows.verify()
                assert (found.entities, found.differing, found.copy) == (0, 0, None)
                assert (await rows.repair()).synced is None
                await the.publish(1, ACCOUNTS)

    asyncio.run(scenario())


def test_older_and_newer_definitions(backends: Backends) -> None:
    """Rows written before a feature came or went are right; what they say of the others is compared all the same."""

    async def scenario() -> None:
        async with copies_on(backends) as rows:
            features = {"said": "long", "note": ["null", "string"], "grade": {"type": "int", "default": 5}}
            added = group("state", features, {"account": "string"}, entity="account", category="batch")
            await prepare_async(rows.the.settings, [added])
            assert (await rows.verify()).differing == 0
            await falsify(rows, 7)
            found = await rows.verify()
            assert [each.finding for each in found.first] == [Finding.DIFFERENT]
            await rows.repair()
            assert (await rows.verify()).differing == 0

    asyncio.run(scenario())


def test_linked_tables(backends: Backends) -> None:
    """A linked table that was changed since its sync differs; repair brings it online as it is, or says why not."""

    async def scenario() -> None:
        async with stage(backends) as the:
            rows = Copies(the, (await the.registered()).group.id)
            values = ", ".join(f"('{key(number)}', {number}, 'note')" for number in range(5))
            raw_sql(
                the.settings,
                "CREATE TABLE warehouse (account VARCHAR(40), said BIGINT, note VARCHAR(40))",
                f"INSERT INTO warehouse VALUES {values}",
            )
            await the.history.link_revision((await the.registered()).group, "warehouse", time_us=T0)
            await the.sync()
            assert (await rows.verify()).differing == 0
            raw_sql(the.settings, f"UPDATE warehouse SET said = 77 WHERE account = '{key(2)}'")
            raw_sql(the.settings, f"DELETE FROM warehouse WHERE account = '{key(3)}'")
            found = await rows.verify()
            assert dict(found.found) == {Finding.DIFFERENT: 1, Finding.UNKNOWN: 1}
            assert (await rows.repair()).synced is not None
            assert (await rows.verify()).differing == 0
            raw_sql(the.settings, f"UPDATE warehouse SET said = NULL WHERE account = '{key(2)}'")
            with pytest.raises(InvalidRequest, match="said is null"):
                await rows.verify()

    asyncio.run(scenario())


def test_beside_syncs_and_forgetting(backends: Backends) -> None:
    """While syncs, purges and forgetting go on, verify never finds anything, and it ends."""

    async def scenario() -> None:
        async with stage(backends, metadata_max_age_us=500_000) as the:
            rows = Copies(the, (await the.registered()).group.id)
            revisions = [await the.publish(of, range(300), time=of) for of in (1, 2)]
            await the.sync()
            catalog, verified = await the.history.load_catalog(), 0

            async def disturb() -> None:
                turn = 0
                while verified < 6:
                    await the.sync(revision_id=revisions[turn % 2].id, purge_delay_s=0)
                    await forget(the.history, the.online, catalog, "account", [(key(turn),)])
                    await collect(the.history, the.online)
                    turn += 1

            async def verify() -> None:
                nonlocal verified
                for _ in range(6):
                    found = await CopyVerifier(the.history, the.online).verify(await the.registered())
                    assert (found.differing, found.first) == (0, [])
                    assert found.entities > 200
                    verified += 1

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(disturb())
                tasks.create_task(verify())
            assert (await rows.verify()).differing == 0

    asyncio.run(scenario())


def test_a_sync_meanwhile_is_not_undone(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision that was synced while a repair was about to sync another stays online, and is what is looked at."""

    async def scenario() -> None:
        async with copies_on(backends) as rows:
            await falsify(rows, 7)
            newer: list[Revision] = []
            begin = rows.the.history.begin_sync

            async def begin_late(*of: object, **how: float) -> Sync:
                monkeypatch.undo()
                newer.append(await rows.the.publish(4, ACCOUNTS))
                await rows.the.sync(revision_id=newer[0].id)
                return await begin(*of, **how)  # type: ignore[arg-type]

            monkeypatch.setattr(rows.the.history, "begin_sync", begin_late)
            done = await rows.repair()
            assert done.copy is not None
            assert (done.synced, done.written, done.copy.revision.id) == (None, 0, newer[0].id)
            assert (await rows.the.registered()).online_revision_id == newer[0].id
            states = {each.id: each.state for each in await rows.the.history.syncs()}
            assert states == {1: SyncState.RETIRED, 2: SyncState.LIVE, 3: SyncState.WRITING}
            assert [each.id for each in await rows.the.history.due_purges()] == [3]

    asyncio.run(scenario())


def test_an_entity_that_is_being_forgotten(backends: Backends) -> None:
    """A row online of a forgotten entity counts only when all looks have found it, as `forget` may be under way."""

    async def scenario() -> None:
        async with copies_on(backends) as rows:
            stored = await rows.value(7)
            await forget(
                rows.the.history, rows.the.online, await rows.the.history.load_catalog(), "account", [(key(7),)]
            )
            await rows.planting.put_online(rows.key(7), stored)
            looks = 0

            async def look(seconds: float) -> None:
                nonlocal looks
                looks += 1
                if looks == 5:
                    await rows.the.online.delete([rows.key(7)])

            under_way = await CopyVerifier(rows.the.history, rows.the.online, sleep=look).verify(
                await rows.the.registered()
            )
            assert (under_way.entities, under_way.differing, looks) == (40, 0, 5)
            await rows.the.online.upsert_newer([OnlineRow(rows.key(7), stored)])
            left = await rows.verify()
            assert [(each.key, each.finding) for each in left.first] == [((key(7),), Finding.UNKNOWN)]
            await rows.repair()
            assert (await rows.verify()).entities == 39

    asyncio.run(scenario())
