"""The server as a process: where it listens, what protects it, how it ends."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from aiohttp import web

from oomstream.agents.serve.agent import Agent
from oomstream.agents.serve.exports import Exports
from oomstream.agents.serve.grpc_server import GrpcServer, credentials_of
from oomstream.agents.serve.http import HttpApi
from oomstream.agents.serve.imports import Imports
from oomstream.agents.serve.joins import Joins
from oomstream.agents.serve.loopback import is_loopback
from oomstream.agents.serve.metrics import ServeMetrics
from oomstream.agents.serve.pushes import Pushes
from oomstream.agents.serve.registered import Registered
from oomstream.agents.serve.shared_files import SharedFiles
from oomstream.agents.serve.write_stores import WriteStores
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.errors import Fatal, InvalidSetting
from oomstream.stores.opening import history_store
from oomstream.stores.settings import Settings

DRAIN_S = 20.0


class Addresses(NamedTuple):
    """Where a server listens.

    Attributes:
        http: URL of HTTP.
        grpc: URL of gRPC, as oomstore's clients take it.
    """

    http: str
    grpc: str


def protection(settings: Settings, host: str) -> ssl.SSLContext | None:
    """TLS as the settings say; anything but loopback needs it, and a token.

    Raises:
        InvalidSetting: A certificate is missing or wrong, or the host is open to others without TLS and token.
    """
    certificate, key = settings.serve_certificate, settings.serve_key
    if not is_loopback(host) and (certificate is None or key is None or settings.serve_token is None):
        raise InvalidSetting(
            f"serving on {host}, which others can reach, needs OOMSTREAM_SERVE_CERTIFICATE, OOMSTREAM_SERVE_KEY and "
            "OOMSTREAM_SERVE_TOKEN (or serve on 127.0.0.1)"
        )
    if (certificate is None) != (key is None):
        raise InvalidSetting("OOMSTREAM_SERVE_CERTIFICATE and OOMSTREAM_SERVE_KEY go together")
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Python's ssl reads certificates from files only.
    with TemporaryDirectory() as folder:
        pair = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        for path, text in zip(pair, (certificate, key.get_secret_value()), strict=True):
            path.touch(mode=0o600)
            path.write_text(text)
        try:
            context.load_cert_chain(*pair)
        except ssl.SSLError as exc:
            raise InvalidSetting(
                "OOMSTREAM_SERVE_CERTIFICATE and OOMSTREAM_SERVE_KEY are not a certificate and its key as PEM text"
            ) from exc
    return context


class Server:
    """Both ports, over one feature store.

    Args:
        settings: Where the stores are, and what protects the server.
        host: Address to listen on.

    Raises:
        InvalidSetting: Not protected as the host needs it.
    """

    def __init__(self, settings: Settings, host: str) -> None:
        self._settings = settings
        self._host = host
        self._tls = protection(settings, host)
        self._stack = AsyncExitStack()
        self._http: HttpApi | None = None
        self._runner: web.AppRunner | None = None
        self._grpc: GrpcServer | None = None

    async def start(self, http_port: int, grpc_port: int) -> Addresses:
        """Open the stores and listen.

        Args:
            http_port: Port; 0 = a free one.
            grpc_port: Port; 0 = a free one.

        Raises:
            InvalidSetting: A store was never initialised.
            StoreUnavailable: A store cannot be reached.
            Fatal: A port is taken.
        """
        settings, stack, metrics = self._settings, self._stack, ServeMetrics()
        store = await stack.enter_async_context(AsyncFeatureStore.open(settings=settings))
        registered = Registered(await stack.enter_async_context(history_store(settings.history, settings)))
        stores = WriteStores(settings)
        stack.push_async_callback(stores.close)
        pushes = Pushes(stores)
        stack.push_async_callback(pushes.close)
        files = SharedFiles(shared_folder(settings, self._host), settings.data_dir)
        self._http = HttpApi(store, registered, pushes, settings, metrics)
        answers = (
            Agent(store, registered, pushes, metrics),
            Joins(store, registered, files),
            Imports(store, registered, stores, files),
            Exports(store, files),
        )
        self._grpc = GrpcServer(answers, settings, metrics)
        found_grpc = await self._grpc.start(self._host, grpc_port, credentials_of(settings, self._tls))
        self._runner = web.AppRunner(self._http.app(), access_log=None, shutdown_timeout=DRAIN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, http_port, ssl_context=self._tls)
        try:
            await site.start()
        except OSError as exc:
            raise Fatal(f"cannot listen on {self._host}:{http_port}: {exc.strerror}") from exc
        scheme = "https" if self._tls else "http"
        found_http = self._runner.addresses[0][1]
        return Addresses(f"{scheme}://{self._host}:{found_http}", f"{scheme}://{self._host}:{found_grpc}")

    async def stop(self) -> None:
        """Take no more requests, answer what is under way, and close the stores; harmless when it never started."""
        if self._http is not None:
            self._http.draining = True
        if self._grpc is not None:
            await self._grpc.stop(DRAIN_S)
        # Last, so that /ready says for as long as something is under way that nothing more should come.
        if self._runner is not None:
            await self._runner.cleanup()
        await self._stack.aclose()


def shared_folder(settings: Settings, host: str) -> Path | None:
    """The folder whose files clients may name: as it is set, else the working folder where only this machine asks."""
    if settings.serve_files is not None:
        return settings.serve_files
    return Path.cwd() if is_loopback(host) else None


async def serve(
    settings: Settings,
    host: str,
    say: Callable[[Addresses], None],
    *,
    http_port: int | None = None,
    grpc_port: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way and end.

    Args:
        settings: Where the stores are, and what protects the server.
        host: Address to listen on.
        say: Told the addresses when it serves.
        http_port: In place of the setting.
        grpc_port: In place of the setting.

    Raises:
        InvalidSetting: Not protected as the host needs it, or a store was never initialised.
        StoreUnavailable: A store cannot be reached.
        Fatal: A port is taken.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(settings, host)
    try:
        say(
            await server.start(
                settings.serve_port if http_port is None else http_port,
                settings.serve_grpc_port if grpc_port is None else grpc_port,
            )
        )
        await stop.wait()
    finally:
        await server.stop()
