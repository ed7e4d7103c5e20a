"""URLs of servers of MySQL's family, and the sessions on them."""

from __future__ import annotations

import pytest

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.opening import history_store, online_store
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.sql.mysql import COMMIT_SLACK_S, MAX_IDLE_TRANSACTION_S, MysqlDialect
from oomstream.stores.sql.mysql_connection import Flavour, ServerAddress
from oomstream.stores.sql.mysql_online import MysqlOnlineStore
from oomstream.stores.urls import StoreUrl


def _address(url: str) -> ServerAddress:
    return ServerAddress.of(StoreUrl.parse(url))


def test_everything_in_a_url() -> None:
    """User and password are percent-decoded, ports have defaults, and the password shows nowhere."""
    address = _address("tidb://me%40x:p%3A%2F%25@db.example/features?tls=true&ca=/etc/ca.pem&pool_size=3")
    assert address == ServerAddress(
        "db.example", 4000, "me@x", "features", "p:/%", tls=True, ca="/etc/ca.pem", pool_size=3
    )
    assert "p:/%" not in repr(address)
    assert (_address("mysql://h/d").port, _address("mariadb://u@[::1]:3307/d").host) == (3306, "::1")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("tidb:///x", "one host"),
        ("tidb://a,b/x", "one host"),
        ("tidb://a", "name a database"),
        ("tidb://a/x/y", "name a database"),
        ("tidb://a/x?ssl=true", "no option 'ssl'"),
        ("tidb://a/x?tls=maybe", "true or false"),
        ("tidb://a/x?ca=f", "tls=true"),
        ("tidb://a/x?pool_size=0", "pool_size"),
    ],
)
def test_wrong_urls(url: str, problem: str) -> None:
    """What is wrong in a URL is named when the store is made, not when it is opened."""
    with pytest.raises(InvalidSetting, match=problem):
        SqlHistoryStore(url, load_settings())


@pytest.mark.parametrize("scheme", ["tidb", "mysql", "mariadb"])
def test_stores_are_found_by_scheme(scheme: str) -> None:
    """Each scheme opens a history store and an online store, without I/O."""
    assert isinstance(history_store(f"{scheme}://nobody:secret@nowhere/x", load_settings()), SqlHistoryStore)
    online = online_store(f"{scheme}://nobody:secret@nowhere/x", load_settings())
    assert isinstance(online, MysqlOnlineStore)
    assert online.url == f"{scheme}://nobody:***@nowhere/x"


@pytest.mark.parametrize(("session", "idle_s"), [("10s", 5), ("1s", 1), ("6m", MAX_IDLE_TRANSACTION_S)])
def test_idle_transactions_end_well_before_the_session(session: str, idle_s: int) -> None:
    """The server ends idle transactions after half the session timeout, and never so late that as_of could see it."""
    dialect = MysqlDialect(StoreUrl.parse("tidb://h/x"), load_settings(session_timeout_us=session))
    assert dialect.limits.idle_s == idle_s < COMMIT_SLACK_S
    names = {
        Flavour.TIDB: "tidb_idle_transaction_timeout",
        Flavour.MARIADB: "idle_transaction_timeout",
        Flavour.MYSQL: "wait_timeout",
    }
    for flavour, name in names.items():
        assert f"@@SESSION.{name} = {idle_s}" in dialect.limits.statement(flavour)


def test_flavours() -> None:
    """Servers are told apart by the version that they give, whatever scheme the URL has."""
    versions = {"8.0.11-TiDB-v8.5.4": Flavour.TIDB, "5.5.5-10.11.6-MariaDB-0+deb12u1": Flavour.MARIADB}
    assert {version: Flavour.of(version) for version in versions} == versions
    assert Flavour.of("8.4.3") is Flavour.MYSQL
