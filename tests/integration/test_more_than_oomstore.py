"""What oomstore does not have, from end to end over batch and stream groups, on every pair of stores.

Composite keys, several entities in one request, vectors. Definitions that change under data are in
test_changing_definitions.py, forgetting in test_forget_everywhere.py.
"""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.schemas.errors import InvalidImport, InvalidLabels, InvalidRequest
from oomstream.streams.importing import import_file
from tests.integration.backends import Backends, prepare
from tests.integration.flight_groups import GROUPS, T0_MS, Flights, at, exported, filled, flights, joined
from tests.integration.served import AgentClient, Served, serving

ONES: list[dict[str, Any]] = [
    {"origin": origin, "number": number} for origin, number in (("1", 11), ("11", 1), ("a", 1), ("a ", 1), ("A", 1))
]
"""Keys whose parts would run together, or that some databases take for one."""


def text(row: dict[str, Any]) -> str:
    """A key as one text."""
    return ",".join(f"{name}={value}" for name, value in row.items())


async def fill_ones(the: Flights) -> None:
    """A revision and two events of each of ONES but the last, whose numbers say which it is."""
    lines = [f'"{row["origin"]}",{row["number"]},{n},[]' for n, row in enumerate(ONES[:-1])]
    await the.load("routes", "\n".join(["origin,number,miles,profile", *lines]), ms=0)
    await the.sync("routes")
    past = [f'{row["number"]},"{row["origin"]}",{T0_MS + 1},{n + 10},' for n, row in enumerate(ONES[:-1])]
    await the.load("delays", "\n".join(["number,origin,unix_milli,minutes,shape", *past]))
    await the.push("delays", *({**row, "at": at(2), "minutes": n + 20} for n, row in enumerate(ONES[:-1])))


NUMBERS = ["routes.miles", "delays.minutes"]


def test_composite_keys(backends: Backends, tmp_path: Path) -> None:
    """Keys of two fields through import, backfill, sync, push, online reads, joins and exports; none is another's."""

    async def scenario() -> None:
        async with flights(backends, tmp_path) as the:
            await fill_ones(the)
            right: list[list[Any]] = [[n, n + 20] for n in range(4)] + [[None, None]]
            assert await the.read(NUMBERS, ONES) == right
            assert await the.join(NUMBERS, ONES * 2, [1] * 5 + [2] * 5) == [
                *([n, n + 10] for n in range(4)),
                [None, None],
                *right,
            ]
            half: list[dict[str, Any]] = [{"origin": None, "number": 1}, {"origin": "a", "number": None}]
            assert await the.join(NUMBERS, half, [2, 2]) == await the.read(NUMBERS, half) == [[None, None]] * 2
            ordered = sorted(zip(ONES[:-1], right, strict=False), key=lambda each: each[0]["origin"].encode())
            assert await the.export(NUMBERS) == [[*row.values(), *values] for row, values in ordered]
            with pytest.raises(InvalidImport, match="line 3 has the key of an earlier row"):
                await the.load("routes", "number,origin,miles,profile\n1,a,1,[]\n1,a,2,[]\n")
            await the.check_verified()

    asyncio.run(scenario())


def test_composite_keys_over_the_wire(backends: Backends, tmp_path: Path) -> None:
    """The same keys through gRPC and HTTP: pushed, read alone and together, joined and exported."""
    with serving(filled(backends, tmp_path, fill_ones), tmp_path) as (server, client):
        client.push("delays", text(ONES[0]), minutes=pb.Value(int64=30))
        columns = {name: [row[name] for row in ONES[1:3]] for name in ("origin", "number")}
        pushed = {"push_source_name": "delays", "df": {**columns, "minutes": [31, 32]}}
        assert server.ask("/push", pushed) == (200, {"status": "ok", "rows": 2})
        right: list[list[Any]] = [[0, 30], [1, 31], [2, 32], [3, 23], [None, None]]
        for row, values in zip(ONES, right, strict=True):
            assert client.values(text(row), *NUMBERS) == dict(zip(NUMBERS, values, strict=True))
        request = pb.OnlineMultiGetRequest(entity_keys=[text(row) for row in ONES], features=["routes.miles"])
        answer = client.call("OnlineMultiGet", request).result
        assert {key: each.map["routes.miles"].int64 for key, each in answer.items() if key != text(ONES[4])} == {
            text(row): n for n, row in enumerate(ONES[:-1])
        }
        keys = {name: [row[name] for row in ONES] for name in ("origin", "number")}
        status, found = server.ask("/get-online-features", {"features": NUMBERS, "entities": keys})
        assert status == 200
        assert [each["values"] for each in found["results"]] == [
            keys["origin"],
            keys["number"],
            *(list(each) for each in zip(*right, strict=True)),
        ]
        before = [[n, n + 20] for n in range(4)] + [[None] * 2]
        assert joined(client, NUMBERS, [(text(row), 2) for row in ONES]) == before
        header, *rows = exported(client, NUMBERS)
        assert header == ["origin", "number", *NUMBERS]
        assert sorted(rows, key=lambda each: each[2]) == [
            [*row.values(), *values] for row, values in zip(ONES[:-1], right, strict=False)
        ]
        code, sentence = client.failure("OnlineGet", pb.OnlineGetRequest(entity_key="a", features=NUMBERS))
        assert (code.name, "origin=" in sentence) == ("INVALID_ARGUMENT", True)


ROWS: list[dict[str, Any]] = [
    {"origin": "JFK", "number": 1, "tail": "N1"},
    {"origin": "JFK", "number": 2, "tail": "N1"},
    {"origin": "JFK", "number": 1, "tail": "N2"},
    {"origin": "EWR", "number": 1, "tail": "nobody"},
]
FOUR = ["speeds.knots", "routes.miles", "models.seats", "delays.minutes"]
SEEN: list[list[Any]] = [[100, 5, 50, 7], [100, None, 50, 8], [200, 5, None, 7], [None, None, None, None]]


async def fill_entities(the: Flights) -> None:
    """Flights and planes, in groups of both kinds."""
    await the.load("routes", "origin,number,miles,profile\nJFK,1,5,[]\n", ms=0)
    await the.load("models", "tail,seats\nN1,50\n", ms=5)
    for name in ("routes", "models"):
        await the.sync(name)
    await the.push("delays", *({"origin": "JFK", "number": n, "at": at(n), "minutes": 6 + n} for n in (1, 2)))
    await the.push("speeds", *({"tail": f"N{n}", "at": at(3), "knots": 100 * n} for n in (1, 2)))


def test_several_entities_in_one_request(backends: Backends, tmp_path: Path) -> None:
    """One online read and one join find flights and planes of each row, in groups of both kinds."""

    async def scenario() -> None:
        async with flights(backends, tmp_path) as the:
            await fill_entities(the)
            assert await the.read(FOUR, ROWS) == SEEN
            assert await the.join(FOUR, ROWS, [9] * 4) == SEEN
            assert await the.join(FOUR, ROWS[:1] * 5, [0, 1, 2, 3, 5]) == [
                [None, 5, None, None],
                [None, 5, None, 7],
                [None, 5, None, 7],
                [100, 5, None, 7],
                [100, 5, 50, 7],
            ]
            half = [{**ROWS[0], "tail": None}, {**ROWS[0], "origin": None}]
            assert await the.read(FOUR, half) == [[None, 5, None, 7], [100, None, 50, None]]
            assert await the.join(FOUR, half, [9, 9]) == [[None, 5, None, 7], [100, None, 50, None]]
            with pytest.raises(InvalidLabels, match="tail"):
                await the.join(FOUR, [{"origin": "JFK", "number": 1}], [9])
            with pytest.raises(InvalidRequest, match="flight"):
                await the.export(FOUR)

    asyncio.run(scenario())


def test_several_entities_over_the_wire(backends: Backends, tmp_path: Path) -> None:
    """One text or one row names a flight and a plane: gRPC's reads and joins, HTTP's reads, files of labels."""
    with serving(filled(backends, tmp_path, fill_entities), tmp_path) as (server, client):
        for row, right in zip(ROWS, SEEN, strict=True):
            assert client.values(text(row), *FOUR) == dict(zip(FOUR, right, strict=True))
        assert joined(client, FOUR, [(text(row), 9) for row in ROWS]) == SEEN
        keys = {name: [row[name] for row in ROWS] for name in ROWS[0]}
        status, found = server.ask("/get-online-features", {"features": FOUR, "entities": keys})
        names = found["metadata"]["feature_names"]
        answer = {name: each["values"] for name, each in zip(names, found["results"], strict=True)}
        assert status == 200
        assert [[answer[name][n] for name in FOUR] for n in range(4)] == SEEN
        lines = [",".join(map(str, [*row.values(), T0_MS + 9])) for row in ROWS]
        (tmp_path / "labels.csv").write_text("\n".join(["origin,number,tail,unix_milli", *lines]), encoding="utf-8")
        client.call("Join", pb.JoinRequest(features=FOUR, input_file="labels.csv", output_file="out.csv"))
        rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
        assert [[int(row[name]) if row[name] else None for name in FOUR] for row in rows] == SEEN
        code, sentence = client.failure("OnlineGet", pb.OnlineGetRequest(entity_key="tail=N1", features=FOUR))
        assert (code.name, "origin" in sentence) == ("INVALID_ARGUMENT", True)


VECTORS = ["routes.profile", "delays.shape"]
THIRD = 0.3333333432674408  # a third as a float has it


def test_vectors(backends: Backends, tmp_path: Path) -> None:
    """Arrays of floats in groups of both kinds: imported from each form of file, pushed, read, joined and exported."""

    async def scenario() -> None:
        async with flights(backends, tmp_path) as the:
            await the.load("routes", 'origin,number,miles,profile\nA,1,,"[1.5, -2, 0.33333334]"\nB,1,,[]\n', ms=0)
            for name, write in (("r.parquet", parquet.write_table), ("r.arrow", feather.write_feather)):
                write(vectors_table(), str(tmp_path / name))
                made = await import_file(
                    the.history, the.online, "routes", tmp_path / name, revision_us=T0_MS * 1000, settings=the.settings
                )
                assert made.revision is not None
                for revision_id in (2, made.revision.id):
                    await the.sync("routes", revision_id)
                    rows = [{"origin": origin, "number": 1} for origin in "ABC"]
                    assert await the.read(VECTORS[:1], rows) == [[[1.5, -2.0, THIRD]], [[]], [None]]
            await the.load("delays", f'origin,number,unix_milli,minutes,shape\nA,1,{T0_MS},,"[0.1,1e3]"\n')
            await the.push("delays", {"origin": "A", "number": 1, "at": at(5), "shape": [1 / 3, 2]})
            await the.push("delays", {"origin": "B", "number": 1, "at": at(5), "shape": []})
            await the.push("delays", {"origin": "C", "number": 1, "at": at(5), "shape": None})
            right: list[list[Any]] = [[[1.5, -2.0, THIRD], [THIRD, 2.0]], [[], []], [None, None]]
            assert await the.read(VECTORS, rows) == right
            tenth = 0.10000000149011612
            assert await the.join(VECTORS, [*rows, rows[0]], [9, 9, 9, 4]) == [
                *right,
                [[1.5, -2.0, THIRD], [tenth, 1000.0]],
            ]
            labels = [{**row, "unix_milli": T0_MS + 9} for row in rows]
            made_of = await the.store.get_historical_features(labels, VECTORS)
            assert made_of.to_arrow().schema.field("delays.shape").type == pa.list_(pa.float32())
            made_of.to_parquet(tmp_path / "train.parquet")
            read = parquet.read_table(tmp_path / "train.parquet")
            columns = [list(each) for each in zip(*right, strict=True)]
            assert [read.column(name).to_pylist() for name in VECTORS] == columns
            online = (await the.store.get_online_features(VECTORS, rows)).to_arrow()
            assert online.schema.field("routes.profile").type == pa.list_(pa.float32())
            assert await the.export(VECTORS) == [[origin, 1, *each] for origin, each in zip("ABC", right, strict=True)]
            await the.check_verified()

    asyncio.run(scenario())


def vectors_table() -> pa.Table:
    """The rows of the CSV file, typed."""
    profiles = pa.array([[1.5, -2.0, 1 / 3], []], pa.list_(pa.float32()))
    numbers = pa.array([1, 1], pa.int32())
    return pa.table({"origin": ["A", "B"], "number": numbers, "miles": pa.nulls(2, pa.int64()), "profile": profiles})


def test_vectors_over_the_wire(backends: Backends, tmp_path: Path) -> None:
    """GRPC carries them as JSON text, both ways; HTTP as JSON; joins and exports in streams and files alike."""
    settings = backends.fresh()
    prepare(settings, GROUPS)
    with serving(settings, tmp_path) as (server, client):
        stream = ["origin,number,miles,profile\n", 'A,1,,"[1.5, -2, 0.5]"\n', "B,1,,[]\n"]
        first: dict[str, Any] = {"group": "routes", "revision": T0_MS}
        rows = [pb.ChannelImportRequest(row=row.encode(), **({} if n else first)) for n, row in enumerate(stream)]
        assert client.call("ChannelImport", rows).revision_id == 2
        client.call("Sync", pb.SyncRequest(group="routes"))
        client.push("delays", "origin=A,number=1", shape=pb.Value(string="[0.25, 2]"))
        pushed = {"origin": ["B", "C"], "number": [1, 1], "shape": [[], None]}
        assert server.ask("/push", {"push_source_name": "delays", "df": pushed})[0] == 200
        check_wire(server, client, tmp_path)


def check_wire(server: Served, client: AgentClient, folder: Path) -> None:
    """What comes back of A's, B's and C's vectors."""
    texts = [["[1.5, -2.0, 0.5]", "[0.25, 2.0]"], ["[]", "[]"], [None, None]]
    keys = [f"origin={origin},number=1" for origin in "ABC"]
    assert [[client.values(key, name)[name] for name in VECTORS] for key in keys] == texts
    asked = {"features": VECTORS, "entities": {"origin": ["A", "B", "C"], "number": [1, 1, 1]}}
    status, found = server.ask("/get-online-features", asked)
    assert (status, [each["values"] for each in found["results"][2:]]) == (
        200,
        [[[1.5, -2.0, 0.5], [], None], [[0.25, 2.0], [], None]],
    )
    now = 10_000_000_000_000 - T0_MS
    assert joined(client, VECTORS, [(key, now) for key in keys]) == texts
    assert [row[2:] for row in exported(client, VECTORS)[1:]] == texts
    request = pb.ExportRequest(features=VECTORS, unix_milli=T0_MS + now, output_file="out.parquet")
    client.call("Export", request)
    read = parquet.read_table(folder / "out.parquet")
    assert read.column("delays.shape").to_pylist() == [[0.25, 2.0], [], None]
    for wrong in ("[1e39]", "[true]", "[[1]]", "1", "[NaN]", '["1"]', "[null]"):
        value = pb.Value(string=wrong)
        push = pb.PushRequest(group="delays", entity_key=keys[0], feature_values={"shape": value})
        code, sentence = client.failure("Push", push)
        assert (code.name, "delays.shape" in sentence) == ("INVALID_ARGUMENT", True), sentence
    for bad in ([1e39], [True], [[1]], 1, ["1"], [None], "[1]"):
        pushed = {"origin": ["A"], "number": [1], "shape": [bad]}
        status, found = server.ask("/push", {"push_source_name": "delays", "df": pushed})
        assert (status, "delays.shape" in found["error"]) == (400, True), found
