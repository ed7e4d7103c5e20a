"""The worker runs on the Faust it was written for, and on no other."""

from __future__ import annotations

import asyncio

import aiokafka
import faust
import faust.streams
import pytest
from faust.transport.consumer import Consumer

from oomstream.agents.worker import Worker
from oomstream.agents.worker.self_check import check_faust
from oomstream.schemas.errors import Fatal
from oomstream.stores.settings import load_settings


def test_this_faust_is_accepted() -> None:
    """The installed Faust passes."""
    check_faust()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version is named and refused."""
    monkeypatch.setattr(faust, "__version__", "0.15.4")
    with pytest.raises(Fatal, match=r"needs faust-streaming 0\.15\.3 exactly, not 0\.15\.4"):
        check_faust()


def test_another_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport reaches into aiokafka as well: another version of it is named and refused."""
    monkeypatch.setattr(aiokafka, "__version__", "0.14.1")
    with pytest.raises(Fatal, match=r"needs aiokafka 0\.14\.0 exactly, not 0\.14\.1"):
        check_faust()


def test_a_worker_checks_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on another Faust refuses before it looks for its broker or opens a store."""
    monkeypatch.setattr(faust, "__version__", "0.15.4")
    settings = load_settings(broker_url="kafka://127.0.0.1:1", history_url="sqlite:////nowhere/history.db")

    async def run() -> None:
        await Worker(settings).run()

    with pytest.raises(Fatal, match="needs faust-streaming"):
        asyncio.run(run())


def test_without_the_compiled_iterator_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the compiled stream iterator drops messages of old generations."""
    monkeypatch.setattr(faust.streams, "_CStreamIterator", None)
    with pytest.raises(Fatal, match="compiled stream iterator"):
        check_faust()


def test_a_changed_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that is overridden and takes other parameters now is named."""
    monkeypatch.setattr(Consumer, "_new_offset", lambda self, tp, more: None)
    with pytest.raises(Fatal, match=r"Consumer\._new_offset takes \['self', 'tp', 'more'\]"):
        check_faust()
