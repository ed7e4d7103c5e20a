"""A set of offsets holds what was put in, in order, and little memory for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oomstream.streams.offset_set import OffsetSet

OFFSETS = st.one_of(st.integers(0, 200), st.integers(65_400, 65_700), st.integers(0, 1 << 50))


@given(st.lists(OFFSETS), OFFSETS, OFFSETS)
def test_it_is_a_sorted_set(offsets: list[int], start: int, end: int) -> None:
    """Whatever is put in, in any order and any number of times, is in it once and comes back in order."""
    found = OffsetSet()
    for offset in offsets:
        found.add(offset)
    expected = sorted(set(offsets))
    assert len(found) == len(expected)
    assert list(found.between(0, 1 << 51)) == expected
    assert list(found.between(start, end)) == [each for each in expected if start <= each < end]
    for offset in (*offsets, start, end):
        assert (offset in found) is (offset in expected)
    assert "0" not in found


def test_many_offsets_in_one_stretch() -> None:
    """Where offsets are many, the set turns into bits and goes on as before."""
    found = OffsetSet()
    offsets = list(range(0, 140_000, 3))
    for offset in reversed(offsets):
        found.add(offset)
        found.add(offset)
    assert list(found.between(0, 200_000)) == offsets
    assert len(found) == len(offsets)
    assert 65_535 in found
    assert 65_536 not in found
