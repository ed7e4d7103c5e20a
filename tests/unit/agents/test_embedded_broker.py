"""The embedded broker: topics as asked, an address that others find, a new incarnation at every start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from oomstream.agents.broker import EmbeddedBroker
from oomstream.schemas.errors import InvalidRequest, InvalidSetting, StoreUnavailable
from oomstream.stores.settings import load_settings
from oomstream.streams.broker import URL_FILE, find_broker, need_broker, parse_broker, published_broker
from oomstream.streams.control import ping
from oomstream.streams.topics import Incarnations, Topic, ensure_topics, partition_counts


def test_topics_have_the_partitions_asked_for() -> None:
    """A topic is made once with its number of partitions; asking again does no harm, another number is refused."""
    with EmbeddedBroker() as embedded:
        assert embedded.create_topic("plane", 8)
        assert not embedded.create_topic("plane", 8)
        with pytest.raises(InvalidRequest, match="'plane' has 8 partitions, not 3"):
            embedded.create_topic("plane", 3)
        assert partition_counts(embedded.broker, timeout_s=10) == {"plane": 8}


@pytest.mark.parametrize("name", ["", "..", "a b", "é", "x" * 250])
def test_a_bad_name_is_refused(name: str) -> None:
    """What Kafka would not take as a topic's name is refused with its name."""
    with EmbeddedBroker() as embedded, pytest.raises(InvalidRequest, match="cannot be a topic's name"):
        embedded.create_topic(name, 1)


def test_other_processes_make_topics_through_the_control_port() -> None:
    """`ensure_topics` makes what is missing and leaves what is there, given no more than the URL."""
    with EmbeddedBroker() as embedded:
        embedded.create_topic("plane", 2)
        broker = parse_broker(embedded.url)
        topics = [Topic("plane", 5), Topic("boat", 3), Topic("boat.dlq", 3, letters_of="boat")]
        assert ensure_topics(broker, topics, timeout_s=10) == ["boat", "boat.dlq"]
        assert partition_counts(broker, timeout_s=10) == {"plane": 2, "boat": 3, "boat.dlq": 3}
        with pytest.raises(InvalidRequest, match="can have 1 to 1024 partitions, not 0"):
            ensure_topics(broker, [Topic("car", 0)], timeout_s=10)


def test_a_topic_that_sprang_up_is_not_taken_for_ours() -> None:
    """A topic that a client named too early has the wrong number of partitions: it is refused, not used."""
    with EmbeddedBroker() as embedded:
        from confluent_kafka.admin import AdminClient

        AdminClient(embedded.broker.client_config(10)).list_topics("plane", timeout=10)
        with pytest.raises(InvalidRequest, match="'plane' sprang up"):
            embedded.create_topic("plane", 8)


def test_every_start_is_a_new_incarnation(tmp_path: Path) -> None:
    """The same object started twice is two incarnations of every topic."""
    embedded = EmbeddedBroker(tmp_path)
    found = []
    for _ in range(2):
        with embedded:
            found.append(Incarnations(embedded.broker, timeout_s=10).of(["plane"])["plane"])
    assert found[0] != found[1]


def test_the_address_is_published_while_it_runs(tmp_path: Path) -> None:
    """Other processes find the broker through the data folder, and only while it runs."""
    settings = load_settings(data_dir=tmp_path)
    assert find_broker(settings) is None
    with EmbeddedBroker(tmp_path) as embedded:
        assert find_broker(settings) == embedded.broker
        assert parse_broker(embedded.url) == embedded.broker
        with pytest.raises(InvalidRequest, match=f"already runs on {tmp_path}"):
            EmbeddedBroker(tmp_path).start()
    assert not (tmp_path / URL_FILE).exists()
    with pytest.raises(InvalidSetting, match=r"no broker: OOMSTREAM_BROKER_URL is not set"):
        need_broker(settings)


def test_a_killed_brokers_file_is_recognised(tmp_path: Path) -> None:
    """A file left behind by a killed broker names nobody, even when another program has its ports now."""
    with EmbeddedBroker() as embedded:
        gone = embedded.broker
        url = gone.url.replace(gone.incarnation, "11111111-1111-1111-1111-111111111111")
        (tmp_path / URL_FILE).write_text(url)
        assert published_broker(tmp_path) is None
    (tmp_path / URL_FILE).write_text(gone.url)
    assert published_broker(tmp_path) is None
    (tmp_path / URL_FILE).write_text("nonsense")
    assert published_broker(tmp_path) is None
    with EmbeddedBroker(tmp_path) as fresh:
        assert published_broker(tmp_path) == fresh.broker


def test_a_stopped_broker_says_so() -> None:
    """Its control port answers no more, and a client is told that it has ended."""
    with EmbeddedBroker() as embedded:
        port = embedded.broker.control_port
        assert ping(port, timeout_s=5) == embedded.broker.incarnation
    embedded.stop()
    with pytest.raises(StoreUnavailable, match="it has ended"):
        ping(port, timeout_s=1)
    with pytest.raises(InvalidRequest, match="is not running"):
        _ = embedded.url


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"{}\n", b'{"ask": "rule the world"}\n', b"\xff\n", b""])
def test_nonsense_on_the_control_port_does_no_harm(line: bytes) -> None:
    """Whatever a stranger sends, the control port answers an error and goes on."""
    with EmbeddedBroker() as embedded:
        port = embedded.broker.control_port
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
            stranger.sendall(line)
            stranger.shutdown(socket.SHUT_WR)
            assert b'"error"' in stranger.recv(4096)
        assert ping(port, timeout_s=5) == embedded.broker.incarnation
