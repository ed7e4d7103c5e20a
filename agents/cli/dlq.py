"""`oomstream dlq`: looking at dead letters, and replaying them after a fix."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oomstream.agents.cli.dlq_replay import replay
from oomstream.agents.cli.letters import (
    Group,
    Reason,
    Since,
    Until,
    letters_of,
    refuse_unknown_topic,
    selection,
    stream_groups,
    visible_letters,
)
from oomstream.agents.cli.options import Output
from oomstream.agents.cli.output import Listing, OutputFormat, print_listing

if TYPE_CHECKING:
    from oomstream.streams.dead_letters import DeadLetter
    from oomstream.streams.letters import Listed, Selection

app = typer.Typer(help="Look at dead letters, events that were refused, and replay them.", no_args_is_help=True)
app.command("replay", epilog="Example: oomstream dlq replay -g plane --reason unknown_fingerprint")(replay)

COLUMNS = ["TOPIC", "PARTITION", "OFFSET", "TIME", "STATE", "REASON", "MESSAGE"]
LISTED = 100
_HEX_ROW = 16


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.add_typer(app, name="dlq", rich_help_panel="Run")


@app.command("list", epilog="Example: oomstream dlq list -g plane --reason wrong_type --open")
def list_letters(
    group: Group = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are not replayed.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-l", metavar="N", min=1, help="At most this many.")] = LISTED,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """List dead letters, each once, with what was wrong, in order of topic, partition and offset.

    STATE is `replayed` if the event is in history by now, else `open`: letters stay in their topic for ever. A terminal
    shows topic, partition and offset as one EVENT, as `dlq show` takes it.
    """
    meant = selection(reason=reason, since=since, until=until)
    listed = asyncio.run(_listed(group, meant, only_open, limit + 1))
    listing = Listing(COLUMNS, [_row(each) for each in listed[:limit]])
    in_terminal = output in {OutputFormat.ASCII_TABLE, OutputFormat.COLUMN} and sys.stdout.isatty()
    print_listing(for_terminal(listing) if in_terminal else listing, output)
    if len(listed) > limit:
        typer.echo(f"(the first {limit} in order of topic, partition and offset; for more see --limit)", err=True)


def for_terminal(listing: Listing) -> Listing:
    """The listing of dead letters with few enough columns for a narrow terminal, of which messages wrap."""
    rows = [
        [
            f"{topic} {partition} {offset}",
            time.replace(microsecond=0),
            reason if state == "open" else f"{reason}\n({state})",
            message,
        ]
        for topic, partition, offset, time, state, reason, message in listing.rows
    ]
    return Listing(["EVENT", "TIME", "REASON", "MESSAGE"], rows, unbroken={"EVENT", "TIME"})


@app.command("show", epilog="Example: oomstream dlq show plane 0 17")
def show(
    topic: Annotated[str, typer.Argument(help="Topic of the event.", show_default=False)],
    partition: Annotated[int, typer.Argument(help="Its partition.", min=0, show_default=False)],
    offset: Annotated[int, typer.Argument(help="Its offset.", min=0, show_default=False)],
    value_file: Annotated[
        Path | None,
        typer.Option("--value-file", "-O", metavar="FILE", help="Write the value's bytes here.", show_default=False),
    ] = None,
) -> None:
    """Show one dead letter whole: why it was refused, its key, headers and value."""
    from oomstream.schemas.errors import InvalidRequest

    letters = asyncio.run(visible_letters(topic))
    found = [each for each in letters if (each.partition, each.offset) == (partition, offset)]
    if not found:
        refuse_unknown_topic(topic)
        raise InvalidRequest(f"topic {topic} has no dead letter of partition {partition}, offset {offset}")
    for letter in found:
        _print_letter(letter)
    if value_file is not None:
        value_file.write_bytes(found[-1].value or b"")
        typer.echo(f"value written to {value_file}")


async def _listed(group: str | None, meant: Selection, only_open: bool, limit: int) -> Sequence[Listed]:
    from oomstream.agents.cli.session import open_history, settings
    from oomstream.stores.catalog_cache import CatalogCache
    from oomstream.streams.letters import first_letters, not_forgotten

    async with open_history(settings()) as history:
        catalog = CatalogCache(history)
        groups = stream_groups(await catalog.get(), group)
        by_group = [(each, not_forgotten(catalog.marks, each, letters_of(each.topic))) for each in groups]
        return await first_letters(history, by_group, meant, limit=limit, only_open=only_open)


def _row(listed: Listed) -> list[Any]:
    from oomstream.schemas.types import time_from_us

    letter = listed.letter
    time, state = time_from_us(letter.timestamp * 1000), "replayed" if listed.replayed else "open"
    return [letter.topic, letter.partition, letter.offset, time, state, letter.reason, letter.message]


def _print_letter(letter: DeadLetter) -> None:
    from oomstream.agents.cli.output import time_text
    from oomstream.schemas.types import time_from_us

    lines = {
        "topic": f"{letter.topic}  (id {letter.incarnation})",
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "time": time_text(time_from_us(letter.timestamp * 1000)),
        "stage": letter.stage,
        "reason": letter.reason,
        "message": letter.message,
        "key": _shown(letter.key),
        "headers": "none" if not letter.headers else "",
    }
    for name, text in lines.items():
        typer.echo(f"{name:<10} {text}".rstrip())
    for name, raw in letter.headers:
        typer.echo(f"  {name}: {_shown(raw)}")
    value = letter.value
    typer.echo("value      " + ("null (a delete)" if value is None else f"{len(value):,} bytes"))
    sys.stdout.writelines(_dump(value or b""))


def _shown(raw: bytes | None) -> str:
    if raw is None:
        return "null"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"bytes {raw.hex(' ')}"
    return text if text.isprintable() else f"bytes {raw.hex(' ')}"


def _dump(raw: bytes) -> Iterator[str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    # A terminal must not be given whatever bytes somebody sent: what is not plain text is shown in hexadecimal.
    if text.replace("\n", "").replace("\t", "").isprintable():
        yield from (f"  {line}\n" for line in text.splitlines())
        return
    for at in range(0, len(raw), _HEX_ROW):
        row = raw[at : at + _HEX_ROW]
        plain = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"  {at:08x}  {row.hex(' '):<{_HEX_ROW * 3}} {plain}\n"
