"""Building a training set: labels in, history read at one cut, features out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa

from oomstream.query.arrow import Chunked, numbers, pc, table_of
from oomstream.query.columns import PART_ROWS, plain_type, scan_rows, typed_column
from oomstream.query.engine import GroupJoin
from oomstream.query.key_columns import ENTITY_KEY, find_key_columns
from oomstream.query.label_columns import (
    csv_key_type,
    key_column,
    key_splits,
    label_times,
    once,
    pushed_keys,
    time_column,
)
from oomstream.query.labels import Labels, read_labels
from oomstream.query.ranges import RANGE_BYTES, RANGE_ROWS
from oomstream.query.revision_join import join_revisions, timeline
from oomstream.query.seeking import seek_features
from oomstream.query.training_set import TrainingSet
from oomstream.schemas.errors import InvalidEvent, InvalidLabels, InvalidTime
from oomstream.schemas.events import Plain
from oomstream.schemas.groups import Category, Feature, FeatureGroup
from oomstream.schemas.types import MAX_TIME_US, MIN_TIME_US, time_from_us, us_from_text, us_from_time
from oomstream.stores.base import Cut, HistoryStore


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What a training set is made of.

    Attributes:
        features: Group and feature of every column, in the order asked.
        timestamp_column: Name of the label time column; None = by its usual names.
        as_of_us: Only rows ingested by then, UTC microseconds; None = all.
        available: Only rows ingested by the label time.
        range_rows: Rows of history that are joined at a time, about.
        range_bytes: Bytes of history that are joined at a time, about.
    """

    features: Sequence[tuple[FeatureGroup, Feature]]
    timestamp_column: str | None = None
    as_of_us: int | None = None
    available: bool = False
    range_rows: int = RANGE_ROWS
    range_bytes: int = RANGE_BYTES

    def by_group(self) -> list[tuple[FeatureGroup, list[Feature]]]:
        """The groups in the order in which they are first asked for, each with its features."""
        found: dict[str, tuple[FeatureGroup, list[Feature]]] = {}
        for group, feature in self.features:
            found.setdefault(group.name, (group, []))[1].append(feature)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Labels, checked: their times and the keys of each entity, in plain form."""

    labels: Labels
    times: Chunked
    keys: Mapping[str, list[Chunked]]


def time_us_of(time: datetime | str | int | None, name: str) -> int | None:
    """UTC microseconds of a time that a caller passed in: a datetime (naive = UTC), RFC 3339 text, or microseconds.

    Args:
        time: The time; None stays None.
        name: What to call it in an error.

    Raises:
        InvalidTime: It is none of these, or outside the years 1 to 9999.
    """
    if time is None:
        return None
    time_us = _us_of(time, name)
    if not MIN_TIME_US <= time_us <= MAX_TIME_US:
        raise InvalidTime(f"{name} is outside the years 1 to 9999")
    return time_us


def _us_of(time: datetime | str | int, name: str) -> int:
    if type(time) is int:
        return time
    if isinstance(time, datetime):
        return us_from_time(time)
    try:
        if isinstance(time, str):
            return us_from_text(time)
    except InvalidEvent as exc:
        raise InvalidTime(f"{name} {exc}") from exc
    raise InvalidTime(
        f"{name} is of type {type(time).__name__}; pass a datetime or RFC 3339 text such as 2024-05-01T12:00:00Z"
    )


async def build_training_set(history: HistoryStore, labels: Any, request: TrainingRequest) -> TrainingSet:
    """Join labels with the values that were right at their times.

    Args:
        history: Open history store.
        labels: Label table in any form that `read_labels` takes.
        request: What to join.

    Raises:
        InvalidLabels: A column is missing or holds a wrong value.
        InvalidTime: `as_of` is not settled yet.
        StoreUnavailable: History cannot be read.
    """
    prepared = await asyncio.to_thread(_prepared, labels, request)
    async with history.cut() as cut:
        if request.as_of_us is not None:
            _check_settled(request.as_of_us, cut.now_us, history)
        columns: dict[str, Chunked] = {}
        for group, features in request.by_group():
            found = await _join_group(cut, group, features, prepared, request)
            columns.update(await asyncio.to_thread(_typed, group, features, found))
    names = [f"{group.name}.{feature.name}" for group, feature in request.features]
    return TrainingSet(prepared.labels, table_of({name: columns[name] for name in names}))


def _check_settled(as_of: int, now_us: int, history: HistoryStore) -> None:
    newest = now_us - int(history.transaction_limit_s * 1_000_000)
    if as_of > newest:
        raise InvalidTime(
            f"as_of {time_from_us(as_of).isoformat()} is not settled in {history.url}, where a transaction may take "
            f"{history.transaction_limit_s:g} s: the newest possible is {time_from_us(newest).isoformat()}"
        )


def _prepared(labels: Any, request: TrainingRequest) -> _Prepared:
    try:
        return _prepare(labels, request)
    except pa.ArrowException as exc:  # what no check of ours foresaw, such as 2 GiB of keys in one array
        raise InvalidLabels(f"labels: a column cannot be read ({type(exc).__name__})") from exc


def _prepare(labels: Any, request: TrainingRequest) -> _Prepared:
    groups = [group for group, _ in request.by_group()]
    csv_types = {
        name: csv_key_type(key)
        for group in groups
        for key in group.keys
        for name in (key.name, f"{group.entity}.{key.name}")
    }
    only_keys = {key for group in groups for key in group.keys}
    if len(only_keys) == 1:
        csv_types[ENTITY_KEY] = csv_key_type(only_keys.pop())
    table = read_labels(labels, text_columns=csv_types)
    taken = {f"{group.name}.{feature.name}" for group, feature in request.features}.intersection(table.names)
    if taken:
        raise InvalidLabels(f"labels: column {min(taken)!r} has the name of a feature that is asked for")
    time_name = time_column(table, request.timestamp_column)
    columns = find_key_columns(groups, table.names, where="labels", error=InvalidLabels)
    keys = {
        group.entity: [
            key_column(once(table, name), key, name)
            for name, key in zip(columns[group.entity], group.keys, strict=True)
        ]
        for group in groups
    }
    return _Prepared(table, label_times(once(table, time_name), time_name), keys)


def _label_side(prepared: _Prepared, group: FeatureGroup) -> pa.Table:
    """The labels of one group's entity: keys, time, row number; rows with a null in the key are left out."""
    keys = {f"k{at}": column for at, column in enumerate(prepared.keys[group.entity])}
    side = table_of({**keys, "t": prepared.times, "r": numbers(len(prepared.times))})
    for name in keys:
        if side.column(name).null_count:
            side = side.filter(pc.is_valid(side.column(name)))
    return side


async def _join_group(
    cut: Cut, group: FeatureGroup, features: list[Feature], prepared: _Prepared, request: TrainingRequest
) -> pa.Table:
    names = [feature.name for feature in features]
    labels = await asyncio.to_thread(_label_side, prepared, group)
    rows = len(prepared.times)
    schema = pa.schema([pa.field(feature.name, plain_type(feature.type)) for feature in features])
    join = partial(GroupJoin, group, names, range_rows=request.range_rows, range_bytes=request.range_bytes)
    if group.category is Category.BATCH:
        states = timeline(await cut.revisions(group), as_of_us=request.as_of_us, available=request.available)
        return await join_revisions(cut, group, names, labels, states, join, schema, rows=rows)
    of_group = join(labels, rows, cut.kinds, available=request.available)
    if labels.num_rows:
        keys = await asyncio.to_thread(pushed_keys, labels, len(group.keys))
        if request.as_of_us is None and not request.available:
            batch_rows = scan_rows(len(names) + 2)
            found = await seek_features(cut, group, names, labels, schema, keys=keys, rows=rows, batch_rows=batch_rows)
            if found is not None:
                return found
        await _scan_into(of_group, cut, group, names, labels, keys, request)
    return await asyncio.to_thread(of_group.finish, schema)


async def _scan_into(
    join: GroupJoin,
    cut: Cut,
    group: FeatureGroup,
    names: list[str],
    labels: pa.Table,
    keys: list[tuple[Plain, ...]] | None,
    request: TrainingRequest,
) -> None:
    """Scan what the labels can need, and join each table while the next one is being read."""
    span = pc.min_max(labels.column("t")).as_py()
    ingested = [time for time in (request.as_of_us, span["max"] if request.available else None) if time is not None]
    limits: dict[str, Any] = {
        "min_event_time_us": None if group.ttl_us is None else max(MIN_TIME_US, span["min"] - group.ttl_us),
        "max_event_time_us": span["max"],
        "max_ingest_time_us": min(ingested, default=None),
    }
    columns = len(names) + len(group.keys) + 5
    if keys is None:
        splits = await asyncio.to_thread(key_splits, labels)
        batch_rows = scan_rows(columns if request.available else columns - 3, PART_ROWS)
        scan = cut.scan_in_parts(
            group, names, splits=splits, batch_rows=batch_rows, versions=request.available, **limits
        )
    else:
        scan = cut.scan(group, names, keys=keys, batch_rows=scan_rows(columns), **limits)
    joining: asyncio.Task[None] | None = None
    try:
        async for rows in scan:
            if joining is not None:
                await joining
            joining = asyncio.create_task(asyncio.to_thread(join.feed, rows))
            del rows  # a table is large, and the next one is read meanwhile
        if joining is not None:
            await joining
    finally:
        if joining is not None:
            # It ends by itself; of two errors the first one is raised.
            await asyncio.gather(joining, return_exceptions=True)
        if isinstance(scan, AsyncGenerator):
            await scan.aclose()


def _typed(group: FeatureGroup, features: Sequence[Feature], plain: pa.Table) -> dict[str, Chunked]:
    return {f"{group.name}.{each.name}": typed_column(plain.column(each.name), each.type) for each in features}
