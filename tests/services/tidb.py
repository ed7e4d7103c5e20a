"""A TiDB server: natively with its embedded storage engine (unistore), in Docker on a PD and a TiKV of its own."""

from __future__ import annotations

from pathlib import Path

from tests.services import build, docker, tikv
from tests.services.mysql_protocol import SqlServer
from tests.services.native import HOST, NativeProcess, free_ports
from tests.services.proxy import Proxy
from tests.services.server import Availability, Process, Way, choose, temporary_folder

VERSION = "v8.5.4"
IMAGE = f"pingcap/tidb:{VERSION}"

_MODULE = Path(__file__).parent / "tidb"
_INPUTS = [_MODULE / "go.mod", _MODULE / "go.sum"]
_BUILD_TIMEOUT_S = 3_000.0
_CONFIG = """
[log]
level = "warn"
slow-query-file = "tidb-slow.log"
[status]
report-status = false
"""


def available(way: Way | None = None) -> Availability:
    """Say whether and how a TiDB server can be started here."""
    lacking: dict[Way, str] = {"docker": docker.missing(), "native": build.lacking("go")}
    return choose(f"TiDB {VERSION}", lacking, "install Go 1.24 or newer", way)


def binary() -> Path:
    """Return the server's path, built the first time, which takes some minutes."""

    def compile_server(folder: Path) -> None:
        version = f"-X github.com/pingcap/tidb/pkg/parser/mysql.TiDBReleaseVersion={VERSION}"
        server = "github.com/pingcap/tidb/cmd/tidb-server"
        flags = ["-ldflags", f"-s -w {version}", "-o", str(folder / "tidb-server")]
        build.run(["go", "build", *flags, server], _MODULE, _BUILD_TIMEOUT_S)

    return build.built(f"tidb-{VERSION}", _INPUTS, compile_server) / "tidb-server"


def start(way: Way | None = None) -> SqlServer:
    """Start a TiDB server; ``url`` is ``tidb://root@host:port``, a database's comes from ``fresh_database()``."""
    chosen = available(way).required()
    (port,) = free_ports(1)
    folder = temporary_folder("tidb")
    processes = [_native(port, folder)] if chosen == "native" else _containers(port)
    return SqlServer("TiDB", processes, folder, scheme="tidb", port=port, proxy=Proxy(port)).start()


def _native(port: int, folder: Path) -> Process:
    config = folder / "tidb.toml"
    config.write_text(_CONFIG)
    storage = ["-store", "unistore", "-path", str(folder / "data"), "-temp-dir", str(folder / "temp")]
    listen = ["-host", HOST, "-P", str(port), "-socket", ""]
    env = {"TMPDIR": str(folder)}
    # It waits up to 15 s for its clients to leave; its data is as safe when it is killed.
    return NativeProcess("tidb", [str(binary()), "-config", str(config), *storage, *listen], folder, env=env, grace_s=3)


def _containers(port: int) -> list[Process]:
    pd_port, pd_peer_port, tikv_port, tikv_status_port, status_port = free_ports(5)
    pd = f"{HOST}:{pd_port}"
    cluster = tikv.containers(pd, f"{HOST}:{pd_peer_port}", f"{HOST}:{tikv_port}", f"{HOST}:{tikv_status_port}")
    command = ["--store=tikv", f"--path={pd}", f"--host={HOST}", f"-P={port}", f"--status={status_port}"]
    return [*cluster, docker.Container("tidb", IMAGE, [*command, "--status-host", HOST], grace_s=3)]
