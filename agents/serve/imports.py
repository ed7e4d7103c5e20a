"""Rows into groups over the wire, and revisions online."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.agents.serve.registered import Registered
from oomstream.agents.serve.shared_files import SharedFiles
from oomstream.agents.serve.write_stores import WriteStores
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.types import MAX_TIME_US
from oomstream.streams.import_report import ImportReport
from oomstream.streams.importing import import_chunks, import_file
from oomstream.streams.sync import sync_group

IDLE_S = 60.0
"""A stream that is silent for so long is given up."""


class Imports:
    """Imports files and streams, and brings what was imported online.

    Args:
        store: What reads are served from; it learns of a sync at once.
        registered: Definitions.
        stores: Where to write; batch groups need the right to make tables.
        files: What clients may name.
    """

    def __init__(
        self, store: AsyncFeatureStore, registered: Registered, stores: WriteStores, files: SharedFiles
    ) -> None:
        self._store = store
        self._registered = registered
        self._stores = stores
        self._files = files

    async def sync(self, request: pb.SyncRequest) -> pb.SyncResponse:
        """A revision online; this server reads it when the answer is there, others within the metadata's age."""
        registered = await self._registered.newest(request.group)
        history, online = await self._stores.get()
        await sync_group(
            history,
            online,
            registered,
            revision_id=request.revision_id if request.HasField("revision_id") else None,
            # 0 is what clients send that say nothing: as long as readers need, which is the least in any case.
            purge_delay_s=float(request.purge_delay) or None,
            max_age_s=self._stores.settings.metadata_max_age_us / 1e6,
        )
        await self._store.refresh()
        return pb.SyncResponse()

    async def import_(self, request: pb.ImportRequest) -> pb.ImportResponse:
        """A file of the server into a group."""
        history, online = await self._stores.get()
        report = await import_file(
            history,
            online,
            request.group,
            self._files.input(request.input_file),
            revision_us=revision_us(request),
            delimiter=_delimiter(request.delimiter if request.HasField("delimiter") else ","),
            doc=request.description,
            settings=self._stores.settings,
        )
        return _response(report)

    async def channel_import(self, requests: AsyncIterator[pb.ChannelImportRequest]) -> pb.ImportResponse:
        """A CSV file that the client streams; nothing of it is imported unless it comes to its end."""
        messages = aiter(requests)
        try:
            first = await _next(messages)
        except StopAsyncIteration:
            raise InvalidRequest("the stream ended before its first message, which names the group") from None
        if not first.group:
            raise InvalidRequest("the first message of the stream must name the group")
        history, online = await self._stores.get()
        report = await import_chunks(
            history,
            online,
            first.group,
            _rows(first, messages),
            revision_us=revision_us(first),
            doc=first.description,
            settings=self._stores.settings,
        )
        return _response(report)


async def _rows(
    first: pb.ChannelImportRequest, messages: AsyncIterator[pb.ChannelImportRequest]
) -> AsyncIterator[bytes]:
    yield first.row
    while True:
        try:
            message = await _next(messages)
        except StopAsyncIteration:
            return
        yield message.row


async def _next(messages: AsyncIterator[pb.ChannelImportRequest]) -> pb.ChannelImportRequest:
    try:
        async with asyncio.timeout(IDLE_S):
            return await anext(messages)
    except TimeoutError as exc:
        raise TimeoutError(f"the stream was silent for {IDLE_S:g} s: nothing of it was imported") from exc


def revision_us(request: pb.ImportRequest | pb.ChannelImportRequest) -> int | None:
    """The time of a revision that a client asks for, UTC microseconds; None = none.

    Raises:
        InvalidRequest: It is not after 1970.
    """
    if not request.HasField("revision"):
        return None
    if not 0 < request.revision * 1000 <= MAX_TIME_US:
        raise InvalidRequest("revision is a time in milliseconds since 1970-01-01 UTC, and must be after that")
    return request.revision * 1000


def _delimiter(text: str) -> str:
    if len(text) != 1 or not text.isascii():
        raise InvalidRequest("delimiter must be one ASCII character")
    return text


def _response(report: ImportReport) -> pb.ImportResponse:
    return pb.ImportResponse(revision_id=0 if report.revision is None else report.revision.id)
