"""Walking a table in pages, and several parts of it at once: pages come in order, each from where the last one ended.

Where a page begins is not known before the one ahead of it has come, unless somebody knows the table's keys. A training
set does, about: from its labels. So the first pages tell how many rows lie between two of those keys, and from then on
the first page of the next part is read while that of this one is being read, joined, or both.

Source and sequence, a third of a narrow row, say which of several rows of an entity and event time is the newest. Who
wants them for nothing else reads pages without them, by entity and event time, until a page holds two such rows: that
page and all further ones are then read with them.

Pages are large: whoever passes one on forgets it (`del`) before the next one is awaited.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple, Protocol

from oomstream.schemas.events import Plain
from oomstream.stores.sql.arrow_forms import has_repeats
from oomstream.stores.sql.mysql_pages import PAGE_BYTES, VERSION, Key, Part, Walk, in_order

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST_PAGE_ROWS = 10_000
_PAGE_GROWTH = 8
_ROWS_TO_LEARN_FROM = 5_000
"""What a page of so many rows says of sizes and keys is taken to hold for the rows behind it."""

_BEFORE_ALL = -1
"""No source and no sequence is so small."""

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


class Page(NamedTuple):
    """A page that was read.

    Attributes:
        rows: Its rows.
        end: Primary key behind which the next page begins; nothing in it for a page without rows.
        is_last: Whether it is the last one of its walk.
    """

    rows: pa.Table
    end: Key
    is_last: bool


class Walker:
    """Walks one table.

    Args:
        pages: What reads them.
        primary: How many columns, the first ones, are the primary key.
        schema: What a page holds.
        batch_rows: Rows of a page at most.
        bare_schema: What a page of a walk's `bare` holds, if there may be such.
    """

    def __init__(
        self, pages: Pages, primary: int, schema: pa.Schema, batch_rows: int, *, bare_schema: pa.Schema | None = None
    ) -> None:
        self._pages = pages
        self._primary = primary
        self._schema = schema
        self._bare_schema = bare_schema
        self._most_rows = min(batch_rows, pages.most_rows)
        self._wanted = min(self._most_rows, _FIRST_PAGE_ROWS)

    async def walk(self, statements: Walk) -> AsyncGenerator[pa.Table, None]:
        """The rows of pages that hold any."""
        async with aclosing(self._walk(statements)) as pages:
            async for page in pages:
                yield page.rows
                del page

    async def _walk(self, statements: Walk, page: Page | None = None) -> AsyncGenerator[Page, None]:
        """Pages that hold rows; the first one may have been read already."""
        page = page or await self._read(statements, None)
        while rows := page.rows.num_rows:
            if not page.is_last:
                fitting = max(1, PAGE_BYTES * rows // max(page.rows.nbytes, 1))
                growth = rows * _PAGE_GROWTH if rows < _ROWS_TO_LEARN_FROM else self._most_rows
                self._wanted = min(self._most_rows, growth, fitting)
            yield page
            if page.is_last:
                break
            after = page.end
            del page
            page = await self._read(statements, after)

    async def _read(self, walk: Walk, after: Key | None) -> Page:
        """The next page: the bare one for as long as none of its rows needs more to be told from the next."""
        if walk.bare is not None and self._bare_schema is not None:
            rows, is_last = await self._pages.read(walk.bare, after, self._wanted, self._bare_schema)
            by = self._primary - len(VERSION)
            if (is_last or rows.num_rows > 1) and not has_repeats(rows.columns[:by]):
                if is_last:
                    return Page(rows, _last_key(rows, by), is_last)
                # Behind the last row may come another one like it: both belong into the next page.
                return Page(rows.slice(0, rows.num_rows - 1), (*_last_key(rows, by), _BEFORE_ALL, _BEFORE_ALL), is_last)
            self._bare_schema = None
        rows, is_last = await self._pages.read(walk, after, self._wanted, self._schema)
        return Page(rows, _last_key(rows, self._primary), is_last)

    async def walk_in_parts(
        self, statements: Callable[[Part], Walk], splits: Sequence[Plain]
    ) -> AsyncGenerator[pa.Table, None]:
        """The pages of a whole table, later ones two at once.

        Args:
            statements: Gives the walk through a part.
            splits: Values of the first key field, ascending, about equally far from each other.
        """
        rows = 0
        after: Key = ()
        async with aclosing(self._walk(statements((None, None)))) as pages:
            async for page in pages:
                yield page.rows
                rows += page.rows.num_rows
                after = page.end
                if rows >= _ROWS_TO_LEARN_FROM and not page.is_last:
                    del page
                    break
                del page
            else:
                return
        bounds = self._bounds(splits, after, rows)
        parts = zip([None, *bounds], [*bounds, None], strict=True)
        async with aclosing(self._ahead([statements(part) for part in parts], after)) as pages:
            async for rows_of_page in pages:
                yield rows_of_page
                del rows_of_page

    def _bounds(self, splits: Sequence[Plain], after: Key, rows: int) -> Sequence[Plain]:
        """Those of the splits between which there is about a page, given how far so many rows have led."""
        passed = bisect_right(splits, in_order(after[:1]), key=lambda split: in_order((split,)))
        step = max(1, int(_FILL * self._wanted * passed / rows))
        return splits[passed + step - 1 :: step] if passed else []

    async def _ahead(self, walks: Sequence[Walk], begin: Key) -> AsyncGenerator[pa.Table, None]:
        """The pages of walks, one walk after the other, while the first page of the next one is being read."""
        left = deque(walks)
        reading: deque[tuple[Walk, asyncio.Task[Page]]] = deque()
        after: Key | None = begin

        def read_ahead() -> None:
            nonlocal after
            while left and len(reading) < self._pages.at_once:
                walk = left.popleft()
                reading.append((walk, asyncio.create_task(self._read(walk, after))))
                after = None

        try:
            read_ahead()
            while reading:
                pages = self._walk(reading[0][0], await reading[0][1])
                reading.popleft()
                read_ahead()
                async with aclosing(pages):
                    async for page in pages:
                        yield page.rows
                        del page
        finally:
            for _, task in reading:
                task.cancel()
            await asyncio.gather(*(task for _, task in reading), return_exceptions=True)


def _last_key(rows: pa.Table, columns: int) -> Key:
    """The last row's first columns; none of no row."""
    return tuple(rows.column(at)[-1].as_py() for at in range(columns)) if rows.num_rows else ()
