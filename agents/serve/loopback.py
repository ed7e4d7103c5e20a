"""Whether an address is of this machine alone, and whether a request comes from it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_of_this_machine(request: web.Request) -> bool:
    """Whether a request names this machine by a name of its own, and is not sent by a page of another host.

    Pages of any host can make a browser on this machine send requests to loopback; the browser says from which page
    (Origin), and by which name it found us (Host), which the page's owner may have pointed at 127.0.0.1.
    """
    names = [f"//{request.host}", *([request.headers["Origin"]] if "Origin" in request.headers else [])]
    try:
        hosts = [urlsplit(each).hostname for each in names]
    except ValueError:
        return False
    return all(host is not None and is_loopback(host) for host in hosts)
