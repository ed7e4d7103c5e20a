"""What a person is told when a server is not there, or not for them: one sentence, with the URL and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.cli import Cli
from tests.services.mysql_protocol import SqlServer
from tests.services.native import free_ports
from tests.services.server import Server

GET = ("get", "online", "-k", "ann", "--feature", "rides.price")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command, with short deadlines and a group on embedded stores."""
    cli = Cli(tmp_path)
    cli.environment |= {"OOMSTREAM_CALL_TIMEOUT": "4s", "OOMSTREAM_OUTAGE_BUDGET": "1s"}
    cli.run("apply", str(cli.define()))
    return cli


def told(cli: Cli, *args: str, code: int, **settings: str) -> str:
    """The sentence, which `Cli.run` makes sure is one line, with no secret in it."""
    sentence = cli.run(*args, code=code, **settings).stderr.removeprefix("Error: ").strip()
    assert "geheim" not in sentence
    assert "(_" not in sentence  # what is private in a driver
    assert "Exception" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        ("tidb://root@127.0.0.1:{free}/db", 1, "cannot be reached (connection refused): is it running"),
        ("tidb://root:geheim@no-such-host.invalid/db", 1, "cannot be reached (no such host): is it running"),
        ("tidb://nobody:geheim@127.0.0.1:{tidb}/test", 2, "does not let this user in"),
        ("tidb://root@127.0.0.1:{tidb}/not_there", 2, "is not initialised: run `oomstream init`, or check OOMSTREAM_"),
        ("tidb://root:geheim@127.0.0.1:{tidb}", 2, "must name a database"),
        ("tidb://root@127.0.0.1:{tidb}/test?tls=true", 2, "no TLS (the server does not offer TLS)"),
        ("tidb://root@127.0.0.1:{kafka}/test", 1, "did not answer within 4 s: is it overloaded, or the URL another"),
        ("postgresql://me:geheim@db/features", 2, "no store for postgresql:// is installed"),
        ("geheim", 2, "history store: a store URL must look like scheme://"),
    ],
)
def test_history(cli: Cli, tidb_server: SqlServer, kafka_server: Server, url: str, code: int, sentence: str) -> None:
    """History that is not there, is another server, or does not let the user in is named with a way out."""
    (free,) = free_ports(1)
    url = url.format(free=free, tidb=tidb_server.port, kafka=kafka_server.url.rpartition(":")[2])
    said = told(cli, "status", code=code, OOMSTREAM_HISTORY_URL=url)
    assert sentence in said
    if "geheim" not in url:
        assert url in said


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        ("tikv://127.0.0.1:{free}", 1, "PD does not answer; see that PD runs and that the URL names it"),
        ("tikv://no-such-host.invalid", 1, "PD does not answer; see that PD runs and that the URL names it"),
        ("{tikv}/nobodys", 2, "is not initialised: run `oomstream init`"),
        ("{tikv}/a?tls=true", 2, "there is no option tls; tikv:// URLs take ca, certificate and key"),
        ("tikv://me:geheim@pd", 2, "TiKV knows no users"),
    ],
)
def test_online(cli: Cli, tikv_server: Server, url: str, code: int, sentence: str) -> None:
    """The same of the online store."""
    (free,) = free_ports(1)
    url = url.format(free=free, tikv=tikv_server.url)
    said = told(cli, *GET, code=code, OOMSTREAM_ONLINE_URL=url)
    assert sentence in said
    if "geheim" not in url:
        assert url in said


@pytest.mark.parametrize(
    ("url", "code", "sentence"),
    [
        (
            "kafka://127.0.0.1:{free}",
            1,
            "cannot be reached (connection refused): is it running, and is OOMSTREAM_BROKER",
        ),
        ("kafka://no-such-host.invalid", 1, "cannot be reached (name or service not known): is it running"),
        ("kafka://127.0.0.1:{tikv}", 1, "does not answer: is it running, and is OOMSTREAM_BROKER_URL right?"),
        ("kafka://me:geheim@broker", 2, "with no user: set OOMSTREAM_KAFKA_USER and OOMSTREAM_KAFKA_PASSWORD"),
    ],
)
@pytest.mark.parametrize("verb", [("status",), ("dlq", "list")], ids=" ".join)
def test_broker(cli: Cli, tikv_server: Server, verb: tuple[str, ...], url: str, code: int, sentence: str) -> None:
    """The same of the broker, whichever client of it fails."""
    (free,) = free_ports(1)
    url = url.format(free=free, tikv=tikv_server.url.rpartition(":")[2])
    said = told(cli, *verb, code=code, OOMSTREAM_BROKER_URL=url)
    assert sentence in said
    if "geheim" not in url:
        assert re.search(rf"broker {url}\b", said)


def test_stores_of_different_installations(cli: Cli, tidb_url: str) -> None:
    """Stores that were initialised for others are not mixed; the sentence names both and the way out."""
    others = {"OOMSTREAM_HISTORY_URL": tidb_url, "OOMSTREAM_ONLINE_URL": f"sqlite:///{cli.folder}/other.db"}
    cli.run("init", **others)  # type: ignore[arg-type]
    cli.run("apply", str(cli.define()), **others)  # type: ignore[arg-type]
    said = told(cli, *GET, code=1, OOMSTREAM_HISTORY_URL=tidb_url)
    assert "belongs to another history database" in said
    assert tidb_url in said
    assert "`oomstream repair`" in said
