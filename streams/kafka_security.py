"""How clients prove who they are to a Kafka broker, and how they make sure of it: TLS and SASL.

Certificates and keys are settings that hold PEM text, so that the rule for secrets serves them too:
``OOMSTREAM_KAFKA_CA_FILE=/run/secrets/ca.pem``.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass, field
from typing import Any, Self

from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.settings import Settings

_PEM = "-----BEGIN "


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Security of the connections to a broker; its text form holds no secret.

    The broker's certificate and host name are always verified.

    Attributes:
        tls: Whether connections are encrypted.
        ca: PEM text of the authorities to trust; None = those of the system.
        certificate: PEM text of the client's certificate chain; None = the client shows none.
        key: PEM text of its private key, not encrypted.
        mechanism: SASL mechanism; empty = no SASL.
        user: SASL user.
        password: SASL password.
    """

    tls: bool = False
    ca: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    mechanism: str = ""
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """What the settings ask for; None if they ask for nothing.

        Raises:
            InvalidSetting: They do not fit together, or a PEM text is none; names the variable.
        """
        tls, user, password = settings.kafka_tls, settings.kafka_user, settings.kafka_password
        key = settings.kafka_key.get_secret_value() if settings.kafka_key is not None else None
        pems = {"KAFKA_CA": settings.kafka_ca, "KAFKA_CERTIFICATE": settings.kafka_certificate, "KAFKA_KEY": key}
        for name, text in pems.items():
            if text is not None and _PEM not in text:
                raise InvalidSetting(
                    f"setting OOMSTREAM_{name} must hold PEM text: for a file, set OOMSTREAM_{name}_FILE to its path"
                )
            if text is not None and not tls:
                raise InvalidSetting(f"setting OOMSTREAM_{name} is for TLS: set OOMSTREAM_KAFKA_TLS=true too")
        if (settings.kafka_certificate is None) != (key is None):
            raise InvalidSetting("settings OOMSTREAM_KAFKA_CERTIFICATE and OOMSTREAM_KAFKA_KEY need each other")
        if (user is None) != (password is None):
            raise InvalidSetting("settings OOMSTREAM_KAFKA_USER and OOMSTREAM_KAFKA_PASSWORD need each other")
        if user is not None and tls is None:
            raise InvalidSetting(
                "setting OOMSTREAM_KAFKA_USER: set OOMSTREAM_KAFKA_TLS=true, so that the password is not sent in clear "
                "(=false, if the network may see it)"
            )
        if not tls and user is None:
            return None
        return cls(
            tls=bool(tls),
            ca=settings.kafka_ca,
            certificate=settings.kafka_certificate,
            key=key,
            mechanism=settings.kafka_sasl_mechanism if user is not None else "",
            user=user or "",
            password=password.get_secret_value() if password is not None else "",
        )

    @property
    def protocol(self) -> str:
        """Kafka's name for it: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        return ("SASL_" if self.mechanism else "") + ("SSL" if self.tls else "PLAINTEXT")

    def client_config(self) -> dict[str, str]:
        """Options of a confluent-kafka client."""
        options = {
            "security.protocol": self.protocol,
            "ssl.ca.pem": self.ca,
            "ssl.certificate.pem": self.certificate,
            "ssl.key.pem": self.key,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.user,
            "sasl.password": self.password,
        }
        return {name: value for name, value in options.items() if value}

    def aiokafka_options(self) -> dict[str, Any]:
        """Options of an aiokafka client.

        Raises:
            InvalidSetting: A certificate or key cannot be read.
        """
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls:
            options["ssl_context"] = self._ssl_context()
        if self.mechanism:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return options

    def check(self) -> None:
        """Make sure that the certificates and the key can be read.

        Raises:
            InvalidSetting: One cannot; names the variable.
        """
        if self.tls:
            self._ssl_context()

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cadata=self.ca)
        except (ssl.SSLError, ValueError) as exc:
            raise InvalidSetting("setting OOMSTREAM_KAFKA_CA holds no certificate that can be read") from exc
        if self.certificate is not None and self.key is not None:
            # Python takes a client's certificate from a file only; this one is readable by its owner and goes at once.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(f"{self.certificate}\n{self.key}\n")
                file.flush()
                try:
                    context.load_cert_chain(file.name, password=_no_password)
                except (ssl.SSLError, InvalidSetting) as exc:
                    raise InvalidSetting(
                        "settings OOMSTREAM_KAFKA_CERTIFICATE and OOMSTREAM_KAFKA_KEY hold no pair that can be read "
                        "(the key must not be encrypted)"
                    ) from exc
        return context


def _no_password() -> str:
    """Asked for an encrypted key's password: without this, OpenSSL would ask on the terminal."""
    raise InvalidSetting("the key is encrypted")
