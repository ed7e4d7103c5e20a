"""Decodes hostile messages in a process of its own and prints by how much its memory grew, in MiB.

Run by `test_case_3_bombs`. The first argument says what to decode: ``bombs``, or ``fuzz`` and a seed.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Iterator
from itertools import chain

from benchmarks.memory import peak_kib
from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.events import RawRecord
from tests.unit.schemas.definitions import NOW_MS, field, message, registered, schema

MIB = 1 << 20
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 38}
GROUP = registered(
    schema(
        field("flags", {"type": "array", "items": "boolean"}, default=[]),
        field("texts", {"type": "array", "items": "string"}, default=[]),
        field("longs", {"type": "array", "items": "long"}, default=[]),
        field("prices", {"type": "array", "items": DECIMAL}, default=[]),
        field("raw", "bytes", default=""),
    )
)
FLAT = registered(
    schema(
        field("text", ["null", "string"]),
        field("raw", ["bytes", "null"]),
        field("flag", ["null", "boolean"]),
        field("word", {"type": "enum", "name": "word_enum", "symbols": ["a", "b"]}, default="a"),
        field("number", ["null", "long"]),
    )
)
WHOLE = message(GROUP)
HEAD = WHOLE[:-5]  # five fields of one zero byte follow


def varint(value: int) -> bytes:
    """An Avro long."""
    value = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def avro_bombs() -> Iterator[bytes]:
    """Counts and sizes far beyond the message, and messages full of the smallest items."""
    for count in (20_000_000, (1 << 62) + 1, -20_000_000, -(1 << 63)):
        for before in range(5):
            yield HEAD + b"\0" * before + varint(count)
            yield HEAD + b"\0" * before + varint(count) + b"\0" * 100
            yield HEAD + b"\0" * before + varint(count) + b"\0" * (MIB - 200)
    full = MIB - 200
    yield HEAD + varint(full) + b"\1" * full + b"\0" * 5
    yield HEAD + b"\0" + varint(full) + b"\0" * full + b"\0" * 4
    yield HEAD + b"\0\0" + varint(full // 2) + b"\xc8\1" * (full // 2) + b"\0" * 3
    yield HEAD + b"\0\0\0" + varint(full // 2) + b"\2\1" * (full // 2) + b"\0" * 2
    yield HEAD + b"\0\0\0" + varint(131_072) + b"\2\1" * 131_072 + b"\0" * 2
    yield HEAD + (b"\2\1" * (full // 2)) + b"\0" * 5
    yield HEAD + b"\0\0\0\0" + varint(full) + b"x" * full
    yield WHOLE + b"\0" * (5 * MIB)


def json_bombs() -> Iterator[bytes]:
    """Depth, width, digits and duplicates."""
    start = b'{"id":"a","at":%d,"x":' % (NOW_MS * 1000)
    yield b"[" * 100_000
    yield b'{"a":' * 100_000
    yield start + b"[" * 500_000 + b"]" * 500_000 + b"}"
    yield start + b"[" * 900 + b"]" * 900 + b"}"
    yield start + b"1" * (MIB - 100) + b"}"
    yield start + b"1" * 5_000 + b"}"
    yield start + b"1." + b"1" * (MIB - 100) + b"}"
    yield start + b"1e999}"
    yield start + b"[" + b"1," * 500_000 + b"1]}"
    yield start + b"[" + b"[]," * 300_000 + b"1]}"
    yield start + b"[" + b"{}," * 300_000 + b"1]}"
    yield start + b"[" + b"[[]]," * 180_000 + b"1]}"
    yield start + b'[{"y":1,"y":1}' + b',{"y":1}' * 100_000 + b"]}"
    yield b"{" + b",".join(b'"%x":{}' % number for number in range(90_000)) + b"}"
    yield b"{" + b'"a":1,' * 150_000 + b'"a":1}'
    yield start + b'"' + b"\\u0061" * 150_000 + b'"}'
    yield json.dumps({"id": "a", "at": NOW_MS * 1000, "flags": [True] * 180_000}).encode()
    yield json.dumps({"id": "a", "at": NOW_MS * 1000, "prices": ["0"] * 200_000}).encode()
    yield json.dumps({"id": "a" * MIB, "at": NOW_MS * 1000}).encode()


def registry_bombs() -> dict[int, object]:
    """Writer's schemas that would crash or exhaust a reader that believed them."""
    record = {"type": "record", "name": "r", "fields": [field("id", "string"), field("at", "long")]}
    array: object = "int"
    for _ in range(500):
        array = {"type": "array", "items": array}
    wrapped: object = "int"
    for _ in range(500):
        wrapped = {"type": wrapped}
    extra = {
        1: {"type": "array", "items": "null"},
        2: ["null", {"type": "record", "name": "n", "fields": [field("next", ["null", "n"])]}],
        3: array,
        4: wrapped,
        5: {"type": "fixed", "name": "f", "size": 1 << 40},
        6: {"type": "map", "values": "r"},
        7: "r",
        8: {"type": "bytes", "logicalType": "decimal", "precision": 10**9, "scale": 1},
        9: [["null", "int"], "null"],
    }
    schemas: dict[int, object] = {
        number: {**record, "fields": [*record["fields"], field("x", kind)]} for number, kind in extra.items()
    }
    return schemas | {
        10: "int",
        11: None,
        12: {"type": "record"},
        13: {**record, "fields": 3},
        14: {**record, "name": 1},
    }


def flat_bombs() -> Iterator[bytes]:
    """Sizes and union branches far beyond the message, in a group without arrays."""
    head = message(FLAT)[:-5]
    for index in (*range(-70, 0), *range(2, 70), 1 << 40, -(1 << 63)):
        for before in (b"", b"\0", b"\0\2", b"\0\2\0\0"):
            yield head + before + varint(index) + b"\0" * 100
    for size in (1 << 30, (1 << 62) + 1, -1, -(1 << 63)):
        yield head + b"\2" + varint(size) + b"x" * (MIB - 200)
        yield head + b"\0\0" + varint(size) + b"x" * (MIB - 200)


def fuzz(seed: int, group: RegisteredGroup, **values: object) -> Iterator[bytes]:
    """Damaged messages."""
    chance = random.Random(seed)
    whole = message(group, **values)
    for _ in range(15_000):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(10, len(damaged))
            damaged[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
        yield bytes(damaged)


def main(what: str, seed: str = "0") -> None:
    """Decode, and print the growth of the largest resident size."""
    registry = registry_bombs()
    decoder, flat = Decoder(GROUP, EventLimits(), registry), Decoder(FLAT, EventLimits())
    decoder.decode([RawRecord(0, None, WHOLE, NOW_MS), RawRecord(1, None, b'{"a":1}', NOW_MS)])
    flat.decode([RawRecord(0, None, message(FLAT), NOW_MS)])
    before = peak_kib()
    if what == "bombs":
        confluent = [b"\0" + struct.pack(">I", number) + b"\2" * 1000 for number in registry]
        assert not decoder.decode([RawRecord(0, None, each, NOW_MS) for each in confluent]).events
        for bomb in chain(avro_bombs(), json_bombs()):
            decoder.decode([RawRecord(number, None, bomb, NOW_MS) for number in range(2)])
        for bomb in flat_bombs():
            assert not flat.decode([RawRecord(number, None, bomb, NOW_MS) for number in range(2)]).events
    else:
        arrays = fuzz(int(seed), GROUP, flags=[True], texts=["a", "bc"], longs=[1, -(1 << 62)], raw=b"xyz")
        scalars = fuzz(int(seed), FLAT, text="bc", raw=b"xyz", flag=True, word="b", number=-(1 << 62))
        for one, messages in ((decoder, list(arrays)), (flat, list(scalars))):
            for start in range(0, len(messages), 500):
                one.decode([RawRecord(0, None, each, NOW_MS) for each in messages[start : start + 500]])
    print((peak_kib() - before) / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
