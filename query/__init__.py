"""How it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ != "oomstream.query":
    raise ImportError("this folder is the package oomstream.query: write 'import oomstream.query', not 'import query'")

if TYPE_CHECKING:
    from oomstream.query.feature_store import AsyncFeatureStore
    from oomstream.query.online import FeatureStatus, OnlineResponse
    from oomstream.query.sync import FeatureStore
    from oomstream.query.training_set import TrainingSet

__all__ = ["AsyncFeatureStore", "FeatureStatus", "FeatureStore", "OnlineResponse", "TrainingSet"]

_HOME = {
    "AsyncFeatureStore": "feature_store",
    "FeatureStatus": "online",
    "FeatureStore": "sync",
    "OnlineResponse": "online",
    "TrainingSet": "training_set",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for, so that an import costs only what is used."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
