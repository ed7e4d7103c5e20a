"""Which revision is a batch group's state from when on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oomstream.query.revision_join import timeline
from oomstream.stores.revisions import Revision

moments = st.integers(1, 8)


def revision(number: int, time_us: int, published_us: int, *, moved: bool = False) -> Revision:
    """A revision of a group."""
    return Revision(number, 1, time_us, anchored=True, table=f"t{number}", create_time_us=published_us, moved=moved)


def states(*revisions: Revision, as_of_us: int | None = None, available: bool = False) -> list[tuple[int, int]]:
    """The timeline as moments and ids."""
    return [(moment, each.id) for moment, each in timeline(revisions, as_of_us=as_of_us, available=available)]


def test_the_newest_revision_holds_until_the_next() -> None:
    """Revisions hold from their own times on, whatever the order of their imports; the dummy one from the beginning."""
    revisions = [revision(1, 0, 5), revision(2, 30, 5), revision(3, 10, 6), revision(4, 20, 7)]
    assert states(*revisions) == [(0, 1), (10, 3), (20, 4), (30, 2)]


def test_of_one_time_the_later_import_wins() -> None:
    """A revision anchored to the time of an earlier one takes its place."""
    assert states(revision(2, 10, 5), revision(3, 10, 6)) == [(10, 3)]


def test_what_was_known_at_a_time() -> None:
    """As of a time there is no revision that was published later, and none has a time that its sync gave it later."""
    synced = revision(3, 40, 20, moved=True)
    assert states(revision(1, 0, 5), revision(2, 10, 15), synced, as_of_us=14) == [(0, 1)]
    assert states(revision(1, 0, 5), revision(2, 10, 15), synced, as_of_us=30) == [(0, 1), (10, 2), (20, 3)]
    assert states(revision(1, 0, 5), revision(2, 10, 15), synced, as_of_us=40) == [(0, 1), (10, 2), (40, 3)]


@given(st.lists(st.tuples(moments, moments), max_size=6), moments)
def test_available_is_the_newest_published_by_then(times: list[tuple[int, int]], at: int) -> None:
    """With `available`, the state at a moment is the newest revision of those published and begun by then."""
    revisions = [revision(number, time, published) for number, (time, published) in enumerate(times, 2)]
    right = [each for each in revisions if max(each.time_us, each.create_time_us) <= at]
    newest = max(right, key=lambda each: (each.time_us, each.id), default=None)
    found = [each for moment, each in timeline(revisions, available=True) if moment <= at]
    assert (found[-1] if found else None) == newest
