"""Which client of TiKV the store goes through."""

from __future__ import annotations

import importlib.util

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.settings import Settings
from oomstream.stores.tikv.address import TikvAddress
from oomstream.stores.tikv.client_driver import ClientDriver
from oomstream.stores.tikv.driver import TikvDriver
from oomstream.stores.tikv.native_driver import NativeDriver


def chosen_driver(address: TikvAddress, settings: Settings) -> TikvDriver:
    """The native one where its package is installed, unless the settings say otherwise.

    Raises:
        InvalidSetting: The one that the settings ask for is not installed, or the one that is cannot do TLS.
    """
    installed = importlib.util.find_spec("oomstream_tikv") is not None
    call_timeout_s = settings.call_timeout_us / 1e6
    if settings.tikv_driver == "native" and not installed:
        raise InvalidSetting(
            f"online store {address.shown}: OOMSTREAM_TIKV_DRIVER is native, but the package oomstream-tikv is not "
            "installed (`make install` builds it where cargo is)"
        )
    if installed and settings.tikv_driver != "tikv-client":
        return NativeDriver(address, call_timeout_s)
    if address.tls is not None:
        raise InvalidSetting(
            f"online store {address.shown}: TLS is asked for, which tikv-client 0.0.4 cannot do; install "
            "oomstream-tikv (`make install` builds it where cargo is), or put a TLS tunnel in front of TiKV and leave "
            "the options out"
        )
    return ClientDriver(address, call_timeout_s)
