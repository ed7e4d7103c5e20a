"""One connection through the proxy: the client's half, the server's half, and how many bytes have passed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["to_server", "to_client"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(eq=False, slots=True)
class Link:
    """A client's connection and, once it is made, the one to the server."""

    client: socket.socket
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    passed: dict[Direction, int] = field(default_factory=lambda: {"to_server": 0, "to_client": 0})

    def reset(self) -> None:
        """Reset both, as far as they are made."""
        if not self.writers:
            _reset_on_close(self.client)
            self.client.close()
        for writer in self.writers:
            reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset one connection: the peer gets an error, not the end of the stream."""
    _reset_on_close(writer.get_extra_info("socket"))
    writer.transport.abort()


def _reset_on_close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
