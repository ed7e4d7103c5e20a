"""URLs of TiKV: what they name, and what they may not ask for."""

from __future__ import annotations

import pytest

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.opening import online_store
from oomstream.stores.settings import load_settings
from oomstream.stores.tikv.address import TikvAddress
from oomstream.stores.tikv.store import TikvOnlineStore


@pytest.mark.parametrize(
    ("url", "pd", "namespace"),
    [
        ("tikv://pd1:2379,pd2:2380/shop", ("pd1:2379", "pd2:2380"), "shop"),
        ("tikv://pd1", ("pd1:2379",), "oomstream"),
        ("tikv://pd1/", ("pd1:2379",), "oomstream"),
        ("tikv://[::1]:2379,10.0.0.1/a-b_C9", ("[::1]:2379", "10.0.0.1:2379"), "a-b_C9"),
        ("tikv://pd1,pd1:2379", ("pd1:2379",), "oomstream"),
    ],
)
def test_parts(url: str, pd: tuple[str, ...], namespace: str) -> None:
    """A URL names PD servers, each once, and a namespace; both have defaults."""
    address = TikvAddress.parse(url)
    assert (address.pd, address.namespace) == (pd, namespace)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("tikv:///name", "no PD server"),
        ("tikv://me:secret@pd1/name", "no users"),
        ("tikv://pd1/a/b", "namespace"),
        ("tikv://pd1/a%20b", "namespace"),
        ("tikv://pd1/" + "n" * 65, "namespace"),
        ("tikv://pd1/ü", "namespace"),
        ("tikv://pd1?region=1", "no option region"),
        ("tikv://pd1?tls=true", "no option tls"),
        ("tikv://pd1/name?ca=ca.pem", "all of ca, certificate and key"),
        ("tikv://pd1/name?ca=ca.pem&certificate=&key=secret.pem", "all of ca, certificate and key"),
    ],
)
def test_refused(url: str, problem: str) -> None:
    """A wrong URL, or half of what TLS needs, is refused with a sentence that names the URL and shows no password."""
    with pytest.raises(InvalidSetting, match=problem) as caught:
        TikvOnlineStore(url, load_settings())
    assert "tikv://" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_tls() -> None:
    """Paths of certificates and key ask for TLS; tikv-client is refused then, as it would talk in the clear."""
    url = "tikv://pd1/name?ca=ca.pem&certificate=mine.pem&key=secret.pem"
    address = TikvAddress.parse(url)
    assert address.tls == ("ca.pem", "mine.pem", "secret.pem")
    assert "secret" not in address.shown
    with pytest.raises(InvalidSetting, match="TLS is asked for"):
        TikvOnlineStore(url, load_settings(tikv_driver="tikv-client"))


def test_namespaces_do_not_overlap() -> None:
    """No key of one namespace begins like the keys of another, and the pairing id is among nobody's rows."""
    prefixes = [TikvAddress.parse(f"tikv://pd/{name}") for name in ("a", "ab", "a-b", "a_b", "oomstream")]
    for one in prefixes:
        for other in prefixes:
            assert one is other or not one.row_prefix.startswith(other.row_prefix)
            assert not one.pairing_key.startswith(other.row_prefix)


def test_found_by_scheme() -> None:
    """The scheme tikv:// leads to this store; nothing is connected or imported until it is opened."""
    store = online_store("tikv://127.0.0.1:1/name", load_settings())
    assert isinstance(store, TikvOnlineStore)
    assert store.url == "tikv://127.0.0.1:1/name"
