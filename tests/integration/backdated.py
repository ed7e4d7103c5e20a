"""Stores on an SQL server, whose clock tests cannot set: ingest times are written over, past the store."""

from __future__ import annotations

import asyncio

import pymysql

from oomstream.stores.urls import StoreUrl
from tests.unit.query.filled import Filled


class Backdated(Filled):
    """A pair of stores whose history is on TiDB, with ingest times of the test's own choosing."""

    async def set_ingest_time(self, group: str, source_id: int, sequence: int, ingest_us: int) -> int:
        """Replace the server's time by this clock's."""
        await asyncio.to_thread(self._write_over, group, source_id, sequence)
        return self.now_us

    def _write_over(self, group: str, source_id: int, sequence: int) -> None:
        url = StoreUrl.parse(self.history_url)
        [(host, port)] = url.hosts
        assert port is not None
        connection = pymysql.connect(host=host, port=port, user=url.user or "", database=url.path, autocommit=True)
        try:
            with connection.cursor() as cursor:
                statement = f"UPDATE `history_{group}` SET _ingest_time = %s WHERE _source = %s AND _sequence = %s"
                assert cursor.execute(statement, (self.now_us, source_id, sequence)) <= 1
        finally:
            connection.close()
