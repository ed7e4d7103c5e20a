"""Avro bodies of one record schema, many at a time: read only if beyond doubt, written canonically.

fastavro is fast but accepts too much (a boolean byte 7, a negative union index, trailing bytes). So a body read here
counts only if writing what was read gives the same bytes again. Many bodies are joined into one Avro array, each
followed by a mark; as the mark occurs only where a body ends, and every record read ends with it, each record took
exactly the bytes of its own body. What remains in doubt is for `walker` to judge, one body at a time.

Source:
    Apache Avro 1.12 specification, "Binary Encoding"; the faults of fastavro 1.13 are in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from operator import itemgetter
from typing import Any

import fastavro

from oomstream.schemas.layout import RecordField, bare_record

Record = dict[str, Any]

# Not legal in UTF-8, and no proper prefix of it is a suffix, so that occurrences cannot overlap and can be counted.
_END = b"\xf9oomend\xff"
_END_FIELD = ""  # no field of a schema that was read has an empty name
_end_of = itemgetter(_END_FIELD)


class StrictBodies:
    """Reads and writes bodies of one writer's schema."""

    def __init__(self, fields: tuple[RecordField, ...]) -> None:
        """Prepare for a schema.

        Args:
            fields: Its fields, as `layout` read them.
        """
        self._one = fastavro.parse_schema(bare_record(fields))
        marked = bare_record(fields, end=_END_FIELD, end_bytes=len(_END))
        self._many = fastavro.parse_schema({"type": "array", "items": marked})

    def read_many(self, bodies: Sequence[bytes]) -> list[Record] | None:
        """Records in avro form, each with one entry more than the schema has fields; None if any body is in doubt.

        Beyond doubt are only canonical bodies: the structure is right, but values are not checked.
        """
        stream = b"".join((_varint(len(bodies)), _END.join(bodies), _END, b"\0"))
        if stream.count(_END) != len(bodies):
            return None
        try:
            records: Any = fastavro.schemaless_reader(BytesIO(stream), self._many, None)
            again = BytesIO()
            fastavro.schemaless_writer(again, self._many, records)
        except Exception:  # fastavro raises whatever it meets, and the walker will say what is wrong
            return None
        if again.getvalue() != stream or set(map(_end_of, records)) != {_END}:
            return None
        found: list[Record] = records
        return found

    def write_many(self, records: Sequence[Record]) -> list[bytes]:
        """Canonical bodies of records in avro form.

        Args:
            records: One or more; values are checked already.
        """
        marked = [{**record, _END_FIELD: _END} for record in records]
        out = BytesIO()
        fastavro.schemaless_writer(out, self._many, marked)
        bodies = out.getvalue()[len(_varint(len(records))) :].split(_END)
        if len(bodies) != len(records) + 1:  # the mark occurs in a value
            return [self.write(record) for record in records]
        del bodies[-1]
        return bodies

    def write(self, record: Record) -> bytes:
        """Canonical body of one record in avro form."""
        out = BytesIO()
        fastavro.schemaless_writer(out, self._one, record)
        return out.getvalue()

    def read_stored(self, body: bytes) -> Record:
        """The record in a canonical body, without any check; raises whatever fastavro raises."""
        record: Any = fastavro.schemaless_reader(BytesIO(body), self._one, None)
        found: Record = record
        return found


def _varint(count: int) -> bytes:
    """A count that is not negative as an Avro long."""
    value = count << 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
