"""The embedded broker's control socket: one JSON line asks, one answers, on a loopback port.

Requests: ``{"ask": "ping"}`` gives ``{"incarnation": UUID}``; ``{"ask": "topics", "topics": {NAME: PARTITIONS}}``
makes the missing ones and gives ``{"topics": {NAME: PARTITIONS}, "made": [NAME, …]}`` with the partitions they have.
It exists because librdkafka's mock cluster answers no admin requests, and gives 4 partitions to any unknown topic.
Every process of ours asks for the topics it needs before it uses them, so the broker itself reads no catalog.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from oomstream.schemas.errors import InvalidRequest, StoreUnavailable

HOST = "127.0.0.1"
PING_TIMEOUT_S = 2.0
MAX_LINE_BYTES = 1 << 20


def ping(port: int, *, timeout_s: float) -> str:
    """Incarnation of the embedded broker at a control port.

    Raises:
        StoreUnavailable: None answers there.
    """
    return str(_ask(port, {"ask": "ping"}, timeout_s).get("incarnation", ""))


def make_topics(port: int, topics: Mapping[str, int], *, timeout_s: float) -> tuple[dict[str, int], list[str]]:
    """Make the topics that are missing.

    Args:
        port: Control port.
        topics: Partitions by topic.
        timeout_s: Deadline, seconds.

    Returns:
        Partitions that each topic has now, and the names of those that were made.

    Raises:
        StoreUnavailable: The broker does not answer.
        InvalidRequest: It refuses; the message says why.
    """
    answer = _ask(port, {"ask": "topics", "topics": dict(topics)}, timeout_s)
    return {name: int(count) for name, count in answer["topics"].items()}, [str(name) for name in answer["made"]]


def _ask(port: int, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline(MAX_LINE_BYTES) or b"null")
    except (OSError, ValueError) as exc:
        raise StoreUnavailable(f"the embedded broker (control port {port}) does not answer: it has ended") from exc
    if not isinstance(answer, dict):
        raise StoreUnavailable(f"the embedded broker (control port {port}) does not answer: it has ended")
    if "error" in answer:
        raise InvalidRequest(f"the embedded broker refuses: {answer['error']}")
    return answer
