"""Servers as containers, where a Docker engine answers. Host networking: the same ports and commands as native ones."""

from __future__ import annotations

import functools
import http.client
import importlib.util
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.services.native import LOG_TAIL_LINES

_PING_TIMEOUT_S = 2.0
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PING_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PING_TIMEOUT_S)
        self.sock.connect(self._path)


@functools.cache
def missing() -> str:
    """What keeps this machine from starting containers, as a clause; empty if nothing does."""
    if not _engine_answers():
        return "no Docker engine answers"
    if importlib.util.find_spec("testcontainers") is None:
        return "testcontainers is not installed (pip install testcontainers)"
    return ""


def _engine_answers() -> bool:
    engine = urlsplit(os.environ.get("DOCKER_HOST", _DEFAULT_ENGINE))
    connection: http.client.HTTPConnection
    if engine.scheme == "unix":
        connection = _UnixConnection(engine.path)
    elif engine.hostname:
        connection = http.client.HTTPConnection(engine.hostname, engine.port or 2375, timeout=_PING_TIMEOUT_S)
    else:
        return False
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Container:
    """One server container; testcontainers' reaper removes it if this process dies.

    Args:
        name: What messages call it.
        image: The image, with its tag.
        command: The command's arguments; empty for the image's own.
        env: Environment variables.
        grace_s: How long `terminate` waits for it before it kills.
    """

    def __init__(
        self,
        name: str,
        image: str,
        command: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        grace_s: float = 10.0,
    ) -> None:
        # Imported here: testcontainers must not be asked for where no engine answers.
        from testcontainers.core.container import DockerContainer

        self.name = name
        self._grace_s = grace_s
        self._container: Any = DockerContainer(image, network_mode="host")
        if command:
            self._container.with_command(list(command))
        if env:
            self._container.with_envs(**env)
        self._created = False

    @property
    def _docker(self) -> Any:
        return self._container.get_wrapped_container()

    def start(self) -> None:
        """Start it, with the data of its last run if there was one; it may not be ready yet."""
        if not self._created:
            self._container.start()
            self._created = True
        elif self.ended():
            self._docker.start()

    def terminate(self) -> None:
        """Ask it to end, and kill it after the grace time. Its data stays."""
        if self._created and not self.ended():
            self._docker.stop(timeout=int(self._grace_s))

    def kill(self) -> None:
        """End it without a word. Its data stays."""
        if self._created and not self.ended():
            self._docker.kill()

    def pause(self) -> None:
        """Freeze it: its connections stay, and nothing answers."""
        self._docker.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._docker.unpause()

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""
        if not self._created:
            return "it was not started"
        self._docker.reload()
        status = str(self._docker.status)
        return None if status in {"created", "running", "paused", "restarting"} else f"its container is {status}"

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        if not self._created:
            return "(no log)"
        return bytes(self._docker.logs(tail=LOG_TAIL_LINES)).decode(errors="replace")

    def forget(self) -> None:
        """Remove the container and its data."""
        if self._created:
            self._container.stop()
            self._created = False
