"""The compiled protocol is what the .proto says, and the .proto is what oomstore's clients speak."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from oomstream.agents.serve import oomagent_pb2 as pb

SERVE = Path(str(files("oomstream.agents.serve")))

FACTS = {
    "Value": "int64=1 double=2 string=3 bool=4 unix_milli=5 bytes=6",
    "FeatureValueMap": "map=1",
    "OnlineGetRequest": "entity_key=1 features=2",
    "OnlineGetResponse": "result=1",
    "OnlineMultiGetRequest": "entity_keys=1 features=2",
    "OnlineMultiGetResponse": "result=1",
    "SyncRequest": "group=1 revision_id=2 purge_delay=3",
    "SyncResponse": "",
    "ChannelImportRequest": "group=1 revision=2 description=3 row=4",
    "ImportRequest": "group=1 revision=2 description=3 input_file=4 delimiter=5",
    "ImportResponse": "revision_id=1",
    "PushRequest": "entity_key=1 group=2 feature_values=3",
    "PushResponse": "",
    "SnapshotRequest": "group=1",
    "SnapshotResponse": "",
    "EntityRow": "entity_key=1 unix_milli=2 values=3",
    "ChannelJoinRequest": "join_features=1 existed_features=2 entity_row=3",
    "ChannelJoinResponse": "header=1 joined_row=2",
    "JoinRequest": "features=1 input_file=2 output_file=3",
    "JoinResponse": "",
    "ChannelExportRequest": "features=1 unix_milli=2 limit=3",
    "ChannelExportResponse": "header=1 row=2",
    "ExportRequest": "features=1 unix_milli=2 output_file=3 limit=4",
    "ExportResponse": "",
    "HealthCheckRequest": "",
    "HealthCheckResponse": "",
}


def test_numbers_are_the_clients() -> None:
    """Every field has the name and number that the published clients use, and optional fields can be told apart."""
    messages = pb.DESCRIPTOR.message_types_by_name
    found = {
        name: " ".join(f"{field.name}={field.number}" for field in message.fields) for name, message in messages.items()
    }
    assert found == FACTS
    optional = {
        f"{name}.{each.name}" for name, message in messages.items() for each in message.fields if _optional(each)
    }
    assert optional == {
        "SyncRequest.revision_id",
        *(f"ChannelImportRequest.{name}" for name in ("group", "revision", "description")),
        *(f"ImportRequest.{name}" for name in ("revision", "description", "delimiter")),
        "ChannelExportRequest.limit",
        "ExportRequest.limit",
    }


def _optional(field: object) -> bool:
    oneof = getattr(field, "containing_oneof", None)
    return oneof is not None and oneof.name.startswith("_")


def test_rpcs_stream_on_the_sides_that_the_clients_stream_on() -> None:
    """Three rpcs stream, each on its sides."""
    service = pb.DESCRIPTOR.services_by_name["OomAgent"]
    assert service.full_name == "oomagent.OomAgent"
    streaming = {each.name: (each.client_streaming, each.server_streaming) for each in service.methods}
    assert len(streaming) == 12
    assert {name: sides for name, sides in streaming.items() if any(sides)} == {
        "ChannelImport": (True, False),
        "ChannelJoin": (True, True),
        "ChannelExport": (False, True),
    }


def test_what_is_shipped_is_compiled_from_the_proto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make proto` has been run since oomagent.proto was changed."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    compiled = tmp_path / "compiled.binpb"
    arguments = [f"--descriptor_set_out={compiled}", f"--mypy_out=quiet,readable_stubs:{tmp_path}", "oomagent.proto"]
    assert protoc.main(["protoc", f"-I{SERVE}", *arguments]) == 0
    shipped, now = (
        descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()) for path in (SERVE / "oomagent.binpb", compiled)
    )
    assert shipped == now
    assert (SERVE / "oomagent_pb2.pyi").read_text() == (tmp_path / "oomagent_pb2.pyi").read_text()
