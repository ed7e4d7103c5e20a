"""What importing loads: nothing that is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import oomstream

HEAVY = {"faust", "mode", "aiokafka", "confluent_kafka", "aiomysql", "pymysql", "typer", "rich"}
HEAVY |= {"tikv_client", "oomstream_tikv"}
STORES = {"oomstream.stores.sql", "oomstream.stores.tikv", "sqlite3", "aiosqlite", "sqlalchemy"}
TABLES = {"duckdb", "pyarrow", "pandas", "polars"}


def loaded_after(code: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after some code."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_importing_oomstream_loads_next_to_nothing() -> None:
    """`import oomstream` loads none of its rooms."""
    assert {name for name in loaded_after("import oomstream") if name.startswith("oomstream.")} == set()


def test_query_module_loads_no_kafka_and_no_store() -> None:
    """Importing the feature stores loads no Kafka client, no Faust, no store and no table library."""
    loaded = loaded_after(
        "from oomstream import FeatureStore, AsyncFeatureStore, FeatureStatus\nimport oomstream.query"
    )
    assert loaded & (HEAVY | STORES | TABLES) == set()
    assert {name for name in loaded if name.startswith(("oomstream.streams", "oomstream.agents"))} == set()


def test_online_reads_load_only_the_store_they_use(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Opening SQLite stores and failing to find them loads no other store's driver, and no table library."""
    folder = tmp_path_factory.mktemp("nothing")
    code = f"""
from oomstream import FeatureStore, InvalidRequest
try:
    FeatureStore.open("sqlite:///{folder}/o.db", "sqlite:///{folder}/h.db")
except InvalidRequest:
    pass
"""
    loaded = loaded_after(code)
    assert "oomstream.stores.sql.online" in loaded
    assert loaded & (HEAVY | {"oomstream.stores.tikv"} | TABLES) == set()


def test_public_names() -> None:
    """Every public name can be had, is documented, and an unknown one is an AttributeError."""
    for name in oomstream.__all__:
        assert getattr(oomstream, name).__doc__, name
    assert set(oomstream.__all__) <= set(dir(oomstream))
    with pytest.raises(AttributeError, match="nothing_such"):
        oomstream.nothing_such  # noqa: B018
