"""The proxy that stands in for bad networks."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.services.native import HOST, free_ports
from tests.services.proxy import Proxy

_TIMEOUT_S = 10.0


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while data := self.connection.recv(65_536):
            self.connection.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that is reset is what these tests are about."""


@pytest.fixture
def echo_port() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with _EchoServer((HOST, 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(_TIMEOUT_S)


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    """A proxy in front of the echo server."""
    proxy = Proxy(echo_port)
    proxy.start()
    yield proxy
    proxy.stop()


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=_TIMEOUT_S)


def _connect_and_receive(proxy: Proxy) -> bytes:
    with _connect(proxy) as connection:
        return connection.recv(1)


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def _talk(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return _receive(connection, len(data))


def test_normal_passes_everything_on(proxy: Proxy) -> None:
    """Bytes go both ways unchanged, and are counted."""
    data = bytes(range(256)) * 4_000
    with _connect(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert _receive(connection, len(data)) == data
        sender.join(_TIMEOUT_S)
    traffic = proxy.traffic
    assert (traffic.connections, traffic.to_server, traffic.to_client) == (1, len(data), len(data))


def test_end_of_stream_is_passed_on(proxy: Proxy) -> None:
    """A side that has said all it has to say still gets the other's answer."""
    with _connect(proxy) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert _receive(connection, 100) == b"last words"


def test_refuse(proxy: Proxy) -> None:
    """Open connections are reset, new ones refused; both work again afterwards."""
    with _connect(proxy) as connection:
        assert _talk(connection, b"a") == b"a"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)
    proxy.normal()
    with _connect(proxy) as connection:
        assert _talk(connection, b"b") == b"b"


def test_reset(proxy: Proxy) -> None:
    """Open connections are reset, and new ones after they are made."""
    with _connect(proxy) as connection:
        assert _talk(connection, b"a") == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionResetError):
        _connect_and_receive(proxy)


def test_blackhole_holds_bytes_and_heals(proxy: Proxy) -> None:
    """Nothing is answered, on old connections and new ones; afterwards the same bytes go on their way."""
    with _connect(proxy) as old:
        assert _talk(old, b"a") == b"a"
        proxy.blackhole()
        with _connect(proxy) as new:
            old.sendall(b"old")
            new.sendall(b"new")
            proxy.wait_until(lambda traffic: traffic.connections == 2 and traffic.held == 3)
            assert proxy.traffic.to_server == 1
            proxy.normal()
            assert _receive(old, 3) == b"old"
            assert _receive(new, 3) == b"new"
    assert proxy.traffic.held == 0


def test_delay_is_ended_by_a_switch(proxy: Proxy) -> None:
    """Delayed bytes arrive, and those still waiting go on at once when the mode is normal again."""
    proxy.delay(0.01)
    with _connect(proxy) as connection:
        assert _talk(connection, b"slow") == b"slow"
        proxy.delay(3_600)
        connection.sendall(b"slower")
        proxy.normal()
        assert _receive(connection, 6) == b"slower"


@pytest.mark.parametrize("count", [0, 3])
def test_cut_an_answer(proxy: Proxy, count: int) -> None:
    """The client gets exactly so many bytes of the answer, though the server got the whole request."""
    with _connect(proxy) as connection:
        assert _talk(connection, b"before") == b"before"
        proxy.cut_after(count, "to_client")
        connection.sendall(b"request")
        assert _receive(connection, 100) == b"request"[:count]
    assert proxy.traffic.to_server == len(b"before" + b"request")
    proxy.wait_until(lambda traffic: traffic.cuts == 1)


def test_cut_a_request(proxy: Proxy) -> None:
    """The server gets exactly so many bytes of the request, and the client a reset."""
    proxy.cut_after(4, "to_server")
    with _connect(proxy) as connection:
        connection.sendall(b"request")
        with pytest.raises(ConnectionResetError):
            _receive(connection, 100)
    assert proxy.traffic.to_server == 4


def test_cut_so_many_times(proxy: Proxy) -> None:
    """After the given number of cuts, connections live again."""
    proxy.cut_after(2, "to_client", times=2)
    for _ in range(2):
        with _connect(proxy) as connection:
            assert _talk(connection, b"request") == b"re"
    with _connect(proxy) as connection:
        assert _talk(connection, b"request") == b"request"
    assert proxy.traffic.cuts == 2


def test_server_that_is_down(proxy: Proxy) -> None:
    """A client is reset when there is no server behind the proxy."""
    proxy.target_port = free_ports(1)[0]
    with pytest.raises(ConnectionResetError):
        _connect_and_receive(proxy)


def test_waiting_for_traffic_has_a_deadline(proxy: Proxy) -> None:
    """What does not come is an error that tells what came."""
    with pytest.raises(TimeoutError, match="connections=0"):
        proxy.wait_until(lambda traffic: traffic.connections == 1, timeout_s=0.01)


def test_stop_twice(echo_port: int) -> None:
    """A proxy can be stopped again, and then takes no orders."""
    proxy = Proxy(echo_port)
    proxy.start()
    connection = _connect(proxy)
    proxy.stop()
    proxy.stop()
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    with pytest.raises(RuntimeError, match="does not run"):
        proxy.normal()
