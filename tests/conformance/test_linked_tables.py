"""Tables of users' on TiDB and MariaDB, in the types that warehouses have, read as revisions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from oomstream.schemas.errors import InvalidRequest
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.settings import load_settings
from oomstream.stores.sql.history import SqlHistoryStore
from oomstream.stores.testing.history_revisions import batch, read
from oomstream.stores.testing.history_suite import register
from oomstream.stores.testing.samples import TYPES
from tests.conformance.mysql_raw import rows_of_sql
from tests.services.mysql_protocol import SqlServer

_DAY_US = 86_400_000_000

_TYPES = {
    **TYPES,
    "a_decimal": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 4},
}

_COLUMNS = {
    "a_boolean": ("TINYINT(1)", "1", True),
    "an_int": ("SMALLINT", "-5", -5),
    "a_long": ("BIGINT UNSIGNED", "9223372036854775807", (1 << 63) - 1),
    "a_float": ("FLOAT", "0.5", 0.5),
    "a_double": ("DECIMAL(10, 2)", "12.25", 12.25),
    "a_string": ("TEXT CHARACTER SET latin1", "'ä '", "ä "),
    "some_bytes": ("VARBINARY(20)", "x'00ff'", b"\x00\xff"),
    "a_date": ("DATE", "'1969-12-31'", -1),
    "a_millis": ("DATETIME(3)", "'1970-01-02 00:00:00.001'", _DAY_US + 1_000),
    "a_micros": ("TIMESTAMP(6)", "'1970-01-02 00:00:00.000001'", _DAY_US + 1),
    "a_decimal": ("DECIMAL(10, 2)", "-7.5", "-7.5000"),
    "an_enum": ("ENUM('RED', 'GREEN')", "'GREEN'", "GREEN"),
    "an_array": ("JSON", "'[0.5, 2]'", None),
}
"""By feature: a column's type, a value in it as SQL text, and the plain form (an array's text is the server's)."""


@pytest.fixture(params=["tidb_server", "mariadb_server"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database on each server in turn."""
    server: SqlServer = request.getfixturevalue(request.param)
    yield server.fresh_database()
    server.heal()


def _definition() -> FeatureGroup:
    return batch("warm", {name: ["null", kind] for name, kind in _TYPES.items()}, keys={"k": "string", "d": _date()})


def _date() -> dict[str, str]:
    return {"type": "int", "logicalType": "date"}


def test_types_of_warehouses(place: str) -> None:
    """Numbers, times, decimals and texts in columns of a server's own types are read exactly, both ways."""

    async def scenario() -> None:
        async with SqlHistoryStore(place, load_settings()) as store:
            await store.init()
            [mine] = await register(store, _definition())
            columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in _COLUMNS.items())
            values = ", ".join(value for _, value, _ in _COLUMNS.values())
            nulls = ", ".join(["NULL"] * len(_COLUMNS))
            rows_of_sql(
                place,
                "SET time_zone = '+00:00'",
                f"CREATE TABLE wares (k VARCHAR(9) COLLATE utf8mb4_general_ci, d DATE, {columns})",
                f"INSERT INTO wares VALUES ('b', '1970-01-03', {values}), ('B', '1970-01-03', {nulls})",
                f"INSERT INTO wares VALUES ('b ', '1970-01-03', {nulls})",
            )
            made = await store.link_revision(mine, "wares")
            expected = [plain for _, _, plain in _COLUMNS.values()]
            empty: list[Any] = [None] * len(_COLUMNS)
            rows = await store.scan_revision(mine, made)
            assert [row.key for row in rows] == [("B", 2), ("b", 2), ("b ", 2)]
            assert [_but_array(row.values) for row in rows] == [_but_array(each) for each in (empty, expected, empty)]
            tables = await read(store, mine, made, batch_rows=1)
            assert [_but_array(list(row.values())[2:]) for row in tables] == [
                _but_array(each) for each in (empty, expected, empty)
            ]
            assert str(tables[1]["an_array"]).replace(" ", "") in {"[0.5,2]", "[0.5,2.0]"}
            some = await read(store, mine, made, keys=[("b", 2), ("c", 2)])
            assert [row["k"] for row in some] == ["b"]

    asyncio.run(scenario())


def _but_array(values: Any) -> list[Any]:
    return list(values)[:-1]


@pytest.mark.parametrize(
    ("feature", "column"),
    [
        ("a_boolean", "VARCHAR(9)"),
        ("a_long", "DOUBLE"),
        ("a_double", "DATE"),
        ("a_string", "BLOB"),
        ("some_bytes", "TEXT"),
        ("a_date", "DATETIME"),
        ("a_micros", "DATE"),
        ("a_decimal", "DECIMAL(10, 5)"),
        ("a_decimal", "DECIMAL(13, 4)"),
        ("a_decimal", "DOUBLE"),
        ("an_array", "BIGINT"),
    ],
)
def test_columns_that_cannot_hold_a_feature(place: str, feature: str, column: str) -> None:
    """A column whose type does not hold exactly what the feature is, is named with both types."""

    async def scenario() -> None:
        async with SqlHistoryStore(place, load_settings()) as store:
            await store.init()
            [mine] = await register(store, batch("warm", {feature: ["null", _TYPES[feature]]}))
            rows_of_sql(place, f"CREATE TABLE wares (k VARCHAR(9), {feature} {column})")
            with pytest.raises(InvalidRequest, match=f"wares: column {feature} is of type"):
                await store.link_revision(mine, "wares")

    asyncio.run(scenario())
