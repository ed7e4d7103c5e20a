"""`oomstream push`: one event from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from oomstream.agents.cli.options import complete_group, parse_keys, parse_time, python_from_text

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.stores.settings import Settings
    from oomstream.streams.broker import Broker
    from oomstream.streams.producer import Sent

POLL_S = 0.1


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
    group: Annotated[
        str,
        typer.Option(
            "--group",
            "-g",
            metavar="GROUP",
            help="Feature group.",
            show_default=False,
            autocompletion=complete_group,
        ),
    ],
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

    With a broker (set, or running on the data folder as `dev` does) the event is produced to the group's topic; without
    one it is written to the stores, and can be read when the command returns.
    """
    if delete and feature:
        raise typer.BadParameter("--delete takes no --feature", param_hint="--delete")
    from oomstream.agents.cli.session import load_catalog, settings
    from oomstream.schemas.errors import InvalidRequest
    from oomstream.schemas.groups import Category
    from oomstream.streams.broker import find_broker

    chosen = settings()
    broker = find_broker(chosen)
    catalog = asyncio.run(load_catalog())
    definition = find_group(catalog, group)
    if definition.category is Category.BATCH:
        raise InvalidRequest(f"group {definition.name} is a batch group: it has no events, `oomstream import` fills it")
    keys = parse_keys([key], {field.name: field for field in definition.keys}, [definition.entity])
    if len(keys) != 1:
        raise typer.BadParameter("push takes one entity key", param_hint="-k")
    event = PushedEvent(definition.name, keys[0], event_values(definition, feature or []), event_time, delete)
    if event_time is not None:
        event.values[definition.event_time_field.name] = event_time
    with _what_was_typed(local=broker is None):
        if broker is None:
            asyncio.run(_write(chosen, event))
            return
        sent = _produce(broker, chosen, catalog, event)
    typer.echo(f"sent: topic {sent.topic}, partition {sent.partition}, offset {sent.offset}")
    if wait:
        asyncio.run(_wait_until_ingested(broker, chosen, sent))


@contextmanager
def _what_was_typed(*, local: bool) -> Iterator[None]:
    """Tell a value that no event can have as what it is here: a wrong use of the command."""
    from oomstream.schemas.errors import InvalidEvent, InvalidKey, InvalidRequest

    try:
        yield
    except (InvalidEvent, InvalidKey) as exc:
        raise typer.BadParameter(str(exc)) from exc
    except InvalidRequest as exc:
        # The local writer says by this class itself what a worker would write as a dead letter.
        if not local or type(exc) is not InvalidRequest:
            raise
        raise typer.BadParameter(str(exc)) from exc


class PushedEvent(NamedTuple):
    """What is pushed.

    Attributes:
        group: Name of the group.
        key: Key values by field.
        values: Values of features, and the event time if it was given.
        event_time: When it happened; None = now.
        delete: Whether the entity is deleted.
    """

    group: str
    key: dict[str, Any]
    values: dict[str, Any]
    event_time: datetime | None
    delete: bool


async def _write(chosen: Settings, event: PushedEvent) -> None:
    from oomstream.stores.opening import open_stores
    from oomstream.streams.push import LocalWriter

    async with open_stores(chosen) as (history, online), LocalWriter(history, online, chosen) as writer:
        if event.delete:
            source, sequence = await writer.delete(event.group, list(event.key.values()), event.event_time)
        else:
            source, sequence = await writer.push(event.group, {**event.key, **event.values})
    typer.echo(f"pushed: source {source}, sequence {sequence}")


def _produce(broker: Broker, chosen: Settings, catalog: Catalog, event: PushedEvent) -> Sent:
    from oomstream.streams.producer import FeatureProducer

    with FeatureProducer(broker, chosen, catalog) as producer:
        if event.delete:
            return producer.delete(event.group, list(event.key.values()), event.event_time)
        return producer.send(event.group, {**event.key, **event.values})


async def _wait_until_ingested(broker: Broker, chosen: Settings, sent: Sent) -> None:
    from oomstream.agents.cli.session import open_history
    from oomstream.schemas.errors import StoreUnavailable
    from oomstream.schemas.versions import SourceKind
    from oomstream.stores.base import SourceName
    from oomstream.streams.topics import Incarnations

    timeout_s = chosen.call_timeout_us / 1e6
    incarnation = Incarnations(broker, timeout_s=timeout_s).of([sent.topic]).get(sent.topic, "")
    name = SourceName(SourceKind.TOPIC, sent.topic, incarnation, sent.partition)
    try:
        async with open_history(chosen) as history, asyncio.timeout(timeout_s):
            while True:
                source = await history.find_source(name)
                if source is not None and source.online_sequence > sent.offset:
                    typer.echo("ingested")
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError as exc:
        raise StoreUnavailable(
            f"the event is in topic {sent.topic}, but no worker has ingested it within {timeout_s:g} s: is one running?"
        ) from exc


def find_group(catalog: Catalog, name: str) -> FeatureGroup:
    """A group by name.

    Raises:
        UnknownGroup: There is none; in oomcli's words, which scripts look for.
    """
    from oomstream.schemas.errors import UnknownGroup

    if name not in catalog.groups:
        known = ", ".join(sorted(catalog.groups)) or "none"
        raise UnknownGroup(f"group is empty or does not exist: {name!r} (registered: {known})")
    return catalog.groups[name].group


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
            known = ", ".join(each.name for each in group.features) or "none"
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
