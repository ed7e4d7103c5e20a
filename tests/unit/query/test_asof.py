"""The look-up of a label's row, against a loop over a list."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oomstream.query.asof import Answers

PARTS: tuple[list[Any], ...] = (["", "a", "a ", "é"], [b"", b"\xff"], [-(1 << 63), -1, 0, (1 << 63) - 1])
TYPES: tuple[pa.DataType, ...] = (pa.string(), pa.binary(), pa.int64())
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999

keys: st.SearchStrategy[tuple[Any, ...]] = st.tuples(*(st.sampled_from(part) for part in PARTS))
times = st.integers(-3, 3) | st.sampled_from([EARLIEST, LATEST])
moments = st.lists(st.tuples(keys, times), max_size=40)


def columns(rows: list[tuple[Any, int]], width: int) -> list[Any]:
    """The first parts of keys, each as an array."""
    return [pa.array([key[at] for key, _ in rows], TYPES[at]) for at in range(width)]


@settings(deadline=None)
@given(rows=moments, labels=moments, width=st.integers(1, 3), rising=st.booleans())
@example(rows=[], labels=[(("", b"", 0), 0)], width=1, rising=True)
def test_answers_are_those_of_a_loop(
    rows: list[tuple[Any, int]], labels: list[tuple[Any, int]], width: int, rising: bool
) -> None:
    """The answer is the last row of the label's entity that counts by its time, whatever the order of the moments."""
    rows.sort(key=(lambda row: (row[0][:width], row[1])) if rising else (lambda row: row[0][:width]))
    found = Answers(columns(rows, width), pa.array([time for _, time in rows], pa.int64())).find(
        columns(labels, width), pa.array([time for _, time in labels], pa.int64())
    )
    expected = {}
    for label, (key, time) in enumerate(labels):
        for row, (of_row, moment) in enumerate(rows):
            if of_row[:width] == key[:width] and moment <= time:
                expected[label] = row
    assert dict(zip(found.labels.to_pylist(), found.rows.to_pylist(), strict=True)) == expected
