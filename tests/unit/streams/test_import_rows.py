"""What a file holds is what is imported: any group, any values, in every format."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.codec import BodyCodec
from oomstream.schemas.decode import EventLimits
from oomstream.schemas.events import RawRecord
from oomstream.schemas.framing import frame
from oomstream.schemas.types import Kind
from oomstream.stores.revisions import RevisionRow
from oomstream.streams.import_files import row_batches
from oomstream.streams.import_rows import EventReader, RevisionReader
from tests.unit.schemas.definitions import NOW_MS, any_group, field, registered
from tests.unit.streams.files import SUFFIXES, timed, write_file

ANY_GROUP = any_group()
SETTINGS = settings(deadline=None, max_examples=60)


def events_in(path: Path, group: RegisteredGroup, delimiter: str = ",") -> list[RawRecord]:
    """Every row of a file as a record of a log."""

    async def read() -> list[RawRecord]:
        records: list[RawRecord] = []
        reader = None
        async with aclosing(row_batches(path, delimiter)) as batches:
            async for batch in batches:
                reader = reader or EventReader(group.group, batch, EventLimits(), NOW_MS, where=path.name)
                records += reader.records(batch)
        return records

    return asyncio.run(read())


def rows_in(path: Path, group: RegisteredGroup) -> list[RevisionRow]:
    """Every row of a file as a row of a revision."""

    async def read() -> list[RevisionRow]:
        rows: list[RevisionRow] = []
        reader = None
        async with aclosing(row_batches(path)) as batches:
            async for batch in batches:
                reader = reader or RevisionReader(group, batch, where=path.name)
                rows += reader.rows(batch)
        return rows

    return asyncio.run(read())


def as_cells_say(group: RegisteredGroup, row: dict[str, Any]) -> dict[str, Any]:
    """A row that CSV can hold: no empty text is told from null, and no empty bytes are."""
    said = dict(row)
    for feature in group.group.features:
        if feature.type.kind is Kind.STRING:
            said[feature.name] = said[feature.name] or ""
        elif said[feature.name] == b"":
            said[feature.name] = b"\0"
    return said


@SETTINGS
@given(st.data(), st.sampled_from(SUFFIXES))
def test_any_events_come_back_from_every_format(data: st.DataObject, suffix: str) -> None:
    """Any values of any stream group, written to a file and read, are the bytes that a producer makes of them."""
    any_one = data.draw(ANY_GROUP)
    group = registered(any_one.schema)
    rows = data.draw(st.lists(any_one.events, max_size=12))
    if suffix == ".csv":
        rows = [as_cells_say(group, row) for row in rows]
    names = data.draw(st.permutations([each["name"] for each in any_one.schema["fields"]]))
    delimiter = data.draw(st.sampled_from(",;\t|")) if suffix == ".csv" else ","
    codec = BodyCodec(group)
    expected = [frame(group.group.fingerprint, codec.encode_python(row).body) for row in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        write_file(path, group.group, timed(group.group, rows), names, delimiter)
        records = events_in(path, group, delimiter)
    assert [record.value for record in records] == expected
    assert [record.offset for record in records] == list(range(len(rows)))


@SETTINGS
@given(st.data(), st.sampled_from(SUFFIXES))
def test_any_rows_come_back_from_every_format(data: st.DataObject, suffix: str) -> None:
    """Any values of any batch group, written to a file and read, are the plain values that a push of them has."""
    any_one = data.draw(any_group())
    declared = {name: value for name, value in any_one.schema.items() if name != "event_time"}
    declared["fields"] = [each for each in declared["fields"] if each["name"] != "at"]
    if len(declared["fields"]) == len(declared["keys"]):
        declared["fields"] = [*declared["fields"], field("f0", ["null", "long"])]
    group = registered({**declared, "category": "batch"})
    drawn = data.draw(st.lists(any_one.events, max_size=12))
    rows = [{"f0": None} | {name: value for name, value in row.items() if name != "at"} for row in drawn]
    rows = [{each["name"]: row[each["name"]] for each in declared["fields"]} for row in rows]
    if suffix == ".csv":
        rows = [as_cells_say(group, row) for row in rows]
    codec = BodyCodec(group)
    expected = [codec.encode_python(row) for row in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        write_file(path, group.group, rows, [each["name"] for each in declared["fields"]])
        found = rows_in(path, group)
    assert [(row.key, row.values) for row in found] == [(each.key, each.values) for each in expected]
