"""One SQL database: its engine, its transactions, their deadline, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oomstream.schemas.errors import InvalidSetting, StoreUnavailable
from oomstream.stores.sql.dialects import Dialect
from oomstream.stores.urls import StoreUrl


class Database:
    """Transactions on one database, from one event loop.

    Where the engine lets only one transaction write at a time (SQLite), those of one `Database` queue on a lock of
    ours instead of waiting for the file; other processes are waited for by the engine's busy timeout.

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

    async def open(self) -> None:
        """Make the engine and, if the database is there, connect once.

        Raises:
            StoreUnavailable: The database is there, but does not answer.
        """
        if self._engine is None:
            self._engine = self.dialect.engine(self.url, self.call_timeout_s)
            self._writing = asyncio.Lock() if self.dialect.one_writer else None
            try:
                if await self.dialect.exists(self.url):
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
        async with self._guarded():
            await self.dialect.create(self.url)

    async def exists(self) -> bool:
        """Whether the database itself is there."""
        return await self.dialect.exists(self.url)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; committed at the end of the block, rolled back if it raises."""
        async with self._guarded(), self._writing or nullcontext(), self._opened.connect() as connection:
            await connection.exec_driver_sql(self.dialect.begin_write)
            yield connection
            await connection.commit()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one moment and writes nothing."""
        async with self._guarded(), self._opened.connect() as connection:
            await connection.exec_driver_sql(self.dialect.begin_read)
            yield connection

    @property
    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise InvalidSetting(f"{self.where} is not open: use it inside 'async with'")
        return self._engine

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.call_timeout_s):
                yield
        except TimeoutError as exc:
            raise StoreUnavailable(f"{self.where} did not answer within {self.call_timeout_s:g} s") from exc
        except DBAPIError as exc:
            raise self.dialect.error(exc.orig or exc, self.where, self.url) from exc
        except SQLAlchemyError as exc:
            raise StoreUnavailable(f"{self.where}: no connection could be had ({type(exc).__name__})") from exc
