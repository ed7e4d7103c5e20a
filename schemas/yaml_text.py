"""oomstore's YAML as text: from text to definitions, and from what is registered to text.

Source:
    oomcli.md (apply, get meta).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import yaml

from oomstream.schemas.avsc import MAX_DEFINITION_BYTES
from oomstream.schemas.catalog import Entity
from oomstream.schemas.durations import parse_go_duration_us
from oomstream.schemas.errors import InvalidDefinition
from oomstream.schemas.groups import Category, Feature, FeatureGroup
from oomstream.schemas.value_types import value_type_name
from oomstream.schemas.yaml_definitions import (
    SNAPSHOT_INTERVAL,
    EntityDefinition,
    FeatureDefinition,
    GroupDefinition,
    YamlDefinitions,
)


class _TextLoader(yaml.SafeLoader):
    """Reads scalars other than null as the text that stands there (``yes``, ``1.10``); refuses a key given twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own form)
        first: [each for each in resolvers if each[0] == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    what = f"{key.value[:80]!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _IndentedDumper(yaml.SafeDumper):
    """Indents the dashes of lists by two, as oomcli does, and shares nothing by aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes Unicode's line breaks as they are, and reads them as white space.
    style = '"' if _UNICODE_BREAKS.intersection(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_UNICODE_BREAKS = frozenset("\x85\u2028\u2029")
_IndentedDumper.add_representer(str, _represent_text)


def yaml_documents(text: str | bytes, where: str) -> Iterator[tuple[int, Any]]:
    """The documents of a YAML text, each with the line at which it begins; scalars are text or None.

    Raises:
        InvalidDefinition: It is not YAML; names `where` and the line.
    """
    if len(text) > MAX_DEFINITION_BYTES:
        raise InvalidDefinition(f"{where}: longer than {MAX_DEFINITION_BYTES} bytes")
    loader = None
    try:
        # PyYAML would take bytes with a byte-order mark for UTF-16; definitions are UTF-8, as everything here.
        loader = _TextLoader(text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff"))
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            yield node.start_mark.line + 1, loader.construct_document(node)
    except UnicodeDecodeError as exc:
        raise InvalidDefinition(f"{where}: not UTF-8 text (byte {exc.start})") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        at = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InvalidDefinition(f"{where}: not YAML: {exc.problem or exc.context}{at}") from exc
    except yaml.reader.ReaderError as exc:
        raise InvalidDefinition(f"{where}: not YAML: {exc.reason}") from exc
    except RecursionError as exc:
        raise InvalidDefinition(f"{where}: not YAML: nested too deeply") from exc
    finally:
        if loader is not None:
            loader.dispose()


def load_yaml(text: str | bytes, where: str) -> YamlDefinitions:
    """Read definitions from the text of a YAML file.

    Args:
        text: One or more documents: kind Entity, Group or Feature, or a list of those under `items`.
        where: What to name in an error: the path.

    Raises:
        InvalidDefinition: Not YAML, or not such documents; names `where`, the line of the document and what is wrong.
    """
    found = _Collected()
    for line, document in yaml_documents(text, where):
        if document is not None:
            found.add(document, f"{where}, document at line {line}")
    if not (found.entities or found.groups or found.features):
        raise InvalidDefinition(f"{where}: holds no definitions")
    return YamlDefinitions(tuple(found.entities.values()), tuple(found.groups.values()), tuple(found.features.values()))


class _Collected:
    """Definitions met so far."""

    def __init__(self) -> None:
        self.entities: dict[str, EntityDefinition] = {}
        self.groups: dict[str, GroupDefinition] = {}
        self.features: dict[tuple[str, str], FeatureDefinition] = {}

    def add(self, document: Any, where: str) -> None:
        """Take in one document."""
        if isinstance(document, dict) and "items" in document and "kind" not in document:
            _refuse_unknown(document, ("items",), where)
            for number, item in enumerate(_list(document, "items", where), 1):
                self._add_one(item, f"{where}, item {number}")
        else:
            self._add_one(document, where)

    def _add_one(self, document: Any, where: str) -> None:
        if not isinstance(document, dict):
            _refuse(where, "is not a mapping with kind, name, …")
        kind = document.get("kind")
        fields = {name: value for name, value in document.items() if name != "kind"}
        match kind:
            case "Entity":
                self._entity(fields, where)
            case "Group":
                self._group(fields, where, _text(fields.pop("entity-name", None), "entity-name", where))
            case "Feature":
                group = _text(fields.pop("group-name", None), "group-name", where)
                if group is None:
                    _refuse(where, "group-name is missing")
                self._feature(fields, where, group)
            case _:
                _refuse(where, "kind must be Entity, Group or Feature")

    def _entity(self, fields: dict[str, Any], where: str) -> None:
        _refuse_unknown(fields, ("name", "description", "groups"), where)
        name = _name(fields, where)
        where = f"{where}, entity {name[:80]}"
        if name in self.entities:
            _refuse(where, "is defined twice")
        self.entities[name] = EntityDefinition(name, _text(fields.get("description"), "description", where))
        for group in _list(fields, "groups", where):
            self._group(group, where, name)

    def _group(self, fields: Any, where: str, entity: str | None) -> None:
        if not isinstance(fields, dict):
            _refuse(where, "groups must be a list of mappings with name, category, …")
        known = ("name", "category", "snapshot-interval", "description", "features")
        _refuse_unknown(fields, known, where)
        name = _name(fields, where)
        where = f"{where}, group {name[:80]}"
        if name in self.groups:
            _refuse(where, "is defined twice")
        category = _text(fields.get("category"), "category", where)
        if category is not None and category not in list(Category):
            _refuse(where, f"category is {category[:40]!r} instead of batch or stream")
        self.groups[name] = GroupDefinition(
            name,
            entity,
            None if category is None else Category(category),
            _text(fields.get("snapshot-interval"), "snapshot-interval", where),
            _text(fields.get("description"), "description", where),
        )
        for feature in _list(fields, "features", where):
            self._feature(feature, where, name)

    def _feature(self, fields: Any, where: str, group: str) -> None:
        if not isinstance(fields, dict):
            _refuse(where, "features must be a list of mappings with name, value-type, …")
        _refuse_unknown(fields, ("name", "value-type", "description"), where)
        name = _name(fields, where)
        where = f"{where}, feature {name[:80]}"
        if (group, name) in self.features:
            _refuse(where, "is defined twice")
        value_type = _text(fields.get("value-type"), "value-type", where)
        doc = _text(fields.get("description"), "description", where)
        self.features[group, name] = FeatureDefinition(name, group, value_type, doc)


def _refuse(where: str, rule: str) -> NoReturn:
    raise InvalidDefinition(f"{where}: {rule}")


def _refuse_unknown(fields: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for name in fields:
        if name not in known:
            _refuse(where, f"unknown field {str(name)[:80]!r} (there are: {', '.join(known)})")


def _name(fields: Mapping[str, Any], where: str) -> str:
    name = _text(fields.get("name"), "name", where)
    if not name:
        _refuse(where, "name is missing")
    return name


def _text(value: Any, name: str, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        _refuse(where, f"{name} must be text")
    return value


def _list(fields: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = fields.get(name)
    if value is not None and not isinstance(value, list):
        _refuse(where, f"{name} must be a list")
    return value or []


def entity_document(entity: Entity, groups: Iterable[FeatureGroup]) -> dict[str, Any]:
    """An entity with its groups, as YAML has it."""
    of_it = [_group_fields(each) for each in groups if each.entity == entity.name]
    document: dict[str, Any] = {"kind": "Entity", "name": entity.name, "description": entity.doc}
    return {**document, "groups": of_it} if of_it else document


def group_document(group: FeatureGroup) -> dict[str, Any]:
    """A group with its features, as YAML has it."""
    fields = _group_fields(group)
    return {"kind": "Group", "name": fields.pop("name"), "entity-name": group.entity, **fields}


def feature_document(group: FeatureGroup, feature: Feature) -> dict[str, Any]:
    """A feature, as YAML has it."""
    fields = _feature_fields(feature)
    return {"kind": "Feature", "name": fields.pop("name"), "group-name": group.name, **fields}


def snapshot_interval(group: FeatureGroup) -> str | None:
    """What was said of a group's snapshots, as it was written; None if nothing was, or nothing that is a duration."""
    found = group.schema.get(SNAPSHOT_INTERVAL)
    try:
        return found if isinstance(found, str) and parse_go_duration_us(found) >= 0 else None
    except ValueError:
        return None


def _group_fields(group: FeatureGroup) -> dict[str, Any]:
    interval = snapshot_interval(group)
    fields: dict[str, Any] = {"name": group.name, "category": group.category.value}
    if interval is not None:
        fields["snapshot-interval"] = interval
    fields["description"] = group.doc
    if group.features:
        fields["features"] = [_feature_fields(each) for each in group.features]
    return fields


def _feature_fields(feature: Feature) -> dict[str, Any]:
    return {"name": feature.name, "value-type": value_type_name(feature.type), "description": feature.doc}


def yaml_text(documents: Sequence[Mapping[str, Any]]) -> str:
    """The YAML of objects: one object as it is, none or several under `items`."""
    content = dict(documents[0]) if len(documents) == 1 else {"items": [dict(each) for each in documents]}
    return yaml.dump(
        content, Dumper=_IndentedDumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1 << 20
    )
