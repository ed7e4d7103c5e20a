"""`oomstream verify`, `repair` and `gc`: proof that online equals history, and what mends and tidies it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from oomstream.agents.cli.options import Output
from oomstream.agents.cli.output import Listing, OutputFormat, counted, print_listing, text_of
from oomstream.schemas.errors import OomstreamError

if TYPE_CHECKING:
    from oomstream.schemas.catalog import Catalog, RegisteredGroup
    from oomstream.streams.repair import Repaired
    from oomstream.streams.verify import Verification

PANEL = "Check and mend"

NAMED = 10
"""How many differing entities the error names; `-o json` has more."""

Groups = Annotated[
    list[str] | None, typer.Option("--group", "-g", metavar="GROUP", help="Only this group; repeatable. Default: all.")
]


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("verify", rich_help_panel=PANEL, epilog="Example: oomstream verify -g plane --sample 0.1")(verify)
    parent.command("repair", rich_help_panel=PANEL, epilog="Example: oomstream repair -g plane")(repair)
    parent.command("gc", rich_help_panel=PANEL, epilog="Example: oomstream gc --older-than 30m")(gc)


def verify(
    group: Groups = None,
    sample: Annotated[
        float, typer.Option(help="Share of the entities to look at, chosen by their keys.", min=0.0, max=1.0)
    ] = 1.0,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """Check that online equals the newest row of history, for every entity.

    Safe beside running workers: it looks again at what may still be on its way. Exit code 1 if anything differs; the
    first differing keys are printed.
    """
    results = asyncio.run(_verify(group, sample))
    rows = [[each.group, each.entities, each.differing] for each in results]
    detail = [
        {
            "positions": {str(source): sequence for source, sequence in sorted(each.positions.items())},
            "first": [{"key": _key_text(found.key), "finding": found.finding.value} for found in each.first],
        }
        for each in results
    ]
    print_listing(Listing(["GROUP", "ENTITIES", "DIFFERING"], rows, detail=detail), output)
    differing = sum(each.differing for each in results)
    if differing:
        first = [f"{at.group} {_key_text(at.key)}: {at.finding}" for each in results for at in each.first][:NAMED]
        dots = "; …" if differing > len(first) else ""
        raise OomstreamError(
            f"online differs from history in {counted(differing, 'entity', 'entities')} ({'; '.join(first)}{dots}): "
            "`oomstream repair` derives them again"
        )


def repair(group: Groups = None, output: Output = OutputFormat.ASCII_TABLE) -> None:
    """Derive online rows from history again, beside running workers.

    Writes rows that are missing, older or of the same version with other bytes; removes rows that history does not
    have. No row moves backwards. Fills an online store that was lost (after `oomstream init`).
    """
    results = asyncio.run(_repair(group))
    rows = [[each.group, each.entities, each.written, each.removed] for each in results]
    print_listing(Listing(["GROUP", "ENTITIES", "WRITTEN", "REMOVED"], rows), output)


def gc(
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Keep values replaced within this time; at least 10m.")
    ] = "30m",
) -> None:
    """Let the online store forget values that were replaced long ago.

    Only TiKV keeps them, and only where no TiDB looks after it; workers do this by themselves.
    """
    from oomstream.agents.cli.session import settings
    from oomstream.schemas.durations import parse_duration_us
    from oomstream.stores.opening import open_stores

    try:
        older_than_us = parse_duration_us(older_than)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--older-than") from exc

    async def run() -> bool:
        async with open_stores(settings()) as (_, online):
            return await online.gc(older_than_us / 1e6)

    moved = asyncio.run(run())
    typer.echo(
        f"values replaced more than {older_than} ago may be removed now" if moved else "nothing to do for this store"
    )


async def _verify(groups: Sequence[str] | None, sample: float) -> list[Verification]:
    from oomstream.agents.cli.session import settings
    from oomstream.stores.opening import open_stores
    from oomstream.streams.verify import Verifier

    async with open_stores(settings()) as (history, online):
        verifier = Verifier(history, online, sample=sample)
        chosen = _chosen(await history.load_catalog(), groups)
        results: list[Verification] = []
        with _progress() as show:
            for number, each in enumerate(chosen, 1):
                done = counted(sum(result.entities for result in results), "entity", "entities")
                show(f"verifying {each.group.name} (group {number} of {len(chosen)}; {done} so far)")
                results.append(await verifier.verify(each))
        return results


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A spinner beside the text that it is given, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("verifying") as shown:
        yield shown.update


async def _repair(groups: Sequence[str] | None) -> list[Repaired]:
    from oomstream.agents.cli.session import settings
    from oomstream.stores.opening import open_stores
    from oomstream.streams.repair import repair as repair_group

    async with open_stores(settings()) as (history, online):
        return [await repair_group(history, online, each) for each in _chosen(await history.load_catalog(), groups)]


def _chosen(catalog: Catalog, groups: Sequence[str] | None) -> list[RegisteredGroup]:
    """The stream groups asked for, in order; all of them if none was named."""
    from oomstream.schemas.groups import Category

    names = groups or sorted(catalog.groups)
    registered = [catalog.groups[catalog.group(name).name] for name in names]
    return [each for each in registered if each.group.category is Category.STREAM]


def _key_text(key: Sequence[object]) -> str:
    return ",".join(text_of(part) for part in key)
