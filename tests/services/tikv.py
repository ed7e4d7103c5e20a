"""TiKV with its Placement Driver.

Natively it is the server in the folder tikv/: TiDB's embedded TiKV engine behind the real PD and TiKV protocols, which
can also split regions and misbehave on request (`TikvServer.control`). In Docker it is the real ones.

PD tells clients where TiKV is. The native server has a second PD that tells the proxies' addresses; in Docker there is
only one PD, and it tells them always.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.services import build, docker
from tests.services.native import HOST, NativeProcess, free_ports
from tests.services.proxy import Proxy
from tests.services.server import Availability, NotReady, Process, Server, Way, choose, temporary_folder
from tests.services.tikv_control import Control

VERSION = "v8.5.4"
PD_IMAGE = f"pingcap/pd:{VERSION}"
IMAGE = f"pingcap/tikv:{VERSION}"

_MODULE = Path(__file__).parent / "tikv"
_PROBE = Path(__file__).parent / "tikv_probe.py"
_BUILD_TIMEOUT_S = 3_000.0
_PROBE_TIMEOUT_S = 15.0


def available(way: Way | None = None) -> Availability:
    """Say whether and how TiKV can be started here."""
    if importlib.util.find_spec("tikv_client") is None:
        missing = "TiKV cannot be used: tikv-client is not installed. Try (Linux x86_64, Python 3.11): pip install "
        return Availability(None, f"TiKV {VERSION}", missing + "tikv-client==0.0.4")
    lacking: dict[Way, str] = {"docker": docker.missing(), "native": build.lacking("go")}
    return choose(f"TiKV {VERSION}", lacking, "install Go 1.24 or newer", way)


def binary() -> Path:
    """Return the native server's path, built the first time."""
    sources = [path for path in _MODULE.rglob("*.go") if not path.name.endswith("_test.go")]

    def compile_server(folder: Path) -> None:
        command = ["go", "build", "-ldflags", "-s -w", "-o", str(folder / "tikv"), "."]
        build.run(command, _MODULE, _BUILD_TIMEOUT_S)

    inputs = [*sources, _MODULE / "go.mod", _MODULE / "go.sum"]
    return build.built(f"tikv-{VERSION}", inputs, compile_server) / "tikv"


class TikvServer(Server):
    """A running TiKV; ``url`` is ``tikv://host:port`` of its PD, to which a namespace may be added as the path."""

    def __init__(
        self,
        processes: Sequence[Process],
        folder: Path,
        *,
        pd: str,
        store_proxy: Proxy,
        pd_proxy: Proxy,
        control: Control | None,
    ) -> None:
        self.pd = pd
        self.pd_proxy = pd_proxy
        self._control = control
        super().__init__(
            "TiKV",
            processes,
            functools.partial(_probe, pd),
            folder,
            url=f"tikv://{pd}",
            proxied_url=f"tikv://{pd_proxy.address}",
            proxies=[store_proxy, pd_proxy],
        )

    @property
    def control(self) -> Control:
        """Splits regions and makes calls fail; only the native server can."""
        if self._control is None:
            raise RuntimeError('a TiKV in Docker takes no orders: start it with way="native"')
        return self._control

    def heal(self) -> None:
        """Undo what a test did to it, faults included; regions that were split stay so."""
        super().heal()
        if self._control is not None:
            self._control.clear_faults()


def start(way: Way | None = None) -> TikvServer:
    """Start a TiKV without data."""
    chosen = available(way).required()
    folder = temporary_folder("tikv")
    return (_start_native(folder) if chosen == "native" else _start_containers(folder)).start()


def _start_native(folder: Path) -> TikvServer:
    pd_port, proxied_pd_port, store_port, control_port = free_ports(4)
    store_proxy, pd_proxy = Proxy(store_port), Proxy(proxied_pd_port)
    pd, control = f"{HOST}:{pd_port}", f"{HOST}:{control_port}"
    flags = {
        "-data": str(folder / "data"),
        "-pd": pd,
        "-store": f"{HOST}:{store_port}",
        "-control": control,
        "-proxied-pd": f"{HOST}:{proxied_pd_port}",
        "-advertised-pd": pd_proxy.address,
        "-advertised-store": store_proxy.address,
    }
    argv = [str(binary()), *(part for flag in flags.items() for part in flag)]
    process = NativeProcess("tikv", argv, folder)
    return TikvServer([process], folder, pd=pd, store_proxy=store_proxy, pd_proxy=pd_proxy, control=Control(control))


def _start_containers(folder: Path) -> TikvServer:
    pd_port, pd_peer_port, store_port, status_port = free_ports(4)
    store_proxy, pd_proxy = Proxy(store_port), Proxy(pd_port)
    processes = containers(
        f"{HOST}:{pd_port}",
        f"{HOST}:{pd_peer_port}",
        f"{HOST}:{store_port}",
        f"{HOST}:{status_port}",
        advertised_pd=pd_proxy.address,
        advertised_store=store_proxy.address,
    )
    return TikvServer(processes, folder, pd=pd_proxy.address, store_proxy=store_proxy, pd_proxy=pd_proxy, control=None)


def containers(
    pd: str,
    pd_peer: str,
    store: str,
    status: str,
    *,
    advertised_pd: str | None = None,
    advertised_store: str | None = None,
) -> list[Process]:
    """Make the containers of one PD and one TiKV: where they listen, and what clients are told."""
    pd_command = [
        "--name=pd",
        "--data-dir=/data",
        f"--client-urls=http://{pd}",
        f"--advertise-client-urls=http://{advertised_pd or pd}",
        f"--peer-urls=http://{pd_peer}",
        f"--initial-cluster=pd=http://{pd_peer}",
    ]
    store_command = [
        "--data-dir=/data",
        f"--pd-endpoints={pd}",
        f"--addr={store}",
        f"--advertise-addr={advertised_store or store}",
        f"--status-addr={status}",
    ]
    return [docker.Container("pd", PD_IMAGE, pd_command), docker.Container("tikv", IMAGE, store_command)]


def _probe(address: str) -> None:
    try:
        ended = subprocess.run(
            [sys.executable, str(_PROBE), address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        said = (exc.stdout or b"").decode(errors="replace").splitlines()
        raise NotReady(said[-1] if said else "it accepts no connection, or never answers") from exc
    if ended.returncode != 0:
        raise NotReady(ended.stdout.decode(errors="replace")[-500:])
