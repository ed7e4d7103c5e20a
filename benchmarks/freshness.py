"""How long after an event was produced a reader finds its value: measured by reading back, with workers as processes.

Events come at a steady rate; one in a hundred or so is a probe, of an entity of its own. A reader asks for all probes
that are still out, again and again, and notes when each is there. So the figure holds the producer's linger, the
broker, the worker's batch, both stores and the read that found it. Quiet, and while a second worker joins and leaves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.flight_events import PARTITIONS, ready_stores
from benchmarks.options import Options
from benchmarks.pairs import quantile
from benchmarks.results import Figure, load
from oomstream.agents.broker import EmbeddedBroker
from oomstream.query.sync import FeatureStore
from oomstream.stores.settings import Settings, load_settings
from oomstream.streams.broker import need_broker
from oomstream.streams.producer import FeatureProducer
from oomstream.streams.topics import ensure_topics, topics_of

RATES = (1_000, 5_000)
SECONDS = 30.0
QUICK_SECONDS = 4.0
WARM_S = 3.0
PROBES_A_SECOND = 50
ENTITIES = 4_000
_TICK_S = 0.01
_GIVE_UP_S = 60.0
_USUAL_MAXIMUM = 30_000
"""Events a second, where no ingest rate has been measured yet."""


class Probe(NamedTuple):
    """An event that is read back: its entity, and when it was given to the producer (monotonic seconds)."""

    tail: str
    produced: float


def run(options: Options) -> Iterator[Figure]:
    """Measure milliseconds from produce to readable at each rate, quiet and with a worker that joins and leaves."""
    stores = "Kafka, TiDB, TiKV" if options.servers else "embedded"
    seconds = QUICK_SECONDS if options.quick else SECONDS
    rates = RATES[:1] if options.quick else (*RATES, _half_of_maximum(stores))
    with _place(options) as settings, FeatureStore.open(settings=settings) as store:
        for rate in rates:
            for joins in (False, True):
                with _worker(settings):
                    latencies = _measure(settings, store, rate, seconds, joins=joins)
                how = "while a worker joins and leaves" if joins else "quiet"
                p50, p99, p999 = (quantile(latencies, each) for each in (0.5, 0.99, 0.999))
                print(
                    f"  {rate:,} events/s, {how}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, p99.9 {p999:.0f} ms", flush=True
                )
                facts = {"p99 ms": p99, "p99.9 ms": p999, "worst ms": latencies[-1], "probes": len(latencies)}
                what = f"{'half of the maximum' if rate not in RATES else f'{rate:,} events/s'}, {how}"
                yield Figure("freshness", what, stores, "ms p50", [p50], better="less", facts={"rate": rate, **facts})


def _half_of_maximum(stores: str) -> int:
    """Half of the events/s that the ingest benchmark last measured here."""
    measured = [each for each in load()[0] if each.benchmark == "ingest" and each.stores == stores]
    maximum = sorted(measured[0].ours)[len(measured[0].ours) // 2] if measured else _USUAL_MAXIMUM
    return int(maximum / 2)


@contextmanager
def _place(options: Options) -> Iterator[Settings]:
    """Stores with the group, and a broker with its topic, for this benchmark only."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not options.servers:
            broker = stack.enter_context(EmbeddedBroker())
            os.environ["OOMSTREAM_BROKER_URL"] = broker.url
        settings = load_settings(data_dir=folder)
        group = ready_stores(settings)
        ensure_topics(need_broker(settings), topics_of([group]), timeout_s=30)
        yield settings


@contextmanager
def _worker(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """`oomstream worker` as a process, from when it has claimed partitions until it has drained."""
    environment = {**os.environ, "OOMSTREAM_DATA_DIR": str(settings.data_dir)}
    command = [sys.executable, "-m", "oomstream.agents.cli.main", "worker"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "claimed at offset" in line:
                break
        draining = threading.Thread(target=process.stderr.read, daemon=True)
        draining.start()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_GIVE_UP_S)


def _measure(settings: Settings, store: FeatureStore, rate: int, seconds: float, *, joins: bool) -> list[float]:
    """Latencies of the probes, milliseconds, ascending."""
    out: list[Probe] = []
    ended = threading.Event()
    producing = threading.Thread(target=_produce, args=(settings, rate, WARM_S + seconds, out, ended))
    began = time.monotonic()
    producing.start()
    second = threading.Thread(target=_join_and_leave, args=(settings, seconds)) if joins else None
    if second is not None:
        second.start()
    latencies: list[float] = []
    known = 0
    waiting: dict[str, float] = {}
    deadline = began + WARM_S + seconds + _GIVE_UP_S
    while not (ended.is_set() and not waiting and known == len(out)) and time.monotonic() < deadline:
        fresh = out[known:]
        known += len(fresh)
        waiting |= {each.tail: each.produced for each in fresh}
        for tail in _found(store, list(waiting)):
            produced = waiting.pop(tail)
            if produced >= began + WARM_S:
                latencies.append((time.monotonic() - produced) * 1000)
        time.sleep(0.001)
    producing.join()
    if second is not None:
        second.join()
    if waiting:
        raise RuntimeError(f"{len(waiting)} probes were not readable {_GIVE_UP_S:g} s after the last event")
    return sorted(latencies)


def _found(store: FeatureStore, tails: Sequence[str]) -> Iterator[str]:
    if not tails:
        return
    answer = store.get_online_features(features=["plane.air_time"], entity_rows=[{"tailnum": each} for each in tails])
    for tail, value in zip(tails, answer.to_dict()["plane.air_time"], strict=True):
        if value is not None:
            yield tail


def _produce(settings: Settings, rate: int, seconds: float, out: list[Probe], ended: threading.Event) -> None:
    """Produce at a steady rate; a producer that falls behind says so by its lateness, never by leaving events out."""
    values = {
        "arr_delay": 1, "dep_delay": 2, "air_time": 3, "distance": 4, "carrier": "UA", "origin": "EWR", "dest": "LAX",
    }  # fmt: skip
    run = time.monotonic_ns()
    every = max(1, rate // PROBES_A_SECOND)
    try:
        with FeatureProducer.open(settings) as producer:
            began, made = time.monotonic(), 0
            while (passed := time.monotonic() - began) < seconds:
                for number in range(made, int(passed * rate)):
                    probe = number % every == 0
                    tail = f"P{run}-{number}" if probe else f"N{number % ENTITIES}"
                    producer.produce("plane", {"tailnum": tail, "landed_at": datetime.now(UTC), **values})
                    if probe:
                        out.append(Probe(tail, time.monotonic()))
                made = int(passed * rate)
                time.sleep(_TICK_S)
    finally:
        ended.set()


def _join_and_leave(settings: Settings, seconds: float) -> None:
    """A second worker for the middle third."""
    time.sleep(WARM_S + seconds / 3)
    with _worker(settings):
        time.sleep(seconds / 3)


assert PARTITIONS >= 2, "a second worker must have something to take over"
