"""The fields of one Avro record schema, as the writer of some bytes laid them out.

Definitions and the schemas of a Schema Registry are both read here, by the same rules: flat records of the types in
`types`, each alone or in a union with null. Whatever comes out of here is safe to give to a codec: it is not recursive,
has no items of no bytes, and no field of unlimited size.

Source:
    Apache Avro 1.12 specification, "Schema Declaration"; design.md, section 2 (types).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oomstream.schemas.errors import InvalidDefinition, InvalidEvent
from oomstream.schemas.groups import NO_DEFAULT
from oomstream.schemas.types import MAX_DECIMAL_PRECISION, Kind, ValueType

MAX_FIELDS = 1000
"""Most fields in one record; the databases' limits on columns are near."""

MAX_FIXED_BYTES = 128
"""Most bytes of a decimal on `fixed`; 38 digits need 16."""

NAME_ATTRIBUTE = "oomstream.name"
"""Attribute of a field: its name here, where that is no legal Avro name (``2fa_installed``, ``user-account``)."""

_MAX_DEPTH = 4

MAX_SYMBOLS = 10_000
"""Most symbols in one enum."""

_PRIMITIVES = {
    kind.value: ValueType(kind)
    for kind in (Kind.BOOLEAN, Kind.INT, Kind.LONG, Kind.FLOAT, Kind.DOUBLE, Kind.STRING, Kind.BYTES)
}
_LOGICAL = {
    ("date", "int"): ValueType(Kind.DATE),
    ("timestamp-millis", "long"): ValueType(Kind.TIMESTAMP_MILLIS),
    ("timestamp-micros", "long"): ValueType(Kind.TIMESTAMP_MICROS),
}
_ATTRIBUTES_KEPT_APART = frozenset({"type", "default"})


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field of a record schema.

    Attributes:
        name: Its name here: the Avro name, or what `NAME_ATTRIBUTE` says.
        type: Type of its values that are not null.
        nullable: Whether it is a union with null.
        null_index: Which branch of the union null is; 0 or 1.
        default: Its default in avro form, None for null, or `NO_DEFAULT`.
        logical: Logical type as written, ours or not; empty for none.
        attributes: Its other attributes as written (`doc`, `unit`, …).
        avro_name: Its name in the Avro schema.
    """

    name: str
    type: ValueType
    nullable: bool = False
    null_index: int = 0
    default: Any = NO_DEFAULT
    logical: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    avro_name: str = ""


def read_fields(schema: Any, *, where: str, foreign: bool = False) -> tuple[RecordField, ...]:
    """Read the fields of a record schema.

    Args:
        schema: The schema as JSON data, from anywhere.
        where: What to name in an error, for example ``group plane``.
        foreign: It is not a definition but a writer's schema from elsewhere: logical types that are not in the type
            table are ignored, as Avro does, and so are defaults.

    Raises:
        InvalidDefinition: Not a flat record of the types in the type table; names the field and the rule.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise InvalidDefinition(f"{where}: the schema is not an Avro record")
    fields = schema.get("fields")
    if not isinstance(fields, list) or not fields:
        raise InvalidDefinition(f"{where}: the record has no list of fields")
    if len(fields) > MAX_FIELDS:
        raise InvalidDefinition(f"{where}: the record has {len(fields)} fields, more than {MAX_FIELDS}")
    reader = _TypeReader(schema, where, foreign)
    found = tuple(map(reader.field, fields))
    for names in ([each.name for each in found], [each.avro_name for each in found]):
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidDefinition(f"{where}: field {twice[:80]!r} is there twice")
    return found


def under_names_of(reader: Sequence[RecordField], writer: Sequence[RecordField]) -> tuple[RecordField, ...]:
    """A writer's fields under the reader's names for them: Avro finds a field by its Avro name.

    Args:
        reader: Fields of a definition.
        writer: Fields of any schema, perhaps one from which `NAME_ATTRIBUTE` was lost.
    """
    names = {each.avro_name: each.name for each in reader}
    ours = set(names.values())
    return tuple(
        each if each.name in ours else replace(each, name=names.get(each.avro_name, each.name)) for each in writer
    )


def bare_type(kind: ValueType, names: dict[ValueType, str]) -> Any:
    """The Avro type of a value with no logical type, for a codec.

    Args:
        kind: The type.
        names: Named types declared so far, which this one is added to: Avro allows only one declaration of a name.
    """
    match kind.kind:
        case Kind.DATE:
            return "int"
        case Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS:
            return "long"
        case Kind.ARRAY:
            assert kind.item is not None
            return {"type": "array", "items": bare_type(kind.item, names)}
        case Kind.DECIMAL if kind.fixed_size is None:
            return "bytes"
        case Kind.DECIMAL | Kind.ENUM:
            if kind in names:
                return names[kind]
            names[kind] = name = f"t{len(names)}"
            if kind.kind is Kind.ENUM:
                return {"type": "enum", "name": name, "symbols": list(kind.symbols)}
            return {"type": "fixed", "name": name, "size": kind.fixed_size}
    return kind.kind.value


def bare_record(fields: tuple[RecordField, ...], *more: dict[str, Any]) -> dict[str, Any]:
    """A record schema of the same bytes with no logical types, names or defaults of its own.

    Args:
        fields: The fields, in order.
        *more: Avro fields after them.
    """
    names: dict[ValueType, str] = {}
    declared = []
    for each in fields:
        bare = bare_type(each.type, names)
        if each.nullable:
            bare = [bare, "null"] if each.null_index else ["null", bare]
        declared.append({"name": each.name, "type": bare})
    return {"type": "record", "name": "r", "fields": [*declared, *more]}


class _TypeReader:
    """Reads the types of one record's fields; remembers the named ones."""

    def __init__(self, schema: dict[str, Any], where: str, foreign: bool) -> None:
        self.where = where
        self.foreign = foreign
        self.named: dict[str, tuple[ValueType, str]] = {}
        self.record, self.namespace = self._full_name(schema, schema.get("namespace"))
        self.at = where

    def field(self, declared: Any) -> RecordField:
        if not isinstance(declared, dict) or not isinstance(declared.get("name"), str) or not declared["name"]:
            raise InvalidDefinition(f"{self.where}: every field needs a name")
        name = declared["name"]
        self.at = f"{self.where}: field {name[:80]!r}"
        if "type" not in declared:
            raise self._refused("has no type")
        node = declared["type"]
        nullable, null_index = False, 0
        if isinstance(node, list):
            if len(node) != 2 or node.count("null") != 1:
                raise self._refused('is a union; the only unions are ["null", T] and [T, "null"]')
            nullable, null_index = True, node.index("null")
            node = node[1 - null_index]
        kind, logical = self.type(node)
        default = NO_DEFAULT
        if "default" in declared and not self.foreign:
            default = self._default(declared["default"], kind, nullable)
        attributes = {key: value for key, value in declared.items() if key not in _ATTRIBUTES_KEPT_APART}
        if isinstance(node, dict) and "unit" in node:
            attributes.setdefault("unit", node["unit"])
        return RecordField(
            self._our_name(declared, name), kind, nullable, null_index, default, logical, attributes, name
        )

    def _our_name(self, declared: dict[str, Any], avro_name: str) -> str:
        ours = declared.get(NAME_ATTRIBUTE, avro_name)
        if isinstance(ours, str) and ours:
            return ours
        if self.foreign:
            return avro_name
        raise self._refused(f"has an {NAME_ATTRIBUTE} that is not text")

    def type(self, node: Any, depth: int = 0) -> tuple[ValueType, str]:
        """Type and logical type of a schema that is not a union."""
        if depth > _MAX_DEPTH:  # before Python's own limit, which is not ours to reach
            raise self._refused("has a type that is nested too deeply")
        if isinstance(node, list):
            raise self._refused("holds a union within a type; only a field itself may be nullable")
        if isinstance(node, str):
            return self._by_name(node)
        base = node.get("type") if isinstance(node, dict) else None
        if not isinstance(node, dict) or not isinstance(base, str):
            raise self._refused("has a type that is not Avro")
        match base:
            case "enum":
                return self._enum(node)
            case "array":
                return self._array(node, depth), ""
            case "record" | "error":
                raise self._refused("is a nested record; a group's fields must be flat")
            case "map":
                raise self._refused("is a map; use one field per key, or an array")
        logical = node.get("logicalType", "")
        if not isinstance(logical, str):
            raise self._refused("has a logicalType that is not text")
        if base == "fixed" or logical == "decimal":
            return self._decimal(node, base, logical), logical
        kind, inherited = self._by_name(base)
        if not logical:
            return kind, inherited
        known = _LOGICAL.get((logical, base))
        if known is None and not self.foreign:
            raise self._refused(f"has the logical type {logical[:40]!r} on {base[:40]!r}, which is not supported")
        return known or kind, logical

    def _by_name(self, name: str) -> tuple[ValueType, str]:
        primitive = _PRIMITIVES.get(name)
        if primitive is not None:
            return primitive, ""
        if name == "null":
            raise self._refused("can only be null")
        full = name if "." in name or not self.namespace else f"{self.namespace}.{name}"
        known = self.named.get(full) or self.named.get(name)
        if known is not None:
            return known
        if full == self.record:
            raise self._refused("refers to the record itself; recursive schemas are not supported")
        raise self._refused(f"has the unknown type {name[:80]!r}")

    def _enum(self, node: dict[str, Any]) -> tuple[ValueType, str]:
        symbols = node.get("symbols")
        if not isinstance(symbols, list) or not symbols or not all(isinstance(each, str) and each for each in symbols):
            raise self._refused("is an enum with no list of symbols")
        if len(symbols) > MAX_SYMBOLS or len(set(symbols)) != len(symbols):
            raise self._refused(f"is an enum with more than {MAX_SYMBOLS} symbols or the same symbol twice")
        return self._declare(node, ValueType(Kind.ENUM, symbols=tuple(symbols))), ""

    def _array(self, node: dict[str, Any], depth: int) -> ValueType:
        item, _ = self.type(node.get("items"), depth + 1)
        if item.kind is Kind.ARRAY:
            raise self._refused("is an array of arrays")
        return ValueType(Kind.ARRAY, item=item)

    def _decimal(self, node: dict[str, Any], base: str, logical: str) -> ValueType:
        if logical != "decimal":
            raise self._refused("is fixed bytes with no logicalType decimal; use bytes")
        if base not in {"bytes", "fixed"}:
            raise self._refused("is a decimal on a type that is neither bytes nor fixed")
        precision, scale = node.get("precision"), node.get("scale", 0)
        if type(precision) is not int or not 1 <= precision <= MAX_DECIMAL_PRECISION:
            raise self._refused(f"is a decimal with a precision outside 1 to {MAX_DECIMAL_PRECISION}")
        if type(scale) is not int or not 0 <= scale <= precision:
            raise self._refused("is a decimal with a scale outside 0 to its precision")
        if base == "bytes":
            return ValueType(Kind.DECIMAL, precision=precision, scale=scale)
        size = node.get("size")
        needed = math.ceil(((10**precision - 1).bit_length() + 1) / 8)
        if type(size) is not int or not needed <= size <= MAX_FIXED_BYTES:
            raise self._refused(
                f"is a decimal of {precision} digits on fixed bytes: size must be {needed} to {MAX_FIXED_BYTES}"
            )
        kind = ValueType(Kind.DECIMAL, precision=precision, scale=scale, fixed_size=size)
        return self._declare(node, kind, "decimal")

    def _declare(self, node: dict[str, Any], kind: ValueType, logical: str = "") -> ValueType:
        full, _ = self._full_name(node, node.get("namespace", self.namespace))
        if full in self.named or full == self.record:
            raise self._refused(f"declares the name {full[:80]!r} a second time")
        self.named[full] = (kind, logical)
        return kind

    def _full_name(self, node: dict[str, Any], namespace: Any) -> tuple[str, str]:
        name = node.get("name")
        if not isinstance(name, str) or not name or (namespace is not None and not isinstance(namespace, str)):
            raise InvalidDefinition(f"{getattr(self, 'at', self.where)}: a record, enum or fixed needs a name")
        if "." in name:
            return name, name.rpartition(".")[0]
        return (f"{namespace}.{name}" if namespace else name), namespace or ""

    def _default(self, default: Any, kind: ValueType, nullable: bool) -> Any:
        if default is None:
            if not nullable:
                raise self._refused("has the default null but is not nullable")
            return None
        try:
            return _avro_default(kind, default)
        except (InvalidEvent, ValueError, TypeError) as exc:
            raise self._refused(f"has a default that {exc}") from exc

    def _refused(self, rule: str) -> InvalidDefinition:
        return InvalidDefinition(f"{self.at} {rule}")


def _avro_default(kind: ValueType, default: Any) -> Any:
    """Avro form of a default as Avro writes it in JSON: bytes are text whose code points are the bytes."""
    match kind.kind:
        case Kind.BYTES | Kind.DECIMAL:
            if type(default) is not str or any(ord(each) > 255 for each in default):
                raise ValueError("is not text of code points 0 to 255, as Avro writes bytes")
            raw = default.encode("latin-1")
            if kind.fixed_size is not None and len(raw) != kind.fixed_size:
                raise ValueError(f"is not {kind.fixed_size} bytes long")
            kind.check(raw)
            return kind.canonical(raw)
        case Kind.DATE | Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS:
            if type(default) is not int:
                raise ValueError("is not an integer")
            kind.check(default)
            return default
        case Kind.ARRAY:
            if type(default) is not list:
                raise ValueError("is not an array")
            assert kind.item is not None
            items = [_avro_default(kind.item, each) for each in default]
            kind.check(items)
            return items
    return kind.canonical(kind.avro_from_json(default))
