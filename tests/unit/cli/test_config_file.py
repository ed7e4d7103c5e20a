"""oomcli's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomstream.agents.cli.config_file import read_config
from oomstream.agents.cli.session import settings
from oomstream.schemas.errors import InvalidSetting

SQLITE = "sqlite: {db-file: a.db}"
TIDB = "tidb: {host: db.example, port: 4000, user: me@here, password: p/w, database: features}"


def config(folder: Path, online: str = SQLITE, offline: str = TIDB, metadata: str | None = None) -> Path:
    """A configuration file with these stores."""
    file = folder / "config.yaml"
    stores = {"online-store": online, "offline-store": offline, "metadata-store": metadata or offline}
    file.write_text("".join(f"{name}:\n  {store}\n" for name, store in stores.items()), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("online", "offline", "urls"),
    [
        (SQLITE, "sqlite: {db-file: /b/c d.db}", ("sqlite:///a.db", "sqlite:////b/c d.db")),
        (
            "tikv: {pd-addrs: [pd1:2379, pd2:2379]}",
            TIDB,
            ("tikv://pd1:2379,pd2:2379", "tidb://me%40here:p%2Fw@db.example:4000/features"),
        ),
        (
            "tikv: {pd-addrs: ['http://pd1:2379'], namespace: mine}",
            "tidb: {host: h, user: root, database: d}",
            ("tikv://pd1:2379/mine", "tidb://root@h/d"),
        ),
        (
            "mysql: {host: '::1', port: 3306, user: me, password: 0123, database: o}",
            "mysql: {host: localhost, user: root, password: '', database: a/b}",
            ("mysql://me:0123@[::1]:3306/o", "mysql://root@localhost/a%2Fb"),
        ),
    ],
)
def test_stores_become_urls(tmp_path: Path, online: str, offline: str, urls: tuple[str, str]) -> None:
    """Each kind of store is the URL that OOMSTREAM_ settings would have; passwords are taken as they are written."""
    assert read_config(config(tmp_path, online, offline)) == dict(zip(("online_url", "history_url"), urls, strict=True))


@pytest.mark.parametrize(
    "metadata",
    [
        "tidb: {host: DB.example, user: other, password: x, database: features}",
        "mysql: {host: db.example, port: 4000, database: features}",
    ],
)
def test_metadata_may_be_reached_as_another_user(tmp_path: Path, metadata: str) -> None:
    """The same database under another user, or with its port left out, is the same database."""
    assert read_config(config(tmp_path, metadata=metadata))["history_url"].startswith("tidb://me")


@pytest.mark.parametrize(
    ("online", "offline", "metadata", "sentence"),
    [
        (
            "redis: {host: h, port: 6379, password: geheim}",
            TIDB,
            None,
            "online-store: there is no store of kind 'redis' (there are: mariadb, mysql, sqlite, tidb, tikv)",
        ),
        (
            SQLITE,
            "postgres: {host: h, password: geheim}",
            None,
            "offline-store: there is no store of kind 'postgres' (there are: mariadb, mysql, sqlite, tidb)",
        ),
        (SQLITE, "tikv: {pd-addrs: [a:1]}", None, "offline-store: there is no store of kind 'tikv'"),
        (SQLITE, TIDB, "sqlite: {db-file: m.db}", "metadata-store (sqlite:///m.db) must be the same database as off"),
        (SQLITE, "sqlite: {db-file: h.db}", "sqlite: {db-file: m.db}", "must be the same database"),
        (SQLITE, TIDB, "tidb: {host: db.example, database: meta}", "must be the same database"),
        (SQLITE, TIDB, "mysql: {host: db.example, database: features}", "must be the same database"),
        ("sqlite: {}", TIDB, None, "online-store: sqlite: db-file is missing"),
        ("sqlite:", TIDB, None, "online-store: sqlite: it must hold its options"),
        ("sqlite: {db-file: a, mode: geheim}", TIDB, None, "online-store: sqlite: unknown key 'mode'"),
        ("sqlite: {db-file: [geheim]}", TIDB, None, "db-file must be text"),
        ("tikv: {pd-addrs: pd1}", TIDB, None, "pd-addrs must be a list of host:port"),
        ("tikv: {pd-addrs: ['a b']}", TIDB, None, "tikv: pd-addrs: a server is a host, or host:port"),
        (
            SQLITE,
            "tidb: {host: 'h/geheim', database: d}",
            None,
            "offline-store: tidb: host: a server is a host, or host:port",
        ),
        (SQLITE, "tidb: {host: h, port: 70000, database: d}", None, "tidb: store URL tidb://…: a server must be host"),
        (SQLITE, "tidb: {host: h, port: 1, password: geheim}", None, "offline-store: tidb: database is missing"),
        ("{sqlite: {db-file: a}, tidb: {}}", TIDB, None, "online-store must hold exactly one store"),
        (SQLITE, "tidb: {password: *geheim}", None, "config.yaml, line 4: it is not YAML"),
        (SQLITE, "tidb: {password: 'geheim}", None, "it is not YAML"),
    ],
)
def test_what_is_wrong_is_one_sentence_without_values(
    tmp_path: Path, online: str, offline: str, metadata: str | None, sentence: str
) -> None:
    """A store that is missing, unknown or wrong is named with its section and the file, and no value is shown."""
    with pytest.raises(InvalidSetting) as caught:
        read_config(config(tmp_path, online, offline, metadata))
    assert sentence in str(caught.value)
    assert f"configuration {tmp_path / 'config.yaml'}" in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert "p/w" not in str(caught.value)


def test_settings_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that an OOMSTREAM_ variable (or its _FILE) names is that one, whatever the file says of it."""
    monkeypatch.setenv("OOMCLI_CONFIG", str(config(tmp_path, offline="postgres: {}")))
    monkeypatch.setenv("OOMSTREAM_HISTORY_URL", "sqlite:///mine.db")
    assert (settings().online, settings().history) == ("sqlite:///a.db", "sqlite:///mine.db")
    (tmp_path / "url").write_text("sqlite:///secret.db", encoding="utf-8")
    monkeypatch.setenv("OOMSTREAM_ONLINE_URL_FILE", str(tmp_path / "url"))
    assert settings().online == "sqlite:///secret.db"


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that cannot be read is an error that names it."""
    monkeypatch.setenv("OOMCLI_CONFIG", str(tmp_path / "no.yaml"))
    with pytest.raises(InvalidSetting, match=r"no\.yaml cannot be read \(No such file or directory\)"):
        settings()
