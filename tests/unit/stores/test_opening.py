"""Choosing stores by URL, and keeping the right two together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oomstream.schemas.errors import InvalidSetting, PairingMismatch
from oomstream.stores.base import HistoryStore, OnlineStore
from oomstream.stores.opening import check_pairing, history_store, init_stores, online_store
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.online import SqlOnlineStore


def _stores(folder: Path, name: str = "a") -> tuple[HistoryStore, OnlineStore]:
    settings = load_settings()
    return history_store(f"sqlite:///{folder}/{name}-history.db", settings), online_store(
        f"sqlite:///{folder}/{name}-online.db", settings
    )


def _install(folder: Path, points: str, name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a package of one module on sys.path, as pip would leave it."""
    metadata = folder / "third_party_store-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-store\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points)
    (folder / f"{name}.py").write_text(module)
    monkeypatch.syspath_prepend(str(folder))


def test_sqlite_is_chosen_by_scheme(tmp_path: Path) -> None:
    """sqlite:// gives the SQL stores, whose url is what messages show."""
    history, online = _stores(tmp_path)
    assert isinstance(history, SqlHistoryStore)
    assert isinstance(online, SqlOnlineStore)
    assert online.url == f"sqlite:///{tmp_path}/a-online.db"


def test_unknown_scheme_names_what_there_is() -> None:
    """An unknown scheme lists the known ones, and shows no password."""
    with pytest.raises(InvalidSetting, match=r"online store cassandra://me:\*\*\*@host: .*there are: .*sqlite://"):
        online_store("cassandra://me:secret@host", load_settings())
    with pytest.raises(InvalidSetting, match=r"there are: .*sqlite://"):
        history_store("cassandra://host", load_settings())


def test_somebody_elses_store_is_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an entry point adds a scheme; it gets the URL and the settings."""
    module = (
        "from oomstream.stores.sql.online import SqlOnlineStore\n"
        "def make(url, settings):\n"
        "    return SqlOnlineStore('sqlite:///' + url.removeprefix('mine://'), settings)\n"
    )
    _install(tmp_path, "[oomstream.online_stores]\nmine = their_store:make\n", "their_store", module, monkeypatch)
    assert online_store("mine://x.db", load_settings()).url == "sqlite:///x.db"


def test_missing_dependency_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose driver is not installed names the package."""
    points = "[oomstream.online_stores]\nbare = bare_store:make\nwrong = bare_store:make\n"
    _install(tmp_path, points, "bare_store", "import a_driver_that_nobody_has\n", monkeypatch)
    with pytest.raises(InvalidSetting, match=r"bare:// needs the package 'a_driver_that_nobody_has'"):
        online_store("bare://host", load_settings())


def test_init_pairs_two_stores(tmp_path: Path) -> None:
    """`init_stores` makes both and joins them; again it does no harm; the pair is then accepted."""

    async def check() -> None:
        history, online = _stores(tmp_path / "made" / "by init")
        async with history, online:
            pairing_id = await init_stores(history, online)
            assert await init_stores(history, online) == pairing_id
            await check_pairing(history, online)
            assert await history.pairing_id() == await online.pairing_id() == pairing_id

    asyncio.run(check())


def test_uninitialised_stores_name_init(tmp_path: Path) -> None:
    """A store that nobody initialised is told apart from a wrong one, and `oomstream init` is named."""

    async def check() -> None:
        history, online = _stores(tmp_path)
        async with history, online:
            with pytest.raises(InvalidSetting, match=r"history store .*oomstream init"):
                await check_pairing(history, online)
            await init_stores(history)
            with pytest.raises(InvalidSetting, match=r"online store .*oomstream init"):
                await check_pairing(history, online)
        assert not (tmp_path / "a-online.db").exists()

    asyncio.run(check())


def test_strangers_are_refused(tmp_path: Path) -> None:
    """Stores of two pairs do not work together: the error is Fatal and names repair."""

    async def check() -> None:
        history, online = _stores(tmp_path, "a")
        other_history, other_online = _stores(tmp_path, "b")
        async with history, online, other_history, other_online:
            await init_stores(history, online)
            await init_stores(other_history, other_online)
            for attempt in (check_pairing(history, other_online), init_stores(other_history, online)):
                with pytest.raises(PairingMismatch, match="oomstream repair"):
                    await attempt

    asyncio.run(check())
