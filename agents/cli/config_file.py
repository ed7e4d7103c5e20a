"""oomcli's configuration file: YAML that says where the stores are, made into settings.

::

    online-store:
      tikv: {pd-addrs: [pd1:2379, pd2:2379]}
    offline-store:
      tidb: {host: 127.0.0.1, port: 4000, user: oomstream, password: …, database: features}
    metadata-store:
      tidb: {host: 127.0.0.1, port: 4000, user: oomstream, password: …, database: features}

No message holds a value that may be a password: an unknown key, or YAML that cannot be read, is told by its place.

Source:
    oomcli.md (--config).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from oomstream.schemas.errors import InvalidDefinition, InvalidSetting
from oomstream.schemas.yaml_text import yaml_documents
from oomstream.stores.opening import HISTORY_STORES, ONLINE_STORES
from oomstream.stores.urls import StoreUrl

VARIABLE = "OOMCLI_CONFIG"
"""Names the file; `--config` sets it."""

_SECTIONS = ("online-store", "offline-store", "metadata-store")
_OF_SERVERS = ("host", "port", "user", "password", "database")
_PORTS = {"tidb": 4000, "mysql": 3306, "mariadb": 3306}


def configured_urls() -> dict[str, str]:
    """The stores of the file that OOMCLI_CONFIG names, as settings, except those that an OOMSTREAM_ variable names.

    Raises:
        InvalidSetting: As `read_config`.
    """
    file = os.environ.get(VARIABLE)
    given = [name for name in ("online_url", "history_url") if _is_given(f"OOMSTREAM_{name.upper()}")]
    return {} if not file else read_config(Path(file), given)


def _is_given(variable: str) -> bool:
    return bool(os.environ.get(variable) or os.environ.get(f"{variable}_FILE"))


def read_config(path: Path, given: Sequence[str] = ()) -> dict[str, str]:
    """Read a configuration file.

    Args:
        path: Where it is.
        given: Settings that are known already; what the file says of them is not looked at.

    Returns:
        The settings `online_url` and `history_url`, without those given.

    Raises:
        InvalidSetting: It cannot be read, lacks a store or has one of a kind that there is not, or the metadata are to
            lie elsewhere than history; names the file and the section.
    """
    where = f"configuration {path}"
    config = _mapping(path, where)
    _refuse_unknown(config, _SECTIONS, where)
    urls: dict[str, str] = {}
    if "online_url" not in given:
        urls["online_url"] = _store_url(config, "online-store", ONLINE_STORES, where)
    if "history_url" not in given:
        urls["history_url"] = history = _store_url(config, "offline-store", HISTORY_STORES, where)
        metadata = _store_url(config, "metadata-store", HISTORY_STORES, where)
        if _database(metadata) != _database(history):
            _refuse(
                where,
                f"metadata-store ({StoreUrl.parse(metadata)}) must be the same database as offline-store "
                f"({StoreUrl.parse(history)}): metadata and history change in one transaction",
            )
    return urls


def _mapping(path: Path, where: str) -> dict[Any, Any]:
    try:
        documents = [document for _, document in yaml_documents(path.read_bytes(), where) if document is not None]
    except OSError as exc:
        raise InvalidSetting(f"{where} cannot be read ({exc.strerror})") from exc
    except InvalidDefinition as exc:
        # The library's own words may quote what stands there (`password: *secret`).
        mark = getattr(exc.__cause__, "problem_mark", None)
        raise InvalidSetting(f"{where}{f', line {mark.line + 1}' if mark else ''}: it is not YAML") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        _refuse(where, f"it must be one mapping with {', '.join(_SECTIONS)}")
    config: dict[Any, Any] = documents[0]
    return config


def _database(url: str) -> tuple[Any, ...]:
    """What two URLs of one database have in common; the users may differ."""
    parsed = StoreUrl.parse(url)
    if parsed.is_file:
        return (Path(parsed.path).resolve(),)
    (host, port) = parsed.hosts[0]
    return host.lower(), port or _PORTS[parsed.scheme], parsed.path


def _store_url(config: Mapping[Any, Any], section: str, entry_point_group: str, where: str) -> str:
    stores = config.get(section)
    if not isinstance(stores, dict) or len(stores) != 1:
        _refuse(where, f"{section} must hold exactly one store")
    ((kind, options),) = stores.items()
    there_are = sorted({each.name for each in entry_points(group=entry_point_group)} & _URLS.keys())
    if kind not in there_are:
        _refuse(where, f"{section}: there is no store of kind {str(kind)[:40]!r} (there are: {', '.join(there_are)})")
    where = f"{where}: {section}: {kind}"
    if not isinstance(options, dict):
        _refuse(where, "it must hold its options")
    url = _URLS[kind](kind, options, where)
    try:
        StoreUrl.parse(url)
    except InvalidSetting as exc:
        raise InvalidSetting(f"{where}: {exc}") from exc
    return url


def _file_url(kind: str, options: Mapping[Any, Any], where: str) -> str:
    _refuse_unknown(options, ("db-file",), where)
    return f"{kind}:///{_text(options, 'db-file', where)}"


def _server_url(kind: str, options: Mapping[Any, Any], where: str) -> str:
    _refuse_unknown(options, _OF_SERVERS, where)
    host, database = _text(options, "host", where), _text(options, "database", where)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    port = f":{_text(options, 'port', where)}" if options.get("port") is not None else ""
    login = ""
    if options.get("user"):
        login = quote(_text(options, "user", where), safe="")
        if options.get("password"):
            login += f":{quote(_text(options, 'password', where), safe='')}"
        login += "@"
    return f"{kind}://{login}{_server(f'{host}{port}', 'host', where)}/{quote(database, safe='')}"


def _tikv_url(kind: str, options: Mapping[Any, Any], where: str) -> str:
    _refuse_unknown(options, ("pd-addrs", "namespace"), where)
    addresses = options.get("pd-addrs")
    if not isinstance(addresses, list) or not addresses or not all(isinstance(each, str) for each in addresses):
        _refuse(where, "pd-addrs must be a list of host:port")
    namespace = f"/{quote(_text(options, 'namespace', where), safe='')}" if "namespace" in options else ""
    servers = [_server(each.removeprefix("http://"), "pd-addrs", where) for each in addresses]
    return f"{kind}://{','.join(servers)}{namespace}"


def _server(text: str, name: str, where: str) -> str:
    """A host with or without its port, in which nothing can be taken for another part of a URL."""
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:[0-9]+)?", text):
        _refuse(where, f"{name}: a server is a host, or host:port")
    return text


_URLS: dict[str, Callable[[str, Mapping[Any, Any], str], str]] = {
    "sqlite": _file_url,
    "mysql": _server_url,
    "tidb": _server_url,
    "mariadb": _server_url,
    "tikv": _tikv_url,
}
"""How the options of a kind of store become its URL."""


def _text(options: Mapping[Any, Any], name: str, where: str) -> str:
    value = options.get(name)
    if not value:
        _refuse(where, f"{name} is missing")
    if not isinstance(value, str):
        _refuse(where, f"{name} must be text")
    return value


def _refuse_unknown(options: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for name in options:
        if name not in known:
            _refuse(where, f"unknown key {str(name)[:40]!r} (there are: {', '.join(known)})")


def _refuse(where: str, rule: str) -> NoReturn:
    raise InvalidSetting(f"{where}: {rule}")
