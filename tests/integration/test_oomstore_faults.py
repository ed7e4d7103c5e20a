"""What oomstore gets wrong with events, labels and values is right here: a test for each fault, named after it."""

from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.backends import Backends
from tests.integration.oomstore_user import BOTH, DAY, HOUR, OomstoreUser, using

pytestmark = BOTH

WIDTH = 200
KINDS: dict[str, tuple[str, Any]] = {
    "int64": ("-9007199254740993", -9_007_199_254_740_993),
    "float64": ("0.1", 0.1),
    "string": ("ü" * 200, "ü" * 200),
    "bool": ("true", True),
    "bytes": ("AP8=", b"\0\xff"),
    "time": ("2024-02-29T12:00:00.123456Z", datetime(2024, 2, 29, 12, 0, 0, 123_456, tzinfo=UTC)),
}
"""A value of each type of oomstore: as text, and as it is read."""
GROUPS = ("batch", "stream")


@pytest.fixture
def user(backends: Backends, tmp_path: Path) -> OomstoreUser:
    """On stores that hold the definitions and nothing else."""
    return using(backends, tmp_path)


def test_a_label_between_two_events_of_one_interval_sees_only_the_earlier(user: OomstoreUser) -> None:
    """Events of one snapshot interval are told apart: each label sees the last one that is not after it."""
    user.import_clicks(f"ann,{DAY + 8 * HOUR},1,/a", f"ann,{DAY + 16 * HOUR},2,/b")
    user.cli.run("snapshot", "click")
    # What comes after a snapshot of its interval belongs to the interval all the same.
    user.push("click", "ann", "count=3", "page=/c", time_ms=DAY + 20 * HOUR)
    user.cli.run("snapshot", "click")
    seen = {
        DAY - 1: (None, None),
        DAY: (None, None),
        DAY + 8 * HOUR - 1: (None, None),
        DAY + 8 * HOUR: (1, "/a"),
        DAY + 12 * HOUR: (1, "/a"),
        DAY + 16 * HOUR - 1: (1, "/a"),
        DAY + 16 * HOUR: (2, "/b"),
        DAY + 20 * HOUR - 1: (2, "/b"),
        DAY + 20 * HOUR: (3, "/c"),
        DAY + 48 * HOUR: (3, "/c"),
    }
    features = ("click.count", "click.page")
    assert user.joined([("ann", time) for time in seen], *features) == list(seen.values())
    right = [f"ann,{time},x,{'' if count is None else count},{page or ''}" for time, (count, page) in seen.items()]
    assert user.join_csv([f"ann,{time},x" for time in seen], *features) == right
    for time, values in seen.items():
        assert user.exported(time, *features) == ([] if values == (None, None) else [("ann", *values)])


def test_late_events_land_in_order(user: OomstoreUser) -> None:
    """In whatever order three events come, by file or by push, each is found in its time and the newest is online."""
    orders = {"".join(map(str, order)): order for order in itertools.permutations((1, 2, 3))}
    times = {number: DAY + number * 12 * HOUR for number in (1, 2, 3)}
    arrived: dict[str, set[int]] = {name: set() for name in orders}
    for turn in range(3):
        if turn == 1:
            for name, order in orders.items():
                user.push("click", name, f"count={order[turn]}", "page=p", time_ms=times[order[turn]])
        else:
            user.import_clicks(*(f"{name},{times[order[turn]]},{order[turn]},p" for name, order in orders.items()))
        user.cli.run("snapshot", "click")
        for name, order in orders.items():
            arrived[name].add(order[turn])
        assert user.online(orders, "click.count") == [(max(arrived[name]),) for name in orders]
        labels = [(name, times[at] + late) for name in orders for at in (1, 2, 3) for late in (0, HOUR)]
        right = [
            (max((number for number in arrived[name] if times[number] <= time), default=None),) for name, time in labels
        ]
        assert user.joined(labels, "click.count") == right
    user.cli.run("sync", "-g", "click")
    assert user.online(orders, "click.count") == [(3,)] * len(orders)
    user.check_verified()


def test_duplicate_labels_keep_their_rows(user: OomstoreUser) -> None:
    """Labels that are alike, in everything or but for the label itself, are a row each, in the order they came."""
    user.import_accounts(DAY, "ann,NV,,", "bob,SC,,")
    user.import_clicks(f"ann,{DAY + HOUR},1,/a", f"ann,{DAY + 2 * HOUR},2,/b", f"bob,{DAY + HOUR},3,/c")
    seen = {
        ("ann", DAY + HOUR): ("NV", 1),
        ("bob", DAY + 3 * HOUR): ("SC", 3),
        ("ann", DAY + 3 * HOUR): ("NV", 2),
        ("cy", DAY): (None, None),
    }
    a, b, c, d = seen
    labels = [b, a, a, d, c, a, b, d, a]
    marks = ["1", "0", "0", "x", "", "1", "1", "x", "0"]
    features = ("account.state", "click.count")
    assert user.joined(labels, *features) == [seen[label] for label in labels]
    lines = [f"{name},{time},{mark}" for (name, time), mark in zip(labels, marks, strict=True)]
    right = [
        ",".join([line, *("" if value is None else str(value) for value in seen[label])])
        for line, label in zip(lines, labels, strict=True)
    ]
    assert user.join_csv(lines, *features) == right
    many = [a] * 3_000
    assert user.joined(many, *features) == [seen[a]] * 3_000


def test_equal_times_do_not_poison_a_group(user: OomstoreUser) -> None:
    """Events of one entity and one time are all kept, the last one counts, and the group goes on as before."""
    user.import_clicks(f"ann,{DAY},1,/a", f"bob,{DAY},9,/x", f"ann,{DAY},2,/b", f"ann,{DAY},2,/b")
    assert user.online(["ann", "bob"], "click.count", "click.page") == [(2, "/b"), (9, "/x")]
    user.push("click", "ann", "count=3", "page=/c", time_ms=DAY)
    user.push("click", "ann", "count=4", "page=/d", time_ms=DAY)
    user.import_clicks(f"ann,{DAY},5,/e")  # a file at the same time does not take the place of what was pushed
    for verb in (("snapshot", "click"), ("sync", "-g", "click")):
        user.cli.run(*verb)
        assert user.online(["ann"], "click.count", "click.page") == [(4, "/d")]
    user.push("click", "ann", "count=6", "page=/f", time_ms=DAY + 1)
    user.push("click", "bob", "count=7", "page=/g", time_ms=DAY + 1)
    labels = [("ann", DAY - 1), ("ann", DAY), ("ann", DAY + 1), ("bob", DAY), ("bob", DAY + 1)]
    assert user.joined(labels, "click.count") == [(None,), (4,), (6,), (9,), (7,)]
    assert user.exported(DAY, "click.count") == [("ann", 4), ("bob", 9)]
    assert user.online(["ann", "bob"], "click.count") == [(6,), (7,)]
    user.check_verified()


def test_equal_times_of_revisions_do_not_poison_a_batch_group(user: OomstoreUser) -> None:
    """Of two revisions of one time the later import counts, online and in training, and imports go on."""
    user.import_accounts(DAY, "ann,NV,,", "bob,SC,,")
    user.import_accounts(DAY, "ann,OH,,")
    user.cli.run("sync", "-g", "account")
    assert user.online(["ann", "bob"], "account.state") == [("OH",), (None,)]
    user.import_accounts(DAY + 1, "bob,UT,,")
    labels = [("ann", DAY), ("bob", DAY), ("ann", DAY + 1), ("bob", DAY + 1)]
    assert user.joined(labels, "account.state") == [("OH",), (None,), (None,), ("UT",)]


def test_bytes_and_time_features_work(user: OomstoreUser) -> None:
    """Any bytes and any time come back as they went in, online and from history, through both kinds of group."""
    raw = bytes(range(256))
    moments = {
        "0001-01-01T00:00:00Z": datetime(1, 1, 1, tzinfo=UTC),
        "1969-12-31T23:59:59.999Z": datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
        "2024-02-29T12:00:00.123456Z": datetime(2024, 2, 29, 12, 0, 0, 123_456, tzinfo=UTC),
        "2023-10-29T02:30:00+02:00": datetime(2023, 10, 29, 0, 30, tzinfo=UTC),
    }
    contents = [raw, b"", b"\0", "é🚀".encode()]
    names = ["a", "b", "c", "d"]
    rows = list(zip(names, contents, moments, strict=True))
    right = [(content, moment) for content, moment in zip(contents, moments.values(), strict=True)]
    user.import_accounts(DAY, *(f"{name},,{content_text(content)},{time}" for name, content, time in rows))
    user.cli.run("sync", "-g", "account")
    for name, content, time in rows:
        user.push("click", name, f"raw={content_text(content)}", f"seen={time}", time_ms=DAY)
    batch, stream = ("account.photo", "account.joined"), ("click.raw", "click.seen")
    # A cell of a file that is empty is no bytes at all: null.
    filed = [(content or None, moment) for content, moment in right]
    assert user.online(names, *batch) == filed
    assert user.online(names, *stream) == right
    labels = [(name, DAY) for name in names]
    both = [(*one, *other) for one, other in zip(filed, right, strict=True)]
    assert user.joined(labels, *batch, *stream) == both
    assert user.exported(DAY, *batch, *stream) == [(name, *row) for name, row in zip(names, both, strict=True)]
    printed = user.join_csv([f"c,{DAY},x"], *stream)
    assert printed == [f"c,{DAY},x,AA==,2024-02-29T12:00:00.123456Z"]
    user.check_verified()


def content_text(content: bytes) -> str:
    """Bytes as the command and files take them."""
    return base64.b64encode(content).decode()


def test_an_empty_string_is_stored(user: OomstoreUser) -> None:
    """An empty text is a value of its own, and not null, from a file, from a push, online, in training and exports."""
    user.import_accounts(DAY, "ann,,,", "bob,NV,,")
    user.cli.run("sync", "-g", "account")
    user.import_clicks(f"ann,{DAY},1,")
    user.push("click", "bob", "page=", time_ms=DAY)
    user.push("click", "cy", "count=1", time_ms=DAY)
    names = ["ann", "bob", "cy"]
    features = ("account.state", "click.page")
    right = [("", ""), ("NV", ""), (None, None)]
    assert user.online(names, *features) == right
    assert user.joined([(name, DAY) for name in names], *features) == right
    assert user.exported(DAY, *features) == [(name, *row) for name, row in zip(names, right, strict=True)]
    (ann, cy) = user.cli.json("get", "online", "-k", "ann,cy", "--feature", "click.page", "--statuses")
    assert (ann["click.page"], ann["click.page status"]) == ("", "PRESENT")
    assert (cy["click.page"], cy["click.page status"]) == (None, "NULL_VALUE")
    user.check_verified()


def wide_definitions(width: int) -> str:
    """A batch and a stream group of so many features, of every type in turn."""
    kinds = itertools.islice(itertools.cycle(KINDS), width)
    features = "\n".join(f"      - {{name: feature_{at}, value-type: {kind}}}" for at, kind in enumerate(kinds))
    groups = (f"  - name: wide_{category}\n    category: {category}\n    features:\n{features}" for category in GROUPS)
    return "\n".join(["kind: Entity", "name: user", "groups:", *groups])


def test_a_wide_group_works(backends: Backends, tmp_path: Path) -> None:
    """Groups of 200 features are defined, filled by file and by push, read everywhere, and take one feature more."""
    user = using(backends, tmp_path, wide_definitions(WIDTH))
    names = [f"feature_{at}" for at in range(WIDTH)]
    texts, values = zip(*itertools.islice(itertools.cycle(KINDS.values()), WIDTH), strict=True)
    for category, time in (("batch", ()), ("stream", ("unix_milli",))):
        header = ",".join(["user", *time, *names])
        file = user.file(header, *(",".join([name, *([str(DAY)] if time else []), *texts]) for name in ("ann", "bob")))
        user.cli.run("import", "-g", f"wide_{category}", "--input-file", file, *(() if time else ("-r", str(DAY))))
    user.cli.run("sync", "-g", "wide_batch")
    pushed = [f"{name}={text}" for name, text in zip(names, texts, strict=True)]
    user.push("wide_stream", "cy", *pushed, time_ms=DAY)
    features = [f"wide_{category}.{name}" for category in GROUPS for name in names]
    whole, half = (*values, *values), (*[None] * WIDTH, *values)
    assert user.online(["ann", "cy"], *features) == [whole, half]
    assert user.joined([("cy", DAY), ("ann", DAY), ("bob", DAY - 1)], *features) == [half, whole, (None,) * 2 * WIDTH]
    assert user.exported(DAY, *features) == [("ann", *whole), ("bob", *whole), ("cy", *half)]
    user.cli.run("register", "feature", "one_more", "-g", "wide_stream", "--value-type", "int64")
    user.push("wide_stream", "cy", *pushed, "one_more=1", time_ms=DAY + 1)
    more = ("wide_stream.feature_0", "wide_stream.one_more")
    assert user.online(["ann", "cy"], *more) == [(values[0], None), (values[0], 1)]
    user.check_verified()
