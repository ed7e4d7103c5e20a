"""Orders to the native TiKV: split regions, and make calls fail."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Literal

_TIMEOUT_S = 10.0

FaultKind = Literal["refuse", "delay", "drop", "drop-answer", "no-leader"]


@dataclass(frozen=True, slots=True)
class Region:
    """A region's number and its range of keys, as clients write them; an empty end is no end."""

    id: int
    start: bytes
    end: bytes


class Fault:
    """A fault in force."""

    def __init__(self, control: Control, number: int) -> None:
        self._control = control
        self._number = number

    @property
    def hits(self) -> int:
        """How many calls it has hit."""
        return self.wait(0)

    def wait(self, hits: int = 1, timeout_s: float = _TIMEOUT_S) -> int:
        """Wait until it has hit so many calls; in asynchronous tests, through `asyncio.to_thread`.

        Raises:
            ControlError: It did not in time; the text says how many it has hit.
        """
        path = f"/faults/{self._number}?hits={hits}&timeout_ms={int(timeout_s * 1000)}"
        return int(self._control.ask("GET", path, timeout_s=timeout_s + _TIMEOUT_S)["hits"])


class ControlError(Exception):
    """Raised when an order cannot be carried out; the server's sentence is its text."""


class Control:
    """The control port of a native TiKV.

    Args:
        address: Its host:port.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def split(self, key: bytes) -> Region:
        """Split the region that holds a key so that the key starts a region, and return that one.

        The key is as the client writes it, with whatever namespace goes before it.
        """
        return _region(self.ask("POST", "/regions", {"key": base64.b64encode(key).decode()}))

    def regions(self) -> list[Region]:
        """All regions in the order of their keys."""
        return [_region(one) for one in self.ask("GET", "/regions")]

    def fault(self, call: str, kind: FaultKind, *, times: int = 0, delay_s: float = 0.0) -> Fault:
        """Make the next calls fail.

        Args:
            call: The RPC's name: KvGet, KvBatchGet, KvScan, KvPrewrite, KvCommit, KvBatchRollback, KvCheckTxnStatus,
                KvResolveLock, KvScanLock of TiKV; GetMembers, GetRegion, GetStore, Tso, UpdateGCSafePoint of PD…
            kind: "refuse" (an error at once), "delay" (carried out later), "drop" (not carried out, never answered),
                "drop-answer" (carried out, never answered), "no-leader" (GetRegion: the region has no leader).
            times: How many calls; 0 is until `clear_faults`.
            delay_s: How much later, for "delay".
        """
        order = {"call": call, "kind": kind, "times": times, "delay_ms": int(delay_s * 1000)}
        return Fault(self, int(self.ask("POST", "/faults", order)["id"]))

    def clear_faults(self) -> None:
        """End all faults. Calls that were dropped stay without an answer."""
        self.ask("DELETE", "/faults")

    def calls(self) -> dict[str, int]:
        """How often each RPC was called since the server started."""
        return {str(name): int(count) for name, count in self.ask("GET", "/calls").items()}

    def safe_point(self) -> int:
        """PD's GC safe point."""
        return int(self.ask("GET", "/safe-point")["safe_point"])

    def ask(self, method: str, path: str, body: object = None, *, timeout_s: float = _TIMEOUT_S) -> Any:
        """Send one order and return its answer.

        Raises:
            ControlError: The server refused it.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self._address}{path}", data=data, method=method)
        # No proxy from the environment: this is loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                raise ControlError(json.load(exc)["error"]) from None


def _region(told: dict[str, Any]) -> Region:
    return Region(int(told["id"]), base64.b64decode(told["start"]), base64.b64decode(told["end"]))
