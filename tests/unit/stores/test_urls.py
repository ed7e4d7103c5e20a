"""Store URLs and their masking."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.urls import StoreUrl, mask_url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///x.db", "x.db"),
        ("sqlite:////data/x.db", "/data/x.db"),
        ("sqlite:///a b%20?#ü.db", "a b%20?#ü.db"),
    ],
)
def test_files(url: str, path: str) -> None:
    """What follows three slashes is the path, to the letter."""
    parsed = StoreUrl.parse(url)
    assert (parsed.scheme, parsed.path, parsed.hosts, str(parsed)) == ("sqlite", path, (), url)


def test_servers() -> None:
    """Every part of a server's URL is read, and its text form masks the password."""
    parsed = StoreUrl.parse("tidb://me%40x:p%2F%3A%40s@db-1:4000,db-2,[::1]:4001/fea%20tures?tls=on&ssl_key=abc")
    assert parsed.user == "me@x"
    assert parsed.password == "p/:@s"
    assert parsed.hosts == (("db-1", 4000), ("db-2", None), ("[::1]", 4001))
    assert (parsed.path, parsed.options) == ("fea tures", {"tls": "on", "ssl_key": "abc"})
    assert str(parsed) == "tidb://me@x:***@db-1:4000,db-2,[::1]:4001/fea tures?tls=on&ssl_key=***"
    assert "p/:@s" not in repr(parsed)
    assert mask_url("tikv://pd:2379/NAME") == "tikv://pd:2379/NAME"
    assert mask_url("tikv://pd") == "tikv://pd"


@pytest.mark.parametrize(
    "url",
    [
        "", "x.db", "/data/x.db", "SQLITE:///x", "sqlite://x.db", "sqlite://", "sqlite:///", "sqlite:///:memory:",
        "sqlite:///a\0b", "tidb://u:secret@ho st/db", "tidb://u:secret@h:99999/db", "tidb://u:secret@h:0/db",
        "tidb://u:secret@h:x/db", "tidb://u:sec/ret@h:4000/db", "tidb://u:secret@h/db?novalue",
    ],
)  # fmt: skip
def test_wrong_urls_are_refused_without_showing_a_password(url: str) -> None:
    """A URL that cannot be read is an InvalidSetting in which no password can stand."""
    with pytest.raises(InvalidSetting) as caught:
        StoreUrl.parse(url)
    assert "sec" not in str(caught.value)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_login_survives_encoding(user: str, password: str) -> None:
    """Percent-encoded users and passwords of any characters are read exactly, and the password is never shown."""
    parsed = StoreUrl.parse(f"mysql://{_quoted(user)}:{_quoted(password)}@host/db")
    assert (parsed.user, parsed.password) == (user, password)
    assert str(parsed) == f"mysql://{user}:***@host/db"


def _quoted(text: str) -> str:
    return quote(text, safe="")
