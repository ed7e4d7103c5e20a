"""Servers as processes of this one: on loopback, in a temporary folder, never outliving it."""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOST = "127.0.0.1"

LOG_TAIL_LINES = 25
_KILL_TIMEOUT_S = 10.0

# Starts the command that follows its parent's process id, unless that parent has died before it could be watched.
_IF_PARENT_LIVES = 'test "$PPID" = "$0" && exec "$@"'

_LOWEST_PORT = 15_000
_handed_out: set[int] = set()
_handing_out = threading.Lock()


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nothing listens on, none of them twice in this process.

    They lie below the ports that the kernel gives to outgoing connections: one of those could take the port of a
    server while it restarts.
    """
    ports: list[int] = []
    with _handing_out:
        while len(ports) < count:
            port = random.randrange(_LOWEST_PORT, _first_ephemeral_port())
            if port not in _handed_out and _is_free(port):
                _handed_out.add(port)
                ports.append(port)
    return ports


@functools.cache
def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 32_768
    return first if first > _LOWEST_PORT + 1_000 else 32_768


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def halt(pid: int, number: signal.Signals = signal.SIGSTOP) -> None:
    """Freeze (SIGSTOP) or kill (SIGKILL) a child process, and wait until no thread of it does anything any more.

    Threads go on for as long as they wait for a core to stop on: on a busy machine that is some time.
    """
    os.kill(pid, number)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


@functools.cache
def _spawner() -> ThreadPoolExecutor:
    # The kernel's parent-death signal follows the thread that started the process, not the program: one thread, which
    # lives as long as the interpreter, starts them all.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class NativeProcess:
    """One server process, started and stopped by its process id.

    Args:
        name: What messages call it.
        argv: The command.
        folder: Its working folder; its log is ``folder/NAME.log``.
        env: Variables beside this process's own.
        grace_s: How long `terminate` waits for it before it kills.
        user: The user to run as, for a server that refuses to run as root.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        grace_s: float = 10.0,
        user: str | None = None,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._folder = folder
        self._env = {**os.environ, **(env or {})}
        self._grace_s = grace_s
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / f"{name}.log"

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it; it may not be ready yet."""
        if self.pid is not None:
            return
        self._process = _spawner().submit(self._spawn).result()
        atexit.register(self.kill)

    def _spawn(self) -> subprocess.Popen[bytes]:
        argv = self._argv
        if setpriv := shutil.which("setpriv"):
            # After a change of user, which would clear the signal again.
            user = ["--reuid", self._user, "--regid", self._user, "--clear-groups"] if self._user else []
            parent = ["sh", "-c", _IF_PARENT_LIVES, str(os.getpid())]
            argv = [setpriv, *user, "--pdeathsig", "KILL", "--", *parent, *argv]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                argv,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C on a terminal goes to the tests, which stop their servers in order.
                start_new_session=True,
            )

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), and kill it after the grace time."""
        if self._process is None or self.pid is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            atexit.unregister(self.kill)

    def kill(self) -> None:
        """End it without a word (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_KILL_TIMEOUT_S)
        atexit.unregister(self.kill)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): its connections stay, and nothing answers."""
        halt(self._running())

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self._running(), signal.SIGCONT)

    def _running(self) -> int:
        if (pid := self.pid) is None:
            raise RuntimeError(f"{self.name} does not run")
        return pid

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""
        if self.pid is not None:
            return None
        return "it was not started" if self._process is None else f"it ended with code {self._process.returncode}"

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        if not self._log.exists():
            return "(no log)"
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def forget(self) -> None:
        """Nothing to do: the folder is the caller's."""


def user_for_servers() -> str | None:
    """A user to run a server as that refuses to run as root; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    import pwd

    for name in ("mysql", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None
