"""`oomstream serve` as a process, and clients of both its sides."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.stores.settings import Settings
from tests.integration.backends import environment_of

START_S = 60.0
CALL_S = 60.0


class Served:
    """A server process on free ports.

    Args:
        settings: Where the stores are.
        folder: Its working folder, whose files clients may name.
        more: Further settings, as environment variables.
        args: Further arguments.
    """

    def __init__(self, settings: Settings, folder: Path, args: Iterable[str] = (), **more: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OOMSTREAM_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "oomstream.agents.cli.main", "serve", "--port", "0", "--grpc-port", "0", *args],
            cwd=folder,
            env={**clean, "PYTHONUNBUFFERED": "1", **environment_of(settings), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watchdog = threading.Timer(START_S, self._process.kill)
        watchdog.start()
        self.said: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            if "serving HTTP on" in line:
                break
        watchdog.cancel()
        assert self.said, "the server said nothing"
        assert "serving HTTP on" in self.said[-1], "".join(self.said)
        self.http = self.said[-1].split()[-1]
        self.grpc = self.said[-2].split()[-1]
        self._rest = threading.Thread(target=lambda: self.said.extend(self._process.stdout or ()), daemon=True)
        self._rest.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            code = self._process.wait(60)
            assert code == 0 or error is not None, f"exit code {code}:\n{''.join(self.said)}"
        self._ended()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        self._process.terminate()

    def wait(self) -> int:
        """Its exit code."""
        code = self._process.wait(60)
        self._ended()
        return code

    def kill(self) -> None:
        """End it without a word (SIGKILL)."""
        self._process.kill()
        assert self.wait() == -9

    def _ended(self) -> None:
        self._rest.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def agent(self, token: str | None = None) -> AgentClient:
        """A client of its gRPC side."""
        return AgentClient(self.grpc.removeprefix("http://"), token)

    def metrics(self) -> list[str]:
        """Lines of its figures."""
        with urllib.request.urlopen(f"{self.http}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
            return text.splitlines()

    def ask(self, path: str, content: Any = None, **more: Any) -> tuple[int, Any]:
        """What its HTTP side answers."""
        return ask(f"{self.http}{path}", content, **more)


class AgentClient:
    """Calls rpcs by name, each with a deadline.

    Args:
        address: ``host:port``.
        token: Bearer token.
        authority: PEM text of the authority that the server's certificate is from; None = in clear.
    """

    def __init__(self, address: str, token: str | None = None, authority: str | None = None) -> None:
        if authority is None:
            self._channel = grpc.insecure_channel(address)
        else:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority.encode()))
        self._metadata = [("authorization", f"Bearer {token}")] if token else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, name: str, request: Any = None, *, deadline_s: float = CALL_S) -> Any:
        """The answer to an rpc: a message, or for one that streams an iterator of them.

        Args:
            name: The rpc.
            request: Its request; an iterable of messages where the client streams. None = an empty one.
            deadline_s: How long it may take.

        Raises:
            grpc.RpcError: Its `code()` and `details()` say why.
        """
        method = pb.DESCRIPTOR.services_by_name["OomAgent"].methods_by_name[name]
        sides = ("unary", "stream")
        make = getattr(self._channel, f"{sides[method.client_streaming]}_{sides[method.server_streaming]}")
        rpc = make(
            f"/oomagent.OomAgent/{name}",
            request_serializer=getattr(pb, method.input_type.name).SerializeToString,
            response_deserializer=getattr(pb, method.output_type.name).FromString,
        )
        given = getattr(pb, method.input_type.name)() if request is None else request
        return rpc(iter(given) if method.client_streaming else given, timeout=deadline_s, metadata=self._metadata)

    def failure(self, name: str, request: Any) -> tuple[grpc.StatusCode, str]:
        """How an rpc fails: code and sentence."""
        try:
            answer = self.call(name, request)
            found = list(answer) if hasattr(answer, "__iter__") else answer
        except grpc.RpcError as exc:
            failed: Any = exc
            return failed.code(), failed.details()
        raise AssertionError(f"{name} answered {found}")

    def values(self, key: str, *features: str) -> dict[str, Any]:
        """Online values of an entity, by full feature name; the field that carries them does not matter."""
        answer = self.call("OnlineGet", pb.OnlineGetRequest(entity_key=key, features=features))
        return {name: plain(value) for name, value in answer.result.map.items()}

    def push(self, group: str, key: str, **values: pb.Value) -> None:
        """Push an event."""
        self.call("Push", pb.PushRequest(group=group, entity_key=key, feature_values=values))


def plain(value: pb.Value) -> Any:
    """What a value message holds."""
    which = value.WhichOneof("value")
    return None if which is None else getattr(value, which)


def ask(
    url: str, content: Any = None, *, token: str | None = None, tls: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    """Status and JSON answer of a GET, or of a POST of `content` (bytes as they are, the rest as JSON)."""
    body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30, context=tls) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


@contextmanager
def serving(settings: Settings, folder: Path, **more: str) -> Iterator[tuple[Served, AgentClient]]:
    """A server and a client of it."""
    with Served(settings, folder, **more) as server, server.agent() as client:
        yield server, client
