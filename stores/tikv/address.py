"""What a ``tikv://`` URL says: where PD is, and which part of the key space is ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.urls import StoreUrl

DEFAULT_PORT = 2379
"""PD's usual client port."""

DEFAULT_NAMESPACE = "oomstream"

_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TLS_OPTIONS = ("ca", "certificate", "key")


@dataclass(frozen=True, slots=True)
class TikvAddress:
    """A TiKV cluster and a namespace in it.

    ``tikv://pd1:2379,pd2:2379/NAME``; port 2379 and the namespace ``oomstream`` are the defaults. Neither separator is
    a character of a name, so no namespace's keys begin with those of another.

    With ``?ca=PATH&certificate=PATH&key=PATH``, all three, connections are encrypted, and both sides show certificates.

    Attributes:
        pd: host:port of each PD server.
        namespace: What all keys begin with.
        shown: The URL for messages.
        tls: Paths of PEM files: authorities to trust, our certificate, its private key; None = no TLS.
    """

    pd: tuple[str, ...]
    namespace: str
    shown: str
    tls: tuple[str, str, str] | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            InvalidSetting: It is not such a URL.
        """
        parsed = StoreUrl.parse(url)
        if not parsed.hosts:
            raise InvalidSetting(f"online store {parsed}: no PD server is named; write tikv://pd1:2379,pd2:2379/NAME")
        if parsed.user is not None:
            raise InvalidSetting(f"online store {parsed}: TiKV knows no users; write tikv://pd1:2379,pd2:2379/NAME")
        for option in parsed.options:
            if option not in _TLS_OPTIONS:
                raise InvalidSetting(
                    f"online store {parsed}: there is no option {option}; tikv:// URLs take ca, certificate and key, "
                    "which together ask for TLS"
                )
        tls = tuple(parsed.options[option] for option in _TLS_OPTIONS if parsed.options.get(option))
        if parsed.options and len(tls) != len(_TLS_OPTIONS):
            raise InvalidSetting(
                f"online store {parsed}: TLS to TiKV needs all of ca, certificate and key, each the path of a PEM file"
            )
        namespace = parsed.path or DEFAULT_NAMESPACE
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidSetting(
                f"online store {parsed}: the namespace after the servers must be 1 to 64 letters, digits, _ or -"
            )
        # The client refuses a server that is named twice.
        pd = dict.fromkeys(f"{host}:{port or DEFAULT_PORT}" for host, port in parsed.hosts)
        return cls(tuple(pd), namespace, str(parsed), (tls[0], tls[1], tls[2]) if tls else None)

    @property
    def row_prefix(self) -> bytes:
        """What the stored key of every row begins with."""
        return f"{self.namespace}/".encode()

    @property
    def pairing_key(self) -> bytes:
        """The stored key of the pairing id; outside the rows, so that no scan meets it."""
        return f"{self.namespace}:pairing".encode()
