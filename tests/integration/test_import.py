"""`oomstream import` on every pair of stores: revisions of batch groups, and backfill beside a running worker."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from oomstream.query.sync import FeatureStore
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import decode_value, encode_key
from oomstream.schemas.types import us_from_time
from oomstream.schemas.versions import SourceKind
from oomstream.stores.opening import Stores, open_stores
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker
from oomstream.streams.import_report import ImportReport
from oomstream.streams.importing import import_file
from oomstream.streams.verify import Verifier
from tests.integration.backends import Backends, environment_of, prepare
from tests.integration.cli import Cli
from tests.integration.feed import CARRIERS, PLANES, START, Feed, Progress, Watching, plane_group, workers_on
from tests.integration.topic_oracle import read_topic
from tests.oracle import Oracle, OracleEvent

ACCOUNT: dict[str, Any] = {
    "type": "record",
    "name": "account",
    "entity": "user",
    "keys": ["user_id"],
    "category": "batch",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "state", "type": "string"},
        {"name": "credit", "type": ["null", "long"]},
        {"name": "seen", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "photo", "type": ["null", "bytes"]},
    ],
}
ROWS = 3_000


@pytest.fixture
def settings(backends: Backends) -> Settings:
    """Stores that nobody has made yet."""
    return backends.fresh()


@pytest.fixture
def cli(tmp_path: Path, settings: Settings) -> Cli:
    """The command on them, with a batch group of users and a stream group of rides."""
    cli = Cli(tmp_path)
    cli.environment.update(environment_of(settings))
    cli.define()
    (tmp_path / "account.avsc").write_bytes(orjson.dumps(ACCOUNT))
    cli.run("init")
    cli.run("apply", "rides.avsc", "account.avsc")
    return cli


def test_revisions_of_a_batch_group(cli: Cli, settings: Settings) -> None:
    """Each import prints its revision; a label sees the newest one of its time; a bad file leaves no trace."""
    (cli.folder / "first.csv").write_text(
        "credit,user,state,seen,photo\n5,ann,NY,2020-01-01T00:00:00Z,AAE=\n,bob,,,\n", encoding="utf-8"
    )
    assert cli.run("import", "-g", "account", "--input-file", "first.csv", "-r", "1600000000000").stdout == (
        "RevisionID: 2\n"
    )
    (cli.folder / "bad.csv").write_text("credit,user,state,seen,photo\n5,ann,NY,,\n6,ann,NY,,\n", encoding="utf-8")
    refused = cli.run("import", "-g", "account", "--input-file", "bad.csv", code=1)
    assert refused.stderr == "Error: bad.csv: line 3 has the key of an earlier row\n"
    table = pa.table(
        {
            "user": ["ann", "cid"],
            "state": ["", "CA"],
            "credit": pa.array([None, 7], pa.int64()),
            "seen": pa.array([0, None], pa.timestamp("ms")),
            "photo": pa.array([b"", None], pa.binary()),
        }
    )
    parquet.write_table(table, cli.folder / "second.parquet")
    second = cli.run("import", "-g", "account", "--input-file", "second.parquet", "-r", "1700000000000")
    assert second.stdout == "RevisionID: 3\n"
    names = ["account.state", "account.credit", "account.seen", "account.photo"]
    labels = [
        {"user_id": user, "unix_milli": time}
        for time in (1_599_999_999_999, 1_600_000_000_000, 1_700_000_000_000)
        for user in ("ann", "bob", "cid")
    ]
    with FeatureStore.open(settings=settings) as store:
        made = store.get_historical_features(pa.Table.from_pylist(labels), names).to_arrow().to_pylist()
    nothing, epoch = [None] * 4, datetime(1970, 1, 1, tzinfo=UTC)
    assert [[row[name] for name in names] for row in made] == [
        *[nothing] * 3,
        ["NY", 5, datetime(2020, 1, 1, tzinfo=UTC), b"\0\1"],
        ["", None, None, None],
        nothing,
        ["", None, epoch, b""],
        nothing,
        ["CA", 7, None, None],
    ]


def test_backfill_of_a_stream_group(cli: Cli) -> None:
    """Rows of the past come in beside what was pushed: online keeps the newest, and training finds each in its time."""
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=9", "--event-time", "2026-01-03T00:00:00Z")
    (cli.folder / "rides.csv").write_text(
        "rating,rider,unix_milli,price\n"
        "5,ann,1767225600000,1.5\n"  # 2026-01-01
        ",ann,1767398400000,4\n"  # 2026-01-03, as what was pushed
        "3,bob,1767312000000,2\n",  # 2026-01-02
        encoding="utf-8",
    )
    command = ("import", "-g", "rides", "--input-file", "rides.csv")
    assert cli.run(*command).stdout == "imported 3 rows\n"
    assert cli.run(*command).stdout == "imported 3 rows; 3 of them had been imported before\n"
    get = ["get", "online", "-k", "ann,bob", "--feature", "rides.price,rides.rating", "-o", "csv"]
    assert cli.run(*get).stdout == "rider,rides.price,rides.rating\nann,9.0,\nbob,2.0,3\n"
    (cli.folder / "labels.csv").write_text(
        "rider_id,event_timestamp\nann,2026-01-02\nann,2026-01-03\nbob,2026-01-01\nbob,2026-01-02\n",
        encoding="utf-8",
    )
    joined = cli.run("join", "--feature", "rides.price,rides.rating", "--input-file", "labels.csv").stdout
    assert joined.splitlines()[1:] == [
        "ann,2026-01-02,1.5,5",
        "ann,2026-01-03,9.0,",
        "bob,2026-01-01,,",
        "bob,2026-01-02,2.0,3",
    ]
    assert all(source["next"] == source["online"] for source in cli.json("get", "source"))


class Readers:
    """Reads planes online all the time, and sees that no version falls and no plane goes away.

    Attributes:
        reads: How often it has read.
        failed: What went wrong, if anything.
    """

    def __init__(self, settings: Settings) -> None:
        self.reads = 0
        self.failed: BaseException | None = None
        self._settings = settings
        self._end = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read in a thread of its own, until the block ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(60)
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        rows = [{"tail": f"N{at}"} for at in range(0, PLANES, 10)]
        newest: list[datetime | None] = [None] * len(rows)
        try:
            with FeatureStore.open(settings=self._settings) as store:
                while not self._end.is_set():
                    times = store.get_online_features(["plane.delay"], rows).event_times["plane.delay"]
                    for before, now in zip(newest, times, strict=True):
                        assert before is None or (now is not None and now >= before)
                    newest = list(times)
                    self.reads += 1
        except BaseException as exc:
            self.failed = exc


def file_rows(seed: int) -> list[tuple[str, int, int, str | None]]:
    """Rows of planes that the stream has too, at times of which it has many."""
    chance = random.Random(seed)
    return [
        (
            f"N{chance.randrange(PLANES + 20)}",
            us_from_time(START + timedelta(seconds=chance.randrange(3_000))),
            1_000_000 + at,
            chance.choice(CARRIERS),
        )
        for at in range(ROWS)
    ]


def test_backfill_beside_a_worker(backends: Backends, broker: Broker, tmp_path: Path) -> None:
    """A file comes in while a worker ingests and readers read: every row once, and online is the oracle's newest."""
    settings = backends.fresh(broker_url=broker.url)
    group = plane_group(2)
    catalog = prepare(settings, [group], broker)
    rows = file_rows(5)
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
    columns[1] = pa.array(columns[1], pa.timestamp("us", "UTC"))
    parquet.write_table(
        pa.table(dict(zip(("plane", "at", "delay", "carrier"), columns, strict=True))), tmp_path / "planes.parquet"
    )

    async def bring_in() -> ImportReport:
        async with open_stores(settings) as stores:
            return await import_file(*stores, "plane", tmp_path / "planes.parquet", settings=settings)

    readers = Readers(settings)
    with (
        workers_on(settings, broker, batch_rows=300) as start_worker,
        Progress(settings) as progress,
        Feed(settings, broker, catalog, seed=12) as feed,
        readers.running(),
    ):
        watching = Watching(progress, start_worker())
        watching.until_more(1_000)
        assert asyncio.run(bring_in()).known_rows == 0
        watching.until_more(1_000)
        again = asyncio.run(bring_in())
        assert (again.rows, again.known_rows) == (ROWS, ROWS)
        watching.until_more(1_000)
        feed.stop()
        watching.drain(feed.made + ROWS)
    assert readers.reads > 0
    asyncio.run(assert_exact(settings, broker, group.topic, rows))


async def assert_exact(
    settings: Settings, broker: Broker, topic: str, rows: list[tuple[str, int, int, str | None]]
) -> None:
    """History is the topic and the file, each event once, and online is the newest of both as the oracle has it."""
    read = await asyncio.to_thread(read_topic, broker, topic)
    async with open_stores(settings) as stores:
        sources = await stores.history.sources()
        partitions = {each.name.partition: each.id for each in sources if each.name.kind is SourceKind.TOPIC}
        (file,) = [each for each in sources if each.name.kind is SourceKind.FILE]
        events = [
            OracleEvent(
                "plane",
                (tail,),
                at_us,
                int(SourceKind.FILE),
                file.id,
                number,
                0,
                values={"delay": delay, "carrier": carrier},
            )
            for number, (tail, at_us, delay, carrier) in enumerate(rows)
        ]
        for place, each in read.events.items():
            values = dict(zip(("delay", "carrier"), each.values, strict=False))
            source = partitions[place.partition]
            events.append(
                OracleEvent(
                    "plane",
                    (each.tail,),
                    each.at_us,
                    int(SourceKind.TOPIC),
                    source,
                    place.offset,
                    0,
                    each.deleted,
                    values,
                )
            )
        oracle = Oracle(events)
        await _compare(stores, oracle)


async def _compare(stores: Stores, oracle: Oracle) -> None:
    registered = (await stores.history.load_catalog()).groups["plane"]
    codec = BodyCodec(registered)
    found = []
    for source in await stores.history.sources():
        for row in await stores.history.rows_of_source(registered.group, source.id, 0, 1 << 40, limit=10_000_000):
            values = () if row.deleted else row.values
            found.append((row.key, row.event_time_us, source.id, row.sequence, row.deleted, values))
    expected = [
        (each.key, each.event_time_us, each.source_id, each.sequence, each.deleted, tuple(each.values.values()))
        for each in oracle.events
    ]
    assert sorted(found, key=lambda row: row[2:4]) == sorted(expected, key=lambda row: row[2:4])
    newest = {event.key: event for event in oracle.events}
    stored = await stores.online.read([encode_key(registered.group.id, encode_entity(key)) for key in newest])
    for event, raw in zip(newest.values(), stored, strict=True):
        assert raw is not None
        value = decode_value(raw)
        assert tuple(value.version) == event.version
        assert value.deleted == event.deleted
        if not value.deleted:
            assert codec.read(value.fingerprint, value.body) == tuple(event.values.values())
    assert (await Verifier(stores.history, stores.online).verify(registered)).differing == 0
