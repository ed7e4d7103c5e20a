"""One SQL database: its engine, its transactions, their deadline, and what their errors mean."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oomstream.schemas.errors import InvalidEvent, InvalidSetting, StoreUnavailable
from oomstream.stores.sql.dialects import Conflict, Dialect
from oomstream.stores.sql.group_commit import GroupCommit
from oomstream.stores.urls import StoreUrl

_T = TypeVar("_T")

_ATTEMPTS = 6
_CONFLICT_WAIT_S = 0.01
_ROLLBACK_TIMEOUT_S = 2.0


class Database:
    """Transactions on one database, from one event loop.

    Where the engine lets only one transaction write at a time (SQLite), those of one `Database` queue on a lock of
    ours instead of waiting for the file, and those that may share one do (`GroupCommit`); other processes are waited
    for by the engine's busy timeout.

    Attributes:
        url: Where it is.
        dialect: Its engine.
        where: What messages begin with, for example ``history store sqlite:///x.db``.
        call_timeout_s: Deadline of a whole transaction, waiting included.
    """

    def __init__(self, url: StoreUrl, dialect: Dialect, *, what: str, call_timeout_s: float) -> None:
        self.url = url
        self.dialect = dialect
        self.where = f"{what} {url}"
        self.call_timeout_s = call_timeout_s
        self._engine: AsyncEngine | None = None
        self._writing: asyncio.Lock | None = None
        self._sharing: GroupCommit | None = None

    async def open(self) -> None:
        """Make the engine and, if the database is there, connect once.

        Raises:
            StoreUnavailable: The database is there, but does not answer.
        """
        if self._engine is None:
            self._engine = self.dialect.engine(self.url, self.call_timeout_s)
            if self.dialect.one_writer:
                self._writing = asyncio.Lock()
                self._sharing = GroupCommit(lambda: self._begun(self.dialect.begin_write), self._writing, self.where)
            try:
                if await self.exists():
                    async with self.read():
                        pass
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Give back every connection."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def create(self) -> None:
        """Make the database itself if it is not there."""
        async with self._guarded(self.call_timeout_s):
            await self.dialect.create(self.url)

    async def exists(self) -> bool:
        """Whether the database itself is there."""
        async with self._guarded(self.call_timeout_s):
            return await self.dialect.exists(self.url)

    async def transact(
        self,
        work: Callable[[AsyncConnection], Awaitable[_T]],
        *,
        calls: int = 1,
        shared: bool = False,
        values: int = 0,
        before_commit: Callable[[], None] = lambda: None,
    ) -> _T:
        """Run `work` in a transaction that writes, and commit.

        A transaction that loses against another one (a deadlock, the same new row) is done again from its beginning,
        a few times: servers let transactions run side by side and then choose.

        Args:
            work: What to do; may be called again after a rollback.
            calls: As how many calls it counts: its deadline is so many times that of one.
            shared: Whether it may be one transaction with others that wait for the same file.
            values: How many values it writes, about: many share with nobody.
            before_commit: Called last of all; what it raises undoes the work.
        """
        for attempt in range(_ATTEMPTS):
            try:
                if shared and self._sharing is not None:
                    async with self._guarded(calls * self.call_timeout_s):
                        return await self._sharing.run(work, before_commit, values)
                async with self.write(calls=calls) as connection:
                    result = await work(connection)
                    before_commit()
                return result
            except Conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
            await asyncio.sleep(_CONFLICT_WAIT_S * 2**attempt * random.random())  # noqa: S311 - only spreads retries
        raise AssertionError

    @asynccontextmanager
    async def write(self, *, calls: int = 1) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; committed at the end of the block, rolled back if it raises."""
        async with (
            self._guarded(calls * self.call_timeout_s),
            self._writing or nullcontext(),
            self._begun(self.dialect.begin_write) as connection,
        ):
            yield connection
            await connection.commit()

    @asynccontextmanager
    async def read(self, *, calls: int = 1) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one moment and writes nothing; its deadline is that of so many calls."""
        async with self._guarded(calls * self.call_timeout_s), self._begun(self.dialect.begin_read) as connection:
            yield connection

    @asynccontextmanager
    async def _begun(self, statements: Sequence[str]) -> AsyncIterator[AsyncConnection]:
        async with self._opened.connect() as connection:
            try:
                if statements:
                    await self.dialect.begin(connection, statements)
                yield connection
            except BaseException:
                if not self.dialect.one_writer:
                    await _roll_back(connection)
                raise

    @property
    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise InvalidSetting(f"{self.where} is not open: use it inside 'async with'")
        return self._engine

    @asynccontextmanager
    async def _guarded(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as exc:
            if self._engine is not None and not self.dialect.one_writer:
                await self._engine.dispose()  # connections to a server that is silent may all be dead
            raise StoreUnavailable(
                f"{self.where} did not answer within {timeout_s:g} s: is it overloaded, or the URL another server's?"
            ) from exc
        except DBAPIError as exc:
            error = self.dialect.error(exc.orig or exc, self.where, self.url)
            # What the driver says of a row may hold its values.
            raise error from (None if isinstance(error, InvalidEvent) else exc)
        except SQLAlchemyError as exc:
            raise StoreUnavailable(f"{self.where}: no connection could be had ({type(exc).__name__})") from exc


async def _roll_back(connection: AsyncConnection) -> None:
    """End a transaction on a server: when the connection is given back, that would have no deadline.

    Said to the server itself: of a COMMIT that failed, SQLAlchemy holds that it ended the transaction. TiDB keeps it
    open when it is read-only, and the next user of the connection would commit what was given up.
    """
    try:
        async with asyncio.timeout(_ROLLBACK_TIMEOUT_S):
            await connection.exec_driver_sql("ROLLBACK")
            await connection.rollback()
    except (TimeoutError, SQLAlchemyError):
        await connection.invalidate()
