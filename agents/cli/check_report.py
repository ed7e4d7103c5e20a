"""What `oomstream verify` and `repair` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from oomstream.agents.cli.output import Listing, OutputFormat, counted, plain_json, print_listing, text_of, time_text
from oomstream.schemas.errors import OomstreamError
from oomstream.schemas.groups import Category
from oomstream.schemas.versions import SourceKind

if TYPE_CHECKING:
    from oomstream.schemas.groups import FeatureGroup
    from oomstream.stores.base import Source
    from oomstream.streams.judging import Side
    from oomstream.streams.log_result import LogCheck, LogDifference, PartitionCheck
    from oomstream.streams.repair import Repaired
    from oomstream.streams.verification import Difference, LiveCopy, Verification

NAMED = 10
"""How many differing entities the error names."""

TABLES = frozenset({OutputFormat.ASCII_TABLE, OutputFormat.COLUMN})

_LOG_COLUMNS = {
    "TOPIC": "topic",
    "PARTITION": "partition",
    "POSITION": "position",
    "DROPPED": "dropped",
    "RECORDS": "records",
    "EVENTS": "events",
    "LETTERS": "letters",
    "LOST": "lost",
    "EXTRA": "extra",
    "DIFFERING": "differing",
    "NO-LETTER": "letters_missing",
    "STRAY-LETTER": "letters_extra",
}


def print_verification(
    results: Sequence[Verification],
    checks: Sequence[LogCheck],
    groups: Mapping[str, FeatureGroup],
    form: OutputFormat,
) -> None:
    """Print counts, positions and the first differences.

    Args:
        results: Of each group, online against history.
        checks: Of each group, history against the log; empty if that was not asked for.
        groups: The groups by name.
        form: How to print it.

    Raises:
        OomstreamError: There are differences; names the first.
    """
    columns = ["GROUP", "ENTITIES", "DIFFERING", "MOVING"]
    rows = [[each.group, each.entities, each.differing, each.moving] for each in results]
    detail: list[dict[str, Any]] = [
        {
            "positions": _positions(each, groups[each.group]),
            **_copy(each.copy),
            "first": [_difference(found, each.sources, groups[each.group]) for found in each.first],
        }
        for each in results
    ]
    at = {each.group: detail[number] for number, each in enumerate(results)}
    for check in checks:
        at[check.group]["log"] = _log(check, groups[check.group])
    names = [name.lower() for name in columns]
    documents = [{**dict(zip(names, row, strict=True)), **more} for row, more in zip(rows, detail, strict=True)]
    print_listing(Listing(columns, rows, detail=detail, documents=documents), form)
    if form in TABLES:
        _print_positions(results, groups, form)
        _print_copies(results, groups, form)
        moving = sum(each.moving for each in results)
        if moving:
            typer.echo(f"{counted(moving, 'entity', 'entities')} never stood still, and were judged at the positions")
        _print_differences(results, groups, form)
        if checks:
            _print_log(checks, groups, form)
            _print_untopical(results)
    _raise_if_differing(results, checks, groups)


def _raise_if_differing(
    results: Sequence[Verification], checks: Sequence[LogCheck], groups: Mapping[str, FeatureGroup]
) -> None:
    said = []
    wrong = sum(each.wrong for each in checks)
    if wrong:
        first = [f"{at.topic}[{at.partition}] {at.offset}: {at.finding}" for each in checks for at in each.first]
        said.append(f"history differs from the log at {counted(wrong, 'offset', 'offsets')} ({_some(first, wrong)})")
    differing = sum(each.differing for each in results)
    if differing:
        first = [
            f"{at.group} {key_text(at.key, groups[at.group])}: {at.finding}" for each in results for at in each.first
        ]
        said.append(
            f"online differs from history in {counted(differing, 'entity', 'entities')} ({_some(first, differing)}): "
            f"`oomstream repair` derives them again{' from history as it is' if wrong else ''}"
        )
    if said:
        raise OomstreamError("; ".join(said))


def _some(first: Sequence[str], of: int) -> str:
    named = first[:NAMED]
    return "; ".join(named) + ("; …" if of > len(named) else "")


def key_text(key: Sequence[Any], group: FeatureGroup) -> str:
    """An entity key as `-k` takes it; nothing stands for all of a copy."""
    if not key:
        return "(the whole copy)"
    if len(key) != len(group.keys):
        return " ".join(map(text_of, key))
    try:
        values = [field.type.python_from_plain(part) for part, field in zip(key, group.keys, strict=True)]
    except (ValueError, OverflowError, TypeError):
        values = list(key)  # bytes that are no key of this group
    if len(values) == 1:
        return text_of(values[0])
    return ",".join(f"{field.name}={text_of(value)}" for field, value in zip(group.keys, values, strict=True))


def _positions(result: Verification, group: FeatureGroup) -> list[dict[str, Any]]:
    return [
        {
            "source": each.id,
            "kind": each.name.kind.name.lower(),
            "name": each.name.name,
            "partition": each.name.partition,
            "incarnation": each.name.incarnation,
            "position": each.online_sequence,
        }
        for each in _of_group(result.sources, group)
    ]


def _of_group(sources: Sequence[Source], group: FeatureGroup) -> list[Source]:
    """Sources that can have events of a group."""
    return [each for each in sources if each.name.kind is not SourceKind.TOPIC or each.name.name == group.topic]


def _print_positions(results: Sequence[Verification], groups: Mapping[str, FeatureGroup], form: OutputFormat) -> None:
    rows: list[list[Any]] = []
    for result in results:
        sources = _of_group(result.sources, groups[result.group])
        newest = {each.name.name: each.name.incarnation for each in sources if each.name.kind is SourceKind.TOPIC}
        ended = [each for each in sources if each.name.incarnation != newest.get(each.name.name, each.name.incarnation)]
        for each in sources:
            if each not in ended:
                name = each.name
                partition = name.partition if name.kind is SourceKind.TOPIC else None
                rows.append([result.group, name.kind.name.lower(), name.name, partition, each.online_sequence])
        if ended:
            rows.append([result.group, "topic", f"({counted(len(ended), 'partition', 'partitions')} of earlier logs)"])
            rows[-1] += [None, None]
    if rows:
        typer.echo("compared at these positions: every event before them counts, later ones where they had settled")
        print_listing(Listing(["GROUP", "KIND", "SOURCE", "PARTITION", "POSITION"], rows), form)


def _copy(copy: LiveCopy | None) -> dict[str, int]:
    return {} if copy is None else {"revision": copy.revision.id, "copy": copy.sync.id}


def _print_copies(results: Sequence[Verification], groups: Mapping[str, FeatureGroup], form: OutputFormat) -> None:
    of_batch = [each for each in results if groups[each.group].category is Category.BATCH]
    rows = [[each.group, each.copy.revision.id, each.copy.sync.id] for each in of_batch if each.copy is not None]
    if rows:
        typer.echo("compared with these revisions, in the copies that readers see:")
        print_listing(Listing(["GROUP", "REVISION", "COPY"], rows), form)
    for each in of_batch:
        if each.copy is None:
            typer.echo(f"{each.group}: nothing of it is online (`oomstream sync`)")


def _print_differences(results: Sequence[Verification], groups: Mapping[str, FeatureGroup], form: OutputFormat) -> None:
    rows = []
    for result in results:
        group = groups[result.group]
        for each in result.first:
            text = _difference(each, result.sources, group)
            rows.append([each.group, text["key"], text["finding"], text["online"], text["history"]])
    if rows:
        typer.echo("the first entities that differ:")
        print_listing(Listing(["GROUP", "KEY", "FINDING", "ONLINE", "HISTORY"], rows), form)


def _difference(found: Difference, sources: Sequence[Source], group: FeatureGroup) -> dict[str, Any]:
    online, history = _sides(found.online, found.history, sources, group)
    return {
        "key": key_text(found.key, group),
        "finding": found.finding.value,
        "online": online,
        "history": history,
    }


def _sides(
    one: Side | None, other: Side | None, sources: Sequence[Source] | None, group: FeatureGroup
) -> tuple[str | None, str | None]:
    """Two sides as text, with the values of features in which they differ; no sources: their place is said already."""
    names: list[str] = []
    if one is not None and other is not None and one.version == other.version:
        mine, theirs = one.values or {}, other.values or {}
        names = [each.name for each in group.features if mine.get(each.name) != theirs.get(each.name)]
    ingested = {None if each is None else each.ingest_time_us for each in (one, other)}
    times = not names and len(ingested) > 1 and None not in ingested
    return _side(one, names, sources, group, times=times), _side(other, names, sources, group, times=times)


def _side(
    side: Side | None, names: Sequence[str], sources: Sequence[Source] | None, group: FeatureGroup, *, times: bool
) -> str | None:
    if side is None:
        return None
    parts = [_time(side.version.event_time_us)]
    if sources is not None:
        parts.append(_place(side, sources))
    if side.deleted:
        parts.append("deleted")
    elif names and side.values is None:
        parts.append("unreadable")
    elif side.values is not None:
        types = {each.name: each.type for each in group.features}
        for name in names:
            value = side.values.get(name)
            parts.append(f"{name}={'null' if value is None else _value(types[name], value)}")
    if times and side.ingest_time_us is not None:
        parts.append(f"ingested {_time(side.ingest_time_us)}")
    return " ".join(parts)


def _value(kind: Any, plain: Any) -> str:
    try:
        return str(plain_json(kind.python_from_plain(plain)))
    except (ValueError, OverflowError, TypeError, ArithmeticError):
        return repr(plain)  # history holds what the type does not


def _time(time_us: int) -> str:
    from oomstream.schemas.types import time_from_us

    try:
        return time_text(time_from_us(time_us))
    except OverflowError:
        return f"{time_us} us"


def _place(side: Side, sources: Sequence[Source]) -> str:
    if not side.version.source_id:  # of a copy: sources have ids from 1
        return f"revision {side.version.sequence}"
    name = next((each.name for each in sources if each.id == side.version.source_id), None)
    if name is None:
        return f"source {side.version.source_id} sequence {side.version.sequence}"
    partition = f"[{name.partition}]" if name.kind is SourceKind.TOPIC else ""
    return f"{name.name}{partition} {side.version.sequence}"


def _log(check: LogCheck, group: FeatureGroup) -> dict[str, Any]:
    return {
        "topic": check.topic,
        "partitions": [{**_counts(each), "before_start": each.before_start} for each in check.partitions],
        "first": [_log_difference(each, group) for each in check.first],
        "notes": list(_notes(check)),
    }


def _counts(check: PartitionCheck) -> dict[str, Any]:
    names = [name for name in _LOG_COLUMNS.values() if name != "topic"]
    return {name: getattr(check, name) for name in (*names, "taken_in", "waiting", "forgotten", "retired", "unjudged")}


def _log_difference(found: LogDifference, group: FeatureGroup) -> dict[str, Any]:
    log, history = _sides(found.log, found.history, None, group)
    return {
        "partition": found.partition,
        "offset": found.offset,
        "finding": found.finding.value,
        "key": None if found.key is None else key_text(found.key, group),
        "log": log,
        "history": history,
    }


def _print_log(checks: Sequence[LogCheck], groups: Mapping[str, FeatureGroup], form: OutputFormat) -> None:
    typer.echo("history and dead letters against the log:")
    rows = [
        [check.topic if name == "topic" else getattr(each, name) for name in _LOG_COLUMNS.values()]
        for check in checks
        for each in check.partitions
    ]
    print_listing(Listing(list(_LOG_COLUMNS), rows), form)
    for check in checks:
        for note in _notes(check):
            typer.echo(f"{check.topic}: {note}")
    first = [
        [check.topic, *_log_difference(each, groups[check.group]).values()] for check in checks for each in check.first
    ]
    if first:
        typer.echo("the first offsets that differ:")
        columns = ["TOPIC", "PARTITION", "OFFSET", "FINDING", "KEY", "LOG", "HISTORY"]
        print_listing(Listing(columns, first), form)


def _print_untopical(results: Sequence[Verification]) -> None:
    """Say of which sources no log is read."""
    kinds = [each.name.kind for each in results[0].sources] if results else []
    others = [each for each in kinds if each is not SourceKind.TOPIC]
    if others:
        typer.echo(
            f"{counted(len(others), 'source', 'sources')} of pushes and imports: they have no topic, and are checked "
            "in the stores alone"
        )


def _notes(check: LogCheck) -> Iterator[str]:
    """What was not compared, and what is worth knowing."""

    def total(name: str) -> int:
        return sum(getattr(each, name) for each in check.partitions)

    if not check.exists:
        yield "the broker has no such topic; nothing was compared"
    if check.earlier:
        yield f"{counted(check.earlier, 'partition', 'partitions')} of earlier logs of this name are no more"
    if dropped := total("dropped"):
        yield f"{counted(dropped, 'offset', 'offsets')} that the log no longer holds were not compared"
    if before := total("before_start"):
        yield f"{counted(before, 'offset', 'offsets')} lie before OOMSTREAM_START"
    if taken_in := total("taken_in"):
        yield f"{counted(taken_in, 'dead letter', 'dead letters')} have their event in history too (replayed)"
    if waiting := total("waiting"):
        yield f"{counted(waiting, 'dead letter', 'dead letters')} would be valid today (`oomstream dlq replay`)"
    if forgotten := total("forgotten"):
        yield f"{counted(forgotten, 'event', 'events')} of forgotten entities are kept out"
    if retired := total("retired"):
        yield f"{counted(retired, 'event', 'events')} are older than the history that is kept (`oomstream gc`)"
    if unjudged := total("unjudged"):
        why = "the topic is compacted" if check.compacted else "the dead-letter topic has dropped letters"
        yield f"of {counted(unjudged, 'offset', 'offsets')} nothing can be said, as {why}"


def print_repair(
    results: Sequence[Repaired],
    groups: Mapping[str, FeatureGroup],
    form: OutputFormat,
    *,
    dry_run: bool,
    left_out: Sequence[str] = (),
) -> None:
    """Print what was mended, or would be.

    Args:
        results: Of each group.
        groups: The groups by name.
        form: How to print it.
        dry_run: Whether nothing was changed.
        left_out: Groups that were not looked at, as a span of time says nothing of them.

    Raises:
        OomstreamError: Some entities cannot be mended.
    """
    columns = ["GROUP", "ENTITIES", "WRITTEN", "REMOVED"]
    rows = [[each.group, each.entities, each.written, each.removed] for each in results]
    detail = [
        {
            **_copy(each.copy),
            "found": {finding.value: count for finding, count in each.found.items()},
            "first": [
                {"key": key_text(one.key, groups[each.group]), "finding": one.finding.value, "removed": one.removed}
                for one in each.first
            ],
        }
        for each in results
    ]
    print_listing(Listing(columns, rows, detail=detail), form)
    first = [
        [result.group, key_text(one.key, groups[result.group]), one.finding.value]
        for result in results
        for one in result.first
    ]
    if first and form in TABLES:
        typer.echo("the first of them:")
        print_listing(Listing(["GROUP", "KEY", "FINDING"], first), form)
    if form in TABLES:
        _print_syncs(results)
        if left_out:
            typer.echo(f"left out, as revisions have no events in a span of time: {', '.join(left_out)}")
    if dry_run and form in TABLES:
        typer.echo("nothing was changed: this is what `oomstream repair` would do")
    unreadable = [each for each in results if each.unreadable]
    if unreadable:
        count = sum(each.unreadable for each in unreadable)
        raise OomstreamError(
            f"{counted(count, 'entity', 'entities')} of {', '.join(each.group for each in unreadable)} cannot be "
            "derived: history holds values there that the definition does not allow"
        )


def _print_syncs(results: Sequence[Repaired]) -> None:
    """Say of batch groups that a repair is a sync."""
    for each in results:
        if each.synced is not None:
            typer.echo(
                f"{each.group}: revision {each.synced.revision_id} was synced again, "
                f"{counted(each.synced.entities, 'entity', 'entities')}; the copy of before goes after "
                f"{each.synced.purge_delay_s:g} s, with the next sync or gc"
            )
        elif each.copy is not None and each.found:
            typer.echo(f"{each.group}: repair syncs revision {each.copy.revision.id} again, as a whole")
