"""`oomstream dlq`: looking at dead letters."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oomstream.agents.cli.options import Output
from oomstream.agents.cli.output import Listing, OutputFormat, print_listing

if TYPE_CHECKING:
    from oomstream.streams.dead_letters import DeadLetter

app = typer.Typer(help="Look at dead letters: events that were refused.", no_args_is_help=True)

LISTED = 100
_HEX_ROW = 16


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.add_typer(app, name="dlq", rich_help_panel="Run")


@app.command("list", epilog="Example: oomstream dlq list -g plane --reason wrong_type")
def list_letters(
    group: Annotated[str | None, typer.Option("--group", "-g", metavar="G", help="Only of this group.")] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="CODE", help="Only those refused for this reason.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="At most this many.")] = LISTED,
    output: Output = OutputFormat.ASCII_TABLE,
) -> None:
    """List dead letters, each once, with what was wrong, in order of topic, partition and offset.

    A terminal shows the three as one EVENT, as `dlq show` takes it.
    """
    # Rows without the events' values, and no more of them than are shown: a dead-letter topic may be long.
    wanted = (_row(letter) for letter in _letters(group) if reason is None or letter.reason == reason)
    rows = heapq.nsmallest(limit + 1, wanted, key=itemgetter(0, 1, 2))
    listing = Listing(["TOPIC", "PARTITION", "OFFSET", "TIME", "REASON", "MESSAGE"], rows[:limit])
    in_terminal = output in {OutputFormat.ASCII_TABLE, OutputFormat.COLUMN} and sys.stdout.isatty()
    print_listing(for_terminal(listing) if in_terminal else listing, output)
    if len(rows) > limit:
        typer.echo(f"(the first {limit} in order of topic, partition and offset; for more see --limit)", err=True)


def for_terminal(listing: Listing) -> Listing:
    """The listing of dead letters with few enough columns for a narrow terminal, of which messages wrap."""
    rows = [
        [f"{topic} {partition} {offset}", time.replace(microsecond=0), reason, message]
        for topic, partition, offset, time, reason, message in listing.rows
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
    from oomstream.agents.cli.session import settings
    from oomstream.schemas.errors import InvalidRequest
    from oomstream.streams.broker import need_broker
    from oomstream.streams.dlq_topic import read_dead_letters

    chosen = settings()
    letters = read_dead_letters(need_broker(chosen), topic, timeout_s=chosen.call_timeout_us / 1e6)
    found = [each for each in letters if (each.partition, each.offset) == (partition, offset)]
    if not found:
        _refuse_unknown_topic(topic)
        raise InvalidRequest(f"topic {topic} has no dead letter of partition {partition}, offset {offset}")
    for letter in found:
        _print_letter(letter)
    if value_file is not None:
        value_file.write_bytes(found[-1].value or b"")
        typer.echo(f"value written to {value_file}")


def _refuse_unknown_topic(name: str) -> None:
    from oomstream.agents.cli.session import load_catalog
    from oomstream.schemas.errors import InvalidRequest
    from oomstream.streams.topics import topics_of

    groups = [each.group for each in asyncio.run(load_catalog()).groups.values()]
    topics = sorted(each.letters_of for each in topics_of(groups) if each.letters_of)
    if name not in topics:
        raise InvalidRequest(f"no registered group has a topic named {name!r} (topics: {', '.join(topics) or 'none'})")


def _letters(group: str | None) -> Iterator[DeadLetter]:
    from oomstream.agents.cli.session import load_catalog, settings
    from oomstream.streams.broker import need_broker
    from oomstream.streams.dlq_topic import read_dead_letters
    from oomstream.streams.topics import topics_of

    chosen = settings()
    broker = need_broker(chosen)
    catalog = asyncio.run(load_catalog())
    groups = [catalog.group(group)] if group is not None else [each.group for each in catalog.groups.values()]
    for topic in topics_of(groups):
        if topic.letters_of:
            yield from read_dead_letters(broker, topic.letters_of, timeout_s=chosen.call_timeout_us / 1e6)


def _row(letter: DeadLetter) -> list[Any]:
    from oomstream.schemas.types import time_from_us

    time = time_from_us(letter.timestamp * 1000)
    return [letter.topic, letter.partition, letter.offset, time, letter.reason, letter.message]


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
