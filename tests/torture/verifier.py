"""The independent verifier: recomputes history, online rows and dead letters from the log, and compares.

It uses nothing of the product's pipeline, codec or stores: records are decoded by fastavro and json, history is read
by plain SQL, and online rows by their raw keys. Both sides of a partition come in order of offset and are merged, so
memory holds one row per entity, and one identity per dead letter, however long the log is.

Source:
    design.md, sections 3 to 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.torture.database import Database, SourceRow
from tests.torture.decode import Garbage, Happened, read_record
from tests.torture.groups import TortureGroup, avro_kind
from tests.torture.letters import LetterBox, Place, content_sum
from tests.torture.log import Log
from tests.torture.online import OnlineRow, group_of_key, online_pairs, rows_by_key
from tests.torture.produced import Logged
from tests.torture.stream import VALID

SHOWN = 10
"""How many differences are kept of each kind."""

_TOPIC_KIND = 3


class Difference(NamedTuple):
    """One thing that is not as it must be.

    Attributes:
        what: ``lost``, ``doubled``, ``differing`` …
        where: Group, partition and offset, or entity.
        expected: What the log says.
        found: What there is.
    """

    what: str
    where: str
    expected: Any
    found: Any


@dataclass
class Findings:
    """What the verifier has found.

    Attributes:
        records: Records in the log.
        events: Valid ones among them.
        entities: Entities of all groups.
        counts: How many differences there are of each kind; all must be 0.
        expected_letters: Records that must be dead letters.
        letters: Dead letters, distinct by identity.
        letters_written: Dead letters, repeated ones included.
        first: The first few differences of each kind.
    """

    records: int = 0
    events: int = 0
    entities: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: (
            dict.fromkeys(
                (
                    "lost",
                    "doubled",
                    "wrong rows",
                    "differing keys",
                    "letters missing",
                    "letters unasked",
                    "letters wrong",
                ),
                0,
            )
            | dict.fromkeys(("behind", "misjudged", "log"), 0)
        )
    )
    expected_letters: int = 0
    letters: int = 0
    letters_written: int = 0
    first: list[Difference] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether everything is as it must be."""
        return not any(self.counts.values())

    def add(self, what: str, where: str, expected: Any, found: Any) -> None:
        """Note a difference."""
        if self.counts[what] < SHOWN:
            self.first.append(Difference(what, where, expected, found))
        self.counts[what] += 1


class _Newest(NamedTuple):
    version: tuple[int, int, int, int]
    ingest_time_us: int | None
    happened: Happened


class Verifier:
    """Compares one run's stores with its log; no worker runs any more.

    Args:
        groups: The groups of the run.
        log: What the stores must agree with.
        partitions: How many partitions each group has.
        database: The history database.
        online_url: The online store.
        letters: The dead letters, read to their end.
    """

    def __init__(
        self,
        groups: Mapping[str, TortureGroup],
        log: Log,
        partitions: Mapping[str, int],
        database: Database,
        online_url: str,
        letters: LetterBox,
    ) -> None:
        self._groups = groups
        self._log = log
        self._partitions = partitions
        self._database = database
        self._online_url = online_url
        self._letters = letters
        self._unread = dict(letters.letters)
        self.findings = Findings(letters=len(letters.letters), letters_written=letters.written)

    def run(self) -> Findings:
        """Compare everything."""
        found = self.findings
        sources: dict[tuple[str, int], SourceRow] = {}
        for source in self._database.sources():
            if (source.topic, source.partition) in sources:
                found.add("doubled", f"source {source.id}", "one source for each partition", source)
            sources[source.topic, source.partition] = source
        pairs = online_pairs(self._online_url)
        groups = self._group_ids()
        for key, _ in pairs:
            if group_of_key(key) not in groups.values():
                found.add("differing keys", f"online key {key!r}", None, "a row of no group")
        for name, group in self._groups.items():
            newest: dict[Any, _Newest] = {}
            for partition in range(self._partitions[name]):
                self._partition(group, partition, sources.get((group.topic, partition)), newest)
            self._strangers(group, sources)
            self._online(group, newest, rows_by_key(pairs, groups[name], group))
        for where, expected, there in self._log.differing:
            found.add("log", where, expected, there)
        for place, letter in self._unread.items():
            found.add("letters unasked", f"{place}", None, letter)
        for place in self._letters.differing:
            found.add("letters wrong", f"{place}", "the same letter each time", "two that differ")
        return found

    def _partition(
        self, group: TortureGroup, partition: int, source: SourceRow | None, newest: dict[Any, _Newest]
    ) -> None:
        """Merge a partition's records with its rows of history."""
        found, where = self.findings, f"{group.topic}[{partition}]"
        rows = _Rows(self._history(group, source) if source is not None else iter(()))
        end = ingest_us = 0
        for record in self._log.records(group.topic, partition):
            end = record.offset + 1
            found.records += 1
            for row in rows.before(record.offset):
                found.add("doubled", f"{where}@{row.sequence}", None, row)
            mine = list(rows.before(record.offset + 1))
            happened = self._judge(group, record, where)
            if happened is None:
                self._letter(
                    record, Place(group.topic, source.incarnation if source else "", partition, record.offset), where
                )
                for row in mine:
                    found.add("doubled", f"{where}@{row.sequence}", None, row)
                continue
            found.events += 1
            for row in mine[1:]:
                found.add("doubled", f"{where}@{row.sequence}", happened, row)
            if not mine:
                found.add("lost", f"{where}@{record.offset}", happened, None)
            elif mine[0].happened != happened:
                found.add("wrong rows", f"{where}@{record.offset}", happened, mine[0].happened)
            elif mine[0].ingest_time_us < ingest_us:
                found.add("wrong rows", f"{where}@{record.offset}", f"ingest time from {ingest_us} on", mine[0])
            ingest_us = mine[0].ingest_time_us if mine else ingest_us
            version = (happened.time_us, _TOPIC_KIND, source.id if source else 0, record.offset)
            known = newest.get(happened.key)
            if known is None or version > known.version:
                newest[happened.key] = _Newest(version, ingest_us if mine else None, happened)
        for row in rows.before(None):
            found.add("doubled", f"{where}@{row.sequence}", None, row)
        at = (0, 0) if source is None else (source.next_sequence, source.online_sequence)
        if at != (end, end):
            found.add("behind", where, f"both positions at {end}", f"next and online sequence {at}")

    def _judge(self, group: TortureGroup, record: Logged, where: str) -> Happened | None:
        try:
            happened = read_record(group, record)
        except Garbage as exc:
            if record.meant == VALID:
                self.findings.add("misjudged", f"{where}@{record.offset}", record.meant, f"garbage: {exc}")
            return None
        if record.meant != VALID:
            self.findings.add("misjudged", f"{where}@{record.offset}", record.meant, happened)
        return happened

    def _letter(self, record: Logged, place: Place, where: str) -> None:
        found = self.findings
        found.expected_letters += 1
        letter = self._unread.pop(place, None)
        if letter is None:
            found.add("letters missing", f"{where}@{record.offset}", record.meant, None)
            return
        right = (record.meant, content_sum(record.key, record.value, list(record.headers)))
        if tuple(letter) != right:
            found.add("letters wrong", f"{where}@{record.offset}", right, letter)

    def _history(self, group: TortureGroup, source: SourceRow) -> Iterator[_Row]:
        quoted = self._database.quoted
        ours = ("_sequence", "_event_time", "_ingest_time", "_deleted")
        names = ", ".join(map(quoted, (*ours, *group.keys, *group.features)))
        sql = f"SELECT {names} FROM {quoted(f'history_{group.name}')} WHERE _source = ? ORDER BY _sequence"
        kinds = [avro_kind(group.fields[name])[0] for name in (*group.keys, *group.features)]
        keys = len(group.keys)
        for sequence, time_us, ingest_us, deleted, *values in self._database.stream(sql, (source.id,)):
            plain = tuple(_plain(kind, value) for kind, value in zip(kinds, values, strict=True))
            features = () if deleted and not any(value is not None for value in plain[keys:]) else plain[keys:]
            yield _Row(sequence, ingest_us, Happened(plain[:keys], time_us, bool(deleted), features))

    def _strangers(self, group: TortureGroup, sources: Mapping[tuple[str, int], SourceRow]) -> None:
        """Rows of history that are of no partition of the group's topic."""
        table = self._database.quoted(f"history_{group.name}")
        known = {source.id for (topic, _), source in sources.items() if topic == group.topic}
        for source_id, count in self._database.rows(f"SELECT _source, count(*) FROM {table} GROUP BY _source"):
            if source_id not in known:
                for _ in range(count):
                    self.findings.add("doubled", f"{group.name}, source {source_id}", None, f"{count} rows")

    def _group_ids(self) -> dict[str, int]:
        quoted = self._database.quoted
        ids = {}
        for name in self._groups:
            [(ids[name],)] = self._database.rows(f"SELECT id FROM {quoted('feature_group')} WHERE name = ?", (name,))
        return ids

    def _online(
        self, group: TortureGroup, newest: Mapping[Any, _Newest], stored: Mapping[Any, OnlineRow | str]
    ) -> None:
        """Compare the online rows of a group with the greatest versions of the log."""
        self.findings.entities += len(newest)
        for key, each in newest.items():
            happened, there = each.happened, stored.get(key)
            ingest_us = each.ingest_time_us
            if ingest_us is None and isinstance(there, OnlineRow):
                ingest_us = there.ingest_time_us  # history lost the row, which is counted already
            right = OnlineRow(each.version, ingest_us or 0, happened.deleted, happened.values)
            if there != right:
                self.findings.add("differing keys", f"{group.name} {key}", right, there)
        for key in stored.keys() - newest.keys():
            self.findings.add("differing keys", f"{group.name} {key}", None, stored[key])


class _Row(NamedTuple):
    sequence: int
    ingest_time_us: int
    happened: Happened


class _Rows:
    """Rows of history in order of sequence, taken up to a point."""

    def __init__(self, rows: Iterator[_Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def before(self, offset: int | None) -> Iterator[_Row]:
        """Those that come before an offset; all that are left if it is None."""
        while self._next is not None and (offset is None or self._next.sequence < offset):
            row, self._next = self._next, next(self._rows, None)
            yield row


def _plain(kind: str, value: Any) -> Any:
    """A column's value as Python has it: text keys come as bytes, booleans as integers."""
    if kind == "string" and isinstance(value, bytes):
        return value.decode()
    if kind == "double" and value is not None:
        return float(value)
    return value
