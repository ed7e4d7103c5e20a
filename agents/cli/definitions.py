"""Definitions that a verb is given: read from files, compared with what is registered, carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.schemas.plan import Plan
    from oomstream.schemas.yaml_definitions import YamlDefinitions

YAML_SUFFIXES = frozenset({".yaml", ".yml"})


class Given(NamedTuple):
    """Definitions as they were read.

    Attributes:
        groups: From Avro schemas.
        yaml: From YAML.
    """

    groups: list[FeatureGroup]
    yaml: YamlDefinitions


class Change(NamedTuple):
    """What a verb wants to change.

    Attributes:
        plan: The difference.
        groups: The groups it was made from; their topics are made if they are missing.
    """

    plan: Plan
    groups: Sequence[FeatureGroup]


def definition_files(paths: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """The files that `PATH…` and `-f` mean, each once, folders in order of file name.

    Args:
        paths: .avsc, .yaml and .yml files, and folders of .avsc files.
        files: The same, or YAML under any name (``/dev/stdin``).

    Raises:
        typer.BadParameter: Nothing was given, a path does not exist, or holds no definitions; names it.
    """
    if not paths and not files:
        raise typer.BadParameter("no definitions given: name .avsc or .yaml files or folders", param_hint="PATH")
    found: list[Path] = []
    for path in (*paths, *files):
        if path.is_dir():
            inside = sorted(path.glob("*.avsc"))
            if not inside:
                raise typer.BadParameter(f"the folder {path} holds no .avsc file", param_hint="PATH")
            found += inside
        elif not path.exists():
            raise typer.BadParameter(f"{path} does not exist", param_hint="PATH")
        elif path.suffix not in {".avsc", *YAML_SUFFIXES} and path not in files:
            raise typer.BadParameter(
                f"{path} is neither an .avsc nor a .yaml file (docs/schemas.md); YAML of another name goes with -f",
                param_hint="PATH",
            )
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def read_definitions(files: Sequence[Path]) -> Given:
    """Read definitions: .avsc files as Avro schemas, all others as YAML.

    Raises:
        InvalidDefinition: A file breaks a rule, or two files define the same; names the files.
    """
    from oomstream.schemas.avsc import load_avsc
    from oomstream.schemas.yaml_definitions import joined
    from oomstream.schemas.yaml_text import load_yaml

    schemas = [file for file in files if file.suffix == ".avsc"]
    groups = [load_avsc(file.read_bytes(), str(file)) for file in schemas]
    _refuse_same_groups(schemas, [group.name for group in groups])
    texts = [(str(file), file.read_bytes()) for file in files if file.suffix != ".avsc"]
    return Given(groups, joined([(where, load_yaml(text, where)) for where, text in texts]))


def _refuse_same_groups(files: Sequence[Path], names: Sequence[str]) -> None:
    from oomstream.schemas.errors import InvalidDefinition

    first: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        other = first.setdefault(name, file)
        if other is not file:
            raise InvalidDefinition(f"group {name}: defined twice, in {other} and in {file}")


def change_of(given: Given, catalog: Catalog) -> Change:
    """What definitions change.

    Raises:
        InvalidDefinition: They do not fit together or to what is registered; names group, field and rule.
    """
    from oomstream.schemas.plan import make_plan
    from oomstream.schemas.yaml_definitions import complete

    completed = complete(given.yaml, catalog, given.groups)
    groups = [*given.groups, *completed.groups]
    return Change(make_plan(catalog, groups, completed.entities), groups)


async def carry_out(make: Callable[[Catalog], Change], show: Callable[[Plan], None] = lambda _: None) -> list[str]:
    """Change what is registered, and make missing topics if there is a broker.

    Args:
        make: Says what to change, from what is registered.
        show: Is given the plan before it is carried out.

    Returns:
        Names of the topics that were made.

    Raises:
        OomstreamError: As the stores and the broker raise it.
    """
    from oomstream.agents.cli.session import settings
    from oomstream.stores.opening import open_stores
    from oomstream.streams.broker import find_broker
    from oomstream.streams.topics import ensure_topics, topics_of

    chosen = settings()
    broker = find_broker(chosen)
    async with open_stores(chosen) as (history, _):
        change = make(await history.load_catalog())
        show(change.plan)
        if change.plan:
            await history.apply(change.plan)
    if broker is None:
        return []
    return list(ensure_topics(broker, topics_of(change.groups), timeout_s=chosen.call_timeout_us / 1e6))
