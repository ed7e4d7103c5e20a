"""A TCP proxy on loopback that does to connections what bad networks do, switchable while they are open.

It runs in a thread of its own, so that synchronous and asynchronous tests use it alike: a switch has taken effect when
the call returns. A client must be told the proxy's address in place of the server's. Kafka and TiKV tell their clients
where to connect, so they are started with a second way in that tells the proxies' addresses (`Server.proxied_url`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal

from tests.services.native import HOST, free_ports
from tests.services.proxy_link import Direction, Link, reset

_Kind = Literal["normal", "refuse", "reset", "blackhole", "delay", "cut"]

_CHUNK = 64 * 1024
_CALL_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Mode:
    kind: _Kind = "normal"
    delay_s: float = 0.0
    cut_bytes: int = 0
    cut_direction: Direction = "to_client"
    cut_times: int | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a proxy has seen since it started.

    Attributes:
        connections: Connections accepted.
        to_server: Bytes passed on to the server.
        to_client: Bytes passed on to clients.
        held: Bytes that came in while it was a black hole, by either way, and were not passed on yet.
        cuts: Connections cut.
    """

    connections: int = 0
    to_server: int = 0
    to_client: int = 0
    held: int = 0
    cuts: int = 0


class Proxy:
    """A proxy between clients and one server.

    Args:
        target_port: The server's port on loopback.
        port: The proxy's own; any free one if not given.
    """

    def __init__(self, target_port: int, port: int | None = None) -> None:
        self.target_port = target_port
        self.port = port if port is not None else free_ports(1)[0]
        self._mode = _Mode()
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._switched = asyncio.Event()
        self._traffic = Traffic()
        self._seen = threading.Condition()

    @property
    def address(self) -> str:
        """Where clients connect, as host:port."""
        return f"{HOST}:{self.port}"

    @property
    def traffic(self) -> Traffic:
        """What it has seen so far."""
        with self._seen:
            return self._traffic

    def wait_until(self, seen: Callable[[Traffic], bool], timeout_s: float = 10.0) -> Traffic:
        """Wait until the traffic is as asked for; in asynchronous tests, through `asyncio.to_thread`.

        Raises:
            TimeoutError: It did not become so in time; the text tells the traffic.
        """
        with self._seen:
            if not self._seen.wait_for(lambda: seen(self._traffic), timeout_s):
                raise TimeoutError(f"the proxy on {self.address} has seen only {self._traffic}")
            return self._traffic

    def start(self) -> None:
        """Listen, in mode normal."""
        if self._thread is not None:
            return
        loop = asyncio.new_event_loop()
        self._loop = loop
        self._thread = threading.Thread(target=loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self.normal()

    def stop(self) -> None:
        """Reset all connections and stop listening. May be called again."""
        if self._thread is None or self._loop is None:
            return
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._loop.close()
        self._thread = self._loop = None

    def normal(self) -> None:
        """Pass everything on. Bytes that a black hole held go on their way."""
        self._switch(_Mode())

    def refuse(self) -> None:
        """Reset open connections and refuse new ones, as a machine does on which the server is down."""
        self._switch(_Mode("refuse"))

    def reset(self) -> None:
        """Reset open connections, and new ones as soon as they are made."""
        self._switch(_Mode("reset"))

    def blackhole(self) -> None:
        """Accept connections and bytes, and pass nothing on: to both sides the other one is silent."""
        self._switch(_Mode("blackhole"))

    def delay(self, seconds: float) -> None:
        """Pass everything on after a time."""
        self._switch(_Mode("delay", delay_s=seconds))

    def cut_after(self, count: int, direction: Direction, times: int | None = None) -> None:
        """Cut each connection when `count` more bytes have passed in a direction.

        The receiving side gets exactly those bytes and then the end of the stream; the sending side gets a reset.

        Args:
            count: How many bytes pass before the cut.
            direction: The way that is counted.
            times: After so many cuts the mode is normal again; None is never.
        """
        self._switch(_Mode("cut", cut_bytes=count, cut_direction=direction, cut_times=times))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            work.close()
            raise RuntimeError(f"the proxy on {self.address} does not run")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_TIMEOUT_S)

    def _switch(self, mode: _Mode) -> None:
        self._call(self._set(mode))

    async def _set(self, mode: _Mode) -> None:
        self._mode = mode
        for link in self._links:
            link.passed = {"to_server": 0, "to_client": 0}
        self._switched.set()
        self._switched = asyncio.Event()
        if mode.kind in ("refuse", "reset"):
            for link in self._links:
                link.reset()
        if mode.kind == "refuse":
            self._stop_listening()
        elif self._listener is None:
            # Not asyncio's server: it loses connections that are being accepted while it closes (CPython 3.11).
            self._listener = socket.create_server((HOST, self.port), backlog=100)
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _close(self) -> None:
        await self._set(_Mode("refuse"))
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # An aborted transport closes its socket in the loop's next turn.
        await asyncio.sleep(0)

    def _count(self, **more: int) -> None:
        with self._seen:
            values = {name: getattr(self._traffic, name) + count for name, count in more.items()}
            self._traffic = replace(self._traffic, **values)
            self._seen.notify_all()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # The client has given up in the meantime.
            return
        connection.setblocking(False)
        self._count(connections=1)
        link = Link(connection)
        if self._mode.kind == "reset":
            link.reset()
            return
        self._links[link] = asyncio.get_running_loop().create_task(self._serve(link))

    async def _serve(self, link: Link) -> None:
        try:
            await self._passable()
            reader, writer = await asyncio.open_connection(sock=link.client)
            link.writers.append(writer)
            connecting = asyncio.open_connection(HOST, self.target_port)
            server_reader, server_writer = await asyncio.wait_for(connecting, _CONNECT_TIMEOUT_S)
            link.writers.append(server_writer)
            await asyncio.gather(
                self._pass_on(link, "to_server", reader, server_writer),
                self._pass_on(link, "to_client", server_reader, writer),
            )
        except OSError:
            # One side is gone, or the server is not there: the other side sees a reset.
            pass
        finally:
            link.reset()
            self._links.pop(link, None)

    async def _passable(self) -> None:
        while self._mode.kind == "blackhole":
            await self._switched.wait()

    async def _pass_on(
        self, link: Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            data = await reader.read(_CHUNK)
            if self._mode.kind == "delay":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._switched.wait(), self._mode.delay_s)
            if self._mode.kind == "blackhole":
                self._count(held=len(data))
                await self._passable()
                self._count(held=-len(data))
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            cut = self._cuts(link, direction, len(data))
            if cut is not None:
                data = data[:cut]
            if data:
                # Counted first: who has received them finds them counted.
                link.passed[direction] += len(data)
                self._count(**{direction: len(data)})
                writer.write(data)
                await writer.drain()
            if cut is not None:
                await self._cut(link, writer)

    def _cuts(self, link: Link, direction: Direction, size: int) -> int | None:
        """How many of the next bytes pass before a cut; None if there is none."""
        mode = self._mode
        if mode.kind != "cut" or mode.cut_direction != direction:
            return None
        left = mode.cut_bytes - link.passed[direction]
        return left if size >= left else None

    async def _cut(self, link: Link, receiver: asyncio.StreamWriter) -> None:
        mode = self._mode
        if mode.cut_times is not None:
            left = mode.cut_times - 1
            # Not through _set: bytes passed by other connections go on counting.
            self._mode = replace(mode, cut_times=left) if left else _Mode()
        for writer in link.writers:
            if writer is not receiver:
                reset(writer)
        receiver.close()
        with contextlib.suppress(OSError):
            await receiver.wait_closed()
        link.writers = []
        self._count(cuts=1)
        raise ConnectionAbortedError
