"""A Feast store in a folder, for its environment: registry and online store in SQLite, both on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feast import FeatureStore, RepoConfig  # type: ignore[import-not-found]


def open_store(folder: Path, *, offline: str) -> Any:
    """A `feast.FeatureStore`.

    Args:
        folder: Where its files are.
        offline: Type of its offline store: `file` or `duckdb`.
    """
    return FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry={"path": str(registry_of(folder)), "cache_ttl_seconds": 0},
            online_store={"type": "sqlite", "path": str(folder / "feast_online.db")},
            offline_store={"type": offline},
            entity_key_serialization_version=3,
        )
    )


def registry_of(folder: Path) -> Path:
    """The file of a store's registry, which is there once anything was applied."""
    return folder / "registry.db"
