"""Looking at the files of TLS before they are used, for the client itself tells little of them.

It says of a file that is not what it should be that PD does not answer, and takes an empty file of authorities for a
wish to talk in the clear (tikv-client 0.4.0 of Rust, common/security.rs).
"""

from __future__ import annotations

import ssl

from oomstream.stores.tikv.troubles import NativeFault


def check_files(authorities: str, certificate: str, key: str) -> None:
    """Make sure that they can be read and used.

    Args:
        authorities: Path of a PEM file: whom to trust.
        certificate: Path of a PEM file: who we are.
        key: Path of a PEM file: the certificate's private key.

    Raises:
        NativeFault: They cannot; its text shows no path.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=authorities)
    except OSError as exc:
        raise NativeFault(f"TLS authorities: {exc.strerror or type(exc).__name__}") from None
    try:
        # An encrypted key is refused; without a password's source, it would be asked for on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as exc:
        raise NativeFault(f"TLS certificate and key: {exc.strerror or type(exc).__name__}") from None
