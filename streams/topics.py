"""Making topics, and telling one incarnation of a topic from the next."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stub re-exports them implicitly
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from oomstream.schemas.errors import InvalidRequest, OomstreamError, StoreUnavailable
from oomstream.schemas.groups import Category, FeatureGroup
from oomstream.streams.broker import MAX_MESSAGE_BYTES, Broker
from oomstream.streams.control import make_topics, ping

DLQ_EXTRA_BYTES = 64 * 1024
"""How much larger than its record a dead letter may be (traps.md, Kafka 2)."""

_MAX_MESSAGE = "max.message.bytes"
_CLEANUP = "cleanup.policy"
_LOOK_S = 0.05
_FIRST_TRY_S = 1.0


class Topic(NamedTuple):
    """A topic that a group needs.

    Attributes:
        name: Its name.
        partitions: How many, if it is made.
        letters_of: For a dead-letter topic, the topic whose records it takes; empty otherwise.
    """

    name: str
    partitions: int
    letters_of: str = ""


def topics_of(groups: Iterable[FeatureGroup]) -> list[Topic]:
    """The topic and the dead-letter topic of every stream group."""
    topics: list[Topic] = []
    for group in groups:
        if group.category is Category.STREAM:
            topics.append(Topic(group.topic, group.partitions))
            topics.append(Topic(group.dlq_topic, group.partitions, letters_of=group.topic))
    return topics


def ensure_topics(broker: Broker, topics: Sequence[Topic], *, timeout_s: float) -> list[str]:
    """Make the topics that are missing; those that exist stay as they are.

    Args:
        broker: Where.
        topics: Which; a dead-letter topic takes messages 64 KiB larger than its topic's.
        timeout_s: Deadline of each request, seconds.

    Returns:
        Names of the topics that were made.

    Raises:
        StoreUnavailable: The broker does not answer.
        InvalidRequest: The broker refuses; names the topic and why.
    """
    if not topics:
        return []
    if broker.embedded:
        wanted = {topic.name: topic.partitions for topic in topics}
        return make_topics(broker.control_port, wanted, timeout_s=timeout_s)[1]
    admin = AdminClient(broker.client_config(timeout_s))
    present = partition_counts(broker, admin=admin, timeout_s=timeout_s)
    missing = [topic for topic in topics if topic.name not in present]
    made = []
    # Dead-letter topics come second: what they must take is asked of the topics themselves.
    for group in ([t for t in missing if not t.letters_of], [t for t in missing if t.letters_of]):
        fresh = _create(admin, broker, group, timeout_s)
        _wait_until_known(admin, broker, fresh, timeout_s)
        made += fresh
    return made


def _wait_until_known(admin: AdminClient, broker: Broker, names: Sequence[str], timeout_s: float) -> None:
    """Wait until new topics can be used: the controller answers before the brokers have heard of them."""
    deadline = time.monotonic() + timeout_s
    while missing := set(names) - partition_counts(broker, admin=admin, timeout_s=timeout_s).keys():
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"broker {broker.url} does not know the new topic {min(missing)!r} yet")
        time.sleep(_LOOK_S)


def _create(admin: AdminClient, broker: Broker, topics: Sequence[Topic], timeout_s: float) -> list[str]:
    if not topics:
        return []
    limits = _message_limits(admin, broker, [topic.letters_of for topic in topics if topic.letters_of], timeout_s)
    fresh = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=-1,  # the broker's default.replication.factor
            config={_MAX_MESSAGE: str(limits[topic.letters_of] + DLQ_EXTRA_BYTES)} if topic.letters_of else {},
        )
        for topic in topics
    ]
    made = []
    for name, future in admin.create_topics(fresh, operation_timeout=timeout_s, request_timeout=timeout_s).items():
        try:
            future.result(timeout=timeout_s)
            made.append(name)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was faster
                raise _refused(broker, f"topic {name!r} cannot be made", exc) from exc
    return made


def _message_limits(admin: AdminClient, broker: Broker, names: Sequence[str], timeout_s: float) -> dict[str, int]:
    """``max.message.bytes`` of topics."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    limits: dict[str, int] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=timeout_s).items():
        entry = _result(future, broker, f"reading the settings of topic {resource.name!r}", timeout_s).get(_MAX_MESSAGE)
        limits[resource.name] = int(entry.value) if entry is not None else MAX_MESSAGE_BYTES
    return limits


def is_compacted(broker: Broker, topic: str, *, timeout_s: float) -> bool:
    """Whether the log keeps only the last record of each key (an embedded broker's never does).

    Raises:
        StoreUnavailable: The broker does not answer.
        InvalidSetting: It does not let this user ask.
    """
    if broker.embedded:
        return False
    admin = AdminClient(broker.client_config(timeout_s))
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    [future] = admin.describe_configs([resource], request_timeout=timeout_s).values()
    entry = _result(future, broker, f"reading the settings of topic {topic!r}", timeout_s).get(_CLEANUP)
    return entry is not None and "compact" in entry.value


def partition_counts(broker: Broker, *, timeout_s: float, admin: AdminClient | None = None) -> dict[str, int]:
    """Number of partitions of every topic that exists.

    Raises:
        StoreUnavailable: The broker does not answer.
    """
    admin = admin or AdminClient(broker.client_config(timeout_s))
    topics = _list_topics(admin, broker, timeout_s)
    return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}


def _list_topics(admin: AdminClient, broker: Broker, timeout_s: float) -> Mapping[str, Any]:
    """All topics. A broker that refuses connections would be tried until the deadline: so a short try comes first."""
    first_s = min(_FIRST_TRY_S, timeout_s)
    try:
        return admin.list_topics(timeout=first_s).topics
    except KafkaException as exc:
        admin.poll(0)  # hear what is wrong
        if (broker.troubles.all_down and broker.troubles.last is not None) or timeout_s <= first_s:
            raise broker.error(exc) from exc
    try:
        return admin.list_topics(timeout=timeout_s - first_s).topics
    except KafkaException as exc:
        raise broker.error(exc, client=admin) from exc


class Incarnations:
    """Which incarnation of each topic the log holds now: Kafka's topic id, or the embedded broker's UUID.

    Args:
        broker: Where.
        timeout_s: Deadline of each look, seconds.
    """

    def __init__(self, broker: Broker, *, timeout_s: float) -> None:
        self.broker = broker
        self._timeout_s = timeout_s
        self._admin: AdminClient | None = None

    def of(self, topics: Iterable[str]) -> dict[str, str]:
        """Incarnation by topic; a topic that does not exist is left out.

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        names = list(topics)
        if not names:
            return {}
        if self.broker.embedded:
            incarnation = ping(self.broker.control_port, timeout_s=self._timeout_s)
            return dict.fromkeys(names, incarnation)
        if self._admin is None:
            self._admin = AdminClient(self.broker.client_config(self._timeout_s))
        found: dict[str, str] = {}
        futures = self._admin.describe_topics(TopicCollection(names), request_timeout=self._timeout_s)
        for name, future in futures.items():
            try:
                found[name] = str(future.result(timeout=self._timeout_s).topic_id)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise self._error(name, exc) from exc
            except TimeoutError as exc:
                raise self._error(name, exc) from exc
        return found

    def _error(self, topic: str, exc: Exception) -> OomstreamError:
        return self.broker.error(exc, f"looking at topic {topic!r}", self._admin)


def log_ends(
    admin: AdminClient, broker: Broker, partitions: Sequence[TopicPartition], *, timeout_s: float
) -> Mapping[tuple[str, int], int]:
    """End (offset of the next record to come) of each partition's log.

    Raises:
        StoreUnavailable: The broker does not answer.
    """
    futures = admin.list_offsets(
        {each: OffsetSpec.latest() for each in partitions},  # type: ignore[no-untyped-call]
        request_timeout=timeout_s,
    )
    return {
        (each.topic, each.partition): _result(future, broker, "reading the log's ends", timeout_s).offset
        for each, future in futures.items()
    }


def _result(future: Future[Any], broker: Broker, doing: str, timeout_s: float) -> Any:
    try:
        return future.result(timeout=timeout_s)
    except (KafkaException, TimeoutError) as exc:
        raise broker.error(exc, doing) from exc


def _refused(broker: Broker, what: str, exc: KafkaException) -> OomstreamError:
    error = broker.error(exc, what)
    # What the broker itself refuses is not better the next time.
    refused = type(error) is StoreUnavailable and not broker.troubles.is_silence(exc)
    return InvalidRequest(str(error)) if refused else error
