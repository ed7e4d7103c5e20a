"""Retention: history older than a horizon goes, except what is each entity's newest.

The horizon is published with the catalog before anything is removed, so that whoever compares the stores knows that
older rows may be gone: a row of history before it that the log still has is not lost, and an expired value or a delete
mark before it that is not online any more is not missing.

Source:
    design.md, section 6 (history); oomstore's `gc`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oomstream.schemas.groups import FeatureGroup

if TYPE_CHECKING:
    from oomstream.stores.base import HistoryRow


class RetentionStore(ABC):
    """What a history store does for retention."""

    @abstractmethod
    async def raise_horizon(self, group: FeatureGroup, age_us: int) -> int:
        """Publish that rows of a stream group older than an age may be removed; the horizon never falls.

        Args:
            group: The group.
            age_us: Age by the database's clock, microseconds.

        Returns:
            The horizon: rows with event times before it may be gone, UTC microseconds.
        """

    @abstractmethod
    async def prune(self, group: FeatureGroup, newest: Sequence[HistoryRow], before_us: int) -> int:
        """Remove old rows of some entities, in several transactions.

        Args:
            group: The group.
            newest: The row of greatest version of each of the entities. It stays, unless it is a delete.
            before_us: Rows with event times before it are removed.

        Returns:
            How many rows were removed.
        """
