"""Which row of history answers a label: that of the greatest version among its entity's rows of its time or before.

Rows come in order of entity, so an entity is a run of them, found by one look-up in a table of the entities. Within it
the row is found by bisection, for all labels at once: as many steps over NumPy arrays as the longest run has bits.
That costs in labels, and hardly in rows; a join that sorts or hashes both sides costs ten times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from oomstream.query.arrow import Array, pc
from oomstream.query.version_order import same_as_next

Numbers = npt.NDArray[np.int64]


class Matches(NamedTuple):
    """Labels that have an answer, and the answers.

    Attributes:
        labels: Numbers of the labels, ascending.
        rows: Numbers of the rows that answer them.
    """

    labels: Array
    rows: Array


class Answers:
    """From which moment on which row of an entity is the answer.

    Args:
        keys: The key columns of rows in order of (key, version), no nulls.
        moments: From when on a row can be the answer (int64): its event time, or a later one.
    """

    def __init__(self, keys: Sequence[Array], moments: Array) -> None:
        rows = len(moments)
        again = _numpy(same_as_next(keys))
        self._starts = np.flatnonzero(np.concatenate([np.ones(min(rows, 1), bool), ~again]))
        self._ends = np.append(self._starts[1:], rows)
        first: Any = pa.array(self._starts)
        self._entities = [key.take(first) for key in keys]
        self._moments = _numpy(moments)
        self._rows: Numbers | None = None
        if np.any(again & (self._moments[1:] < self._moments[:-1])):
            self._put_in_order()

    def _put_in_order(self) -> None:
        """Have moments rise within each entity too, each with the row that is the answer from then on.

        A row's number is its rank by version, and rows of later entities have greater numbers: so the answer is the
        greatest number so far.
        """
        entity = np.repeat(np.arange(len(self._starts)), self._ends - self._starts)
        order = np.lexsort((self._moments, entity))
        self._moments = self._moments[order]
        self._rows = np.maximum.accumulate(order)

    def find(self, keys: Sequence[Array], times: Array) -> Matches:
        """The answers to labels.

        Args:
            keys: The labels' key columns, of the types of the rows', no nulls.
            times: The labels' times (int64).
        """
        entity = self._entity_of(keys)
        labels = np.flatnonzero(_numpy(entity.is_valid()))
        at = _numpy(entity.drop_null())
        starts = self._starts[at]
        place = _last_not_after(self._moments, starts, self._ends[at], _numpy(times)[labels])
        found = place >= starts
        rows = place[found] if self._rows is None else self._rows[place[found]]
        return Matches(pa.array(labels[found]), pa.array(rows))

    def _entity_of(self, keys: Sequence[Array]) -> Array:
        """Numbers of the labels' entities; null for those that have no rows."""
        known, asked = self._entities[0], keys[0]
        for part, asked_part in zip(self._entities[1:], keys[1:], strict=True):
            # Pairs of numbers as one number: both stay below the number of entities.
            known, asked = _numbered(known, asked)
            part, asked_part = _numbered(part, asked_part)
            width = len(self._starts)
            known, asked = (
                pc.add(pc.multiply(left, width), right) for left, right in ((known, part), (asked, asked_part))
            )
        return _places(asked, known)


def _numbered(known: Array, asked: Array) -> tuple[Array, Array]:
    """Values as numbers of distinct values that are known; null for those that are not."""
    distinct = known.unique()
    return _places(known, distinct), _places(asked, distinct)


def _places(values: Array, among: Array) -> Array:
    places: Array = pc.cast(pc.index_in(values, value_set=among), pa.int64())
    return places


def _last_not_after(moments: Numbers, starts: Numbers, ends: Numbers, times: Numbers) -> Numbers:
    """Where in each run of ascending moments is the last one not after a time; before its start if there is none."""
    place = starts - 1
    longest = int((ends - starts).max(initial=0))
    for bit in reversed(range(longest.bit_length())):
        ahead = place + (1 << bit)
        fits = (ahead < ends) & (moments[np.minimum(ahead, len(moments) - 1)] <= times)
        place = np.where(fits, ahead, place)
    return place


def _numpy(array: Array) -> Any:
    return array.to_numpy(zero_copy_only=False)
