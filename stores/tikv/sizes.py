"""How much one request asks for or writes: bounded in rows and in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oomstream.schemas.online_value import OnlineRow

_MOST_ROWS = 256
_AIM_BYTES = 1 << 20
"""Answers aim at a quarter of the 4 MiB at which the client refuses them."""

_FIRST_GUESS_BYTES = 1 << 15


class AnswerSize:
    """Guesses from the answers so far for how many rows to ask at once.

    Asking for too many costs 1.6 s, in which the client asks ten times in vain (tikv-client 0.0.4).
    """

    def __init__(self) -> None:
        self._row_bytes = float(_FIRST_GUESS_BYTES)

    @property
    def rows(self) -> int:
        """How many rows to ask for at once; at least 1."""
        return max(1, min(_MOST_ROWS, int(_AIM_BYTES / self._row_bytes)))

    def learn(self, rows: int, answer_bytes: int) -> None:
        """Note an answer; larger rows count at once, smaller ones little by little."""
        if rows:
            seen = answer_bytes / rows
            self._row_bytes = max(1.0, seen, self._row_bytes + (seen - self._row_bytes) / 8)

    def was_too_large(self, rows: int, answer_bytes: int) -> None:
        """Note that so many rows were too many; at most half as many are asked for next."""
        self._row_bytes = max(self._row_bytes, answer_bytes / rows, 2 * _AIM_BYTES / rows)


def commits(rows: Sequence[OnlineRow], most_rows: int, most_bytes: int) -> Iterator[Sequence[OnlineRow]]:
    """Cut rows into what one transaction writes; neighbours stay together, as they tend to lie in one region.

    Args:
        rows: In any order.
        most_rows: Most rows in one.
        most_bytes: Most bytes of keys and values in one that has more than one row.
    """
    ordered = sorted(rows)
    start = size = 0
    for at, (key, value) in enumerate(ordered):
        more = len(key) + len(value)
        if at > start and (at - start == most_rows or size + more > most_bytes):
            yield ordered[start:at]
            start, size = at, 0
        size += more
    if ordered:
        yield ordered[start:]
