"""Requests and transactions are bounded in rows and in bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oomstream.schemas.online_value import OnlineRow
from oomstream.stores.tikv.sizes import AnswerSize, commits

ROWS = st.lists(st.builds(OnlineRow, st.binary(max_size=9), st.binary(max_size=60)), max_size=60)


@given(ROWS, st.integers(1, 7), st.integers(1, 100))
def test_commits_hold_every_row_once(rows: list[OnlineRow], most_rows: int, most_bytes: int) -> None:
    """Cut into transactions, every row is there once, in key order, and only a single row may exceed the bytes."""
    pieces = list(commits(rows, most_rows, most_bytes))
    assert [row for piece in pieces for row in piece] == sorted(rows)
    for piece in pieces:
        assert 1 <= len(piece) <= most_rows
        assert len(piece) == 1 or sum(len(row.key) + len(row.value) for row in piece) <= most_bytes


def test_answers_stay_under_the_limit() -> None:
    """After a few answers, as many rows are asked for as fit, whatever their size, and after large ones small ones."""
    size = AnswerSize()
    assert 1 <= size.rows <= 64
    for row_bytes in (100, 9_000, 100_000, 1_000_000, 100):
        for _ in range(100):
            rows = size.rows
            size.learn(rows, rows * row_bytes)
        assert size.rows == max(1, min(256, 2**20 // row_bytes))


def test_too_large_an_answer_halves_the_next() -> None:
    """Rows that were too many are asked for in halves at most, and in the end one by one."""
    size = AnswerSize()
    for _ in range(100):
        size.learn(256, 256)
    rows, asked = 256, []
    while rows > 1:
        size.was_too_large(rows, 0)
        assert size.rows <= rows // 2
        rows = size.rows
        asked.append(rows)
    assert asked == [128, 64, 32, 16, 8, 4, 2, 1]


def test_the_size_that_the_error_tells_is_believed() -> None:
    """One answer that was too large is enough to ask for as many rows as fit."""
    size = AnswerSize()
    size.was_too_large(256, 256 * 1_000_000)
    assert size.rows == 1
