"""Store URLs: what they say, and how they are shown without their password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote

from oomstream.schemas.errors import InvalidSetting

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_FILE_SCHEMES = frozenset({"sqlite"})
_MASK = "***"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store URL in parts; its text form has the password masked.

    ``scheme://[user[:password]@]host[:port][,host[:port]…][/path][?option=value&…]``, user and password
    percent-encoded. ``sqlite:///relative.db`` and ``sqlite:////absolute.db`` name a file; nothing in them is encoded.

    Attributes:
        scheme: In small letters, without ``://``.
        path: Database, namespace or file; empty if there is none.
        user: User name, decoded.
        password: Password, decoded; never shown.
        hosts: Host and port (None = the store's default) of each server.
        options: What follows the question mark.
    """

    scheme: str
    path: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    hosts: tuple[tuple[str, int | None], ...] = ()
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_file(self) -> bool:
        """Whether it names a file of this machine rather than a server."""
        return self.scheme in _FILE_SCHEMES

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            InvalidSetting: It is not one; the message shows no part in which a password could stand.
        """
        match = _SCHEME.fullmatch(url.strip())
        if match is None:
            raise InvalidSetting("a store URL must look like scheme://…, for example sqlite:///features.db")
        scheme, rest = match[1], match[2]
        if scheme in _FILE_SCHEMES:
            return cls(scheme, path=_file_path(scheme, rest))
        rest, _, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        login, at, servers = authority.rpartition("@")
        user, colon, password = login.partition(":")
        try:
            options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        except ValueError as exc:
            raise InvalidSetting(f"store URL {scheme}://…: what follows '?' must be option=value&…") from exc
        return cls(
            scheme,
            path=unquote(path),
            user=unquote(user) if at else None,
            password=unquote(password) if colon else None,
            hosts=tuple(_host(scheme, each) for each in servers.split(",") if each),
            options=options,
        )

    def __str__(self) -> str:
        if self.is_file:
            return f"{self.scheme}:///{self.path}"
        login = "" if self.user is None else self.user + (f":{_MASK}" if self.password is not None else "") + "@"
        servers = ",".join(host if port is None else f"{host}:{port}" for host, port in self.hosts)
        query = "?" + "&".join(f"{name}={_shown(name, value)}" for name, value in self.options.items())
        return f"{self.scheme}://{login}{servers}" + (f"/{self.path}" if self.path else "") + query.rstrip("?")


def mask_url(url: str) -> str:
    """A URL for messages, its password masked.

    Raises:
        InvalidSetting: It is not a URL.
    """
    return str(StoreUrl.parse(url))


def url_with_path(url: str, path: str) -> str:
    """A server's URL with another database or namespace; all else, password included, stays as it is written.

    Raises:
        InvalidSetting: It is not a URL.
    """
    StoreUrl.parse(url)
    head, question_mark, query = url.strip().partition("?")
    scheme, _, rest = head.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{path}{question_mark}{query}"


def _file_path(scheme: str, rest: str) -> str:
    if not rest.startswith("/") or len(rest) < 2 or "\0" in rest:
        raise InvalidSetting(f"{scheme}://{rest} names no file: write {scheme}:///features.db, or four slashes for /…")
    if rest == "/:memory:":
        raise InvalidSetting(f"{scheme}:///:memory: cannot be shared between the parts of oomstream: name a file")
    return rest[1:]


def _host(scheme: str, text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\s]+)(?::([0-9]{1,5}))?", text)
    if match is None or int(match[2] or 1) not in range(1, 65536):
        raise InvalidSetting(f"store URL {scheme}://…: a server must be host or host:port (percent-encode a password)")
    return match[1], int(match[2]) if match[2] else None


def _shown(name: str, value: str) -> str:
    return _MASK if re.search(r"pass|secret|token|key", name, re.IGNORECASE) else value
