"""What the suites share: an event loop per test, and places."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings

_T = TypeVar("_T")


class Run(Protocol):
    """Runs a coroutine to its end on the test's event loop."""

    def __call__(self, coro: Coroutine[Any, Any, _T]) -> _T:
        """Its result."""


class Suite(ABC):
    """The base of both suites."""

    machine_examples = 30
    """How many random interleavings the state machine tries."""

    @abstractmethod
    def new_place(self) -> str:
        """Name of a place (file, namespace, database) where nothing is yet."""

    @pytest.fixture
    def run(self) -> Iterator[Run]:
        """One event loop per test."""
        with asyncio.Runner() as runner:
            yield runner.run

    @pytest.fixture
    def place(self) -> str:
        """A fresh place."""
        return self.new_place()

    @property
    def machine_settings(self) -> settings:
        """Settings of the state machines; servers may be slow."""
        return settings(
            max_examples=self.machine_examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
