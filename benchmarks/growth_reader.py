"""Processes of the benchmark of growth that read as often as they are asked, on the stores that the settings name.

Usage: python -m benchmarks.growth_reader reads FEATURES ENTITIES, or … training FEATURES LABELS
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from pyarrow import parquet

from benchmarks.contender import serve
from benchmarks.pairs import quantile
from benchmarks.read_rows import tail
from benchmarks.wide_planes import names
from oomstream.query.sync import FeatureStore

KEYS = 100
"""Entities of one read."""
READS = 400
"""Reads of one round."""


def serve_reads(features: int, entities: int) -> None:
    """Serve rounds of online reads; what they find is p50 and p99, milliseconds."""
    wanted, chance = names(features), random.Random(entities)
    with FeatureStore.open() as store:

        def work() -> tuple[float, Sequence[Any]]:
            taken = []
            for _ in range(READS):
                rows = [{"tail": tail(each)} for each in chance.sample(range(entities), min(KEYS, entities))]
                began = time.perf_counter_ns()
                found = store.get_online_features(wanted, rows).to_dict()
                taken.append(time.perf_counter_ns() - began)
            values = found[wanted[0]]
            assert sum(value is None for value in values) < len(values), "online rows are not there"
            taken.sort()
            return sum(taken) / 1e9, [quantile(taken, 0.5) / 1e6, quantile(taken, 0.99) / 1e6]

        serve(work)


def serve_training(features: int, labels_path: str) -> None:
    """Serve rounds of training sets; what they find is how many labels have a value of the first feature."""
    wanted, labels = names(features), parquet.read_table(labels_path)
    with FeatureStore.open() as store:

        def work() -> tuple[float, Sequence[Any]]:
            began = time.perf_counter()
            made = store.get_historical_features(labels, wanted).to_arrow()
            seconds = time.perf_counter() - began
            column = made.column(wanted[0])
            found = len(column) - column.null_count
            assert found > len(column) // 2, "history is not there"
            return seconds, [found]

        serve(work)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["reads", features, entities]:
            serve_reads(int(features), int(entities))
        case ["training", features, path]:
            serve_training(int(features), path)
