"""Kafka by TLS, SASL and client certificates: every part of ours gets in, and no secret gets out."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stub re-exports them implicitly
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from oomstream.agents.broker import EmbeddedBroker
from oomstream.schemas.errors import InvalidSetting
from oomstream.stores.settings import load_settings
from oomstream.streams.broker import Broker, need_broker
from oomstream.streams.dlq_topic import read_dead_letters
from tests.certificates import Authority, Certificate
from tests.integration.cli import Cli
from tests.services import kafka
from tests.services.fixtures import require
from tests.services.native import free_ports
from tests.services.server import Server

PASSWORD = "kH7-geheim-wort"
USERS = ("apply", "workers", "producers", "status", "verify")
"""The rows of the table of rights in docs/operations.md, each a user here; "nobody" is one more, without rights."""

TOPICS = ("rides_plain", "rides_scram", "rides_mutual")
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


class SecureKafka(NamedTuple):
    """A broker that has ways in by user and password, and by certificate, both encrypted.

    Attributes:
        server: It; ``server.url`` is a third way in, in clear, as a user who may do everything.
        sasl: URL of the way in by user and password.
        mutual: URL of the way in by certificate.
        authority: Who signed the broker's certificate, and signs clients'.
        files: Folder of secret files.
    """

    server: Server
    sasl: str
    mutual: str
    authority: Authority
    files: Path

    def secret(self, name: str, text: str) -> str:
        """Path of a file that holds a text."""
        file = self.files / name
        file.write_text(f"{text}\n", encoding="utf-8")
        return str(file)

    def by_password(self, user: str, **changes: str) -> dict[str, str]:
        """Variables that let a user in by password; a change to "" takes one away."""
        variables = {
            "OOMSTREAM_BROKER_URL": self.sasl,
            "OOMSTREAM_KAFKA_TLS": "true",
            "OOMSTREAM_KAFKA_CA_FILE": self.secret("ca.pem", self.authority.certificate),
            "OOMSTREAM_KAFKA_USER": user,
            "OOMSTREAM_KAFKA_PASSWORD_FILE": self.secret("password", PASSWORD),
            "OOMSTREAM_CALL_TIMEOUT": "10s",
            **changes,
        }
        return {name: value for name, value in variables.items() if value}

    def by_certificate(self, user: str) -> dict[str, str]:
        """Variables that let a user in by a certificate."""
        certificate = self.authority.issue(user)
        return {
            "OOMSTREAM_BROKER_URL": self.mutual,
            "OOMSTREAM_KAFKA_TLS": "true",
            "OOMSTREAM_KAFKA_CA_FILE": self.secret("ca.pem", self.authority.certificate),
            "OOMSTREAM_KAFKA_CERTIFICATE_FILE": self.secret(f"{user}.pem", certificate.certificate),
            "OOMSTREAM_KAFKA_KEY_FILE": self.secret(f"{user}.key", certificate.key),
        }


def broker_settings(
    sasl_port: int, mutual_port: int, certificate: Certificate, authority: Authority, folder: Path
) -> dict[str, str]:
    """Settings of a broker with the two encrypted listeners, and with access rules."""
    keys, trusted = folder / "broker.pem", folder / "trusted.pem"
    keys.write_text(certificate.key + certificate.certificate, encoding="utf-8")
    trusted.write_text(authority.certificate, encoding="utf-8")
    settings = {
        "listeners": f"SECURE://127.0.0.1:{sasl_port},MUTUAL://127.0.0.1:{mutual_port}",
        "advertised.listeners": f"SECURE://localhost:{sasl_port},MUTUAL://localhost:{mutual_port}",
        "listener.security.protocol.map": "SECURE:SASL_SSL,MUTUAL:SSL",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    for name in ("secure", "mutual"):
        settings |= {
            f"listener.name.{name}.ssl.keystore.type": "PEM",
            f"listener.name.{name}.ssl.keystore.location": str(keys),
            f"listener.name.{name}.ssl.truststore.type": "PEM",
            f"listener.name.{name}.ssl.truststore.location": str(trusted),
            f"listener.name.{name}.ssl.client.auth": "required" if name == "mutual" else "none",
        }
    login = "org.apache.kafka.common.security"
    return settings | {
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.secure.plain.sasl.jaas.config": (
            f"{login}.plain.PlainLoginModule required "
            + " ".join(f'user_{user}="{PASSWORD}"' for user in (*USERS, "nobody"))
            + " ;"
        ),
        "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required ;",
    }


def grants() -> list[AclBinding]:
    """The rights that docs/operations.md lists, for `TOPICS`, their dead-letter topics and the consumer group."""
    table = re.search(r"^\| who \|.*?\n\n", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert table is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].split("\n")[2:] if line]
    assert [re.findall(r"\w+", row[0])[0] for row in rows] == list(USERS)
    topic, group = ResourceType.TOPIC, ResourceType.GROUP
    of = [[(topic, each) for each in TOPICS], [(topic, f"{each}.dlq") for each in TOPICS], [(group, "oomstream")]]
    return [
        AclBinding(kind, name, ResourcePatternType.LITERAL, principal, "*", operation(word), AclPermissionType.ALLOW)
        for user, row in zip(USERS, rows, strict=True)
        for resources, cell in zip(of, row[1:], strict=True)
        for kind, name in resources
        for word in re.findall(r"[A-Z]\w+", cell)
        for principal in (f"User:{user}", f"User:CN={user}")
    ]


def operation(word: str) -> AclOperation:
    """An operation by the name that Kafka's documentation gives it."""
    found: AclOperation = AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).upper()]
    return found


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker with its secure ways in."""
    require(kafka.available("native"))
    folder, authority = tmp_path_factory.mktemp("secrets"), Authority()
    sasl_port, mutual_port = free_ports(2)
    more = broker_settings(sasl_port, mutual_port, authority.issue("localhost"), authority, folder)
    with kafka.start("native", more=more) as server:
        admin = AdminClient({"bootstrap.servers": server.url.removeprefix("kafka://"), "log_level": 0})
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        changes = (UserScramCredentialUpsertion(user, scram, PASSWORD.encode()) for user in USERS)
        for future in admin.create_acls(grants()).values():
            future.result(20)
        for future in admin.alter_user_scram_credentials([*changes]).values():
            future.result(20)
        yield SecureKafka(
            server, f"kafka://localhost:{sasl_port}", f"kafka://localhost:{mutual_port}", authority, folder
        )


def all_the_way(secure: SecureKafka, tmp_path: Path, topic: str, login: Callable[[str], dict[str, str]]) -> str:
    """From `apply` to `dlq list`, each by a user with just the rights that the docs list; gives what was printed."""
    cli = Cli(tmp_path)
    plain = dict(cli.environment)
    cli.environment = plain | login("apply")
    said = cli.run("apply", str(cli.define(name=topic))).stdout
    assert f"new topic {topic}.dlq" in said
    bad = Producer({"bootstrap.servers": secure.server.url.removeprefix("kafka://"), "log_level": 0})
    bad.produce(topic, b"not an event", b"ann", partition=0)
    assert bad.flush(20) == 0
    cli.environment = plain | login("workers")
    with cli.running("worker", until=f"reading {topic}") as worker:
        cli.environment = plain | login("producers")
        said += cli.run("push", "-g", topic, "-k", "ann", "--feature", "price=12.5", "--wait").stdout
        cli.environment = plain | login("status")
        while sum(row["lag"] for row in cli.json("status")):
            pass
    said += cli.run("get", "online", "-k", "ann", "--feature", f"{topic}.price").stdout
    assert "12.5" in said
    letters = cli.json("dlq", "list")
    cli.environment = plain | login("verify")
    said += cli.run("verify", "--from-topic").stdout
    assert [letter["topic"] for letter in letters] == [topic]
    return said + str(letters) + "".join(worker)


def letters_headers(secure: SecureKafka, topic: str) -> bytes:
    """Every byte of the dead letters of a topic."""
    broker = Broker((secure.server.url.removeprefix("kafka://"),))
    letters = list(read_dead_letters(broker, topic, timeout_s=20))
    assert letters
    return b"".join(raw or b"" for each in letters for _, raw in each.message_headers())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_by_password(secure: SecureKafka, tmp_path: Path, mechanism: str) -> None:
    """apply, push, worker, dead letters and status work by TLS and password; the password is in nothing they say."""
    topic = f"rides_{mechanism[:5].lower()}"

    def login(user: str) -> dict[str, str]:
        return secure.by_password(user, OOMSTREAM_KAFKA_SASL_MECHANISM=mechanism)

    said = all_the_way(secure, tmp_path, topic, login)
    assert PASSWORD not in said
    assert PASSWORD.encode() not in letters_headers(secure, topic)


def test_by_certificate(secure: SecureKafka, tmp_path: Path) -> None:
    """The same with client certificates instead of passwords."""
    said = all_the_way(secure, tmp_path, "rides_mutual", secure.by_certificate)
    assert "PRIVATE KEY" not in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"OOMSTREAM_KAFKA_PASSWORD_FILE": "", "OOMSTREAM_KAFKA_PASSWORD": "wrong-geheim"},
            "does not let this user in",
        ),
        ({"OOMSTREAM_KAFKA_CA_FILE": ""}, "TLS failed (certificate verify failed"),
        ({"OOMSTREAM_BROKER_URL": "127.0.0.1"}, "TLS failed (certificate verify failed"),
        ({"user": "nobody"}, "lacks a right"),
    ],
    ids=["wrong password", "unknown authority", "wrong host name", "no rights"],
)
def test_refused(secure: SecureKafka, tmp_path: Path, changes: dict[str, str], sentence: str) -> None:
    """Who is refused, or refuses the broker, is told why in one sentence, without the password, and soon."""
    cli = Cli(tmp_path)
    if changes.get("OOMSTREAM_BROKER_URL"):
        changes = {"OOMSTREAM_BROKER_URL": secure.sasl.replace("localhost", "127.0.0.1")}
    cli.environment |= secure.by_password(**{"user": "apply", **changes})
    refused = cli.run("apply", str(cli.define(name="others")), code=2)
    assert sentence in refused.stderr
    assert "geheim" not in refused.stderr


def test_worker_that_is_refused_ends(
    secure: SecureKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker whose user may not read ends with the sentence; neither text forms nor its log hold the password."""
    cli = Cli(tmp_path)
    cli.run("apply", str(cli.define(name="private")), OOMSTREAM_BROKER_URL=secure.server.url)
    cli.environment |= secure.by_password("nobody")
    with caplog.at_level(logging.DEBUG):
        ended = subprocess.run(
            cli.command("--debug", "worker"),
            cwd=tmp_path,
            env=cli.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode in (1, 2)
    assert re.search(r"CRITICAL .*(lacks a right|has no topic)", ended.stderr)
    assert PASSWORD not in ended.stderr + caplog.text
    for name, value in cli.environment.items():
        if name.startswith("OOMSTREAM_"):
            monkeypatch.setenv(name, value)
    settings = load_settings()
    assert PASSWORD not in repr(settings) + str(settings) + repr(need_broker(settings))


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"KAFKA_USER": "me", "KAFKA_PASSWORD": "geheim"}, "set OOMSTREAM_KAFKA_TLS=true"),
        ({"KAFKA_USER": "me", "KAFKA_TLS": "true"}, "need each other"),
        ({"KAFKA_CA": "/etc/ca.pem", "KAFKA_TLS": "true"}, "set OOMSTREAM_KAFKA_CA_FILE to its path"),
        ({"KAFKA_CA": "-----BEGIN CERTIFICATE-----\ngeheim", "KAFKA_TLS": "true"}, "no certificate that can be read"),
        ({"KAFKA_CA": "-----BEGIN CERTIFICATE-----"}, "is for TLS"),
        ({"KAFKA_CERTIFICATE": "-----BEGIN CERTIFICATE-----", "KAFKA_TLS": "true"}, "need each other"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "OOMSTREAM_KAFKA_SASL_MECHANISM"),
    ],
)
def test_settings_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str) -> None:
    """What is missing or no PEM text is named by its variable, without its value."""
    monkeypatch.setenv("OOMSTREAM_BROKER_URL", "kafka://broker")
    for name, value in variables.items():
        monkeypatch.setenv(f"OOMSTREAM_{name}", value)
    with pytest.raises(InvalidSetting, match=re.escape(sentence)) as refused:
        need_broker(load_settings())
    assert "geheim" not in str(refused.value)


def test_encrypted_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private key with a password of its own is refused with a sentence; nothing is asked on the terminal."""
    certificate = Authority().issue("me", password=PASSWORD)
    monkeypatch.setenv("OOMSTREAM_BROKER_URL", "kafka://broker")
    monkeypatch.setenv("OOMSTREAM_KAFKA_TLS", "true")
    monkeypatch.setenv("OOMSTREAM_KAFKA_CERTIFICATE", certificate.certificate)
    monkeypatch.setenv("OOMSTREAM_KAFKA_KEY", certificate.key)
    with pytest.raises(InvalidSetting, match="must not be encrypted"):
        need_broker(load_settings())


def test_the_embedded_broker_takes_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for a real broker do not keep clients from the embedded one."""
    monkeypatch.setenv("OOMSTREAM_KAFKA_TLS", "true")
    with EmbeddedBroker() as embedded:
        monkeypatch.setenv("OOMSTREAM_BROKER_URL", embedded.url)
        assert need_broker(load_settings()).security is None
