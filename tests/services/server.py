"""What every server of the tests has in common: addresses, readiness, and ways to stop, freeze and kill it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from tests.services.proxy import Proxy

Way = Literal["docker", "native"]

_POLL_S = 0.05
_START_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether this machine can start a server, how, and which.

    Attributes:
        way: "docker", "native" or None.
        what: The server and its version, for a line that says what was used.
        missing: Where `way` is None, the sentence that says what to do about it.
    """

    way: Way | None
    what: str
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.way})" if self.way else self.missing

    def required(self) -> Way:
        """The way.

        Raises:
            ServerMissing: There is none.
        """
        if self.way is None:
            raise ServerMissing(self.missing)
        return self.way


def choose(what: str, lacking: Mapping[Way, str], remedy: str, way: Way | None = None) -> Availability:
    """Choose how to start a server.

    Args:
        what: The server and its version.
        lacking: For each way there is, best first, what this machine lacks for it; empty if nothing.
        remedy: The command that would make it possible.
        way: The only way that will do, if not any.
    """
    considered = {one: lack for one, lack in lacking.items() if way in (None, one)}
    for one, lack in considered.items():
        if not lack:
            return Availability(one, what)
    return Availability(None, what, f"{what} cannot be started: {', and '.join(considered.values())}. Try: {remedy}")


class ServerMissing(Exception):
    """Raised when this machine cannot start a server; its text says what would help."""


class NotReady(Exception):
    """Raised by a probe whose server does not answer yet; the reason is its text."""


class ServerFailed(Exception):
    """Raised when a server does not come up; its text ends with the tail of the server's log."""


class Process(Protocol):
    """One process of a server, native or a container."""

    name: str

    def start(self) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def ended(self) -> str | None: ...
    def log_tail(self) -> str: ...
    def forget(self) -> None: ...


class Server:
    """A running server.

    Args:
        name: What messages call it.
        processes: Its processes, in the order in which they start.
        probe: Asks the server something by its real protocol; raises `NotReady` or OSError until it answers.
        folder: Its temporary folder, removed by `stop`.
        url: Where clients find it.
        proxied_url: Where clients find it if `proxies` are to be between them and it.
        proxies: The proxies on that way.
    """

    def __init__(
        self,
        name: str,
        processes: Sequence[Process],
        probe: Callable[[], None],
        folder: Path,
        *,
        url: str,
        proxied_url: str,
        proxies: Sequence[Proxy],
    ) -> None:
        self.name = name
        self.url = url
        self.proxied_url = proxied_url
        self.proxies = list(proxies)
        self._processes = list(processes)
        self._probe = probe
        self._folder = folder
        self._frozen = False

    @property
    def proxy(self) -> Proxy:
        """The proxy in front of the server's data port."""
        return self.proxies[0]

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            ServerFailed: It did not; the text says why.
        """
        try:
            for proxy in self.proxies:
                proxy.start()
            self._start_processes()
        except BaseException:
            self.stop()
            raise
        return self

    def _start_processes(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        for process in self._processes:
            process.start()
        problem = "it was not probed"
        while time.monotonic() < deadline:
            for process in self._processes:
                if (end := process.ended()) is not None:
                    raise ServerFailed(f"{process.name} does not run: {end}. Its log ends:\n{process.log_tail()}")
            try:
                self._probe()
            except (NotReady, OSError) as exc:
                problem = str(exc)
                time.sleep(_POLL_S)
            else:
                return
        tails = "\n".join(f"The log of {one.name} ends:\n{one.log_tail()}" for one in self._processes)
        raise ServerFailed(f"{self.name} does not answer within {_START_TIMEOUT_S:.0f} s: {problem}. {tails}")

    def stop(self) -> None:
        """End it for good and remove its data. May be called again."""
        # Killed, not asked: nothing of it is needed any more, and some servers wait for their clients first.
        self.kill()
        for process in self._processes:
            process.forget()
        for proxy in self.proxies:
            proxy.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def shut_down(self) -> None:
        """End it in order; its data stays, and `restart` brings it back."""
        self.resume()
        for process in reversed(self._processes):
            process.terminate()

    def kill(self) -> None:
        """End it without a word; its data stays, and `restart` brings it back."""
        for process in reversed(self._processes):
            process.kill()
        self._frozen = False

    def restart(self) -> None:
        """End it in order if it runs, start it on the same ports with the same data, and wait until it answers."""
        self.shut_down()
        self._start_processes()

    def pause(self) -> None:
        """Freeze it: connections stay, and nothing answers."""
        for process in self._processes:
            process.pause()
        self._frozen = True

    def resume(self) -> None:
        """Let it go on, if it is frozen."""
        if self._frozen:
            for process in self._processes:
                process.resume()
        self._frozen = False

    def heal(self) -> None:
        """Undo what a test did to it: it runs, and its proxies pass everything on."""
        self.resume()
        if any(process.ended() for process in self._processes):
            self._start_processes()
        for proxy in self.proxies:
            proxy.normal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def temporary_folder(name: str) -> Path:
    """Make the folder in which a server lives."""
    return Path(tempfile.mkdtemp(prefix=f"oomstream-{name}-"))
