"""Statements that walk a table of history, or of a revision, in pages, in order of its primary key.

Each page begins behind the last row of the one before, so that memory, time and deadline are those of one page. The
conditions are words of AND and OR over the primary key's columns, which TiDB, MySQL and MariaDB turn into ranges of
the clustered key (EXPLAIN says so; a comparison of row values they do not).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from oomstream.schemas.events import Plain
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.kinds import Kind
from oomstream.stores.sql.revision_tables import RevisionForm
from oomstream.stores.sql.tables import HistoryTable
from oomstream.stores.sql.text import literal

_LONG = frozenset({Kind.STRING, Kind.BYTES, Kind.ARRAY})
"""Kinds whose values may be of any length."""

VERSION = ("_source", "_sequence")
"""What follows the event time in the primary key."""

PAGE_BYTES = 16 << 20
"""Bytes of a page, about."""

_KEYS_PER_STATEMENT = 500
_COMPOSITE_KEYS_PER_STATEMENT = 100

Key = tuple[Plain, ...]
Part = tuple[Plain, Plain]
"""Where a part of a table begins and ends, by the first key field; None for the table's own begin and end."""


def key_chunks(keys: Sequence[Key] | None) -> Iterator[Sequence[Key] | None]:
    """Distinct entity keys in the order of the primary key, as many at a time as one statement takes; None for all."""
    if keys is None:
        yield None
        return
    ordered = iter(sorted(set(keys), key=in_order))
    size = _KEYS_PER_STATEMENT if keys and len(keys[0]) == 1 else _COMPOSITE_KEYS_PER_STATEMENT
    while chunk := list(islice(ordered, size)):
        yield chunk


class Walk:
    """The statements of one walk through any table.

    Args:
        table: The table, quoted.
        columns: Expressions to read, those of the primary key first.
        width: How many of them are the entity key.
        primary: Expressions of the primary key, in whose order the walk goes.
        keys: Only these entities, in the order of `key_chunks`; None = all.
        long: Expressions of values that may be of any length.
        times: Conditions on what follows the entity key in the primary key.
        others: Further conditions.
        inclusive: Whether pages begin with the row that they are given, and not behind it.

    Attributes:
        bare: The same walk by fewer columns of the primary key: of several rows that are alike in them nobody knows
            which one comes first. Its pages begin with the row that they are given, not behind it. None = there is no
            such walk.
    """

    def __init__(
        self,
        table: str,
        columns: Sequence[str],
        width: int,
        primary: Sequence[str],
        keys: Sequence[Key] | None,
        *,
        long: Sequence[str] = (),
        times: Sequence[str] = (),
        others: Sequence[str] = (),
        inclusive: bool = False,
    ) -> None:
        self.bare: Walk | None = None
        self._last = ">=" if inclusive else ">"
        self._from = f" FROM {table}"
        self._columns = columns
        self._long = long
        self._width = width
        self._primary = primary
        self._keys = keys
        self._lengths = " + ".join(f"COALESCE(LENGTH({each}), 0)" for each in long)
        self._times = times
        self._others = others

    def page(self, after: Key | None, rows: int, most_bytes: int | None = None) -> str:
        """The statement that reads the next page.

        Args:
            after: Primary key of the last row read, at least what of it the walk goes by; None for the first page.
            rows: Most rows to read.
            most_bytes: What the long values of the page may have in all, about. Where it is given, and there are such
                values, those that are longer than their share of it come as null, and a last column tells of every
                row whether it had one (0 or 1).
        """
        columns = self._columns
        if most_bytes is not None and self._long:
            share = most_bytes // (rows * len(self._long))
            too_long = [f"COALESCE(LENGTH({each}), 0) > {share}" for each in self._long]
            cut = dict(zip(self._long, too_long, strict=True))
            columns = [f"IF({cut[each]}, NULL, {each})" if each in cut else each for each in columns]
            columns.append(f"({' OR '.join(too_long)})")
        return f"SELECT {', '.join(columns)}{self._next(after, rows)}"

    @property
    def has_long(self) -> bool:
        """Whether there are values of any length."""
        return bool(self._long)

    def bytes_of_page(self, after: Key | None, rows: int) -> str | None:
        """The statement that tells how many bytes the long values of a page have; None if there are no such."""
        if not self._lengths:
            return None
        inner = f"SELECT {self._lengths} AS size{self._next(after, rows)}"
        return f"SELECT CAST(COALESCE(SUM(size), 0) AS SIGNED) FROM ({inner}) AS page"  # noqa: S608 - our own words

    def _next(self, after: Key | None, rows: int) -> str:
        conditions = [*self._times, *self._others]
        if (terms := self._terms(after)) is not None:
            conditions.insert(0, f"({' OR '.join(terms) or '1 = 0'})")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"{self._from}{where} ORDER BY {', '.join(self._primary)} LIMIT {int(rows)}"

    def _terms(self, after: Key | None) -> list[str] | None:
        if self._keys is None:
            return None if after is None else self._behind(after, 0)
        if after is None:
            return self._of_keys(self._keys)
        current = in_order(after[: self._width])
        return self._behind(after, self._width) + self._of_keys([key for key in self._keys if in_order(key) > current])

    def _behind(self, after: Key, first: int) -> list[str]:
        """Rows greater than `after` that are equal to it in the first columns of the primary key."""
        terms = []
        for at in range(first, len(self._primary)):
            equal = [f"{name} = {_text(part)}" for name, part in zip(self._primary[:at], after[:at], strict=True)]
            comparison = self._last if at == len(self._primary) - 1 else ">"
            behind = [*equal, f"{self._primary[at]} {comparison} {_text(after[at])}"]
            # Without the times where all entities are walked through: TiDB then makes nothing but ranges of the terms.
            # With them it also evaluates every term for every row, which costs it more than the reading.
            terms.append(f"({' AND '.join(behind)})" if self._keys is None else self._and(behind))
        return terms

    def _of_keys(self, keys: Sequence[Key]) -> list[str]:
        if not keys:
            return []
        if self._width == 1:
            return [self._and([f"{self._primary[0]} IN ({', '.join(_text(part) for (part,) in keys)})"])]
        return [
            self._and([f"{name} = {_text(part)}" for name, part in zip(self._primary[: self._width], key, strict=True)])
            for key in keys
        ]

    def _and(self, conditions: Sequence[str]) -> str:
        # The times in the term, and not only beside them all: then they are part of its range.
        return f"({' AND '.join([*conditions, *self._times])})"


class PageStatements(Walk):
    """The statements of one walk through a history table.

    Args:
        table: The history table.
        features: Names of the features to read.
        keys: Only these entities, in the order of `key_chunks`; None = all.
        min_event_time_us: Only rows not before it.
        max_event_time_us: Only rows not after it.
        max_ingest_time_us: Only rows ingested not after it.
        part: Only entities whose first key field is not before the first value, and before the second.
        versions: Whether source, sequence and ingest time are read. Without them the walk is by entity and event time.
    """

    def __init__(
        self,
        table: HistoryTable,
        features: Sequence[str],
        keys: Sequence[Key] | None,
        *,
        min_event_time_us: int | None = None,
        max_event_time_us: int | None = None,
        max_ingest_time_us: int | None = None,
        part: Part = (None, None),
        versions: bool = True,
    ) -> None:
        keys_of_table = table.group.key_names
        quoted = table.quoted
        primary = [*keys_of_table, "_event_time", *(VERSION if versions else ())]
        names = [*primary, *(("_ingest_time",) if versions else ()), "_deleted", *features]
        time = quoted("_event_time")
        super().__init__(
            quoted(table.name),
            list(map(quoted, names)),
            len(keys_of_table),
            list(map(quoted, primary)),
            keys,
            long=[quoted(name) for name in _long_features(table.group, features)],
            times=_limit(time, ">=", min_event_time_us) + _limit(time, "<=", max_event_time_us),
            others=[
                *_limit(quoted("_ingest_time"), "<=", max_ingest_time_us),
                *_limit(quoted(keys_of_table[0]), ">=", part[0]),
                *_limit(quoted(keys_of_table[0]), "<", part[1]),
            ],
            inclusive=not versions,
        )


class RevisionPages(Walk):
    """The statements of one walk through the table of a revision.

    Args:
        form: How its rows are read.
        features: Names of the features to read, of those that it has.
        keys: Only these entities, in the order of `key_chunks`; None = all.
    """

    def __init__(self, form: RevisionForm, features: Sequence[str], keys: Sequence[Key] | None) -> None:
        super().__init__(
            form.table,
            form.expressions(features),
            len(form.keys),
            form.keys,
            keys,
            long=[form.values[name] for name in _long_features(form.group, features)],
        )


def _long_features(group: FeatureGroup, names: Sequence[str]) -> list[str]:
    wanted = set(names)
    return [each.name for each in group.features if each.name in wanted and each.type.kind in _LONG]


def _limit(column: str, comparison: str, value: Plain) -> list[str]:
    return [] if value is None else [f"{column} {comparison} {_text(value)}"]


def _text(part: Plain) -> str:
    if isinstance(part, str):
        return literal(part.encode())
    assert isinstance(part, int | bytes)
    return literal(part)


def in_order(key: Key) -> tuple[int | bytes, ...]:
    """What sorts as the primary key does: text by its bytes."""
    return tuple(part.encode() if isinstance(part, str) else part for part in key)  # type: ignore[misc]
