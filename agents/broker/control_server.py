"""The embedded broker's side of its control socket (see `oomstream.streams.control`)."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Mapping
from typing import Any

from oomstream.schemas.errors import OomstreamError
from oomstream.streams.control import HOST, MAX_LINE_BYTES

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers control requests on a loopback port, in threads of its own.

    Args:
        answer: What to say to a request; an `OomstreamError` from it becomes the answer's ``error``.
    """

    def __init__(self, answer: Answer) -> None:
        class Handler(socketserver.StreamRequestHandler):
            timeout = 5.0

            def handle(self) -> None:
                self.wfile.write(json.dumps(_reply(answer, self.rfile.readline(MAX_LINE_BYTES))).encode() + b"\n")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away in the middle is nobody's trouble."""

        self._server = Server((HOST, 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="broker-control", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5.0)


def _reply(answer: Answer, line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        return {"error": "a request is one line of JSON"}
    if not isinstance(request, dict):
        return {"error": "a request is a JSON object"}
    try:
        return answer(request)
    except OomstreamError as exc:
        return {"error": str(exc)}
