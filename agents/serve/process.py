"""The HTTP server as a process: where it listens, what protects it, how it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from aiohttp import web

from oomstream.agents.serve.http import make_app
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.errors import Fatal, InvalidSetting
from oomstream.stores.settings import Settings

DRAIN_S = 10.0


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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(settings: Settings, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way and end.

    Args:
        settings: Where the stores are, and what protects the server.
        host: Address to listen on.
        port: Port; 0 = a free one.
        say: Told the URL when it serves.

    Raises:
        InvalidSetting: Not protected as the host needs it, or a store was never initialised.
        StoreUnavailable: A store cannot be reached.
        Fatal: The port is taken.
    """
    tls = protection(settings, host)
    token = settings.serve_token.get_secret_value() if settings.serve_token is not None else None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncFeatureStore.open(settings=settings) as store:
        runner = web.AppRunner(make_app(store, token=token), access_log=None, shutdown_timeout=DRAIN_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, ssl_context=tls)
            try:
                await site.start()
            except OSError as exc:
                raise Fatal(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
            bound = runner.addresses[0][1]
            say(f"{'https' if tls else 'http'}://{host}:{bound}")
            await stop.wait()
        finally:
            await runner.cleanup()
