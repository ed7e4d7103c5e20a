"""`oomstream broker`, `worker`, `dev`, `dlq` and `push` through the embedded broker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomstream.schemas.versions import SourceKind
from oomstream.stores.base import HistoryBatch, SourceName
from oomstream.stores.opening import open_stores
from oomstream.stores.settings import load_settings
from oomstream.streams.broker import published_broker
from tests.integration.cli import Cli


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command in a folder where `oomstream dev` runs with the group `rides`."""
    cli = Cli(tmp_path_factory.mktemp("dev"))
    cli.define()
    cli.run("apply", "rides.avsc")
    with cli.running("dev", until="reading rides"):
        yield cli


def test_push_through_the_broker_can_be_read_after_wait(dev: Cli) -> None:
    """Push finds the broker that dev runs on the folder; after --wait the value is online and in history."""
    out = dev.run("push", "-g", "rides", "-k", "ann", "--feature", "price=7.5", "--wait").stdout
    assert "sent: topic rides, partition" in out
    assert out.endswith("ingested\n")
    (row,) = dev.json("get", "online", "-k", "ann", "--feature", "rides.price")
    assert row["rides.price"] == 7.5
    dev.run("push", "-g", "rides", "-k", "ann", "--delete", "--wait")
    (row,) = dev.json("get", "online", "-k", "ann", "--feature", "rides.price", "--statuses")
    assert row["rides.price status"] == "NOT_FOUND"


def test_status_shows_the_log_beside_the_position(dev: Cli) -> None:
    """With a broker, status lists every partition with the log's end and the lag."""
    dev.run("push", "-g", "rides", "-k", "bob", "--feature", "price=1", "--wait")
    topics = [row for row in dev.json("status") if row["kind"] == "topic"]
    assert sorted(row["partition"] for row in topics) == [0, 1]
    assert sum(row["end"] for row in topics) >= 1
    assert {row["lag"] for row in topics} == {0}
    assert max(map(len, dev.run("status").stdout.splitlines()[4:])) <= 80


def test_dead_letters_are_listed_and_shown_whole(dev: Cli) -> None:
    """A message that is no event is listed once with its reason; show prints its key and its exact bytes."""
    dev.produce("rides", b"\xff\x00garbage", key=b"k\xff")
    dev.run("push", "-g", "rides", "-k", "eve", "--feature", "price=1", "--wait")
    topic_rows = _letters(dev)
    (letter,) = [row for row in topic_rows if row["reason"] == "unknown_framing"]
    assert letter["topic"] == "rides"
    shown = dev.run("dlq", "show", "rides", str(letter["partition"]), str(letter["offset"]), "-O", "value.bin").stdout
    assert "reason     unknown_framing" in shown
    assert "key        bytes 6b ff" in shown
    assert "ff 00 67 61 72 62 61 67 65" in shown
    assert (dev.folder / "value.bin").read_bytes() == b"\xff\x00garbage"
    assert dev.json("dlq", "list", "-g", "rides", "--reason", "too_deep") == []


def _letters(dev: Cli) -> list[dict[str, object]]:
    """Dead letters; the one that was just produced may be in a partition that is not through yet."""
    for _ in range(100):
        rows: list[dict[str, object]] = dev.json("dlq", "list")
        if rows:
            return rows
    raise AssertionError("no dead letter came")


def test_replayed_letters_are_told_from_open_ones(tmp_path: Path) -> None:
    """Replay takes in what is valid by now and says what it did, a dry run only says it; list tells both apart."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    old = b'{"rider_id":"ann","ended_at":500000000000000,"price":1.0,"rating":null}'
    since = "1980-01-01"
    with cli.running("dev", until="reading rides"):
        cli.produce("rides", old, b"\x07garbage")
        for _ in range(200):
            if len(rows := cli.json("dlq", "list")) == 2:
                break
        assert [(row["state"], row["reason"]) for row in rows] == [
            ("open", "event_time_too_old"),
            ("open", "unknown_framing"),
        ]
        dry = cli.run("dlq", "replay", "-g", "rides", "--dry-run", "-o", "csv", OOMSTREAM_MIN_EVENT_TIME=since)
        assert dry.stdout.splitlines()[1] == "rides,2,1,0,1,0,1 unknown_framing"
        assert dry.stderr == "(a dry run: nothing was written)\n"
        assert [row["state"] for row in cli.json("dlq", "list")] == ["open", "open"]
        assert cli.run("dlq", "replay", "-o", "csv", OOMSTREAM_MIN_EVENT_TIME=since).stdout == dry.stdout
        assert cli.run("dlq", "replay", "rides", "0", "-o", "csv").stdout.endswith(
            "rides,2,0,1,1,0,1 unknown_framing\n"
        )
        assert [row["state"] for row in cli.json("dlq", "list")] == ["replayed", "open"]
        (left,) = cli.json("dlq", "list", "--open")
        assert left["offset"] == 1
        assert cli.json("dlq", "list", "--until", "2020-01-01") == []
        (row,) = cli.json("get", "online", "-k", "ann", "--feature", "rides.price")
        assert row["rides.price"] == 1.0
        assert cli.json("verify", "-g", "rides")[0]["differing"] == 0


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["dlq", "list", "-g", "trips"], 1, "no feature group named 'trips'"),
        (["dlq", "show", "rides", "0", "999"], 1, "no dead letter of partition 0, offset 999"),
        (["dlq", "show", "nope", "0", "1"], 1, "no registered group has a topic named 'nope' (topics: rides"),
        (["dlq", "replay", "rides", "0", "999"], 1, "no such dead letter of partition 0, offset 999"),
        (["dlq", "replay", "nope"], 1, "no registered group has a topic named 'nope' (topics: rides"),
        (["dlq", "replay", "rides", "-g", "rides"], 2, "name a topic or a group, not both"),
        (["dlq", "replay", "--since", "noon"], 2, "'noon' is not a time such as"),
        (["push", "-g", "rides", "-k", "", "--feature", "price=1"], 2, "rider_id"),
        (["push", "-g", "rides", "-k", "ann", "--feature", "price=nan"], 2, "price"),
        (["worker", "-g", "trips"], 1, "no feature group named 'trips'"),
        (["broker"], 1, "an embedded broker already runs on"),
        (["dev"], 1, "an embedded broker already runs on"),
    ],
)
def test_wrong_input_is_one_sentence(dev: Cli, args: list[str], code: int, says: str) -> None:
    """Wrong input beside a running dev ends with one sentence."""
    assert says in dev.run(*args, code=code).stderr


def test_a_group_applied_later_is_read(dev: Cli) -> None:
    """A group that is registered while the worker runs is consumed without a restart."""
    dev.define("tips.avsc", name="tips")
    assert "new topic tips" in dev.run("apply", "tips.avsc").stdout
    out = dev.run("push", "-g", "tips", "-k", "ann", "--feature", "price=2", "--wait").stdout
    assert out.endswith("ingested\n")


def test_broker_and_worker_alone(tmp_path: Path) -> None:
    """Broker and worker in processes of their own do what dev does in one."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    with cli.running("broker", until="embedded://"), cli.running("worker", until="reading rides"):
        assert cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=3", "--wait").stdout.endswith(
            "ingested\n"
        )
    assert published_broker(tmp_path / ".oomstream") is None
    (row,) = cli.json("get", "online", "-k", "ann", "--feature", "rides.price")
    assert row["rides.price"] == 3.0


def test_push_waits_in_vain_without_a_worker(tmp_path: Path) -> None:
    """Push --wait with no worker says so when its time is up, and where the event is."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    push = ["push", "-g", "rides", "-k", "ann", "--feature", "price=3", "--wait"]
    with cli.running("broker", until="embedded://"):
        err = cli.run(*push, code=1, OOMSTREAM_CALL_TIMEOUT="2s").stderr
    assert "no worker has ingested it within 2 s" in err


def test_dev_says_what_to_type_next(tmp_path: Path) -> None:
    """Before any group is registered, dev names the verb that registers one."""
    cli = Cli(tmp_path)
    with cli.running("dev", until="waiting for `oomstream apply`") as said:
        assert published_broker(tmp_path / ".oomstream") is not None
    assert any("oomstream apply my_group.avsc" in line for line in said)
    assert published_broker(tmp_path / ".oomstream") is None


def test_status_leaves_out_logs_that_are_no_more(tmp_path: Path) -> None:
    """After a restart of dev, status shows the partitions of the log that there is; --all the others too, by id."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=1")
    push = ["push", "-g", "rides", "-k", "bob", "--feature", "price=2", "--wait"]
    for _ in range(2):
        with cli.running("dev", until="reading rides"):
            cli.run(*push)
            assert [row["kind"] for row in cli.json("status")] == ["push", "topic", "topic"]
            every = cli.json("status", "--all")
    topics = [row for row in every if row["kind"] == "topic"]
    assert len({row["incarnation"] for row in topics}) == 2
    table = cli.run("status", "--all").stdout
    assert f" {topics[0]['incarnation'][:8]}\n" in table
    assert topics[0]["incarnation"] not in table
    shown = cli.run("status")
    ended = [row for row in cli.json("status") if row["kind"] == "topic"]
    assert {row["id"] for row in ended} < {row["id"] for row in topics}
    assert f"(sources of logs that are no more: {len(topics) - len(ended)}, see --all)" in shown.stderr


def test_status_tells_what_was_skipped(tmp_path: Path) -> None:
    """Case 26: records that were lost and skipped, as a setting says, are told by status from then on."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")

    async def skip() -> None:
        settings = load_settings(data_dir=cli.folder / ".oomstream")
        async with open_stores(settings) as stores:
            group = (await stores.history.load_catalog()).group("rides")
            source = await stores.history.claim(SourceName(SourceKind.TOPIC, "rides", "an incarnation", 3))
            await stores.history.append(source, HistoryBatch(group, (), 9, 9, lost=True))

    asyncio.run(skip())
    told = cli.run("status").stderr
    assert re.search(r"^rides\[3\]: offsets 0 to 8 were skipped unread at 20\d\d-\S+Z$", told, re.MULTILINE), told
    assert cli.run("status", "-o", "json").stderr == ""


@pytest.mark.parametrize("missing", ["OOMSTREAM_BROKER_URL", "OOMSTREAM_HISTORY_URL"])
def test_a_worker_that_waits_for_a_server_can_be_stopped(tmp_path: Path, missing: str) -> None:
    """Case 29: asked to stop while it waits for a broker or a store, a worker ends at once, exit code 0."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    cli.environment["OOMSTREAM_BROKER_URL"] = "kafka://127.0.0.1:1"
    if missing == "OOMSTREAM_HISTORY_URL":
        cli.environment[missing] = "tidb://root@127.0.0.1:1/oomstream"
    with cli.running("worker", until="trying again") as said:
        pass
    assert "drained" in said[-1]
