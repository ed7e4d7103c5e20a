"""`oomstream register`, `update` and `edit`: entities, groups and features one by one, as oomcli does."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.options import complete_entity, complete_feature, complete_group, complete_of_kind
from oomstream.schemas.errors import InvalidDefinition, InvalidRequest, StoreUnavailable
from oomstream.schemas.groups import Category

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.schemas.yaml_definitions import YamlDefinitions

PANEL = "Set up"
SNAPSHOT_INTERVAL = "24h"

register_app = typer.Typer(help="Register an entity, a group or a feature.", no_args_is_help=True)
update_app = typer.Typer(help="Change a description.", no_args_is_help=True)

Description = Annotated[str, typer.Option("--description", "-d", metavar="TEXT", help="What it means.")]
NewDescription = Annotated[
    str, typer.Option("--description", "-d", metavar="TEXT", help="The new description.", show_default=False)
]
NewName = Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)]
EntityName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name.", show_default=False, autocompletion=complete_entity)
]
GroupName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name.", show_default=False, autocompletion=complete_group)
]


class EditKind(StrEnum):
    """What can be edited."""

    ENTITY = "entity"
    GROUP = "group"
    FEATURE = "feature"


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.add_typer(register_app, name="register", rich_help_panel=PANEL)
    parent.add_typer(update_app, name="update", rich_help_panel=PANEL)
    parent.command("edit", rich_help_panel=PANEL, epilog="Example: oomstream edit group user-click")(edit)


@register_app.command("entity", epilog="Example: oomstream register entity user --description 'a user of the site'")
def register_entity(name: NewName, description: Description = "") -> None:
    """Register an entity, which has no groups yet.

    Its key is one text, named after it; an entity with other keys is registered by the Avro schema of a group.
    """
    from oomstream.schemas.yaml_definitions import EntityDefinition, YamlDefinitions

    def make(catalog: Catalog) -> YamlDefinitions:
        if name in catalog.entities:
            raise InvalidDefinition(f"entity {name!r} is already registered")
        return YamlDefinitions(entities=(EntityDefinition(name, description),))

    _change("failed registering new entity", make)


@register_app.command(
    "group", epilog="Example: oomstream register group user-click -e user -c stream --description 'what a user clicks'"
)
def register_group(
    name: NewName,
    entity: Annotated[
        str,
        typer.Option(
            "--entity",
            "-e",
            metavar="E",
            help="The entity it describes.",
            show_default=False,
            autocompletion=complete_entity,
        ),
    ],
    category: Annotated[Category, typer.Option("--category", "-c", help="How it gets its data.")] = Category.BATCH,
    snapshot_interval: Annotated[
        str,
        typer.Option("--snapshot_interval", "--snapshot-interval", "-s", metavar="24h", help="Kept; no effect here."),
    ] = SNAPSHOT_INTERVAL,
    description: Description = "",
) -> None:
    """Register a group, which has no features yet.

    The event time of a stream group is the field unix_milli.
    """
    from oomstream.schemas.yaml_definitions import GroupDefinition, YamlDefinitions

    def make(catalog: Catalog) -> YamlDefinitions:
        _need_entity(catalog, entity)
        if name in catalog.groups:
            raise InvalidDefinition(f"group {name!r} is already registered")
        return YamlDefinitions(groups=(GroupDefinition(name, entity, category, snapshot_interval, description),))

    _change("failed registering new group", make)


@register_app.command("feature", epilog="Example: oomstream register feature clicks -g user-click --value-type int64")
def register_feature(
    name: NewName,
    group: Annotated[
        str,
        typer.Option(
            "--group", "-g", metavar="G", help="Its group.", show_default=False, autocompletion=complete_group
        ),
    ],
    value_type: Annotated[
        str,
        typer.Option(
            "--value-type",
            metavar="T",
            help="string, int64, float64, bool, time, bytes; also date, array<float>, decimal(9,2), …",
            show_default=False,
        ),
    ],
    description: Description = "",
) -> None:
    """Register a feature. It may be null; rows written before it have null."""
    from oomstream.schemas.yaml_definitions import FeatureDefinition, YamlDefinitions

    def make(catalog: Catalog) -> YamlDefinitions:
        if catalog.group(group).feature(name) is not None:
            raise InvalidDefinition(f"feature '{group}.{name}' is already registered")
        return YamlDefinitions(features=(FeatureDefinition(name, group, value_type, description),))

    _change("failed registering new feature", make)


@update_app.command("entity", epilog="Example: oomstream update entity user --description 'a user of the site'")
def update_entity(name: EntityName, description: NewDescription) -> None:
    """Describe an entity anew."""
    from oomstream.schemas.yaml_definitions import EntityDefinition, YamlDefinitions

    def make(catalog: Catalog) -> YamlDefinitions:
        _need_entity(catalog, name)
        return YamlDefinitions(entities=(EntityDefinition(name, description),))

    _change(f"failed updating entity {name}", make)


@update_app.command("group", epilog="Example: oomstream update group user-click --description 'what a user clicks'")
def update_group(name: GroupName, description: NewDescription) -> None:
    """Describe a group anew."""
    from oomstream.schemas.yaml_definitions import GroupDefinition, YamlDefinitions

    def make(catalog: Catalog) -> YamlDefinitions:
        catalog.group(name)
        return YamlDefinitions(groups=(GroupDefinition(name, doc=description),))

    _change(f"failed updating group {name}", make)


@update_app.command("feature", epilog="Example: oomstream update feature user-click.clicks --description 'today'")
def update_feature(
    name: Annotated[
        str,
        typer.Argument(
            metavar="GROUP.NAME", help="Its full name.", show_default=False, autocompletion=complete_feature
        ),
    ],
    description: NewDescription,
) -> None:
    """Describe a feature anew."""
    from oomstream.schemas.yaml_definitions import FeatureDefinition, YamlDefinitions

    def make(catalog: Catalog) -> YamlDefinitions:
        ((group, feature),) = catalog.features([name])
        return YamlDefinitions(features=(FeatureDefinition(feature.name, group.name, doc=description),))

    _change(f"failed updating feature {name}", make)


def edit(
    kind: Annotated[EditKind, typer.Argument(help="What to edit.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Argument(help="Only the one of this name.", show_default=False, autocompletion=complete_of_kind),
    ] = None,
) -> None:
    """Edit definitions as YAML in $EDITOR, and apply them.

    What is taken out of the text stays as it is registered.
    """
    from oomstream.agents.cli.definitions import Given, carry_out, change_of
    from oomstream.agents.cli.meta import documents_of
    from oomstream.agents.cli.session import load_catalog
    from oomstream.agents.cli.setup import print_plan
    from oomstream.schemas.yaml_text import load_yaml, yaml_text

    documents = documents_of(kind.value, asyncio.run(load_catalog()), name)
    if not documents:
        raise InvalidDefinition(f"there is no {kind} to edit yet")
    file = _in_editor(yaml_text(documents))
    try:
        given = Given([], load_yaml(file.read_bytes(), str(file)))
        topics = asyncio.run(carry_out(lambda catalog: change_of(given, catalog), print_plan))
    except InvalidRequest as exc:
        raise type(exc)(f"{exc} (nothing was changed; what you wrote is in {file})") from exc
    except StoreUnavailable as exc:
        raise type(exc)(f"{exc} (what you wrote is in {file})") from exc
    file.unlink()
    for topic in topics:
        typer.echo(f"new topic {topic}")
    typer.echo("applied")


def _in_editor(text: str) -> Path:
    """Have a person edit a text; gives the file."""
    editor = _editor()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="oomstream-", encoding="utf-8", delete=False) as made:
        made.write(text)
    file = Path(made.name)
    try:
        ended = subprocess.run([*editor, made.name], check=False).returncode  # noqa: S603 (a person's own choice)
    except OSError as exc:
        file.unlink()
        raise InvalidRequest(f"editor {editor[0]!r} cannot be started ({exc.strerror}): set EDITOR") from exc
    if ended:
        kept = f"; what you wrote is in {file}"
        with suppress(OSError):
            if file.read_text(encoding="utf-8", errors="replace") == text:
                file.unlink()
                kept = ""
        raise InvalidRequest(f"editor {editor[0]!r} ended with {ended}: nothing was changed{kept}")
    return file


def _editor() -> list[str]:
    try:
        chosen = shlex.split(os.environ.get("EDITOR", ""))
    except ValueError as exc:
        raise InvalidRequest("EDITOR is not a command: a quotation in it does not end") from exc
    if not chosen and not sys.stdin.isatty():
        # Nobody is there to leave the editor that a person would get.
        raise InvalidRequest("there is no terminal to edit on: set EDITOR, or use `oomstream apply -f FILE`")
    return chosen or ["vi"]


def _need_entity(catalog: Catalog, name: str) -> None:
    from oomstream.agents.cli.meta import find_entity

    find_entity(catalog, name)


def _change(failure: str, make: Callable[[Catalog], YamlDefinitions]) -> None:
    """Carry out definitions without a word, as oomcli does.

    Args:
        failure: What an error begins with.
        make: Gives the definitions, from what is registered.
    """
    from oomstream.agents.cli.definitions import Given, carry_out, change_of

    try:
        asyncio.run(carry_out(lambda catalog: change_of(Given([], make(catalog)), catalog)))
    except (InvalidRequest, StoreUnavailable) as exc:
        raise type(exc)(f"{failure}: {exc}") from exc
