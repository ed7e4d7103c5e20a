"""What oomstore gets wrong with pushes and its agent's answers is right here: a test for each fault, named after it."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.schemas.keys import encode_entity
from oomstream.schemas.online_value import encode_key
from oomstream.stores.opening import open_stores
from tests.integration.backends import Backends
from tests.integration.oomstore_user import BOTH, DAY, HOUR, OomstoreUser, time_text, using
from tests.integration.served import AgentClient, Served, plain, serving

pytestmark = BOTH

INVALID = grpc.StatusCode.INVALID_ARGUMENT
USERS = ("ann", "bob", "cy")
EVENTS = 40
PROCESS_S = 60.0
"""How long a process may take."""


@pytest.fixture
def user(backends: Backends, tmp_path: Path) -> OomstoreUser:
    """On stores that hold the definitions and nothing else."""
    return using(backends, tmp_path)


@pytest.fixture
def agent(user: OomstoreUser) -> Iterator[AgentClient]:
    """A client of an agent on the same stores and files."""
    with serving(user.settings, user.folder) as (_, client):
        yield client


def push_by_http(server: Served, name: str, time_ms: int, count: int) -> None:
    """Push an event of `click` with its own time, in Feast's shape."""
    rows = {"user": [name], "event_timestamp": [time_text(time_ms)], "count": [count]}
    assert server.ask("/push", {"push_source_name": "click", "df": rows}) == (200, {"status": "ok", "rows": 1})


def push_command(user: OomstoreUser, name: str, count: int, time_ms: int) -> subprocess.Popen[str]:
    """A process of its own that pushes an event of `click`."""
    arguments = ("push", "-g", "click", "-k", name, "--feature", f"count={count}", "--event-time", time_text(time_ms))
    return subprocess.Popen(
        user.cli.command(*arguments),
        cwd=user.folder,
        env={**user.cli.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check_pushed(process: subprocess.Popen[str]) -> None:
    """A `push` ends well."""
    said, _ = process.communicate(timeout=PROCESS_S)
    assert (process.returncode, said.startswith("pushed: source ")) == (0, True), said


def in_a_new_process(user: OomstoreUser, *arguments: str) -> list[str]:
    """Lines that a verb prints in a process of its own."""
    command = user.cli.command(*arguments)
    done = subprocess.run(
        command,
        cwd=user.folder,
        env=user.cli.environment,
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_online(user: OomstoreUser, acknowledged: dict[str, int]) -> None:
    """A new process finds every acknowledged count of `click` online."""
    names = list(acknowledged)
    found = in_a_new_process(user, "get", "online", "-k", ",".join(names), "--feature", "click.count", "-o", "csv")
    assert found[1:] == [f"{name},{acknowledged[name]}" for name in names]


def check_history(user: OomstoreUser, acknowledged: dict[str, int]) -> None:
    """New processes find every acknowledged count of `click` in a training set and in an export; both stores agree."""
    later = 4_102_444_800_000
    labels = user.file("entity_key,unix_milli", *(f"{name},{later}" for name in acknowledged))
    joined = in_a_new_process(user, "join", "--feature", "click.count", "--input-file", labels)
    assert joined[1:] == [f"{name},{later},{count}" for name, count in acknowledged.items()]
    exported = in_a_new_process(user, "export", "--feature", "click.count", "-u", str(later))
    assert exported[1:] == [f"{name},{count}" for name, count in sorted(acknowledged.items())]
    user.check_verified()


def test_two_agents_push_the_same_entity_and_the_newest_stays(user: OomstoreUser) -> None:
    """Events that two agents take at once, in any order, end with the newest online and every one in its own time."""
    chance = random.Random(7)
    events = [(name, number, chance.randrange(2)) for name in USERS for number in range(EVENTS)]
    chance.shuffle(events)
    with (
        serving(user.settings, user.folder) as (one, client),
        serving(user.settings, user.folder) as (other, other_client),
        ThreadPoolExecutor(8) as pool,
    ):
        servers = (one, other)
        list(pool.map(lambda event: push_by_http(servers[event[2]], event[0], DAY + event[1], event[1]), events))
        for name in USERS:
            for each in (client, other_client):
                assert each.values(name, "click.count") == {"click.count": EVENTS - 1}
        # Long after, one of them hears of something old.
        push_by_http(other, USERS[0], DAY - 1, 99)
        assert client.values(USERS[0], "click.count") == {"click.count": EVENTS - 1}
    labels = [(name, DAY + number) for name in USERS for number in range(EVENTS)]
    assert user.joined(labels, "click.count") == [(number,) for _ in USERS for number in range(EVENTS)]
    assert user.joined([(USERS[0], DAY - 1)], "click.count") == [(99,)]
    user.check_verified()


def test_two_push_processes_push_the_same_entity_and_the_newest_stays(user: OomstoreUser) -> None:
    """Whichever of two `push` commands that run at once ends last, the newest event time is online."""
    for number in range(3):
        older, newer = DAY + 2 * number, DAY + 2 * number + 1
        with (
            push_command(user, "ann", 2 * number, older) as one,
            push_command(user, "ann", 2 * number + 1, newer) as other,
        ):
            check_pushed(one)
            check_pushed(other)
        assert user.online(["ann"], "click.count") == [(2 * number + 1,)]
    with push_command(user, "ann", 99, DAY - 1) as last:
        check_pushed(last)
    assert user.online(["ann"], "click.count") == [(5,)]
    assert user.joined([("ann", DAY + at) for at in range(-1, 6)], "click.count") == [
        (count,) for count in (99, 0, 1, 2, 3, 4, 5)
    ]
    user.check_verified()


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_an_acknowledged_push_survives_kill_9_of_its_agent(user: OomstoreUser, way: str) -> None:
    """An agent is killed at once after its answer; what it acknowledged is there for every process after it."""
    acknowledged: dict[str, int] = {}
    for number in range(3):
        with Served(user.settings, user.folder) as server, server.agent() as client:
            for count in range(number + 1):
                if way == "grpc":
                    client.push("click", f"k{number}", count=pb.Value(int64=count))
                else:
                    push_by_http(server, f"k{number}", DAY + count, count)
            server.kill()
        acknowledged[f"k{number}"] = number
        check_online(user, acknowledged)
    check_history(user, acknowledged)


def test_an_acknowledged_push_survives_kill_9_of_the_command(user: OomstoreUser) -> None:
    """A `push` that is killed as soon as it has said that it pushed has pushed."""
    acknowledged: dict[str, int] = {}
    for number in range(3):
        with push_command(user, f"k{number}", number, DAY) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            process.kill()
            assert said.startswith("pushed: source "), said
        acknowledged[f"k{number}"] = number
    check_online(user, acknowledged)
    check_history(user, acknowledged)


def test_a_push_has_an_event_time(user: OomstoreUser, agent: AgentClient) -> None:
    """A push is of the time it came: labels tell it from the one before it, and a file of the past is not newer."""

    def now_ms() -> int:
        return time.time_ns() // 1_000_000

    moments = [now_ms() - 1]
    for count in (1, 2):
        agent.push("click", "ann", count=pb.Value(int64=count))
        moments.append(now_ms() + 1)
        while now_ms() <= moments[-1]:
            pass
    assert user.joined([("ann", each) for each in moments], "click.count") == [(None,), (1,), (2,)]
    user.import_clicks(f"ann,{DAY},9,/old")
    assert agent.values("ann", "click.count") == {"click.count": 2}
    assert user.joined([("ann", DAY), ("ann", moments[0])], "click.count") == [(9,), (9,)]


def test_unknown_names_are_not_dropped(user: OomstoreUser, agent: AgentClient) -> None:
    """One unknown feature among known ones is INVALID_ARGUMENT that names it, in every call, and nothing is done."""
    known, unknown = ["click.count", "click.page"], ["click.count", "click.nothing"]
    agent.push("click", "ann", count=pb.Value(int64=1))
    (user.folder / "labels.csv").write_text(f"entity_key,unix_milli\nann,{DAY}\n", encoding="utf-8")
    header = b"user,unix_milli,count,page,raw,seen,nothing\n"
    row = pb.EntityRow(entity_key="ann", unix_milli=DAY)
    requests: list[tuple[str, Any]] = [
        ("OnlineGet", pb.OnlineGetRequest(entity_key="ann", features=unknown)),
        ("OnlineMultiGet", pb.OnlineMultiGetRequest(entity_keys=["ann"], features=unknown)),
        ("ChannelJoin", [pb.ChannelJoinRequest(join_features=unknown, entity_row=row)]),
        ("Join", pb.JoinRequest(features=unknown, input_file="labels.csv", output_file="out.csv")),
        ("ChannelExport", pb.ChannelExportRequest(features=unknown, unix_milli=DAY)),
        ("Export", pb.ExportRequest(features=unknown, unix_milli=DAY, output_file="out.csv")),
        ("ChannelImport", [pb.ChannelImportRequest(group="click", row=header + b"ann,1700000000000,2,p,,,x\n")]),
        (
            "Push",
            pb.PushRequest(
                group="click",
                entity_key="ann",
                feature_values={"count": pb.Value(int64=2), "nothing": pb.Value(int64=2)},
            ),
        ),
    ]
    for name, request in requests:
        code, sentence = agent.failure(name, request)
        assert (code, "nothing" in sentence) == (INVALID, True), (name, code, sentence)
    assert not (user.folder / "out.csv").exists()
    assert agent.values("ann", *known) == {"click.count": 1, "click.page": None}
    assert user.exported(DAY, "click.count") == []


def test_failures_are_not_all_internal(agent: AgentClient) -> None:
    """What is missing is NOT_FOUND, what is wrong INVALID_ARGUMENT, what comes too early FAILED_PRECONDITION."""
    missing, early = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
    text = pb.Value(string="1")
    count = pb.Value(int64=1)
    requests: list[tuple[str, Any, grpc.StatusCode]] = [
        ("Push", pb.PushRequest(group="nothing", entity_key="a"), missing),
        ("Push", pb.PushRequest(group="click", feature_values={"count": count}), INVALID),
        ("Push", pb.PushRequest(group="click", entity_key="a", feature_values={"count": text}), INVALID),
        ("Push", pb.PushRequest(group="account", entity_key="a", feature_values={"state": text}), INVALID),
        ("OnlineGet", pb.OnlineGetRequest(entity_key="a", features=["nothing"]), INVALID),
        ("Sync", pb.SyncRequest(group="nothing"), missing),
        ("Sync", pb.SyncRequest(group="account"), early),
        ("Sync", pb.SyncRequest(group="click"), early),
        ("Snapshot", pb.SnapshotRequest(group="nothing"), missing),
        ("Import", pb.ImportRequest(group="account", input_file="nothing.csv"), INVALID),
        ("ChannelImport", [pb.ChannelImportRequest(group="account", row=b"nothing\n")], INVALID),
        ("Join", pb.JoinRequest(features=["click.count"], input_file="no.csv", output_file="out.csv"), INVALID),
        ("Export", pb.ExportRequest(features=["click.count"], output_file="out.nothing"), INVALID),
    ]
    for name, request, code in requests:
        found, sentence = agent.failure(name, request)
        assert (found, bool(sentence)) == (code, True), (name, found, sentence)


def test_duplicate_labels_do_not_fan_out_of_an_agent(user: OomstoreUser, agent: AgentClient) -> None:
    """Equal rows of a label stream are answered by as many rows, in order, over several groups."""
    user.import_accounts(DAY, "ann,NV,,")
    user.import_clicks(f"ann,{DAY + HOUR},1,/a", f"ann,{DAY + HOUR},2,/b")
    rows = [("ann", DAY + HOUR, "x"), ("bob", DAY, "y"), ("ann", DAY + HOUR, "x"), ("ann", DAY, "x"), ("bob", DAY, "y")]
    requests = [
        pb.ChannelJoinRequest(
            join_features=["account.state", "click.count"] if at == 0 else (),
            existed_features=["label"] if at == 0 else (),
            entity_row=pb.EntityRow(entity_key=name, unix_milli=time_ms, values=[label]),
        )
        for at, (name, time_ms, label) in enumerate(rows)
    ]
    seen = [("NV", 2), (None, None), ("NV", 2), ("NV", None), (None, None)]
    answers = list(agent.call("ChannelJoin", requests))
    assert [tuple(plain(value) for value in each.joined_row) for each in answers] == [
        (*row, *values) for row, values in zip(rows, seen, strict=True)
    ]


def test_a_stream_group_can_be_synced_over_grpc(user: OomstoreUser, agent: AgentClient) -> None:
    """A sync of a stream group puts online what history has and online lacks, and moves nothing back."""
    for name in USERS:
        agent.push("click", name, count=pb.Value(int64=1))
    user.import_clicks(f"ann,{DAY},9,/old")

    async def lose(*names: str) -> None:
        async with open_stores(user.settings) as (history, online):
            group = (await history.load_catalog()).group("click")
            await online.delete([encode_key(group.id, encode_entity((name,))) for name in names])

    asyncio.run(lose("ann", "bob"))
    assert [agent.values(name, "click.count")["click.count"] for name in USERS] == [None, None, 1]
    agent.call("Sync", pb.SyncRequest(group="click"))
    assert [agent.values(name, "click.count")["click.count"] for name in USERS] == [1, 1, 1]
    agent.push("click", "cy", count=pb.Value(int64=2))
    agent.call("Sync", pb.SyncRequest(group="click", purge_delay=1))
    assert agent.values("cy", "click.count") == {"click.count": 2}
