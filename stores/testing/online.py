"""What every online store must do."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import cast

import pytest
from hypothesis.stateful import run_state_machine_as_test

from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import OnlineRow, encode_key, encode_value
from oomstream.schemas.versions import SourceKind, Version
from oomstream.stores.base import OnlineChange, OnlineStore
from oomstream.stores.testing.online_machine import OnlineMachine
from oomstream.stores.testing.suite import Run, Suite


def row(name: str | bytes, *version: int, body: bytes = b"body", group: int = 1, deleted: bool = False) -> OnlineRow:
    """An online row; `version` fills event time, kind, source id and sequence from the left."""
    version = (*version, *(0, SourceKind.TOPIC, 1, 0)[len(version) :])
    packed = Version(*version).pack()
    value = encode_value(packed, 7, b"finger__", deleted, b"" if deleted else body)
    return OnlineRow(encode_key(group, encode_entity((name,))), value)


class OnlineStoreConformance(Suite):
    """The suite; a subclass whose name begins with ``Test`` runs it."""

    @abstractmethod
    def store(self, place: str) -> OnlineStore:
        """A store on a place, not opened; two of one place are two clients of the same data."""

    @abstractmethod
    async def raw_read(self, place: str, key: bytes) -> bytes | None:
        """Read one stored value without the store."""

    @abstractmethod
    async def raw_write(self, place: str, row: OnlineRow) -> None:
        """Write one row without the store, whatever is there."""

    @pytest.fixture
    def opened(self, place: str, run: Run) -> Iterator[OnlineStore]:
        """An opened store that is ready for use."""
        store = self.store(place)
        run(store.open())
        run(store.init())
        yield store
        run(store.close())

    def test_unknown_keys_are_none(self, opened: OnlineStore, run: Run) -> None:
        """A key that was never written reads as None, in its place among the others."""
        known = row("a", 1)
        run(opened.upsert_newer([known]))
        assert run(opened.read([b"x", known.key, b"", known.key + b"\0"])) == [None, known.value, None, None]

    def test_no_keys_and_no_rows(self, opened: OnlineStore, run: Run) -> None:
        """Zero keys give zero values; zero rows write nothing."""
        assert run(opened.read([])) == []
        assert run(opened.upsert_newer([])) == 0
        run(opened.delete([]))

    def test_order_and_duplicates_of_keys_are_kept(self, opened: OnlineStore, run: Run) -> None:
        """Values come in the order asked, a key asked twice twice."""
        a, b = row("a", 1), row("b", 1, body=b"other")
        run(opened.upsert_newer([b, a]))
        assert run(opened.read([b.key, a.key, b.key])) == [b.value, a.value, b.value]

    def test_what_is_written_is_stored_as_it_is(self, opened: OnlineStore, place: str, run: Run) -> None:
        """The stored bytes, read around the store, are the bytes that were written."""
        rows = [row(name, 1, body=body) for name, body in (("a", b""), ("b\0", bytes(range(256))), ("ü🚀", b"\0"))]
        assert run(opened.upsert_newer(rows)) == len(rows)
        for each in rows:
            assert run(self.raw_read(place, each.key)) == each.value

    def test_what_stands_there_is_read_as_it_is(self, opened: OnlineStore, place: str, run: Run) -> None:
        """Bytes that were written around the store are read, and compared before the next write."""
        stored = row("a", 5)
        run(self.raw_write(place, stored))
        assert run(opened.read([stored.key])) == [stored.value]
        assert run(opened.upsert_newer([row("a", 4)])) == 0
        assert run(self.raw_read(place, stored.key)) == stored.value
        assert run(opened.upsert_newer([row("a", 6)])) == 1

    @pytest.mark.parametrize(
        ("older", "newer"),
        [
            ((1,), (2,)),
            ((-5,), (3,)),
            ((-5,), (-4,)),
            ((1, SourceKind.FILE, 9, 9), (1, SourceKind.PUSH, 1, 0)),
            ((1, SourceKind.PUSH, 9, 9), (1, SourceKind.TOPIC, 1, 0)),
            ((1, SourceKind.TOPIC, 1, 9), (1, SourceKind.TOPIC, 2, 0)),
            ((1, SourceKind.TOPIC, 255, 9), (1, SourceKind.TOPIC, 256, 0)),
            ((1, SourceKind.TOPIC, 1, 255), (1, SourceKind.TOPIC, 1, 256)),
            ((1, SourceKind.TOPIC, 1, 9), (2, SourceKind.FILE, 0, 0)),
        ],
    )
    def test_greatest_version_stays(
        self, opened: OnlineStore, run: Run, older: tuple[int, ...], newer: tuple[int, ...]
    ) -> None:
        """Case 43: an older write after a newer one changes nothing; part by part, the greater version wins."""
        first, second = row("a", *older, body=b"old"), row("a", *newer, body=b"new")
        assert run(opened.upsert_newer([first])) == 1
        assert run(opened.upsert_newer([second])) == 1
        assert run(opened.upsert_newer([first])) == 0
        assert run(opened.read([first.key])) == [second.value]

    def test_equal_version_is_not_written_again(self, opened: OnlineStore, run: Run) -> None:
        """The same identity again changes nothing, even with other bytes; with or_equal it is rewritten."""
        first, other = row("a", 1, body=b"first"), row("a", 1, body=b"repaired")
        run(opened.upsert_newer([first]))
        assert run(opened.upsert_newer([other])) == 0
        assert run(opened.read([first.key])) == [first.value]
        assert run(opened.upsert_newer([other], or_equal=True)) == 1
        assert run(opened.upsert_newer([row("a", 0)], or_equal=True)) == 0
        assert run(opened.read([first.key])) == [other.value]

    def test_correction_at_equal_time(self, opened: OnlineStore, run: Run) -> None:
        """Case 44: at equal event time the later sequence of the same source is applied."""
        run(opened.upsert_newer([row("a", 1, SourceKind.TOPIC, 1, 10)]))
        corrected = row("a", 1, SourceKind.TOPIC, 1, 11, body=b"corrected")
        assert run(opened.upsert_newer([corrected])) == 1
        assert run(opened.read([corrected.key])) == [corrected.value]

    def test_delete_row_holds_against_older_rows(self, opened: OnlineStore, run: Run) -> None:
        """A delete is a row like any other: a late older event cannot resurrect the entity, a newer one can."""
        gone = row("a", 5, deleted=True)
        run(opened.upsert_newer([row("a", 4)]))
        assert run(opened.upsert_newer([gone])) == 1
        assert run(opened.upsert_newer([row("a", 4)])) == 0
        assert run(opened.read([gone.key])) == [gone.value]
        assert run(opened.upsert_newer([row("a", 6)])) == 1

    def test_removed_rows_are_gone(self, opened: OnlineStore, place: str, run: Run) -> None:
        """Purging removes these keys only, leaves no version behind, and does no harm twice."""
        a, b = row("a", 5), row("b", 5)
        run(opened.upsert_newer([a, b]))
        run(opened.delete([a.key, b"never there"]))
        run(opened.delete([a.key]))
        assert run(opened.read([a.key, b.key])) == [None, b.value]
        assert run(self.raw_read(place, a.key)) is None
        assert run(opened.upsert_newer([row("a", 1)])) == 1

    def test_only_what_is_as_it_was_found_is_replaced(self, opened: OnlineStore, place: str, run: Run) -> None:
        """Rows are changed, even to an older version, or removed while they hold the bytes found, and not else."""
        found, other, gone = row("a", 5), row("b", 5), row("c", 5)
        run(opened.upsert_newer([found, other, gone]))
        older = row("a", 3, body=b"older").value
        changes = [
            OnlineChange(found.key, found.value, older),
            OnlineChange(other.key, other.value + b"x", row("b", 9).value),
            OnlineChange(gone.key, gone.value, None),
            OnlineChange(row("never", 1).key, b"", row("never", 1).value),
        ]
        assert run(opened.replace(changes)) == 2
        assert run(self.raw_read(place, found.key)) == older
        assert run(opened.read([other.key, gone.key, row("never", 1).key])) == [other.value, None, None]
        assert run(opened.replace(changes)) == 0
        assert run(opened.upsert_newer([row("a", 4)])) == 1
        assert run(opened.replace([])) == 0

    def test_replaced_beside_a_writer(self, opened: OnlineStore, place: str, run: Run) -> None:
        """What a writer writes meanwhile is never replaced by what was decided from what stood there before."""
        keys = range(40)
        first = [row(f"k{key}", 1) for key in keys]
        run(opened.upsert_newer(first))
        newer = [row(f"k{key}", 2, body=b"newer") for key in keys]

        async def race() -> None:
            async with self.store(place) as other:
                changes = [OnlineChange(each.key, each.value, None) for each in first]
                await asyncio.gather(opened.upsert_newer(newer), other.replace(changes))

        run(race())
        assert run(opened.read([each.key for each in newer])) == [each.value for each in newer]

    def test_scan_keeps_to_its_prefix(self, opened: OnlineStore, run: Run) -> None:
        """A scan gives the rows of one group in key order, whatever bytes stand around its prefix."""
        groups = (1, 2, 254, 255, 256, 0xFFFFFFFF)
        rows = [row(name, 1, group=group) for group in groups for name in ("b", "a", "a ", "A", "\0", "\uffff")]
        run(opened.upsert_newer(rows))
        for group in groups:
            prefix = encode_key(group, b"")
            mine = sorted(each for each in rows if each.key.startswith(prefix))
            assert run(opened.scan(prefix)) == mine
        assert run(opened.scan(encode_key(3, b""))) == []
        assert run(opened.scan(b"")) == sorted(rows)

    def test_scan_pages(self, opened: OnlineStore, run: Run) -> None:
        """Pages of any size give every row once, in order."""
        rows = sorted(row(f"k{number}", 1) for number in range(57))
        run(opened.upsert_newer(rows))
        prefix = encode_key(1, b"")
        for limit in (1, 7, 56, 57, 58):
            found: list[OnlineRow] = []
            after: bytes | None = None
            while page := run(opened.scan(prefix, after=after, limit=limit)):
                assert len(page) <= limit
                found += page
                after = page[-1].key
            assert found == rows

    def test_wide_keys_and_values(self, opened: OnlineStore, run: Run) -> None:
        """Eight key parts of 255 bytes with escapes, and a value of 1 MiB, come back as they were."""
        entity = encode_entity((b"\0" * 255,) * 8)
        wide = OnlineRow(encode_key(1, entity), row("a", 1, body=bytes(range(256)) * 4096).value)
        assert run(opened.upsert_newer([wide])) == 1
        assert run(opened.read([wide.key])) == [wide.value]

    def test_many_rows_in_one_call(self, opened: OnlineStore, run: Run) -> None:
        """Thousands of rows are written and read in one call each, however the store splits them."""
        rows = [row(f"key {number}", number, body=b"x" * (number % 97)) for number in range(20_000)]
        assert run(opened.upsert_newer(rows)) == len(rows)
        assert run(opened.upsert_newer(rows)) == 0
        assert run(opened.read([each.key for each in rows])) == [each.value for each in rows]

    def test_rows_outlive_the_store(self, opened: OnlineStore, place: str, run: Run) -> None:
        """Another store on the same place sees what was written, at once and after closing."""
        written = row("a", 1)
        run(opened.upsert_newer([written]))

        async def read_elsewhere() -> list[bytes | None]:
            async with self.store(place) as other:
                return await other.read([written.key])

        assert run(read_elsewhere()) == [written.value]
        run(opened.close())
        assert run(read_elsewhere()) == [written.value]

    def test_two_writers_at_once(self, opened: OnlineStore, place: str, run: Run) -> None:
        """Case 43: two writers race over the same keys; each key ends with the greatest version of both."""

        def written_by(writer: int) -> list[list[OnlineRow]]:
            return [
                [row(f"k{key}", (key * 7 + turn * (3 if writer else 5)) % 11, SourceKind.TOPIC, writer + 1, turn)
                 for key in range(40)]
                for turn in range(12)
            ]  # fmt: skip

        async def race() -> None:
            async with self.store(place) as other:

                async def write(store: OnlineStore, batches: Sequence[Sequence[OnlineRow]]) -> None:
                    for batch in batches:
                        await store.upsert_newer(batch)

                await asyncio.gather(write(opened, written_by(0)), write(other, written_by(1)))

        run(race())
        greatest: dict[bytes, bytes] = {}
        for each in (each for writer in (0, 1) for batch in written_by(writer) for each in batch):
            greatest[each.key] = max(greatest.get(each.key, b""), each.value)
        assert run(opened.read(list(greatest))) == list(greatest.values())

    def test_cancelled_write_leaves_the_store_usable(self, opened: OnlineStore, run: Run) -> None:
        """A write that is cancelled at any moment holds up nobody, and doing it again completes it."""
        rows = [row(f"k{number}", 1) for number in range(500)]

        async def cancel_after(steps: int) -> None:
            task = asyncio.create_task(opened.upsert_newer(rows))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for steps in range(0, 40, 3):
            run(cancel_after(steps))
        run(opened.upsert_newer(rows))
        assert run(opened.read([each.key for each in rows])) == [each.value for each in rows]

    def test_pairing(self, place: str, run: Run) -> None:
        """A place belongs to nobody before `pair`, to one history database after it; `init` again keeps that."""

        async def check() -> None:
            async with self.store(place) as store:
                assert await store.pairing_id() is None
                await store.init()
                assert await store.pairing_id() is None
                await store.pair("one")
                await store.init()
                assert await store.pairing_id() == "one"
                assert await store.scan(b"o") == []
            async with self.store(place) as store:
                assert await store.pairing_id() == "one"
                await store.pair("two")
                assert await store.pairing_id() == "two"

        run(check())

    def test_opening_and_closing(self, place: str, run: Run) -> None:
        """Closing is harmless before opening and twice; a store that was closed opens again."""
        store = self.store(place)

        async def check() -> None:
            await store.close()
            for _ in range(2):
                await store.open()
                await store.init()
                await store.upsert_newer([row("a", 1)])
                await store.close()
                await store.close()

        run(check())

    def test_any_interleaving(self) -> None:
        """Whatever two clients do in whatever order, the store equals a dict of greatest versions."""
        machine = cast("type[OnlineMachine]", lambda: OnlineMachine(self.new_place(), self.store))
        run_state_machine_as_test(machine, settings=self.machine_settings)
