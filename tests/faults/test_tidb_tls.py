"""TLS to TiDB: the certificate and the host name are verified, by both drivers, and it cannot be talked away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oomstream.schemas.errors import InvalidSetting, StoreUnavailable
from oomstream.stores.testing.history_suite import append, register, topic
from oomstream.stores.testing.samples import event, group
from tests.certificates import Authority
from tests.faults.sql_servers import store_on
from tests.services import tidb
from tests.services.fixtures import require
from tests.services.mysql_protocol import SqlServer
from tests.services.native import HOST, NativeProcess, free_ports
from tests.services.proxy import Proxy
from tests.services.server import temporary_folder


def _write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqlServer, Path]]:
    """A TiDB of our own that has a certificate for localhost, and the authority to trust."""
    require(tidb.available("native"))
    files, authority = tmp_path_factory.mktemp("tls"), Authority()
    ca = _write(files / "ca.pem", authority.certificate.encode())
    certificate, key = (
        _write(files / name, text.encode()) for name, text in authority.issue("localhost")._asdict().items()
    )
    (port,) = free_ports(1)
    folder = temporary_folder("tidb-tls")
    config = _write(
        folder / "tidb.toml",
        f'[log]\nlevel = "warn"\nslow-query-file = "{folder}/slow.log"\n[status]\nreport-status = false\n'
        f'[security]\nssl-cert = "{certificate}"\nssl-key = "{key}"\n'.encode(),
    )
    command = [str(tidb.binary()), "-config", str(config), "-store", "unistore", "-path", str(folder / "data")]
    command += ["-temp-dir", str(folder / "temp"), "-host", HOST, "-P", str(port), "-socket", ""]
    process = NativeProcess("tidb", command, folder, env={"TMPDIR": str(folder)}, grace_s=3)
    server = SqlServer("TiDB", [process], folder, scheme="tidb", port=port, proxy=Proxy(port))
    with server.start():
        yield server, ca


def test_verified_by_both_drivers(tls_server: tuple[SqlServer, Path]) -> None:
    """With the right authority and host name, writing and reading in bulk are encrypted."""
    server, ca = tls_server
    url = f"{server.fresh_database().replace(HOST, 'localhost')}?tls=true&ca={ca}"

    async def check() -> None:
        async with store_on(url, call_timeout="20s") as store:
            await store.init()
            [mine] = await register(store, group())
            source = await store.claim(topic())
            await append(store, source, mine, event(0))
            async with store._database.read() as connection:
                cipher: Any = (await connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'")).one()
            assert cipher[1]
            async with store.cut() as cut:
                assert [table.num_rows async for table in cut.scan(mine, ["n"])] == [1]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("host", "authority", "reason"),
    [(HOST, True, "not valid for this host"), ("localhost", False, "certificate")],
)
def test_wrong_certificate(tls_server: tuple[SqlServer, Path], host: str, authority: bool, reason: str) -> None:
    """Another host name, or an authority that is not trusted, is refused before anything is sent."""
    server, ca = tls_server
    url = f"tidb://root@{host}:{server.port}/test?tls=true" + (f"&ca={ca}" if authority else "")
    with pytest.raises(StoreUnavailable, match=reason):
        asyncio.run(store_on(url, call_timeout="20s").open())


def test_server_without_tls(mariadb_server: SqlServer) -> None:
    """Where TLS is asked for, a server that does not offer it gets neither user nor password."""
    with pytest.raises(InvalidSetting, match="does not offer TLS"):
        asyncio.run(store_on(f"{mariadb_server.url}/test?tls=true").open())


def test_unreadable_authorities(mariadb_server: SqlServer, tmp_path: Path) -> None:
    """A file of authorities that is not there, or is none, is named."""
    for path in (tmp_path / "missing.pem", _write(tmp_path / "none.pem", b"nothing")):
        with pytest.raises(InvalidSetting, match=path.name):
            asyncio.run(store_on(f"{mariadb_server.url}/test?tls=true&ca={path}").open())
