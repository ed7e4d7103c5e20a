"""Avro bodies of one record schema, many at a time: read only if beyond doubt, written canonically.

fastavro is fast but accepts too much (a boolean byte 7, a negative union index, trailing bytes). So bodies that were
read here count only if they are as long as the canonical ones (see `exact_size`) or, where that does not tell, if
writing what was read gives the same bytes again. Many bodies are joined into one Avro array, each followed by a mark;
as the mark occurs only where a body ends, and every record read ends with it, each record took exactly the bytes of its
own body. Many bodies without arrays are read by `body_columns`, which is faster and as strict. What remains in doubt is
for `walker` to judge, one body at a time.

Source:
    Apache Avro 1.12 specification, "Binary Encoding"; the faults of fastavro 1.13 are in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import fastavro

from oomstream.schemas.columns import Column
from oomstream.schemas.exact_size import FieldSize, can_measure, readable_record
from oomstream.schemas.layout import RecordField, bare_record

if TYPE_CHECKING:
    from oomstream.schemas.body_columns import BodyColumns

Record = dict[str, Any]

# Not legal in UTF-8, and no proper prefix of it is a suffix, so that occurrences cannot overlap and can be counted.
_END = b"\xf9oomend\xff"
_END_NAME = ""  # no field of a schema that was read has an empty name
_END_FIELD = {"name": _END_NAME, "type": {"type": "fixed", "name": "end", "size": len(_END)}}

_MAX_MISSES = 100

_MANY = 64
"""From so many bodies on, whole columns are faster than record after record."""


class StrictBodies:
    """Reads and writes bodies of one writer's schema.

    Attributes:
        in_columns: Whether many bodies are read column by column, so that thousands together cost least.
    """

    def __init__(self, fields: tuple[RecordField, ...]) -> None:
        """Prepare for a schema.

        Args:
            fields: Its fields, as `layout` read them.
        """
        self._fields = fields
        self._one = fastavro.parse_schema(bare_record(fields))
        self._many = _array_of(bare_record(fields, _END_FIELD))
        self._names = [each.name for each in fields]
        self._row = itemgetter(*self._names, _END_NAME)
        self._sizes = [FieldSize(each) for each in fields] if can_measure(fields) else []
        self._readable = _array_of(readable_record(fields, _END_FIELD))
        self._misses = 0
        self.in_columns = can_measure(fields)
        self._body_columns: BodyColumns | None = None

    def read_columns(self, bodies: Sequence[bytes]) -> dict[str, Column] | None:
        """One column per field, by name, in avro form; None if any body is in doubt.

        Beyond doubt are only canonical bodies: the structure is right, but values are not checked.

        Args:
            bodies: One or more.
        """
        if self.in_columns and len(bodies) >= _MANY:
            return self._read_many(bodies)
        stream = b"".join((_varint(len(bodies)), _END.join(bodies), _END, b"\0"))
        if stream.count(_END) != len(bodies):
            return None
        if not self._sizes:
            return self._written_again(stream)
        columns = self._measured(stream, sum(map(len, bodies)))
        if columns is None:
            columns = self._written_again(stream)
            self._misses += columns is not None
            if self._misses > _MAX_MISSES:  # integers too large to be measured are common here
                self._sizes = []
        return columns

    def _read_many(self, bodies: Sequence[bytes]) -> dict[str, Column] | None:
        if self._body_columns is None:
            # Here, as it loads numpy, which those who read a few bodies do without.
            from oomstream.schemas.body_columns import BodyColumns

            self._body_columns = BodyColumns(self._fields)
        return self._body_columns.read(bodies)

    def _measured(self, stream: bytes, size: int) -> dict[str, Column] | None:
        records = _read(stream, self._readable)
        columns = self._columns(records)
        if columns is None:
            return None
        found: dict[str, Column] = {}
        for field, column in zip(self._sizes, columns, strict=True):
            sized = field.avro(column)
            if sized is None:
                return None
            size -= sized[0]
            found[field.name] = sized[1]
        return None if size else found

    def _written_again(self, stream: bytes) -> dict[str, Column] | None:
        records = _read(stream, self._many)
        columns = self._columns(records)
        if columns is None:
            return None
        again = BytesIO()
        try:
            fastavro.schemaless_writer(again, self._many, records)
        except Exception:  # fastavro raises whatever it meets, and the walker will say what is wrong
            return None
        return dict(zip(self._names, columns, strict=True)) if again.getvalue() == stream else None

    def _columns(self, records: Any) -> list[Column] | None:
        """Columns of records that each end with the mark, without the marks."""
        if records is None:
            return None
        columns: list[Column] = list(zip(*map(self._row, records), strict=True))
        return columns if set(columns.pop()) == {_END} else None

    def write_many(self, records: Sequence[Record]) -> list[bytes]:
        """Canonical bodies of records in avro form.

        Args:
            records: One or more; values are checked already.
        """
        marked = [{**record, _END_NAME: _END} for record in records]
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


def _array_of(record: dict[str, Any]) -> Any:
    return fastavro.parse_schema({"type": "array", "items": record})


def _read(stream: bytes, schema: Any) -> Any:
    """What fastavro reads, or None where it raises something; what is wrong is for the walker to say."""
    try:
        return fastavro.schemaless_reader(BytesIO(stream), schema, None)
    except Exception:  # it raises whatever it meets
        return None


def _varint(count: int) -> bytes:
    """A count that is not negative as an Avro long."""
    value = count << 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
