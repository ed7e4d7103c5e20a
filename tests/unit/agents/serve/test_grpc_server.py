"""The gRPC server's own rules: names of rpcs, and where a stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from oomstream.agents.serve.grpc_server import snake, whole


class Call:
    """As much of a call as is asked at a stream's end: a broken one learns that it is when something is sent."""

    def __init__(self, *, broken: bool) -> None:
        self._broken = broken
        self._sent = False

    async def send_initial_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        """Send, whether it arrives or not."""
        assert not metadata
        self._sent = True

    def cancelled(self) -> bool:
        """Whether the call is known to be broken."""
        return self._broken and self._sent


async def messages() -> AsyncIterator[int]:
    """Three messages."""
    for number in range(3):
        yield number


def test_a_stream_ends_only_where_its_call_is_whole() -> None:
    """The end of a broken call's stream is no end: it is cancelled before whoever reads it takes it for complete."""

    async def read(call: Call) -> list[int]:
        return [each async for each in whole(messages(), call)]

    async def scenario() -> None:
        assert await read(Call(broken=False)) == [0, 1, 2]
        with pytest.raises(asyncio.CancelledError):
            await read(Call(broken=True))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("rpc", "name"), [("OnlineMultiGet", "online_multi_get"), ("Import", "import_"), ("Push", "push")]
)
def test_rpcs_by_the_names_of_methods(rpc: str, name: str) -> None:
    """As Python writes them."""
    assert snake(rpc) == name
