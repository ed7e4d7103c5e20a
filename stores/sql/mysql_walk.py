"""Walking a table in pages, and several parts of it at once: pages come in order, each from where the last one ended.

Where a page begins is not known before the one ahead of it has come, unless somebody knows the table's keys. A training
set does, about: from its labels. So the first pages tell how many rows lie between two of those keys, and from then on
the first page of the next part is read while that of this one is being read, joined, or both.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from oomstream.schemas.events import Plain
from oomstream.stores.sql.mysql_pages import PAGE_BYTES, Key, Part, Walk, in_order

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST_PAGE_ROWS = 2_000
_PAGE_GROWTH = 8
_ROWS_TO_LEARN_FROM = 10_000
_FILL = 0.8
"""How full the page of a part is meant to be: one that is too large for a page takes a second one."""


class Pages(Protocol):
    """What reads pages.

    Attributes:
        most_rows: Rows of a page at most.
        at_once: How many it can read at once.
    """

    most_rows: int
    at_once: int

    async def read(self, statements: Walk, after: Key | None, rows: int, schema: pa.Schema) -> tuple[pa.Table, bool]:
        """The next page of at most so many rows, and whether it is the last one."""


class Walker:
    """Walks one table.

    Args:
        pages: What reads them.
        primary: How many columns, the first ones, are the primary key.
        schema: What a page holds.
        batch_rows: Rows of a page at most.
    """

    def __init__(self, pages: Pages, primary: int, schema: pa.Schema, batch_rows: int) -> None:
        self._pages = pages
        self._primary = primary
        self._schema = schema
        self._most_rows = min(batch_rows, pages.most_rows)
        self._wanted = min(self._most_rows, _FIRST_PAGE_ROWS)

    async def walk(
        self, statements: Walk, after: Key | None = None, page: tuple[pa.Table, bool] | None = None
    ) -> AsyncGenerator[pa.Table, None]:
        """Pages that hold rows.

        Args:
            statements: What is walked.
            after: The primary key to begin behind.
            page: The first page, where it has been read already.
        """
        is_last = False
        while not is_last:
            found, is_last = page or await self._pages.read(statements, after, self._wanted, self._schema)
            page = None
            if rows := found.num_rows:
                after = self.end_of(found)
                if not is_last:
                    fitting = max(1, PAGE_BYTES * rows // max(found.nbytes, 1))
                    self._wanted = min(self._most_rows, rows * _PAGE_GROWTH, fitting)
                yield found

    def end_of(self, page: pa.Table) -> Key:
        """Primary key of a page's last row."""
        return tuple(page.column(at)[-1].as_py() for at in range(self._primary))

    async def walk_in_parts(
        self, statements: Callable[[Part], Walk], splits: Sequence[Plain]
    ) -> AsyncGenerator[pa.Table, None]:
        """The pages of a whole table, later ones two at once.

        Args:
            statements: Gives the walk through a part.
            splits: Values of the first key field, ascending, about equally far from each other.
        """
        rows = 0
        async with aclosing(self.walk(statements((None, None)))) as pages:
            async for page in pages:
                yield page
                rows += page.num_rows
                after = self.end_of(page)
                if rows >= _ROWS_TO_LEARN_FROM:
                    break
            else:
                return
        bounds = self._bounds(splits, after, rows)
        parts = zip([None, *bounds], [*bounds, None], strict=True)
        async with aclosing(self._ahead([statements(part) for part in parts], after)) as pages:
            async for page in pages:
                yield page

    def _bounds(self, splits: Sequence[Plain], after: Key, rows: int) -> Sequence[Plain]:
        """Those of the splits between which there is about a page, given how far so many rows have led."""
        passed = bisect_right(splits, in_order(after[:1]), key=lambda split: in_order((split,)))
        step = max(1, int(_FILL * self._wanted * passed / rows))
        return splits[passed + step - 1 :: step] if passed else []

    async def _ahead(self, walks: Sequence[Walk], after: Key | None) -> AsyncGenerator[pa.Table, None]:
        """The pages of walks, one walk after the other, while the first page of the next one is being read."""
        left = deque(walks)
        reading: deque[tuple[Walk, asyncio.Task[tuple[pa.Table, bool]]]] = deque()

        def read_ahead() -> None:
            nonlocal after
            while left and len(reading) < self._pages.at_once:
                walk = left.popleft()
                first = self._pages.read(walk, after, self._wanted, self._schema)
                reading.append((walk, asyncio.create_task(first)))
                after = None

        try:
            read_ahead()
            while reading:
                page = await reading[0][1]
                walk, _ = reading.popleft()
                read_ahead()
                async with aclosing(self.walk(walk, page=page)) as pages:
                    async for each in pages:
                        yield each
        finally:
            for _, task in reading:
                task.cancel()
            await asyncio.gather(*(task for _, task in reading), return_exceptions=True)
