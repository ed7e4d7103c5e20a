"""Feature groups from Avro schemas (.avsc) with our attributes on the record.

The same function reads a definition that a user wrote and one that a catalog stored: `FeatureGroup.schema` keeps our
attributes, and reading it again gives an equal group.

Source:
    design.md, section 2 (definitions); Apache Avro 1.12 specification.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from oomstream.schemas.durations import parse_duration_us, parse_go_duration_us
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.groups import (
    NO_DEFAULT,
    Category,
    EventTimeField,
    Feature,
    FeatureGroup,
    KeyField,
    TimeUnit,
)
from oomstream.schemas.layout import RecordField, read_fields
from oomstream.schemas.names import check_group_name, check_name, check_topic, is_avro_name
from oomstream.schemas.types import Kind

MAX_KEYS = 8
"""Most fields in an entity key."""

MAX_PARTITIONS = 10_000
"""Most partitions that `apply` makes a topic with."""

MAX_DEFINITION_BYTES = 4 << 20
"""Longest definition that is read."""

ATTRIBUTES = (
    "entity",
    "keys",
    "group",
    "event_time",
    "ttl",
    "topic",
    "partitions",
    "category",
    "snapshot_interval",
    "doc",
)
"""Our attributes on the record, and Avro's `doc`."""

_OF_STREAMS = ("event_time", "ttl", "topic", "partitions")

_OF_AVRO = frozenset({"type", "name", "namespace", "fields", "aliases"})

KEY_KINDS = frozenset({Kind.STRING, Kind.BYTES, Kind.INT, Kind.LONG, Kind.DATE})
"""Types that a key field may have."""


def load_avsc(text: str | bytes, where: str) -> FeatureGroup:
    """Read one definition from the text of an .avsc file.

    Args:
        text: The file's content.
        where: What to name in an error: the path.

    Raises:
        InvalidDefinition: Not JSON, or the definition breaks a rule, has no feature, or an attribute that looks like a
            mistyped one of ours; names `where`, the field and the rule.
    """
    if len(text) > MAX_DEFINITION_BYTES:
        raise InvalidDefinition(f"{where}: longer than {MAX_DEFINITION_BYTES} bytes")
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        schema = json.loads(decoded, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        raise InvalidDefinition(f"{where}: not JSON: {exc.msg} at line {exc.lineno} column {exc.colno}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidDefinition(f"{where}: not UTF-8 text (byte {exc.start})") from exc
    except (ValueError, RecursionError) as exc:
        rule = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise InvalidDefinition(f"{where}: not JSON: {rule}") from exc
    try:
        _refuse_mistyped(schema)
        group = group_from_avsc(schema)
        _check_snapshot_interval(schema, f"group {group.name}")
        if not group.features:
            raise InvalidDefinition(
                f"group {group.name}: has no features: every field is a key or the event time; add a field to serve"
            )
    except InvalidDefinition as exc:
        raise InvalidDefinition(f"{where}: {exc}") from exc
    return group


def group_from_avsc(schema: dict[str, Any]) -> FeatureGroup:
    """Read one definition from a schema as JSON data.

    Returns:
        The group; `id`, `version` and `retired` are those of an unregistered one.

    Raises:
        InvalidDefinition: The definition breaks a rule; names the group, the field and the rule.
    """
    if not isinstance(schema, dict):
        raise InvalidDefinition("the schema is not an Avro record")
    name = _group_name(schema)
    where = f"group {name}"
    fields = read_fields(schema, where=where)
    _check_field_names(fields, where)
    by_name = {each.name: each for each in fields}
    keys = _keys(schema, by_name, where)
    category = _category(schema, where)
    event_time = _event_time(schema, by_name, where) if category is Category.STREAM else None
    taken = {key.name for key in keys}
    if event_time is not None:
        if event_time.name in taken:
            raise InvalidDefinition(f"{where}: field {event_time.name!r} is both a key and the event time")
        taken.add(event_time.name)
    else:
        _refuse_stream_attributes(schema, where)
    features = tuple(_feature(each) for each in fields if each.name not in taken)
    completed = _with_null_defaults(schema, fields)
    return FeatureGroup(
        name=name,
        entity=check_name(_needed(schema, "entity", where), what="entity", where=where, dashes=True),
        keys=keys,
        event_time=event_time,
        features=features,
        schema=completed,
        fingerprint=fingerprint(completed, where=where),
        ttl_us=_ttl_us(schema, where),
        topic=check_topic(schema.get("topic", name), where=where) if category is Category.STREAM else "",
        partitions=_partitions(schema, where) if category is Category.STREAM else 0,
        category=category,
        doc=_doc(schema, where),
    )


def fingerprint(schema: dict[str, Any], *, where: str = "schema") -> bytes:
    """CRC-64-AVRO of a schema's parsing canonical form, as single-object encoding has it (8 bytes, little-endian).

    Raises:
        InvalidDefinition: Not a legal Avro schema.

    Source:
        Apache Avro 1.12 specification, "Transforming into Parsing Canonical Form" and "Single-object encoding".
    """
    # Defaults are not part of the canonical form, and fastavro is stricter about them in unions than Avro 1.12 is.
    bare = {**schema, "fields": [{key: each[key] for key in ("name", "type")} for each in schema["fields"]]}
    try:
        return bytes.fromhex(avro_fingerprint(to_parsing_canonical_form(bare), "CRC-64-AVRO"))
    except Exception as exc:  # fastavro raises whatever it meets
        raise InvalidDefinition(f"{where}: not a legal Avro schema: {exc}") from exc


def _refuse_mistyped(schema: Any) -> None:
    """Refuse attributes that are nearly ours; Avro allows any others."""
    if not isinstance(schema, dict):
        return
    for name in schema.keys() - _OF_AVRO - set(ATTRIBUTES):
        plain = name.lower().replace("-", "_")
        # Letters out of order or doubled ("tll") count for much in a short name, and little in difflib's measure.
        likely = [ours for ours in ATTRIBUTES if set(ours) == set(plain) and abs(len(ours) - len(plain)) <= 1]
        likely = likely or get_close_matches(plain, ATTRIBUTES, n=1, cutoff=0.81)
        if likely:
            raise InvalidDefinition(
                f"attribute {name[:80]!r} looks like {likely[0]!r} "
                "mistyped: correct it, or give an annotation of your own another name"
            )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} is there twice in one object")
    return found


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _group_name(schema: dict[str, Any]) -> str:
    record = schema.get("name")
    if not isinstance(record, str) or not record:
        raise InvalidDefinition("the record has no name")
    where = f"record {record[:80]!r}"
    if schema.get("group") is not None:
        return check_group_name(schema["group"], where=where)
    return check_group_name(record.rpartition(".")[2], where=where)


def _check_field_names(fields: tuple[RecordField, ...], where: str) -> None:
    seen: dict[str, str] = {}
    for each in fields:
        check_name(each.name, what="field", where=where, dashes=each.name != each.avro_name)
        if each.name != each.avro_name and not is_avro_name(each.avro_name):
            raise InvalidDefinition(f"{where}: field {each.name!r} has an Avro name that is none")
        other = seen.setdefault(each.name.lower(), each.name)
        if other != each.name:
            raise InvalidDefinition(f"{where}: fields {other!r} and {each.name!r} differ only in case")
        if each.attributes.get("aliases"):
            raise InvalidDefinition(f"{where}: field {each.name!r} has aliases; fields cannot be renamed")


def _keys(schema: dict[str, Any], fields: dict[str, RecordField], where: str) -> tuple[KeyField, ...]:
    names = _needed(schema, "keys", where)
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_KEYS or not all(isinstance(n, str) for n in names):
        raise InvalidDefinition(f"{where}: keys must be a list of 1 to {MAX_KEYS} field names")
    if len(set(names)) != len(names):
        raise InvalidDefinition(f"{where}: keys name a field twice")
    keys: list[KeyField] = []
    for name in names:
        found = _required(fields, name, "key", where)
        if found.type.kind not in KEY_KINDS:
            raise InvalidDefinition(
                f"{where}: key field {name!r} is {found.type}; a key must be string, bytes, int, long or date"
            )
        keys.append(KeyField(name, found.type))
    return tuple(keys)


def _event_time(schema: dict[str, Any], fields: dict[str, RecordField], where: str) -> EventTimeField:
    name = _needed(schema, "event_time", where)
    if not isinstance(name, str):
        raise InvalidDefinition(f"{where}: event_time must name the field that says when an event happened")
    found = _required(fields, name, "event-time", where)
    by_type = {Kind.TIMESTAMP_MILLIS: TimeUnit.MILLISECOND, Kind.TIMESTAMP_MICROS: TimeUnit.MICROSECOND}
    unit = found.attributes.get("unit")
    if unit is not None and unit not in list(TimeUnit):
        raise InvalidDefinition(f"{where}: event-time field {name!r} has a unit that is not s, ms or us")
    if found.type.kind in by_type:
        if unit is not None and unit != by_type[found.type.kind]:
            raise InvalidDefinition(f"{where}: event-time field {name!r} has a unit that contradicts its type")
        return EventTimeField(name, by_type[found.type.kind])
    if found.type.kind is not Kind.LONG:
        raise InvalidDefinition(
            f"{where}: event-time field {name!r} is {found.type}; it must be timestamp-micros, timestamp-millis, "
            "or a long with a unit"
        )
    if unit is None:
        raise InvalidDefinition(f'{where}: event-time field {name!r} is a long and needs "unit": "s", "ms" or "us"')
    return EventTimeField(name, TimeUnit(unit))


def _needed(schema: dict[str, Any], attribute: str, where: str) -> Any:
    if attribute not in schema:
        raise InvalidDefinition(f"{where}: {attribute} is missing (docs/schemas.md)")
    return schema[attribute]


def _required(fields: dict[str, RecordField], name: str, role: str, where: str) -> RecordField:
    found = fields.get(name)
    if found is None:
        raise InvalidDefinition(f"{where}: {role} field {name[:80]!r} is not a field of the record")
    if found.nullable:
        raise InvalidDefinition(f"{where}: {role} field {name!r} is nullable; every event must have it")
    if found.default is not NO_DEFAULT:
        raise InvalidDefinition(f"{where}: {role} field {name!r} has a default; every event must have it")
    return found


def _feature(declared: RecordField) -> Feature:
    default = declared.default
    if default is NO_DEFAULT:
        default = None if declared.nullable else NO_DEFAULT
    elif default is not None:
        default = declared.type.plain_from_avro(default)
    doc = declared.attributes.get("doc", "")
    return Feature(declared.name, declared.type, declared.nullable, default, doc if isinstance(doc, str) else "")


def _with_null_defaults(schema: dict[str, Any], fields: tuple[RecordField, ...]) -> dict[str, Any]:
    """The schema, in which each nullable field without a default has the default null."""
    completed = [
        {**raw, "default": None} if parsed.nullable and parsed.default is NO_DEFAULT else raw
        for raw, parsed in zip(schema["fields"], fields, strict=True)
    ]
    return {**schema, "fields": completed}


def _ttl_us(schema: dict[str, Any], where: str) -> int | None:
    text = schema.get("ttl")
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidDefinition(f"{where}: ttl must be text such as 7d, 90m or 500ms")
    try:
        ttl_us = parse_duration_us(text)
    except ValueError as exc:
        raise InvalidDefinition(f"{where}: ttl {exc}") from exc
    if not ttl_us:
        raise InvalidDefinition(f"{where}: ttl must be longer than nothing; leave it out for values that never expire")
    return ttl_us


def _check_snapshot_interval(schema: dict[str, Any], where: str) -> None:
    text = schema.get("snapshot_interval", "0s")
    if not isinstance(text, str):
        raise InvalidDefinition(f"{where}: snapshot_interval must be text such as 24h or 10s")
    try:
        parse_go_duration_us(text)
    except ValueError as exc:
        raise InvalidDefinition(f"{where}: snapshot_interval {exc}") from exc


def _partitions(schema: dict[str, Any], where: str) -> int:
    partitions = schema.get("partitions", 8)
    if type(partitions) is not int or not 1 <= partitions <= MAX_PARTITIONS:
        raise InvalidDefinition(f"{where}: partitions must be an integer of 1 to {MAX_PARTITIONS}")
    return partitions


def _category(schema: dict[str, Any], where: str) -> Category:
    category = schema.get("category", Category.STREAM.value)
    if category not in list(Category):
        raise InvalidDefinition(f"{where}: category must be stream or batch")
    return Category(category)


def _refuse_stream_attributes(schema: dict[str, Any], where: str) -> None:
    """A batch group's rows come in whole revisions: each holds from its own time until the next one's."""
    for name in _OF_STREAMS:
        if schema.get(name) is not None:
            raise InvalidDefinition(f"{where}: {name} is for stream groups; in a batch group leave it out")


def _doc(schema: dict[str, Any], where: str) -> str:
    doc = schema.get("doc", "")
    if doc is None:
        return ""
    if not isinstance(doc, str):
        raise InvalidDefinition(f"{where}: doc must be text")
    return doc
