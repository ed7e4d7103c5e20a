"""Groups that the agent's tests read and write."""

from __future__ import annotations

from typing import Any

from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.groups import FeatureGroup

MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def _group(name: str, entity: str, keys: dict[str, Any], features: dict[str, Any], **more: Any) -> FeatureGroup:
    times = [] if more.get("category") == "batch" else [{"name": "happened_at", "type": MICROS}]
    return group_from_avsc(
        {
            "type": "record",
            "name": name,
            "entity": entity,
            "keys": list(keys),
            "fields": [
                *({"name": key, "type": kind} for key, kind in keys.items()),
                *times,
                *({"name": feature, "type": ["null", kind]} for feature, kind in features.items()),
            ],
            **({} if more.get("category") == "batch" else {"event_time": "happened_at"}),
            **more,
        }
    )


CLICKS = _group(
    "clicks",
    "user",
    {"user": "string"},
    {
        "title": "string",
        "number": "long",
        "small": "int",
        "share": "double",
        "is_new": "boolean",
        "seen": MICROS,
        "raw": "bytes",
        "day": {"type": "int", "logicalType": "date"},
        "paid": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        "vector": {"type": "array", "items": "float"},
    },
)
"""A stream group with a feature of every kind."""

ACCOUNT = _group("account", "user", {"user": "string"}, {"state": "string", "score": "long"}, category="batch")
"""A batch group of the same entity."""

DEVICES = _group("devices", "device", {"device": "long"}, {"model": "string"})
"""A stream group whose key is an integer."""

SEATS = _group("seats", "seat", {"flight": "int", "place": "string"}, {"price": "double"})
"""A stream group with a composite key."""

GROUPS = (CLICKS, ACCOUNT, DEVICES, SEATS)
