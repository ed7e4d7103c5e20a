"""Feature stores as wholes: threads, notebooks, forks, closing, new definitions, pairing, clean exits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oomstream import AsyncFeatureStore, FeatureStore
from oomstream.query.definitions import Definitions
from oomstream.schemas.catalog import Catalog, Entity
from oomstream.schemas.errors import Fatal, InvalidRequest, InvalidSetting, PairingMismatch, UnknownFeature
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import OnlineRead, SourceName
from oomstream.stores.catalog_cache import SHORTEST_INTERVAL_S, CatalogCache
from oomstream.stores.testing.samples import group
from tests.unit.query.conftest import Fill, Run
from tests.unit.query.filled import T0, Filled

ROW = [{"k": "a"}]


def open_sync(filled: Filled) -> FeatureStore:
    """A synchronous feature store over filled stores, at their time."""
    return FeatureStore.open(filled.online_url, filled.history_url, clock=lambda: filled.now_us / 1e6)


def labels(key: str = "a") -> list[dict[str, Any]]:
    """One label row after T0."""
    return [{"k": key, "event_timestamp": "2024-01-01"}]


@pytest.fixture
def filled(fill: Fill, run: Run) -> Filled:
    """One entity of one group."""
    made = fill(group("plane"))
    run(made.write("plane", ("a",), T0, 1))
    return made


def test_sync_store_inside_a_running_loop(filled: Filled) -> None:
    """In a notebook a loop already runs in the calling thread: the sync store works there, for both kinds of read."""

    async def notebook() -> tuple[Any, Any]:
        with open_sync(filled) as store:
            online = store.get_online_features(["plane.n"], ROW).to_dict()
            trained = store.get_historical_features(labels(), ["plane.n"]).to_arrow()
            return online["plane.n"], trained.column("plane.n").to_pylist()

    assert asyncio.run(notebook()) == ([1], [1])


def test_sync_store_from_many_threads(filled: Filled, run: Run) -> None:
    """Sixteen threads read at once, online values and training sets, and each gets its own answer."""
    for number in range(16):
        run(filled.write("plane", (f"k{number}",), T0, number))

    with open_sync(filled) as store, ThreadPoolExecutor(16) as pool:

        def read(number: int) -> list[Any]:
            key = f"k{number % 16}"
            answers = [store.get_online_features(["plane.n"], [{"k": key}]).to_dict()["plane.n"][0] for _ in range(5)]
            made = store.get_historical_features(labels(key), ["plane.n"]).to_arrow()
            return [*answers, *made.column("plane.n").to_pylist()]

        for number, answer in enumerate(pool.map(read, range(32))):
            assert answer == [number % 16] * 6


def test_sync_store_without_a_synchronous_read(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """An online store that can only be awaited is read through the background loop."""
    monkeypatch.setattr(AsyncFeatureStore, "read_sync", lambda self: None)
    with open_sync(filled) as store:
        assert store.get_online_features(["plane.n"], ROW).to_dict() == {"k": ["a"], "plane.n": [1]}


def test_closed_store_says_so(filled: Filled) -> None:
    """A closed store refuses with a sentence; closing twice is harmless; its thread is gone."""
    store = open_sync(filled)
    store.close()
    store.close()
    with pytest.raises(InvalidRequest, match="is closed"):
        store.get_online_features(["plane.n"], ROW)
    assert not [thread for thread in threading.enumerate() if thread.name == "oomstream-query"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_store_from_before_a_fork_says_so(filled: Filled) -> None:
    """In a forked child the parent's store refuses with a sentence, a new one works, and the parent's goes on."""
    code = f"""
import os, sys
from oomstream import FeatureStore
from oomstream.schemas.errors import InvalidRequest
urls = {filled.online_url!r}, {filled.history_url!r}
store = FeatureStore.open(*urls)
store.get_online_features(["plane.n"], [{{"k": "a"}}])
child = os.fork()
if not child:
    try:
        store.get_online_features(["plane.n"], [{{"k": "a"}}])
    except InvalidRequest as exc:
        assert "fork" in str(exc)
        with FeatureStore.open(*urls) as own:
            ok = own.get_online_features(["plane.n"], [{{"k": "a"}}]).to_dict()["plane.n"] == [1]
        store.close()
        os._exit(0 if ok else 3)
    os._exit(4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert store.get_online_features(["plane.n"], [{{"k": "a"}}]).to_dict()["plane.n"] == [1]
store.close()
"""
    run_python(code)


def test_process_exits_cleanly_with_a_store_left_open(filled: Filled) -> None:
    """A script that never closes its store ends at once, with exit code 0 and nothing on stderr."""
    code = f"""
from oomstream import FeatureStore
store = FeatureStore.open({filled.online_url!r}, {filled.history_url!r})
store.get_online_features(["plane.n"], [{{"k": "a"}}])
store.get_historical_features([{{"k": "a", "event_timestamp": "2024-01-01"}}], ["plane.n"])
"""
    assert run_python(code).stderr == ""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a child process, which must end well."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_async_store_by_with_and_by_await(filled: Filled, run: Run) -> None:
    """The async store opens by `async with` and by `await`; defaults come from the settings."""

    async def both() -> list[Any]:
        store = await AsyncFeatureStore.open(filled.online_url, filled.history_url)
        first = await store.get_online_features(["plane.n"], ROW)
        await store.close()
        async with AsyncFeatureStore.open() as other:
            second = await other.get_online_features(["plane.n"], ROW)
        return [first.to_dict(), second.to_dict()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OOMSTREAM_ONLINE_URL", filled.online_url)
        patch.setenv("OOMSTREAM_HISTORY_URL", filled.history_url)
        assert run(both()) == [{"k": ["a"], "plane.n": [1]}] * 2


@pytest.mark.parametrize("sync", [True, False])
def test_new_definitions_are_picked_up_without_reopening(filled: Filled, run: Run, sync: bool) -> None:
    """A feature added after opening is found, old rows have its default; an unknown one is still an error."""
    wider = group("plane", {"n": "long", "m": {"type": "long", "default": 7}})

    async def awaited() -> Any:
        async with filled.store() as store:
            await store.get_online_features(["plane.n"], ROW)
            await filled.register(wider)
            await filled.write("plane", ("b",), T0, 2, 3)
            return (await store.get_online_features(["plane.m"], [{"k": "a"}, {"k": "b"}])).to_dict()

    if sync:
        with open_sync(filled) as store:
            store.get_online_features(["plane.n"], ROW)
            run(filled.register(wider))
            run(filled.write("plane", ("b",), T0, 2, 3))
            answer = store.get_online_features(["plane.m"], [{"k": "a"}, {"k": "b"}]).to_dict()
            with pytest.raises(UnknownFeature, match=r"plane\.q"):
                store.get_online_features(["plane.q"], ROW)
    else:
        answer = run(awaited())
    assert answer["plane.m"] == [7, 3]


@pytest.mark.parametrize("sync", [True, False])
def test_body_of_a_newer_definition_is_read(filled: Filled, run: Run, sync: bool) -> None:
    """A value of a definition newer than the store's copy makes it read the catalog anew, and is answered."""
    wider = group("plane", {"n": "long", "m": ["null", "long"]})

    async def awaited() -> Any:
        async with filled.store() as store:
            await store.get_online_features(["plane.n"], ROW)
            await filled.register(wider)
            await filled.write("plane", ("a",), T0 + 1, 2, 3)
            return (await store.get_online_features(["plane.n"], ROW)).to_dict()

    if sync:
        with open_sync(filled) as store:
            store.get_online_features(["plane.n"], ROW)
            run(filled.register(wider))
            run(filled.write("plane", ("a",), T0 + 1, 2, 3))
            answer = store.get_online_features(["plane.n"], ROW).to_dict()
    else:
        answer = run(awaited())
    assert answer == {"k": ["a"], "plane.n": [2]}


def test_body_of_no_definition_is_a_typed_error(filled: Filled, run: Run) -> None:
    """An online value of a definition that history does not have names the group and both stores."""
    stray = group("plane", {"other": "double"})
    registered = filled.catalog.groups["plane"]
    from oomstream.schemas.online_value import OnlineRow, decode_value, encode_key, encode_value
    from oomstream.schemas.versions import Version

    value = encode_value(Version(T0, 3, 1, 9).pack(), T0, stray.fingerprint, False, b"x")
    assert decode_value(value).fingerprint == stray.fingerprint
    run(filled.online.upsert_newer([OnlineRow(encode_key(registered.group.id, b"\x01a\0\0"), value)]))
    with open_sync(filled) as store, pytest.raises(Fatal, match=r"online\.db.*group plane.*history\.db"):
        store.get_online_features(["plane.n"], ROW)


def test_catalog_is_reloaded_rarely_and_shared(run: Run) -> None:
    """Reloads that wait together are one read, and reads are a second apart; each sees what came before its call."""

    class Counting:
        """A history whose catalog tells the number of the read."""

        reads = 0

        async def load_catalog(self) -> Catalog:
            """One with as many entities as there were reads."""
            self.reads += 1
            return Catalog({str(number): Entity(str(number)) for number in range(self.reads)})

    class Time:
        """A clock that moves when somebody sleeps."""

        now = 100.0

        def __call__(self) -> float:
            """What it shows."""
            return self.now

        async def sleep(self, seconds: float) -> None:
            """Move on."""
            await asyncio.sleep(0)
            self.now += seconds

    async def scenario() -> tuple[list[Any], float]:
        history: Any = Counting()
        clock = Time()
        definitions = Definitions(CatalogCache(history, clock=clock, sleep=clock.sleep))
        first = await definitions.reload()
        clock.now += SHORTEST_INTERVAL_S / 4
        later = await asyncio.gather(*(definitions.reload() for _ in range(10)))
        assert definitions.age_s == 0
        clock.now += 31
        assert definitions.age_s > 30
        return [len(first.catalog.entities), *{len(each.catalog.entities) for each in later}], clock.now

    assert run(scenario()) == ([1, 2], 100.0 + SHORTEST_INTERVAL_S + 31)


def test_changed_ttl_counts_after_the_refresh(filled: Filled, run: Run) -> None:
    """A ttl that was changed is used by training sets at once, and by online reads after the copy was read again."""
    filled.now_us = T0 + 2_000_000

    async def scenario() -> tuple[Any, Any, Any]:
        async with filled.store() as store:
            before = (await store.get_online_features(["plane.n"], ROW)).to_dict()
            await filled.register(group("plane", ttl="1s"))
            row = [{"k": "a", "event_timestamp": "2023-11-14T22:13:22Z"}]
            trained = await store.get_historical_features(row, ["plane.n"])
            await store._definitions.reload()
            after = await store.get_online_features(["plane.n"], ROW)
            return before["plane.n"], trained.to_arrow().column("plane.n").to_pylist(), after.statuses["plane.n"]

    assert run(scenario()) == ([1], [None], ["OUTSIDE_MAX_AGE"])


def test_wrong_pair_is_refused(filled: Filled, run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stores of two different pairs, or never initialised, are refused by name before anything is read."""
    other: Filled = run(Filled(tmp_path_factory.mktemp("other"), [group("plane")]).open())
    run(other.close())
    with pytest.raises(PairingMismatch, match=r"online\.db"):
        FeatureStore.open(other.online_url, filled.history_url)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InvalidSetting, match="not initialised"):
        FeatureStore.open(f"sqlite:///{empty / 'o.db'}", f"sqlite:///{empty / 'h.db'}")
    with pytest.raises(InvalidSetting, match="nosuch"):
        FeatureStore.open("nosuch://x", filled.history_url)
    assert not [thread for thread in threading.enumerate() if thread.name == "oomstream-query"]


def test_opening_finishes_what_a_killed_push_left(filled: Filled, run: Run, tmp_path: Path) -> None:
    """A push that was killed between history and online can be read once a feature store was opened."""
    name = SourceName(SourceKind.PUSH, "local", "killed")

    async def killed() -> None:
        from oomstream.schemas.events import Event
        from oomstream.schemas.keys import encode_entity
        from oomstream.stores.base import HistoryBatch

        source = await filled.history.claim(name)
        event = Event(0, ("p",), encode_entity(("p",)), T0, False, (5,), b"")
        await filled.history.append(source, HistoryBatch(filled.catalog.group("plane"), [event], 1, 0))

    run(killed())
    with open_sync(filled) as store:
        assert store.get_online_features(["plane.n"], [{"k": "p"}]).to_dict()["plane.n"] == [5]


def test_age_of_an_answer_is_told(filled: Filled, run: Run) -> None:
    """Where a store answers with an earlier state, the response says how old it is."""
    filled.now_us = T0

    async def scenario() -> int:
        async with filled.store() as store:
            read = store._online.read

            async def earlier(keys: Sequence[bytes]) -> OnlineRead:
                return OnlineRead(await read(keys), 1_500)

            store._online.read_aged = earlier  # type: ignore[method-assign]
            return (await store.get_online_features(["plane.n"], ROW)).age_us

    assert run(scenario()) == 1_500


class _StuckHistory:
    """A history store's `load_catalog` that does not return before it is cancelled."""

    def __init__(self) -> None:
        self.entered = threading.Event()

    async def load_catalog(self) -> Any:
        self.entered.set()
        await asyncio.Event().wait()


def test_closing_ends_calls_in_flight(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that another thread waits for when the store is closed ends with a sentence; nothing waits for ever."""
    store = open_sync(filled)
    stuck = _StuckHistory()
    monkeypatch.setattr(store._inner._history, "load_catalog", stuck.load_catalog)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.get_historical_features, labels(), ["plane.n"])
        assert stuck.entered.wait(30)
        closing = threading.Thread(target=store.close, daemon=True)
        closing.start()
        with pytest.raises(InvalidRequest, match="this FeatureStore is closed"):
            waiting.result(30)
        closing.join(30)
        assert not closing.is_alive()


def test_calls_while_another_thread_closes(filled: Filled) -> None:
    """Calls of both kinds from threads, while one closes the store, give values or say that it is closed."""
    for _ in range(5):
        store = open_sync(filled)
        begun = threading.Barrier(4)
        ends: list[str] = []

        def call(store: FeatureStore = store, begun: threading.Barrier = begun, ends: list[str] = ends) -> None:
            begun.wait()
            try:
                while True:
                    store.get_online_features(["plane.n"], ROW)
                    store.get_historical_features(labels(), ["plane.n"])
            except InvalidRequest as exc:
                ends.append(str(exc))

        threads = [threading.Thread(target=call, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        store.close()
        for thread in threads:
            thread.join(30)
        assert ends == ["this FeatureStore is closed"] * 3


def test_store_collected_in_its_own_loop(filled: Filled) -> None:
    """A store that nobody holds any more, collected while its own loop runs, closes without waiting for itself."""
    store = open_sync(filled)
    thread = store._thread
    holder = [store]
    del store
    thread.call_soon(holder.clear)
    thread._thread.join(30)
    assert not thread._thread.is_alive()


def test_async_store_that_is_not_open_says_so(filled: Filled, run: Run) -> None:
    """Calls before `async with` or `await`, and after close, are one typed sentence that says what to do."""
    store = filled.store()

    async def ask() -> None:
        with pytest.raises(InvalidRequest, match="not open: use it inside `async with`, or `await` it first"):
            await store.get_online_features(["plane.n"], ROW)
        with pytest.raises(InvalidRequest, match="not open: use it inside `async with`, or `await` it first"):
            await store.get_historical_features(labels(), ["plane.n"])

    async def use() -> None:
        await ask()
        async with store:
            await store.get_online_features(["plane.n"], ROW)
        await ask()

    run(use())
