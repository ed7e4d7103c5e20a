"""What `oomstream dev` says at its start."""

from __future__ import annotations

from oomstream.agents.dev import next_commands
from oomstream.schemas.avsc import group_from_avsc
from tests.unit.schemas.definitions import field, schema


def test_next_commands_of_a_group_without_features() -> None:
    """A group that an older version took without any feature is no reason to fail: its keys can be pushed."""
    assert next_commands([group_from_avsc(schema())]) == ["oomstream push -g ride -k id=…", "oomstream status"]


def test_next_commands_fit_the_group() -> None:
    """What is shown to type next names a group that is registered, its key and its features."""
    push, get, status = next_commands([group_from_avsc(schema(field("speed", "double"), field("note", "string")))])
    assert push == "oomstream push -g ride -k id=… --feature speed=… --feature note=…"
    assert get == "oomstream get online -k id=… --feature ride.speed,ride.note"
    assert status == "oomstream status"
