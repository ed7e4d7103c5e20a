"""Refuse to run on a Faust whose known faults are not the ones that this worker goes round.

The transport overrides private methods of one exact version (see traps.md, Faust 1 to 9). With another version the
overrides could silently stop working, and then Faust would commit past unfinished messages.
"""

from __future__ import annotations

import inspect

import aiokafka
import faust
import faust.streams
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import TopicPartitionState
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ConsumerRebalanceListener

from oomstream.schemas.errors import Fatal

FAUST_VERSION = "0.15.3"
AIOKAFKA_VERSION = "0.14.0"

_PARAMETERS = {
    (Consumer, "_to_message"): ["self", "tp", "record"],
    (Consumer, "_add_gap"): ["self", "tp", "offset_from", "offset_to"],
    (Consumer, "_new_offset"): ["self", "tp"],
    (Consumer, "_wait_next_records"): ["self", "timeout"],
    (Consumer, "seek_to_committed"): ["self"],
    (Consumer, "on_partitions_revoked"): ["self", "revoked"],
    (Consumer, "on_partitions_assigned"): ["self", "assigned", "generation_id"],
    (Consumer, "verify_event_path"): ["self", "now", "tp"],
    (AIOKafkaConsumerThread, "_create_worker_consumer"): ["self", "transport"],
    (AIOKafkaConsumerThread, "_fetch_records"): ["self", "consumer", "active_partitions", "timeout", "max_records"],
    (AIOKafkaConsumerThread, "_commit"): ["self", "offsets"],
    (ConsumerRebalanceListener, "on_partitions_assigned"): ["self", "assigned"],
    (Fetcher, "fetched_records"): ["self", "partitions", "timeout", "max_records"],
    (Fetcher, "_create_fetch_waiter"): ["self"],
    (PartitionRecords, "_consumer_record"): ["self", "tp", "record"],
    (TopicPartitionState, "seek"): ["self", "position"],
    (GroupCoordinator, "check_errors"): ["self"],
}
"""What is overridden or called though it is private, and with which parameters."""


def check_faust() -> None:
    """Check Faust's version, its compiled stream iterator, and every method that the transport relies on.

    Raises:
        Fatal: Something is not as it was when the transport was written; names it.
    """
    if faust.__version__ != FAUST_VERSION:
        raise Fatal(f"the worker needs faust-streaming {FAUST_VERSION} exactly, not {faust.__version__}")
    if aiokafka.__version__ != AIOKAFKA_VERSION:
        raise Fatal(f"the worker needs aiokafka {AIOKAFKA_VERSION} exactly, not {aiokafka.__version__}")
    if getattr(faust.streams, "_CStreamIterator", None) is None:
        raise Fatal(
            "the worker needs faust-streaming's compiled stream iterator: install its wheel, and leave NO_CYTHON unset"
        )
    for (owner, name), expected in _PARAMETERS.items():
        method = getattr(owner, name, None)
        found = list(inspect.signature(method).parameters) if method is not None else None
        if found != expected:
            raise Fatal(
                f"the worker cannot run on this Faust or aiokafka: {owner.__name__}.{name} takes "
                f"{found or 'nothing: it is gone'}, not {expected}"
            )
