"""`oomstream verify` and `repair`: proof that online equals history, and what mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.options import Output, parse_keys, parse_time
from oomstream.agents.cli.output import OutputFormat, counted, spinner

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog, RegisteredGroup
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.streams.log_result import LogCheck
    from oomstream.streams.repair import Repaired, Scope
    from oomstream.streams.verification import Verification

PANEL = "Check and mend"

Groups = Annotated[
    list[str] | None, typer.Option("--group", "-g", metavar="GROUP", help="Only this group; repeatable. Default: all.")
]


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("verify", rich_help_panel=PANEL, epilog="Example: oomstream verify -g plane --from-topic")(verify)
    parent.command("repair", rich_help_panel=PANEL, epilog="Example: oomstream repair -g plane -k N14228 --dry-run")(
        repair
    )


def verify(
    group: Groups = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Look at so many entities of each group's history or revision only, chosen by the seed.",
            min=1,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Which sample.", min=0)] = 0,
    from_topic: Annotated[
        bool,
        typer.Option("--from-topic", help="Also check history and dead letters against what the topics still hold."),
    ] = False,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """Check that online equals the newest row of history, or the row of its revision, for every entity.

    It says at which positions of the sources that holds, or of which revision. Safe beside running workers and syncs:
    what differs is looked at again until it settles. Exit code 1 if anything differs; the first differences are printed
    with both sides. Events that were pushed with no broker, or imported, have no topic: they are checked in the stores
    alone.
    """
    from oomstream.agents.cli.check_report import print_verification

    results, checks, groups = asyncio.run(_verify(group, sample, seed, from_topic))
    print_verification(results, checks, groups, output)


def repair(
    group: Groups = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--entity-key",
            "-k",
            metavar="KEY",
            help="Only these entities: K1,K2 or, where a key has several fields, f1=v1,f2=v2; repeatable.",
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Only entities with an event at or after this time."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Only entities with an event before this time."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """Derive online rows from history again, beside running workers.

    Writes rows that are missing, older or of the same version with other bytes; removes rows that history does not
    have. No row moves backwards. Fills an online store that was lost (after `oomstream init`). A batch group is mended
    as a whole: the revision that is online is synced again.
    """
    from oomstream.agents.cli.check_report import print_repair

    if keys and (since is not None or until is not None):
        raise typer.BadParameter("-k says which entities already: leave out --since and --until", param_hint="-k")
    results, groups, left_out = asyncio.run(_repair(group, keys or [], since, until, dry_run))
    print_repair(results, groups, output, dry_run=dry_run, left_out=left_out)


async def _verify(
    groups: Sequence[str] | None, sample: int | None, seed: int, from_topic: bool
) -> tuple[list[Verification], list[LogCheck], dict[str, FeatureGroup]]:
    from oomstream.agents.cli.session import settings
    from oomstream.schemas.groups import Category
    from oomstream.stores.opening import open_stores
    from oomstream.streams.broker import need_broker
    from oomstream.streams.registry import RegistrySchemas
    from oomstream.streams.verify import Verifier
    from oomstream.streams.verify_copy import CopyVerifier
    from oomstream.streams.verify_log import LogVerifier

    chosen = settings()
    broker = need_broker(chosen) if from_topic else None
    url, timeout_s = chosen.schema_registry_url, chosen.call_timeout_us / 1e6
    registry = RegistrySchemas(url, timeout_s=timeout_s) if url and from_topic else None
    async with open_stores(chosen) as (history, online):
        registered = _chosen(await history.load_catalog(), groups)
        results: list[Verification] = []
        checks: list[LogCheck] = []
        with spinner("looking") as show:
            for number, each in enumerate(registered, 1):
                name, of = each.group.name, f"group {number} of {len(registered)}"
                entities = _shown(show, f"verifying {name} ({of}; ", ("entity", "entities"), " so far)")
                is_batch = each.group.category is Category.BATCH
                kind: type[CopyVerifier | Verifier] = CopyVerifier if is_batch else Verifier
                results.append(await kind(history, online, sample=sample, seed=seed, progress=entities).verify(each))
                if broker is not None and not is_batch:
                    records = _shown(show, f"reading topic {each.group.topic} ({of}; ", ("record", "records"), ")")
                    log = LogVerifier(history, broker, chosen, registry=registry, progress=records)
                    checks.append(await log.verify(each))
        return results, checks, {each.group.name: each.group for each in registered}


def _shown(show: Callable[[str], None], before: str, words: tuple[str, str], after: str) -> Callable[[int], None]:
    """Shows how far something is, from 0 on."""

    def progress(done: int) -> None:
        show(f"{before}{counted(done, *words)}{after}")

    progress(0)
    return progress


async def _repair(
    groups: Sequence[str] | None,
    keys: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
) -> tuple[list[Repaired], dict[str, FeatureGroup], list[str]]:
    from oomstream.agents.cli.session import settings
    from oomstream.schemas.groups import Category
    from oomstream.stores.opening import open_stores
    from oomstream.streams.repair import Repairer
    from oomstream.streams.repair_copy import CopyRepairer

    chosen = settings()
    async with open_stores(chosen) as (history, online):
        asked = _chosen(await history.load_catalog(), groups)
        scope = _scope([each.group for each in asked], keys, since, until)
        batch = {each.group.name for each in asked if each.group.category is Category.BATCH}
        if scope.in_time and groups and batch:
            raise typer.BadParameter(
                f"group {min(batch)} is a batch group: its revisions have no events in a span of time",
                param_hint="--since, --until",
            )
        left_out = sorted(batch) if scope.in_time else []
        registered = [each for each in asked if each.group.name not in left_out]
        results: list[Repaired] = []
        with spinner("looking") as show:
            for number, each in enumerate(registered, 1):
                before = f"repairing {each.group.name} (group {number} of {len(registered)}; "
                progress = _shown(show, before, ("entity", "entities"), " so far)")
                if each.group.name in batch:
                    max_age_s = chosen.metadata_max_age_us / 1e6
                    copies = CopyRepairer(history, online, dry_run=dry_run, max_age_s=max_age_s, progress=progress)
                    results.append(await copies.repair(each, scope.keys))
                else:
                    repairer = Repairer(history, online, dry_run=dry_run, progress=progress)
                    results.append(await repairer.repair(each, scope))
        return results, {each.group.name: each.group for each in registered}, left_out


def _scope(
    groups: Sequence[FeatureGroup], keys: Sequence[str], since: datetime | None, until: datetime | None
) -> Scope:
    """Which entities of the groups to repair."""
    from oomstream.schemas.keys import key_from_python
    from oomstream.schemas.types import us_from_time
    from oomstream.streams.repair import Scope

    if not keys:
        times = [None if each is None else us_from_time(each) for each in (since, until)]
        return Scope(since_us=times[0], until_us=times[1])
    entities = {group.entity for group in groups}
    if len(entities) != 1:
        raise typer.BadParameter(
            f"keys of which entity? name a group with -g (entities: {', '.join(sorted(entities)) or 'none'})",
            param_hint="-k",
        )
    fields = groups[0].keys
    rows = parse_keys(keys, {field.name: field for field in fields}, entities)
    return Scope(keys=[key_from_python(list(row.values()), fields, where="-k") for row in rows])


def _chosen(catalog: Catalog, groups: Sequence[str] | None) -> list[RegisteredGroup]:
    """The groups asked for, in order; all of them if none was named."""
    return [catalog.groups[catalog.group(name).name] for name in groups or sorted(catalog.groups)]
