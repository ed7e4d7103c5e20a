"""oomagent's protocol against `oomstream serve`, on every pair of stores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from oomstream.agents.serve import oomagent_pb2 as pb
from tests.integration.agent_groups import GROUPS
from tests.integration.backends import Backends, prepare
from tests.integration.served import AgentClient, plain, serving

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND

EVENT = {
    "title": pb.Value(string="a,b"),
    "number": pb.Value(int64=1 << 60),
    "small": pb.Value(int64=-7),
    "share": pb.Value(double=0.25),
    "is_new": pb.Value(bool=True),
    "seen": pb.Value(unix_milli=1_700_000_000_123),
    "raw": pb.Value(bytes=b"\x00\xff"),
    "day": pb.Value(string="2024-02-29"),
    "paid": pb.Value(string="12.50"),
    "vector": pb.Value(string="[1.5, 2.0]"),
}


@pytest.fixture
def agent(backends: Backends, tmp_path: Path) -> Iterator[AgentClient]:
    """A client of an agent on stores that hold the groups and nothing else; it serves the files of `tmp_path`."""
    settings = backends.fresh()
    prepare(settings, GROUPS)
    with serving(settings, tmp_path) as (_, client):
        yield client


def test_push_then_read_every_type(agent: AgentClient) -> None:
    """What is pushed can be read when the push returns, every type of feature exactly as it was sent."""
    agent.call("HealthCheck")
    names = [f"clicks.{name}" for name in EVENT]
    agent.push("clicks", "ann", **EVENT)
    assert agent.call("OnlineGet", pb.OnlineGetRequest(entity_key="ann", features=names)).result.map == {
        f"clicks.{name}": value for name, value in EVENT.items()
    }
    agent.push("clicks", "ann", title=pb.Value(string=""), is_new=pb.Value(int64=0), share=pb.Value(int64=2))
    read = agent.values("ann", "clicks.title", "clicks.is_new", "clicks.share", "clicks.number")
    assert read == {"clicks.title": "", "clicks.is_new": False, "clicks.share": 2.0, "clicks.number": None}
    answer = agent.call("OnlineMultiGet", pb.OnlineMultiGetRequest(entity_keys=["bob", "ann"], features=names[:1]))
    assert {key: plain(each.map["clicks.title"]) for key, each in answer.result.items()} == {"ann": "", "bob": None}
    agent.call("Snapshot", pb.SnapshotRequest(group="clicks"))


def test_keys_are_texts_of_their_type(agent: AgentClient) -> None:
    """An integer key is its digits, a composite one names its fields, and one text can name several entities' keys."""
    agent.push("devices", "42", model=pb.Value(string="x"))
    assert agent.values("42", "devices.model") == {"devices.model": "x"}
    agent.push("seats", "flight=7,place=a,b=c", price=pb.Value(double=9.5))
    assert agent.values("place=a,b=c,flight=7", "seats.price") == {"seats.price": 9.5}
    agent.push("clicks", "k=v,w", number=pb.Value(int64=1))
    assert agent.values("k=v,w", "clicks:number") == {"clicks:number": 1}
    both = agent.values("user=k=v,w,device=42", "clicks.number", "devices.model")
    assert both == {"clicks.number": 1, "devices.model": "x"}


def test_wrong_requests_are_told_what_is_wrong(agent: AgentClient) -> None:
    """INVALID_ARGUMENT names feature, field or row; NOT_FOUND the group; nothing foreseeable is INTERNAL."""

    def get(key: str, *features: str) -> pb.OnlineGetRequest:
        return pb.OnlineGetRequest(entity_key=key, features=features)

    def push(group: str = "clicks", key: str = "ann", **values: pb.Value) -> pb.PushRequest:
        return pb.PushRequest(group=group, entity_key=key, feature_values=values)

    text = pb.Value(string="x")
    for name, request, code, sentence in (
        ("OnlineGet", get("ann", "clicks.nothing"), INVALID, "invalid feature names [clicks.nothing]"),
        ("OnlineGet", get("ann"), INVALID, "no features"),
        ("OnlineGet", get("", "clicks.title"), INVALID, "user"),
        ("OnlineGet", get("x" * 300, "clicks.title"), INVALID, "user"),
        ("OnlineGet", get("x", "devices.model"), INVALID, "device is not an integer"),
        ("OnlineGet", get("7", "seats.price"), INVALID, "flight=…,place=…"),
        ("OnlineMultiGet", pb.OnlineMultiGetRequest(entity_keys=["a"], features=["a.b", "c"]), INVALID, "[a.b c]"),
        ("Push", push("nothing"), NOT_FOUND, "no feature group named 'nothing'"),
        ("Push", push("account", state=text), INVALID, "batch group"),
        ("Push", push(nothing=text), INVALID, "clicks has no feature 'nothing' (it has: title, "),
        ("Push", push(number=text), INVALID, "clicks.number is of type long and takes no string"),
        ("Push", push(is_new=pb.Value(int64=2)), INVALID, "clicks.is_new"),
        ("Push", push(small=pb.Value(int64=1 << 40)), INVALID, "clicks.small"),
        ("Push", push(share=pb.Value(double=float("nan"))), INVALID, "clicks.share"),
        ("Push", push(seen=pb.Value(unix_milli=1 << 60)), INVALID, "clicks.seen"),
        ("Push", push(day=pb.Value(string="29 February")), INVALID, "clicks.day"),
        ("Push", push(key=""), INVALID, "entity key is empty"),
        ("Snapshot", pb.SnapshotRequest(group="nothing"), NOT_FOUND, "'nothing'"),
        (
            "Join",
            pb.JoinRequest(features=["clicks.title"], input_file="no.csv", output_file="o.csv"),
            INVALID,
            "no.csv",
        ),
        ("Export", pb.ExportRequest(features=["clicks.title"], output_file="o.txt"), INVALID, ".parquet"),
        ("Export", pb.ExportRequest(features=["clicks.title"], output_file="../o.csv"), INVALID, "not in the folder"),
        ("ChannelExport", pb.ChannelExportRequest(features=["clicks.x"]), INVALID, "clicks.x"),
        (
            "ChannelExport",
            pb.ChannelExportRequest(features=["clicks.title"], unix_milli=1 << 60),
            INVALID,
            "unix_milli",
        ),
        ("ChannelJoin", [], INVALID, "first message"),
        ("ChannelJoin", [pb.ChannelJoinRequest()], INVALID, "join_features"),
        ("Import", pb.ImportRequest(group="nothing", input_file="pyproject.toml"), INVALID, "no file"),
        ("ChannelImport", [pb.ChannelImportRequest(row=b"a")], INVALID, "must name the group"),
        ("ChannelImport", [pb.ChannelImportRequest(group="nothing")], NOT_FOUND, "'nothing'"),
    ):
        found = agent.failure(name, request)
        assert (found[0], sentence in found[1]) == (code, True), f"{name} {request}: {found}"


def test_streams_of_labels(agent: AgentClient) -> None:
    """Labels come back in their order, duplicates kept, with their own values and what each saw at its time."""
    agent.push("clicks", "ann", number=pb.Value(int64=1))
    between = time.time_ns() // 1_000_000 + 1
    while time.time_ns() // 1_000_000 <= between:
        pass
    agent.push("clicks", "ann", number=pb.Value(int64=2))
    after = time.time_ns() // 1_000_000 + 1
    rows = [("ann", after, "x"), ("ann", between, "y"), ("bob", after, "z"), ("ann", between, "y"), ("ann", 1, "")]
    requests = [
        pb.ChannelJoinRequest(
            join_features=["clicks.number", "clicks.day"] if at == 0 else (),
            existed_features=["label"] if at == 0 else (),
            entity_row=pb.EntityRow(entity_key=key, unix_milli=at_ms, values=[label]),
        )
        for at, (key, at_ms, label) in enumerate(rows)
    ]
    answers = list(agent.call("ChannelJoin", requests))
    assert list(answers[0].header) == ["entity_key", "unix_milli", "label", "clicks.number", "clicks.day"]
    assert not any(list(each.header) for each in answers[1:])
    assert [[plain(value) for value in each.joined_row] for each in answers] == [
        [*row, number, None] for row, number in zip(rows, [2, 1, None, 1, None], strict=True)
    ]
    wrong = pb.ChannelJoinRequest(
        join_features=["clicks.number"], entity_row=pb.EntityRow(entity_key="a", values=["x"])
    )
    assert "row 0" in agent.failure("ChannelJoin", [wrong])[1]


def test_files_of_labels(agent: AgentClient, tmp_path: Path) -> None:
    """A label file becomes a result file; the label file itself is never overwritten."""
    agent.push("clicks", "ann", number=pb.Value(int64=1), title=pb.Value(string="a,b"))
    now = time.time_ns() // 1_000_000 + 1
    (tmp_path / "labels.csv").write_text(f"user,unix_milli,tipped\nann,{now},1\nbob,{now},0\nann,1,0\n")
    features = ["clicks.number", "clicks.title"]
    agent.call("Join", pb.JoinRequest(features=features, input_file="labels.csv", output_file="out.csv"))
    assert (tmp_path / "out.csv").read_text().replace('"', "").splitlines() == [
        "user,unix_milli,tipped,clicks.number,clicks.title",
        f"ann,{now},1,1,a,b",
        f"bob,{now},0,,",
        "ann,1,0,,",
    ]
    same = pb.JoinRequest(features=features, input_file="labels.csv", output_file=str(tmp_path / "labels.csv"))
    code, sentence = agent.failure("Join", same)
    assert (code, "overwritten" in sentence) == (INVALID, True)
