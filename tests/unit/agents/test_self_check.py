"""The worker runs on the Faust it was written for, and on no other."""

from __future__ import annotations

import faust
import faust.streams
import pytest
from faust.transport.consumer import Consumer

from oomstream.agents.worker.self_check import check_faust
from oomstream.schemas.errors import Fatal


def test_this_faust_is_accepted() -> None:
    """The installed Faust passes."""
    check_faust()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version is named and refused."""
    monkeypatch.setattr(faust, "__version__", "0.15.4")
    with pytest.raises(Fatal, match=r"needs faust-streaming 0\.15\.3 exactly, not 0\.15\.4"):
        check_faust()


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
