"""What the command line asks of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.pairs import PAIRS


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    Attributes:
        servers: On Kafka, TiDB and TiKV (OOMSTREAM_BROKER_URL, …_HISTORY_URL, …_ONLINE_URL name them), not embedded.
        pairs: How many pairs a figure has.
        quick: A small part of the work, to see that it runs; its figures are not kept.
    """

    servers: bool = False
    pairs: int = PAIRS
    quick: bool = False
