"""oomstream: feature events on Kafka become online values and history, exactly once in effect.

The public names; each is loaded when it is first asked for, so that a program that only reads features loads neither
Faust nor Kafka clients.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oomstream.query.feature_store import AsyncFeatureStore as AsyncFeatureStore
    from oomstream.query.online import FeatureStatus as FeatureStatus
    from oomstream.query.online import OnlineResponse as OnlineResponse
    from oomstream.query.sync import FeatureStore as FeatureStore
    from oomstream.query.training_set import TrainingSet as TrainingSet
    from oomstream.schemas.errors import Fatal as Fatal
    from oomstream.schemas.errors import InvalidEvent as InvalidEvent
    from oomstream.schemas.errors import InvalidRequest as InvalidRequest
    from oomstream.schemas.errors import OomstreamError as OomstreamError
    from oomstream.schemas.errors import StoreUnavailable as StoreUnavailable
    from oomstream.streams.import_once import import_file as import_file
    from oomstream.streams.producer import FeatureProducer as FeatureProducer

_HOME = {
    "AsyncFeatureStore": "oomstream.query.feature_store",
    "Fatal": "oomstream.schemas.errors",
    "FeatureProducer": "oomstream.streams.producer",
    "FeatureStatus": "oomstream.query.online",
    "FeatureStore": "oomstream.query.sync",
    "InvalidEvent": "oomstream.schemas.errors",
    "InvalidRequest": "oomstream.schemas.errors",
    "OnlineResponse": "oomstream.query.online",
    "OomstreamError": "oomstream.schemas.errors",
    "StoreUnavailable": "oomstream.schemas.errors",
    "TrainingSet": "oomstream.query.training_set",
    "import_file": "oomstream.streams.import_once",
}

__all__ = [
    "AsyncFeatureStore",
    "Fatal",
    "FeatureProducer",
    "FeatureStatus",
    "FeatureStore",
    "InvalidEvent",
    "InvalidRequest",
    "OnlineResponse",
    "OomstreamError",
    "StoreUnavailable",
    "TrainingSet",
    "import_file",
]


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
