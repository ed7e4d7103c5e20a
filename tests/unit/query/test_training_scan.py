"""What a training set asks of history, and what happens when history fails or the caller gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pyarrow as pa
import pytest

from oomstream.query import label_columns
from oomstream.query.arrow import take, take_in_pieces
from oomstream.query.training import TrainingRequest, build_training_set
from oomstream.schemas.errors import StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryRow
from oomstream.stores.testing.samples import group
from tests.unit.query.conftest import Run
from tests.unit.query.memory_history import MemoryCut, as_history

ROWS = [HistoryRow((f"k{at % 3}",), at, 1, at, at, False, (at,)) for at in range(60)]


class FailingCut(MemoryCut):
    """A cut whose scan does something after each of its tables but the first few."""

    def __init__(self, then: Callable[[], Any], first: int = 0) -> None:
        super().__init__({"plane": ROWS}, {1: SourceKind.TOPIC}, table_rows=10)
        self.then = then
        self.first = first

    async def scan(self, *args: Any, **options: Any) -> AsyncIterator[pa.Table]:
        """The tables, and whatever the test says."""
        scan = super().scan(*args, **options)
        left = self.first
        async for rows in scan:
            yield rows
            if not left:
                await self.then()
            left -= 1


def request(made: FeatureGroup, **options: Any) -> TrainingRequest:
    """All features of a group, joined a few rows at a time."""
    return TrainingRequest([(made, feature) for feature in made.features], range_rows=10, **options)


def labels(*times: int) -> pa.Table:
    """Labels of one entity."""
    return pa.table({"k": ["k0"] * len(times), "event_timestamp": pa.array(times, pa.timestamp("us"))})


@pytest.mark.parametrize("ttl", [None, "3us"])
def test_what_is_pushed_down(run: Run, monkeypatch: pytest.MonkeyPatch, ttl: str | None) -> None:
    """The store is asked for the labels' entities and span of time, which begins only where there is a ttl."""
    limits: dict[str, Any] = {"ttl": ttl} if ttl else {}
    made = group("plane", **limits)
    cut = MemoryCut({"plane": ROWS}, {1: SourceKind.TOPIC})
    run(build_training_set(as_history(cut), labels(20, 30), request(made)))
    start = None if ttl is None else 17
    assert cut.scans == [{"group": "plane", "keys": [("k0",)], "min": start, "max": 30}]
    monkeypatch.setattr(label_columns, "MAX_PUSHED_KEYS", 0)
    run(build_training_set(as_history(cut), labels(20, 30), request(made)))
    assert cut.scans[1]["keys"] is None


def test_no_keys_no_scan(run: Run) -> None:
    """Labels with no rows, or with nothing but null keys, read no history at all."""
    cut = MemoryCut({"plane": ROWS}, {1: SourceKind.TOPIC})
    none = pa.table({"k": pa.nulls(2, pa.string()), "event_timestamp": pa.array([1, 2], pa.timestamp("us"))})
    made = run(build_training_set(as_history(cut), none, request(group("plane"))))
    assert made.to_arrow().column("plane.n").to_pylist() == [None, None]
    assert cut.scans == []


def test_failing_history_is_the_error_that_is_raised(run: Run) -> None:
    """A store that fails in the middle of a scan ends the call with its own typed error."""

    async def fail() -> None:
        raise StoreUnavailable("history sqlite:///x.db: gone")

    with pytest.raises(StoreUnavailable, match=r"x\.db: gone"):
        run(build_training_set(as_history(FailingCut(fail)), labels(20), request(group("plane"))))


def test_cancelled_call_leaves_nothing_behind(run: Run) -> None:
    """A call that is cancelled in the middle ends at once, with no task left."""

    async def scenario() -> int:
        reached, never = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await never.wait()

        call = asyncio.create_task(
            # One table has been joined by the time that there is a second one.
            build_training_set(as_history(FailingCut(wait, first=1)), labels(20, 60), request(group("plane")))
        )
        await reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return len(asyncio.all_tasks())

    assert run(scenario()) == 1


def test_text_in_pieces() -> None:
    """Text and bytes too long for one array are taken into several, exact and with their nulls."""
    for values in (["é", "", None, "b\0"], [b"\xff", b"", None, b"b\0"]):
        column: Any = pa.chunked_array([pa.array(values[:2]), pa.array(values[2:])])
        order: Any = pa.array([3, None, 0, 0, 2, 1, 3])
        taken = take_in_pieces(column, order, rows=3)
        assert [len(chunk) for chunk in taken.chunks] == [3, 3, 1]
        assert taken.type == column.type
        assert taken.to_pylist() == take(column, order).to_pylist()
