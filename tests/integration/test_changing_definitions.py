"""Definitions that change under data, over batch and stream groups, on every pair of stores.

A feature that comes, goes or comes back means the same online, in training sets, in exports and to `verify`.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.avsc import group_from_avsc
from oomstream.schemas.errors import InvalidImport, UnknownFeature
from oomstream.schemas.groups import FeatureGroup
from oomstream.streams.push import LocalWriter
from tests.integration.backends import Backends, prepare_async
from tests.integration.cli import Cli
from tests.integration.flight_groups import FLOATS, PLANE, T0_MS, Flights, at, definition, filled, flights, nullable
from tests.integration.served import serving

SEATS, CREW, WEIGHT = (
    nullable("n", "long"),
    nullable("crew", "int"),
    {"name": "weight", "type": "double", "default": 2.5},
)
WINGS = {"name": "wings", "type": FLOATS, "default": []}
PLANES = [{"tail": "N1"}, {"tail": "N2"}, {"tail": "nobody"}]


def planes(*features: dict[str, Any]) -> tuple[FeatureGroup, FeatureGroup]:
    """A stream group and a batch group of planes with the same features."""
    return (
        definition("live", "plane", PLANE, features),
        definition("state", "plane", PLANE, features, batch=True),
    )


def names(*features: str) -> list[str]:
    """Features of both groups."""
    return [f"{group}.{feature}" for group in ("live", "state") for feature in features]


async def fill(the: Flights, ms: int, n: int, header: str = "", more: str = "") -> int:
    """N1 has `n` from a time on, by a push and by a revision, which is synced; gives its id."""
    done = await the.load("state", f"tail,n{header}\nN1,{n}{more}\n", ms=ms)
    assert done.revision is not None
    await the.sync("state")
    await the.load("live", f"tail,unix_milli,n{header}\nN1,{T0_MS + ms},{n}{more}\n")
    return done.revision.id


def both(*values: Any) -> list[Any]:
    """What is read where both groups hold the same."""
    return [*values, *values]


def test_features_added_under_data(backends: Backends, tmp_path: Path) -> None:
    """Older rows and revisions read the default, or null, wherever they are read; older ones can be synced again."""

    async def scenario() -> None:
        async with (
            flights(backends, tmp_path, *planes(SEATS)) as the,
            LocalWriter(the.history, the.online, the.settings) as running,
            AsyncFeatureStore.open(settings=the.settings) as opened,
        ):
            one = await fill(the, 0, 1)
            await running.push("live", {"tail": "N2", "at": at(0), "n": 7})
            assert (await opened.get_online_features(names("n"), PLANES[:1])).to_dict()["live.n"] == [1]
            await prepare_async(the.settings, planes(SEATS, CREW, WEIGHT, WINGS))
            asked = names("n", "crew", "weight", "wings")
            old = [both(1, None, 2.5, []), [7, None, 2.5, [], *[None] * 4], [None] * 8]
            found = (await opened.get_online_features(asked, PLANES)).to_dict()
            assert [[found[name][row] for name in asked] for row in range(3)] == old
            assert await the.join(asked, PLANES, [0] * 3) == old
            assert await the.export(asked, 0) == [["N1", *old[0]], ["N2", *old[1]]]
            await the.check_verified()
            with pytest.raises(InvalidImport, match="no column"):
                await the.load("state", "tail,n\nN1,1\n")
            two = await fill(the, 9, 2, ",crew,weight,wings", ',3,4.5,"[1.5]"')
            await running.push("live", {"tail": "N2", "at": at(9), "n": 8, "crew": 4})
            new = [both(2, 3, 4.5, [1.5]), [8, 4, 2.5, [], *[None] * 4], [None] * 8]
            assert await the.read(asked, PLANES) == new
            assert await the.join(asked, PLANES * 2, [9] * 3 + [8] * 3) == [*new, *old]
            assert await the.export(asked, 8) == [["N1", *old[0]], ["N2", *old[1]]]
            assert await the.export(asked) == [["N1", *new[0]], ["N2", *new[1]]]
            for revision_id, right in ((one, both(1, None, 2.5, [])), (two, both(2, 3, 4.5, [1.5]))):
                await the.sync("state", revision_id)
                assert (await the.read(asked, PLANES[:1]))[0][4:] == right[4:]
                await the.check_verified()

    asyncio.run(scenario())


def test_features_retired_and_back(backends: Backends, tmp_path: Path) -> None:
    """A retired feature cannot be read, its rows stay; back, it is what it was, and its default for rows in between."""

    async def scenario() -> None:
        async with (
            flights(backends, tmp_path, *planes(SEATS, CREW, WEIGHT)) as the,
            LocalWriter(the.history, the.online, the.settings) as running,
            AsyncFeatureStore.open(settings=the.settings) as opened,
        ):
            one = await fill(the, 0, 1, ",crew,weight", ",3,4.5")
            await running.push("live", {"tail": "N2", "at": at(0), "n": 7, "crew": 5, "weight": 6.5})
            asked = names("n", "crew", "weight")
            before = [both(1, 3, 4.5), [7, 5, 6.5, None, None, None], [None] * 6]
            assert await the.read(asked, PLANES) == before
            await prepare_async(the.settings, planes(SEATS))
            for name in ("live.crew", "state.weight"):
                await the.store.refresh()
                with pytest.raises(UnknownFeature, match=name):
                    await the.read([name], PLANES)
                with pytest.raises(UnknownFeature, match=name):
                    await the.join([name], PLANES, [0] * 3)
            kept = [both(1), [7, None], [None, None]]
            assert await the.read(names("n"), PLANES) == await the.join(names("n"), PLANES, [0] * 3) == kept
            await the.check_verified()
            await the.sync("state", one)
            assert await the.read(names("n"), PLANES) == kept
            await the.check_verified()
            two = await fill(the, 5, 2)
            await running.push("live", {"tail": "N2", "at": at(5), "n": 8})
            with pytest.raises(InvalidImport, match="crew"):
                await the.load("state", "tail,n,crew\nN1,2,3\n")
            await prepare_async(the.settings, planes(SEATS, CREW, WEIGHT))
            between = [both(2, None, 2.5), [8, None, 2.5, None, None, None], [None] * 6]
            found = (await opened.get_online_features(asked, PLANES)).to_dict()
            assert [[found[name][row] for name in asked] for row in range(3)] == between
            assert await the.join(asked, PLANES * 2, [5] * 3 + [4] * 3) == [*between, *before]
            assert await the.export(asked, 4) == [["N1", *before[0]], ["N2", *before[1]]]
            await the.check_verified()
            for revision_id, right in ((one, before), (two, between)):
                await the.sync("state", revision_id)
                assert (await the.read(asked, PLANES[:1]))[0][3:] == right[0][3:]
                await the.check_verified()

    asyncio.run(scenario())


def test_an_agent_that_runs_meanwhile(backends: Backends, tmp_path: Path) -> None:
    """A server that was started before a change reads, takes and joins what came, and refuses what went, by name."""
    settings = filled(backends, tmp_path, lambda the: fill(the, 0, 1, ",crew", ",3"), *planes(SEATS, CREW))
    with serving(settings, tmp_path) as (server, client):
        assert client.values("N1", *names("n", "crew")) == dict(zip(names("n", "crew"), both(1, 3), strict=True))
        asyncio.run(prepare_async(settings, planes(SEATS, WINGS)))
        assert client.values("N1", *names("n", "wings")) == dict(zip(names("n", "wings"), both(1, "[]"), strict=True))
        client.push("live", "N1", n=pb.Value(int64=2), wings=pb.Value(string="[1.5]"))
        pushed = {"tail": ["N2"], "n": [3], "wings": [[2.5, 3.5]]}
        assert server.ask("/push", {"push_source_name": "live", "df": pushed})[0] == 200
        assert client.values("N2", "live.n", "live.wings") == {"live.n": 3, "live.wings": "[2.5, 3.5]"}
        rows = [b"tail,n,wings\n", b'N1,4,"[4.5]"\n']
        imported = [pb.ChannelImportRequest(group="state" if n == 0 else None, row=row) for n, row in enumerate(rows)]
        revision_id = client.call("ChannelImport", imported).revision_id
        client.call("Sync", pb.SyncRequest(group="state", revision_id=revision_id))
        assert client.values("N1", "state.wings", "live.wings") == {"state.wings": "[4.5]", "live.wings": "[1.5]"}
        client.call("Sync", pb.SyncRequest(group="state", revision_id=revision_id - 1))
        assert client.values("N1", "state.n", "state.wings") == {"state.n": 1, "state.wings": "[]"}
        for name, request in (
            ("OnlineGet", pb.OnlineGetRequest(entity_key="N1", features=["state.crew"])),
            ("ChannelExport", pb.ChannelExportRequest(features=["live.crew"], unix_milli=T0_MS)),
        ):
            code, sentence = client.failure(name, request)
            assert (code.name, ".crew" in sentence) == ("INVALID_ARGUMENT", True)
        push = pb.PushRequest(group="live", entity_key="N1", feature_values={"crew": pb.Value(int64=1)})
        code, sentence = client.failure("Push", push)
        assert (code.name, "crew" in sentence) == ("INVALID_ARGUMENT", True)


REFUSED: list[tuple[tuple[dict[str, Any], ...], str]] = [
    ((SEATS, nullable("crew", "string")), "retired feature 'crew' was int and cannot come back as string"),
    ((SEATS, {"name": "crew", "type": "int"}), "retired feature 'crew' can only come back nullable or with a default"),
    ((SEATS, {"name": "crew", "type": "int", "default": 4}), "'crew' can only come back with the default it had"),
    ((SEATS, nullable("Crew", "int")), "feature 'Crew' and the retired feature 'crew' differ only in case"),
    ((nullable("N", "long"),), "feature 'N' and the feature 'n' differ only in case"),
    ((nullable("n", "int"),), "feature 'n' cannot change its type from long or null to int or null"),
    (({"name": "m", "type": "long"},), "new feature 'm' must be nullable or have a default: older events lack it"),
]


def test_names_that_are_taken(tmp_path: Path) -> None:
    """A name that was another feature's, in use or retired, is refused in one sentence, and nothing is changed."""
    cli = Cli(tmp_path)

    def apply(*groups: FeatureGroup, code: int = 0) -> str:
        """Apply definitions; what was printed, or the error."""
        for each in groups:
            (tmp_path / f"{each.name}.avsc").write_text(json.dumps(each.schema), encoding="utf-8")
        said = cli.run("apply", *(f"{each.name}.avsc" for each in groups), code=code)
        return said.stderr if code else said.stdout

    apply(*planes(SEATS, CREW))
    cli.run("push", "-g", "live", "-k", "N1", "--feature", "n=1", "--feature", "crew=2")
    (tmp_path / "s.csv").write_text("tail,n,crew\nN1,1,2\n", encoding="utf-8")
    cli.run("import", "-g", "state", "--input-file", "s.csv")
    cli.run("sync", "-g", "state")
    for each in planes(SEATS):
        assert f"feature {each.name}.crew is retired (its column stays)" in apply(each)
    before = cli.run("get", "meta", "feature", "-w", "-o", "csv").stdout
    for features, sentence in REFUSED:
        for each in planes(*features):
            said = apply(each, code=1)
            assert f"group {each.name}: " in said
            assert sentence in said
    renamed = definition("lively", "plane", PLANE, [SEATS])
    taken = group_from_avsc({**renamed.schema, "topic": "live"})
    assert "its topic 'live' is the topic of group live" in apply(taken, code=1)
    assert "all groups of an entity have the same key fields" in apply(
        definition("other", "plane", {"tail_number": "string"}, [SEATS], batch=True), code=1
    )
    assert cli.run("get", "meta", "feature", "-w", "-o", "csv").stdout == before
    for each in planes(SEATS, CREW):
        assert f"feature {each.name}.crew is back" in apply(each)
    read = cli.run("get", "online", "-k", "N1", "--feature", "live.crew,state.crew", "-o", "csv").stdout
    assert read == "plane,live.crew,state.crew\nN1,2,2\n"
