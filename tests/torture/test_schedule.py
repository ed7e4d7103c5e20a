"""The plan and the stream of a run come from its options alone."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from tests.torture.groups import torture_groups
from tests.torture.schedule import MOST_PARTITIONS, POINTS, Options, make_plan
from tests.torture.stream import records

OPTIONS = [
    Options(kills, workers, seed, servers)
    for kills, workers, seed in ((1, 1, 1), (2, 3, 1), (40, 1, 5), (50, 3, 1), (333, 4, 9))
    for servers in (False, True)
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_options_give_the_same_plan(options: Options) -> None:
    """Two plans of the same options are alike, those of another seed are not, and each kills as many as asked for."""
    plan = make_plan(options)
    assert plan == make_plan(options)
    assert plan != make_plan(Options(options.kills, options.workers, options.seed + 1, options.servers))
    assert sum(step.kills for step in plan) == options.kills
    assert [step.number for step in plan] == list(range(1, len(plan) + 1))


def test_the_same_seed_gives_the_same_stream() -> None:
    """Two streams of one seed are alike, byte for byte; those of another seed are not."""
    groups = torture_groups(3)
    first, again, other = (list(islice(records(groups, seed), 3_000)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_long_plan_does_everything() -> None:
    """1,000 kills come at every crash point and by every deed, and never twice to one slot in one step."""
    plan = make_plan(Options(1_000, 3, 1, True))
    points = Counter(victim.at.partition(":")[0] for step in plan for victim in step.victims if victim.at)
    assert points.keys() == set(POINTS)
    assert min(points.values()) >= 0.8 * max(points.values())
    deeds = [step.deed for step in plan if step.deed]
    assert {deed.kind for deed in deeds} == {
        "freeze",
        "drain",
        "offsets",
        "delete-group",
        "partitions",
        "restart",
        "cut",
    }
    assert {deed.target for deed in deeds if deed.kind in ("restart", "cut")} == {"kafka", "tidb", "tikv"}
    for step in plan:
        slots = [victim.slot for victim in step.victims]
        assert len(slots) == len(set(slots))
    for group in ("plane", "sensor", "fare"):
        assert 3 < 3 + sum(deed.amount for deed in deeds if deed.target == group) <= MOST_PARTITIONS


def test_what_a_variant_cannot_survive_is_not_done() -> None:
    """TiDB's embedded storage is never killed; the embedded broker and SQLite are spared what they do not have."""
    for seed in range(20):
        deeds = [step.deed for step in make_plan(Options(300, 3, seed, True)) if step.deed]
        assert not [deed for deed in deeds if (deed.kind, deed.target, deed.how) == ("restart", "tidb", "kill")]
        embedded = [step.deed for step in make_plan(Options(300, 3, seed, False)) if step.deed]
        assert {deed.kind for deed in embedded} == {"freeze", "drain", "offsets"}
        assert not any(deed.at for deed in embedded)
