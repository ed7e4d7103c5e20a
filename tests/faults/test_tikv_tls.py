"""TLS to PD and TiKV, which the native client can do: both sides show certificates, and nothing goes in the clear."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.store import TikvOnlineStore
from tests.certificates import Authority
from tests.faults.tikv_rows import rows
from tests.services import tikv
from tests.services.fixtures import require
from tests.services.native import HOST, NativeProcess, free_ports
from tests.services.proxy import Proxy
from tests.services.server import temporary_folder
from tests.services.tikv import TikvServer

pytestmark = [
    pytest.mark.usefixtures("tikv_driver"),
    pytest.mark.parametrize("tikv_driver", ["native"], indirect=True),
]


class TlsRelay:
    """Takes TLS connections from clients that have a certificate, and passes them on in the clear.

    Args:
        routes: Port to listen on -> port to pass on to.
        context: The server's side of TLS.
    """

    def __init__(self, routes: dict[int, int], context: ssl.SSLContext) -> None:
        self._routes = routes
        self._context = context
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            for port, target in self._routes.items():
                relay = functools.partial(_relay, target)
                await stack.enter_async_context(await asyncio.start_server(relay, "localhost", port, ssl=self._context))
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


async def _relay(target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    inner_reader, inner_writer = await asyncio.open_connection(HOST, target)

    async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                to.write(data)
                await to.drain()
        for each in (writer, inner_writer):
            each.transport.abort()

    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


@pytest.fixture(scope="module")
def tls_tikv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A TiKV of our own behind TLS: its PD's address, and a folder of certificates, one of another authority too."""
    require(tikv.available("native"))
    files, authority = tmp_path_factory.mktemp("tls"), Authority()
    for name, text in {
        "ca": authority.certificate,
        "other": Authority().certificate,
        "empty": "",
        "text": "not a certificate",
        "locked-key": authority.issue("localhost", password="secret").key,
        **authority.issue("localhost")._asdict(),
    }.items():
        (files / f"{name}.pem").write_text(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files / "ca.pem"))
    context.load_cert_chain(files / "certificate.pem", files / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    pd, store, control, shown_pd, tls_pd, tls_store = free_ports(6)
    folder = temporary_folder("tikv-tls")
    flags = {"-data": str(folder / "data"), "-pd": f"{HOST}:{pd}", "-store": f"{HOST}:{store}"}
    flags |= {"-control": f"{HOST}:{control}", "-proxied-pd": f"{HOST}:{shown_pd}"}
    flags |= {"-advertised-pd": f"localhost:{tls_pd}", "-advertised-store": f"localhost:{tls_store}"}
    process = NativeProcess("tikv", [str(tikv.binary()), *(part for flag in flags.items() for part in flag)], folder)
    server = TikvServer(
        [process], folder, pd=f"{HOST}:{pd}", store_proxy=Proxy(store), pd_proxy=Proxy(shown_pd), control=None
    )
    with server.start(), TlsRelay({tls_pd: shown_pd, tls_store: store}, context):
        yield f"localhost:{tls_pd}", files


def _url(pd: str, files: Path, ca: str = "ca") -> str:
    return f"tikv://{pd}/tls?ca={files}/{ca}.pem&certificate={files}/certificate.pem&key={files}/key.pem"


def test_encrypted(tls_tikv: tuple[str, Path]) -> None:
    """With both certificates, rows are written and read through TLS alone: PD tells no other addresses."""
    pd, files = tls_tikv

    async def check() -> None:
        async with TikvOnlineStore(_url(pd, files), load_settings(call_timeout_us=20_000_000)) as store:
            assert await store.upsert_newer(rows(300)) == 300
            assert (await store.read_aged([row.key for row in rows(300)])).values == [row.value for row in rows(300)]

    asyncio.run(check())


async def _refusal(url: str) -> str:
    """The sentence of the error with which a store is not opened, which shows the path of no key."""
    store = TikvOnlineStore(url, load_settings(call_timeout_us=4_000_000))
    with pytest.raises(StoreUnavailable, match="cannot open online store tikv://") as caught:
        await store.open()
    await store.close()
    error: BaseException | None = caught.value
    while error is not None:
        assert "key.pem" not in str(error)
        error = error.__cause__
    return str(caught.value)


def test_refused(tls_tikv: tuple[str, Path]) -> None:
    """An authority that is not trusted, or no TLS at all, is an error that says what to look at."""
    pd, files = tls_tikv
    said = "PD does not answer, or TLS with it fails; see that PD runs with TLS"
    assert said in asyncio.run(_refusal(_url(pd, files, "other")))
    assert "PD does not answer; see" in asyncio.run(_refusal(f"tikv://{pd}/tls"))


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("ca", "empty", "file that the URL's ca names"),
        ("ca", "none", "file that the URL's ca names"),
        ("ca", "text", "file that the URL's ca names"),
        ("certificate", "none", "certificate and key"),
        ("certificate", "other", "certificate and key"),
        ("key", "nokey", "certificate and key"),
        ("key", "locked-key", "certificate and key"),
        ("key", "certificate", "certificate and key"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    tls_tikv: tuple[str, Path], tikv_url: str, right: str, wrong: str, named: str
) -> None:
    """A file that is missing, empty, encrypted or another's is named; nothing is sent, even to a TiKV without TLS."""
    pd, files = tls_tikv
    for server in (pd, tikv_url.removeprefix("tikv://").partition("/")[0]):
        url = _url(server, files).replace(f"/{right}.pem", f"/{wrong}.pem")
        assert named in asyncio.run(_refusal(url))
