"""Processes, ports and builds of the servers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import build, docker
from tests.services.native import NativeProcess, free_ports
from tests.services.server import NotReady, Server, ServerFailed, ServerMissing, choose

_ROOT = Path(__file__).parents[3]
_TIMEOUT_S = 10.0


def _is_running(pid: int) -> bool:
    try:
        state = _state(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def _state(pid: int) -> str:
    return _state_in(Path(f"/proc/{pid}/stat"))


def _state_in(stat: Path) -> str:
    return stat.read_text().rpartition(")")[2].split()[0]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_ports_are_handed_out_once() -> None:
    """No port is handed out twice, and none can be taken by an outgoing connection."""
    ports = free_ports(50) + free_ports(50)
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 100
    assert max(ports) < first_ephemeral


def test_servers_do_not_outlive_the_tests(tmp_path: Path) -> None:
    """A server ends with the process that started it, even if that one is killed."""
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.services.native import NativeProcess\n"
        "server = NativeProcess('sleeper', ['sleep', '600'], Path(sys.argv[1])); server.start()\n"
        "print(server.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=False)
    assert ended.returncode == -signal.SIGKILL
    _until(lambda: not _is_running(int(ended.stdout)))


def test_servers_end_with_the_interpreter(tmp_path: Path) -> None:
    """A server that no one stopped ends when its Python program ends."""
    program = (
        "import sys; from pathlib import Path; from tests.services.native import NativeProcess\n"
        "server = NativeProcess('sleeper', ['sleep', '600'], Path(sys.argv[1])); server.start(); print(server.pid)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=True)
    _until(lambda: not _is_running(int(ended.stdout)))


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """Started from a thread that ends, a server goes on, until it is stopped by its process id."""
    server = NativeProcess("sleeper", ["sleep", "600"], tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join(_TIMEOUT_S)
    pid = server.pid
    assert pid is not None
    assert _is_running(pid)
    server.pause()
    assert _state(pid) == "T"
    server.resume()
    server.terminate()
    _until(lambda: not _is_running(pid))
    assert server.ended() == f"it ended with code {-signal.SIGTERM}"


def test_a_frozen_server_stands_still(tmp_path: Path) -> None:
    """When a server has been frozen, none of its threads goes on, however busy they and the machine are."""
    program = (
        "import hashlib, threading\n"
        "for _ in range(16): threading.Thread(target=lambda: hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)).start()\n"
        "print('ready', flush=True)"
    )
    server = NativeProcess("busy", [sys.executable, "-c", program], tmp_path)
    server.start()
    _until(lambda: "ready" in server.log_tail())
    try:
        for _ in range(20):
            server.pause()
            assert {_state_in(stat) for stat in Path(f"/proc/{server.pid}/task").glob("*/stat")} == {"T"}
            server.resume()
    finally:
        server.kill()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After its grace time a server is killed."""
    server = NativeProcess("deaf", ["sh", "-c", "trap '' TERM; echo ready; sleep 600"], tmp_path, grace_s=0.05)
    server.start()
    _until(lambda: "ready" in server.log_tail())
    server.terminate()
    assert server.ended() == f"it ended with code {-signal.SIGKILL}"


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    """The error holds the tail of the log, and nothing is left behind."""
    folder = tmp_path / "server"
    folder.mkdir()
    process = NativeProcess("broken", ["sh", "-c", "echo 'no such disk'; exit 3"], folder)

    def probe() -> None:
        raise NotReady("no answer")

    server = Server("Broken", [process], probe, folder, url="x://", proxied_url="x://", proxies=[])
    with pytest.raises(ServerFailed, match=r"it ended with code 3\. Its log ends:\nno such disk"):
        server.start()
    assert not folder.exists()


def test_a_missing_server_says_what_would_help() -> None:
    """Where no way is possible, the sentence has every reason and the command."""
    none = choose("X 1", {"docker": "no Docker engine answers", "native": "go not found"}, "install go")
    with pytest.raises(ServerMissing, match="Try: install go"):
        none.required()
    assert str(none) == "X 1 cannot be started: no Docker engine answers, and go not found. Try: install go"
    assert choose("X 1", {"docker": "no engine", "native": ""}, "").way == "native"
    assert choose("X 1", {"docker": "", "native": ""}, "").way == "docker"
    assert choose("X 1", {"docker": "", "native": "go not found"}, "", "native").way is None
    assert build.lacking("sh") == ""
    assert "no-such-program" in build.lacking("sh", "no-such-program")


def test_no_engine_behind_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Docker client without an engine does not count as Docker."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    docker.missing.cache_clear()
    try:
        assert docker.missing() == "no Docker engine answers"
    finally:
        docker.missing.cache_clear()


def _count_builds(folder: str, done: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder

    def make(part: Path) -> None:
        with Path(done).open("a") as log:
            log.write("x")
        (part / "result").write_text("made")

    assert (build.built("thing-1", [Path(__file__)], make) / "result").read_text() == "made"


def test_processes_build_once(tmp_path: Path) -> None:
    """Several processes that want the same build wait for one of them."""
    done = tmp_path / "builds"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_builds, args=(str(tmp_path), str(done))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert done.read_text() == "x"


def test_half_a_build_is_not_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed build made is removed, and the next one starts anew; other inputs are another build."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "source"
    source.write_text("1")

    def fail(part: Path) -> None:
        (part / "result").write_text("half")
        build.run(["sh", "-c", "echo broken; exit 2"], part, _TIMEOUT_S)

    with pytest.raises(build.BuildFailed, match=r"ended with code 2:\nbroken"):
        build.built("thing", [source], fail)
    first = build.built("thing", [source], lambda part: (part / "result").touch())
    assert (first / "result").exists()
    source.write_text("2")
    second = build.built("thing", [source], lambda part: None)
    assert second != first


def test_a_killed_builds_rest_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that a killed build left is neither used nor kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "source"
    source.write_text("1")
    done = build.built("thing", [source], lambda part: None)
    done.rmdir()
    left = done.with_name(f"{done.name}.part-killed")
    left.mkdir()
    build.built("thing", [source], lambda part: None)
    assert done.is_dir()
    assert not left.exists()


def test_a_slow_build_command_ends(tmp_path: Path) -> None:
    """A build command that takes too long is an error."""
    with pytest.raises(build.BuildFailed, match="took more than"):
        build.run(["sleep", "600"], tmp_path, 0.01)
