"""What `apply` would change: the difference between the catalog and the definitions it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oomstream.schemas.catalog import Catalog, Entity
from oomstream.schemas.groups import Feature, FeatureGroup


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What happens to one group.

    Attributes:
        old: Its newest registered definition; None for a new group.
        new: The definition to publish; `id` and `version` are still those of `old` (0 for a new group).
        added: Features that get a column.
        retired: Features that are no longer written; their columns stay.
        revived: Retired features that are active again, under the same type.
        changes: One sentence per change, for people.
    """

    old: FeatureGroup | None
    new: FeatureGroup
    added: tuple[Feature, ...] = ()
    retired: tuple[Feature, ...] = ()
    revived: tuple[Feature, ...] = ()
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one `apply` changes; empty when nothing does.

    Attributes:
        entities: Entities to register.
        groups: Groups to register or to change; unchanged groups are left out.
    """

    entities: tuple[Entity, ...] = ()
    groups: tuple[GroupPlan, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entities or self.groups)


def make_plan(catalog: Catalog, groups: Sequence[FeatureGroup]) -> Plan:
    """Compare definitions with the catalog.

    Raises:
        InvalidDefinition: A change is not allowed, or two groups contradict each other; names group, field and rule.
    """
    raise NotImplementedError
