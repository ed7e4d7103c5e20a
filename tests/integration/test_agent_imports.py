"""Imports, exports and syncs over gRPC, on every pair of stores; streams that break off leave nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.stores.opening import history_store
from oomstream.stores.revisions import Revision
from oomstream.stores.settings import Settings
from tests.integration.agent_groups import CLICKS, GROUPS
from tests.integration.backends import Backends, prepare
from tests.integration.feed import DEADLINE_S
from tests.integration.served import AgentClient, Served, plain, serving
from tests.integration.test_docs import ROOT

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PAST = ("ann,1700000000000,1", "bob,1700000000000,2")
HEADER = b"user,state,score\n"


@pytest.fixture
def settings(backends: Backends) -> Settings:
    """Stores that hold the groups and nothing else."""
    settings = backends.fresh()
    prepare(settings, GROUPS)
    return settings


@pytest.fixture
def agent(settings: Settings, tmp_path: Path) -> Iterator[AgentClient]:
    """A client of an agent on them, which shares `tmp_path`."""
    with serving(settings, tmp_path) as (_, client):
        yield client


def revisions(settings: Settings) -> list[Revision]:
    """Every revision that there is."""

    async def found() -> list[Revision]:
        async with history_store(settings.history, settings) as history:
            return await history.revisions()

    return asyncio.run(found())


def streamed(*rows: bytes, group: str = "account") -> Iterator[pb.ChannelImportRequest]:
    """The messages of an import: the group with the first, then a row each."""
    for at, row in enumerate(rows):
        first = at == 0
        description = "a file" if first else None
        yield pb.ChannelImportRequest(group=group if first else None, description=description, row=row)


def exported(
    agent: AgentClient, *features: str, at_ms: int | None = None, limit: int | None = None
) -> list[list[object]]:
    """Header and rows of an export."""
    now = time.time_ns() // 1_000_000 + 1
    request = pb.ChannelExportRequest(features=features, unix_milli=now if at_ms is None else at_ms, limit=limit)
    answers = list(agent.call("ChannelExport", request))
    assert not any(list(each.header) for each in answers[1:])
    return [list(answers[0].header), *([plain(value) for value in each.row] for each in answers if each.row)]


def test_import_sync_read_and_roll_back(agent: AgentClient, settings: Settings, tmp_path: Path) -> None:
    """A file and a stream become revisions; each is online after its sync, and the older one again after another."""
    (tmp_path / "a.csv").write_bytes(HEADER.replace(b",", b";") + b"ann;Ohio;1\nbob;;\n")
    request = pb.ImportRequest(group="account", input_file="a.csv", delimiter=";", description="the first")
    assert agent.call("Import", request).revision_id == 2
    assert agent.values("ann", "account.state") == {"account.state": None}
    agent.call("Sync", pb.SyncRequest(group="account"))
    assert agent.values("ann", "account.state", "account.score") == {"account.state": "Ohio", "account.score": 1}
    rows = streamed(b"us", b"er,state,score\nann,", b"Utah,2\n", b'"cy, x",Iowa,3\n')
    assert agent.call("ChannelImport", rows).revision_id == 3
    agent.call("Sync", pb.SyncRequest(group="account", revision_id=3, purge_delay=1))
    assert agent.values("ann", "account.state") == {"account.state": "Utah"}
    assert agent.values("cy, x", "account.score") == {"account.score": 3}
    assert agent.values("bob", "account.state") == {"account.state": None}
    agent.call("Sync", pb.SyncRequest(group="account", revision_id=2))
    assert agent.values("ann", "account.state") == {"account.state": "Ohio"}
    agent.push("clicks", "ann", number=pb.Value(int64=5))
    agent.call("Sync", pb.SyncRequest(group="clicks"))
    assert agent.values("ann", "clicks.number") == {"clicks.number": 5}
    described = {each.id: each.doc for each in revisions(settings)}
    assert described[2] == "the first"


def test_wrong_syncs_say_why(agent: AgentClient) -> None:
    """No group, no data yet, no such revision, a revision of a stream group: each has its status."""
    for request, code in (
        (pb.SyncRequest(group="nothing"), grpc.StatusCode.NOT_FOUND),
        (pb.SyncRequest(group="account"), grpc.StatusCode.FAILED_PRECONDITION),
        (pb.SyncRequest(group="account", revision_id=99), grpc.StatusCode.NOT_FOUND),
        (pb.SyncRequest(group="account", purge_delay=-1), INVALID),
    ):
        found, sentence = agent.failure("Sync", request)
        assert found is code, sentence


def test_exports(agent: AgentClient, tmp_path: Path) -> None:
    """Values of groups of one entity at a moment, in order of the key, up to a limit; into a stream and a file."""
    agent.call("ChannelImport", streamed(HEADER, b"bob,Iowa,2\n", b"ann,Ohio,1\n"))
    before = time.time_ns() // 1_000_000
    agent.push("clicks", "cy", number=pb.Value(int64=3))
    header = ["user", "account.state", "clicks.number"]
    rows = [["ann", "Ohio", None], ["bob", "Iowa", None], ["cy", None, 3]]
    assert exported(agent, *header[1:]) == [header, *rows]
    assert exported(agent, *header[1:], limit=2) == [header, *rows[:2]]
    assert exported(agent, *header[1:], limit=0) == [header]
    assert exported(agent, "clicks.number", at_ms=before - 1_000) == [["user", "clicks.number"]]
    now = time.time_ns() // 1_000_000 + 1
    agent.call("Export", pb.ExportRequest(features=header[1:], unix_milli=now, output_file="out.csv", limit=2))
    assert (tmp_path / "out.csv").read_text().replace('"', "").splitlines() == [
        ",".join(header),
        "ann,Ohio,",
        "bob,Iowa,",
    ]
    mixed = pb.ChannelExportRequest(features=["clicks.number", "devices.model"], unix_milli=now)
    code, sentence = agent.failure("ChannelExport", mixed)
    assert (code, "device" in sentence) == (INVALID, True)


def test_backfill_of_a_stream_group(agent: AgentClient) -> None:
    """A file of the past goes into history and moves no online value back; the same bytes again change nothing."""
    agent.push("clicks", "ann", number=pb.Value(int64=5))
    features = [each.name for each in CLICKS.features if each.name != "number"]
    header = ",".join(["user", "unix_milli", "number", *features])
    rows = [f"{row}\n".encode() for row in (header, *(f"{row}{',' * 9}" for row in PAST))]
    for _ in range(2):
        assert agent.call("ChannelImport", streamed(*rows, group="clicks")).revision_id == 0
    assert agent.values("ann", "clicks.number") == {"clicks.number": 5}
    assert agent.values("bob", "clicks.number") == {"clicks.number": 2}
    assert exported(agent, "clicks.number", at_ms=1_700_000_000_000)[1:] == [["ann", 1], ["bob", 2]]


def test_a_bad_row_leaves_nothing(agent: AgentClient, settings: Settings) -> None:
    """The sentence names line and column; no revision is made."""
    rows = [HEADER, *(b"u%d,x,%d\n" % (at, at) for at in range(5_000)), b"v,x,seven\n"]
    code, sentence = agent.failure("ChannelImport", streamed(*rows))
    assert (code, "line 5002" in sentence, "score" in sentence) == (INVALID, True, True)
    assert "seven" not in sentence
    assert revisions(settings) == []


BREAKS_OFF = """
import sys, time
from tests.integration.served import AgentClient, pb
def rows():
    yield pb.ChannelImportRequest(group="account", row=b"user,state,score\\n")
    for at in range(200):
        yield pb.ChannelImportRequest(row=b"u%d,x,1\\n" % at)
    print("sent", flush=True)
    time.sleep(600)
AgentClient(sys.argv[1]).call("ChannelImport", rows())
"""


def test_a_stream_that_breaks_off_is_not_imported(settings: Settings, tmp_path: Path) -> None:
    """Clients that cancel, hang up, fail or are killed in the middle of a stream leave no revision behind."""
    with serving(settings, tmp_path) as (server, client):
        for number in range(24):
            _break_off(server, rows=number * 3, how=("cancel", "hang up", "fail")[number % 3])
        for _ in range(3):
            killed = subprocess.Popen(
                [sys.executable, "-c", BREAKS_OFF, server.grpc.removeprefix("http://")],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert killed.stdout is not None
            assert killed.stdout.readline() == "sent\n"
            killed.kill()
            killed.wait(30)
            killed.stdout.close()
        assert client.call("ChannelImport", streamed(HEADER, b"ann,Ohio,1\n")).revision_id > 0
        # Each of them has ended, and none was answered.
        ended = 'oomstream_serve_requests_total{code="CANCELLED",interface="grpc",method="ChannelImport"} 27.0'
        deadline = time.monotonic() + DEADLINE_S
        while ended not in server.metrics():
            assert time.monotonic() < deadline
    assert [each.is_dummy for each in revisions(settings)] == [True, False]


def _break_off(server: Served, rows: int, how: str) -> None:
    sent = threading.Event()
    ended = threading.Event()

    def messages() -> Iterator[pb.ChannelImportRequest]:
        yield from streamed(HEADER, *(b"u%d,x,1\n" % at for at in range(rows)))
        sent.set()
        if how == "fail":
            raise RuntimeError("a client's own trouble")
        ended.wait(30)

    channel = grpc.insecure_channel(server.grpc.removeprefix("http://"))
    call = channel.stream_unary(
        "/oomagent.OomAgent/ChannelImport",
        request_serializer=pb.ChannelImportRequest.SerializeToString,
        response_deserializer=pb.ImportResponse.FromString,
    ).future(messages(), timeout=60)
    assert sent.wait(30)
    if how == "cancel":
        call.cancel()
    channel.close()
    ended.set()
