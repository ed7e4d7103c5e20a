"""Debian's MariaDB, which speaks TiDB's protocol and is something else behind it. Native only, unprivileged."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from tests.services import build
from tests.services.mysql_protocol import SqlServer
from tests.services.native import HOST, NativeProcess, free_ports, user_for_servers
from tests.services.proxy import Proxy
from tests.services.server import Availability, Way, choose, temporary_folder

_INSTALL_TIMEOUT_S = 120.0
# Small and quick: the data is thrown away.
_OPTIONS = [
    "--skip-name-resolve",
    "--innodb-log-file-size=16M",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=2",
    "--max-allowed-packet=64M",
]


def available(way: Way | None = None) -> Availability:
    """Say whether MariaDB can be started here."""
    absent = "" if _server() and _installer() else "mariadbd not found"
    return choose("MariaDB", {"native": absent}, "apt-get install mariadb-server", way)


def _server() -> str | None:
    # Debian keeps it where an unprivileged user's PATH does not look.
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _installer() -> str | None:
    return shutil.which("mariadb-install-db")


def start() -> SqlServer:
    """Start a MariaDB server; ``url`` is ``mysql://root@host:port``, a database's comes from ``fresh_database()``."""
    available().required()
    server, installer = _server() or "", _installer() or ""
    folder = temporary_folder("mariadb")
    user = user_for_servers()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    data = folder / "data"
    as_user = [f"--user={user}"] if user else []
    install = ["--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
    build.run([installer, *install, *as_user, *_OPTIONS[1:2]], folder, _INSTALL_TIMEOUT_S)
    (port,) = free_ports(1)
    process = NativeProcess("mariadb", _command(server, data, port, folder), folder, user=user)
    return SqlServer("MariaDB", [process], folder, scheme="mysql", port=port, proxy=Proxy(port)).start()


def _command(server: str, data: Path, port: int, folder: Path) -> list[str]:
    files = [f"--datadir={data}", f"--tmpdir={folder}", f"--socket={folder / 'mysqld.sock'}"]
    listen = [f"--bind-address={HOST}", f"--port={port}", f"--pid-file={folder / 'mysqld.pid'}"]
    return [server, "--no-defaults", *files, *listen, *_OPTIONS]
