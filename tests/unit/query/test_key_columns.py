"""Which columns hold the entity keys."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from oomstream.query.key_columns import find_key_columns
from oomstream.query.sync import FeatureStore
from oomstream.schemas.errors import InvalidLabels
from oomstream.stores.settings import load_settings
from tests.integration.agent_groups import CLICKS, DEVICES, SEATS
from tests.integration.backends import prepare


def test_entity_key_stands_for_the_only_key() -> None:
    """As oomstore's label files have it: behind the key's own names, and only where there is one key field."""

    def found(*columns: str) -> list[tuple[str, ...]]:
        return list(find_key_columns([CLICKS], columns, where="labels", error=InvalidLabels).values())

    assert found("entity_key", "x") == [("entity_key",)]
    assert found("entity_key", "user") == [("user",)]
    assert found("entity_key", "user", "user.user") == [("user.user",)]
    for groups in ([SEATS], [CLICKS, DEVICES]):
        with pytest.raises(InvalidLabels, match="is missing"):
            find_key_columns(groups, ["entity_key"], where="labels", error=InvalidLabels)


def test_a_label_file_of_oomstore(tmp_path: Path) -> None:
    """Keys in it are read as the key's type: ``007`` stays text, and an integer key is one."""
    settings = load_settings(data_dir=tmp_path)
    prepare(settings, [CLICKS, DEVICES])
    (tmp_path / "labels.csv").write_text("entity_key,unix_milli,n\n007,1700000000000,1\n")
    with FeatureStore.open(settings=settings) as store:
        for feature, kind, key in (("clicks.title", pa.string(), "007"), ("devices.model", pa.int64(), 7)):
            made = store.get_historical_features(tmp_path / "labels.csv", [feature]).to_arrow()
            assert made.column_names == ["entity_key", "unix_milli", "n", feature]
            assert made.schema.field("entity_key").type == kind
            assert made.column("entity_key").to_pylist() == [key]
