"""pytest's fixtures for the real servers: ``pytest_plugins = ["tests.services.fixtures"]`` in tests/conftest.py.

Each kind of server is started once a session, when the first test asks for it; of processes side by side, each has its
own. A test may freeze, kill or split it and switch its proxies: afterwards it is healed. A server that this machine
cannot start skips its tests with the command that would change that; in CI (the variable CI is set) that is a failure.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.services import build, kafka, mariadb, oomclient, tidb, tikv
from tests.services.build import BuildFailed
from tests.services.mysql_protocol import SqlServer
from tests.services.server import Availability, Server
from tests.services.tikv import TikvServer

# A process that ends sooner after the client's last call is sometimes crashed by its threads (tikv-client 0.0.4).
_TIKV_CLIENT_EXIT_S = 0.3


def pytest_report_header() -> str:
    """Say in one line which real servers the tests can use."""
    found = [module.available() for module in (kafka, tidb, tikv, mariadb)]
    return "servers: " + ", ".join(str(one) for one in found)


def _missing(availability: Availability) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI must run this: {availability.missing}", pytrace=False)
    pytest.skip(availability.missing)


def require(availability: Availability) -> None:
    """Skip the test, or fail it in CI, if a server that it starts itself cannot be had here."""
    if not availability.way:
        _missing(availability)


@pytest.fixture(scope="session")
def _kafka() -> Iterator[Server]:
    if not (availability := kafka.available()).way:
        _missing(availability)
    with kafka.start() as server:
        yield server


@pytest.fixture
def kafka_server(_kafka: Server) -> Iterator[Server]:
    """A Kafka broker; topics are the test's own to make."""
    yield _kafka
    _kafka.heal()


@pytest.fixture(scope="session")
def _tidb() -> Iterator[SqlServer]:
    if not (availability := tidb.available()).way:
        _missing(availability)
    with tidb.start() as server:
        yield server


@pytest.fixture
def tidb_server(_tidb: SqlServer) -> Iterator[SqlServer]:
    """A TiDB server; `fresh_database` makes a database of the test's own."""
    yield _tidb
    _tidb.heal()


@pytest.fixture
def tidb_url(tidb_server: SqlServer) -> str:
    """The URL of an empty database on TiDB."""
    return tidb_server.fresh_database()


@pytest.fixture(scope="session")
def _mariadb() -> Iterator[SqlServer]:
    if not (availability := mariadb.available()).way:
        _missing(availability)
    with mariadb.start() as server:
        yield server


@pytest.fixture
def mariadb_server(_mariadb: SqlServer) -> Iterator[SqlServer]:
    """A MariaDB server; `fresh_database` makes a database of the test's own."""
    yield _mariadb
    _mariadb.heal()


@pytest.fixture
def mariadb_url(mariadb_server: SqlServer) -> str:
    """The URL of an empty database on MariaDB."""
    return mariadb_server.fresh_database()


@pytest.fixture(scope="session")
def _tikv() -> Iterator[TikvServer]:
    if not (availability := tikv.available()).way:
        _missing(availability)
    with tikv.start() as server:
        yield server
        _let_client_threads_end()


@pytest.fixture
def tikv_server(_tikv: TikvServer) -> Iterator[TikvServer]:
    """A TiKV; real where Docker is, and then without `control`."""
    yield _tikv
    _tikv.heal()


@pytest.fixture(params=["tikv-client", "native"])
def tikv_driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with each client of TiKV, in processes that it starts too; where cargo is, both must be there."""
    driver: str = request.param
    if driver == "native" and importlib.util.find_spec("oomstream_tikv") is None:
        lacking = build.lacking("cargo")
        reason = f"oomstream-tikv is not installed: {lacking or 'run make install'}"
        if os.environ.get("CI") and not lacking:
            pytest.fail(f"CI must run this: {reason}", pytrace=False)
        pytest.skip(reason)
    monkeypatch.setenv("OOMSTREAM_TIKV_DRIVER", driver)
    return driver


@pytest.fixture
def tikv_url(tikv_server: TikvServer) -> str:
    """The URL of an empty namespace on TiKV."""
    return f"{tikv_server.url}/test_{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def _native_tikv(request: pytest.FixtureRequest) -> Iterator[TikvServer]:
    if tikv.available().way == "native":
        # The one that other tests use anyway.
        shared: TikvServer = request.getfixturevalue("_tikv")
        yield shared
        return
    if not (availability := tikv.available("native")).way:
        _missing(availability)
    with tikv.start("native") as server:
        yield server
        _let_client_threads_end()


@pytest.fixture
def native_tikv(_native_tikv: TikvServer) -> Iterator[TikvServer]:
    """A TiKV that splits regions and makes calls fail on request (`control`)."""
    yield _native_tikv
    _native_tikv.heal()


@pytest.fixture(scope="session")
def oomclient_folder() -> Path:
    """The folder that holds oomstore's published Python client; a machine without cargo skips, in CI too."""
    if missing := oomclient.missing():
        pytest.skip(missing)
    try:
        return oomclient.folder()
    except BuildFailed as exc:
        reason = f"oomclient {oomclient.VERSION} cannot be built here: {exc}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def _let_client_threads_end() -> None:
    if "tikv_client" in sys.modules:
        time.sleep(_TIKV_CLIENT_EXIT_S)
