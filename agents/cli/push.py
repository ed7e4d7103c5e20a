"""`oomstream push`: one event from the command line."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oomstream.agents.cli.options import parse_keys, parse_time, python_from_text

if TYPE_CHECKING:
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.stores.settings import Settings


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command(
        "push",
        rich_help_panel="Write",
        epilog="Example: oomstream push -g weather -k JFK --feature temp=61.5 --feature wind_speed=9",
    )(push)


def push(
    key: Annotated[
        str,
        typer.Option("--entity-key", "-k", metavar="KEY", help="The entity: K, or f1=v1,f2=v2.", show_default=False),
    ],
    group: Annotated[str, typer.Option("--group", "-g", metavar="GROUP", help="Feature group.", show_default=False)],
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            metavar="NAME=VALUE",
            help="A feature's value; repeatable. One left out takes its default.",
            show_default=False,
        ),
    ] = None,
    event_time: Annotated[
        datetime | None,
        typer.Option(
            "--event-time",
            parser=parse_time,
            metavar="TIME",
            help="When it happened. Default: now.",
            show_default=False,
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the entity from the group instead.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With a broker: return when workers have ingested it.")] = False,
) -> None:
    """Write one event of an entity.

    With a broker set the event is produced to the group's topic; without one it is written to the stores, and can be
    read when the command returns.
    """
    if delete and feature:
        raise typer.BadParameter("--delete takes no --feature", param_hint="--delete")
    asyncio.run(_push(key, group, feature or [], event_time, delete, wait))


async def _push(
    key_text: str, group_name: str, texts: list[str], event_time: datetime | None, delete: bool, wait: bool
) -> None:
    from oomstream.agents.cli.session import open_for_writing, open_history, settings

    chosen = settings()
    async with open_history(chosen) as history:
        group = find_group((await history.load_catalog()).groups, group_name)
    key = parse_keys([key_text], {field.name: field for field in group.keys})
    if len(key) != 1:
        raise typer.BadParameter("push takes one entity key", param_hint="-k")
    values = {**key[0], **event_values(group, texts)}
    if event_time is not None:
        values[group.event_time.name] = event_time
    if chosen.broker_url is not None:
        await _produce(chosen, group, values, event_time, delete, wait)
        return
    from oomstream.streams.push import LocalWriter

    async with open_for_writing(chosen) as (history, online), LocalWriter(history, online, chosen) as writer:
        if delete:
            source, sequence = await writer.delete(group.name, list(key[0].values()), event_time)
        else:
            source, sequence = await writer.push(group.name, values)
    typer.echo(f"pushed: source {source}, sequence {sequence}")


async def _produce(
    chosen: Settings, group: FeatureGroup, values: dict[str, Any], event_time: datetime | None, delete: bool, wait: bool
) -> None:
    raise NotImplementedError


def find_group(groups: Any, name: str) -> FeatureGroup:
    """A group by name.

    Raises:
        UnknownGroup: There is none; in oomcli's words, which scripts look for.
    """
    from oomstream.schemas.errors import UnknownGroup

    if name not in groups:
        known = ", ".join(sorted(groups)) or "none"
        raise UnknownGroup(f"group is empty or does not exist: {name!r} (registered: {known})")
    group: FeatureGroup = groups[name].group
    return group


def event_values(group: FeatureGroup, texts: list[str]) -> dict[str, Any]:
    """Values of the given ``name=value`` texts in python form.

    Raises:
        typer.BadParameter: A text has no ``=``, names no feature of the group or one twice, or does not fit its type.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.removeprefix(f"{group.name}.")
        feature = group.feature(name)
        if not equals:
            raise typer.BadParameter(f"{text!r} is not name=value", param_hint="--feature")
        if feature is None:
            known = ", ".join(each.name for each in group.features)
            raise typer.BadParameter(
                f"group {group.name} has no feature {name!r} (it has: {known})", param_hint="--feature"
            )
        if name in values:
            raise typer.BadParameter(f"feature {name!r} is given twice", param_hint="--feature")
        if not value and feature.nullable and feature.type.kind.value not in {"string", "bytes"}:
            values[name] = None
        else:
            values[name] = python_from_text(feature.type, value, where=name, option="--feature")
    return values
