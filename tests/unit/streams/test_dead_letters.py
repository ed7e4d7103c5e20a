"""Dead letters keep everything, and their limit stops a bad deploy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomstream.schemas.errors import DlqLimitReached
from oomstream.stores.base import DlqCounts
from oomstream.streams.dead_letters import DeadLetter, DlqLimit

LETTERS = st.builds(
    DeadLetter,
    topic=st.text(min_size=1),
    incarnation=st.text(),
    partition=st.integers(0, 1000),
    offset=st.integers(0, 1 << 62),
    timestamp=st.integers(-1, 1 << 50),
    stage=st.sampled_from(["decode", "store"]),
    reason=st.text(),
    message=st.text(),
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(st.tuples(st.text(), st.none() | st.binary())).map(tuple),
)


@given(LETTERS)
def test_letter_survives_its_message(letter: DeadLetter) -> None:
    """Original key, value, headers and every field of ours come back exactly, even for a letter of a letter."""
    again = DeadLetter.from_message(letter.key, letter.value, letter.message_headers())
    assert again == letter
    nested = DeadLetter(
        **{name: getattr(letter, name) for name in DeadLetter.__slots__ if name != "headers"},
        headers=tuple(letter.message_headers()),
    )
    assert DeadLetter.from_message(nested.key, nested.value, nested.message_headers()) == nested


@pytest.mark.parametrize("headers", [[], [("x", b"1")], [("oomstream.error.topic", b"t")] * 8])
def test_foreign_message_is_not_a_letter(headers: list[tuple[str, bytes | None]]) -> None:
    """A message that oomstream did not write is recognised as such."""
    assert DeadLetter.from_message(b"k", b"v", headers) is None


def test_consecutive_limit_counts_over_batches() -> None:
    """Letters in a row are counted across batches; one valid event starts the count anew."""
    limit = DlqLimit(max_consecutive=5, max_ratio=1, window=1000)
    counts = limit.after(DlqCounts(), [True] * 5, where="t[0]")
    assert counts.consecutive == 5
    assert limit.after(counts, [False, True], where="t[0]").consecutive == 1
    with pytest.raises(DlqLimitReached, match=r"t\[0\].*5 events in a row.*OOMSTREAM_DLQ_MAX_CONSECUTIVE"):
        limit.after(counts, [True], where="t[0]")


def test_ratio_is_judged_over_whole_windows() -> None:
    """The share of letters is judged when a window is full, and by a letter; the next window starts from nothing."""
    limit = DlqLimit(max_consecutive=0, max_ratio=0.5, window=10)
    counts = limit.after(DlqCounts(), [True, False] * 5, where="t[0]")
    assert counts == DlqCounts(0, 0, 0)
    counts = limit.after(counts, [True] * 6, where="t[0]")
    with pytest.raises(DlqLimitReached, match="7 of the last 10 events") as caught:
        limit.after(counts, [False] * 3 + [True], where="t[0]")
    assert caught.value.allowed == 3


def test_valid_events_make_up_for_letters_after_the_fix() -> None:
    """Past the share, valid events go on and letters do not, until the share of both is allowed again."""
    limit = DlqLimit(max_consecutive=0, max_ratio=0.5, window=10)
    counts = limit.after(DlqCounts(), [True] * 7 + [False] * 3, where="t[0]")
    for more in ([], [False], [False] * 3):
        with pytest.raises(DlqLimitReached, match=f"8 of the last {11 + len(more)} events") as caught:
            limit.after(counts, [*more, True], where="t[0]")
        assert caught.value.allowed == len(more)
    assert limit.after(counts, [False] * 4, where="t[0]") == DlqCounts(0, 0, 0)


@given(st.lists(st.lists(st.booleans(), max_size=30), max_size=20), st.integers(1, 12))
def test_counts_do_not_depend_on_batches(batches: list[list[bool]], window: int) -> None:
    """However the records are cut into batches, the counts and the verdict are the same."""
    limit = DlqLimit(max_consecutive=6, max_ratio=0.7, window=window)

    def run(parts: list[list[bool]]) -> DlqCounts | str:
        counts = DlqCounts()
        try:
            for part in parts:
                counts = limit.after(counts, part, where="t[0]")
        except DlqLimitReached as exc:
            return str(exc)
        return counts

    assert run(batches) == run([[each] for part in batches for each in part])
