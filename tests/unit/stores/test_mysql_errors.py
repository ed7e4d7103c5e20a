"""What errors of MySQL's family of servers mean."""

from __future__ import annotations

import socket
import ssl

import pymysql
import pytest

from oomstream.schemas.errors import Fatal, InvalidEvent, InvalidSetting, Reason, StoreUnavailable
from oomstream.stores.sql.dialects import Conflict
from oomstream.stores.sql.mysql_errors import mysql_error

_WHERE = "history store tidb://me:***@db:4000/features"


@pytest.mark.parametrize("code", [1020, 1062, 1213, 8002, 8005, 8022, 8028, 9007])
def test_conflicts_are_done_again_at_once(code: int) -> None:
    """A transaction that lost against another one is gone, and may be done again from its beginning."""
    error = mysql_error(pymysql.OperationalError(code, "key={tableID=1, handle={secret}}"), _WHERE)
    assert isinstance(error, Conflict)
    assert str(error).startswith(_WHERE)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "code", [1105, 1205, 1290, 1836, 2003, 2006, 2013, 2014, 8027, *range(9001, 9007), 9999, 2061, 8999]
)
def test_outages_are_waited_for(code: int) -> None:
    """Lost connections, locks, overload, a server that is read-only or full, and what TiDB has new: retry later."""
    error = mysql_error(pymysql.OperationalError(code, "secret"), _WHERE)
    assert type(error) is StoreUnavailable
    assert str(error).startswith(_WHERE)
    assert "secret" not in str(error)


@pytest.mark.parametrize("code", [1406, 1264, 1292, 1366, 1367, 1048, 1153, 8004, 8025])
def test_data_errors_are_dead_letters(code: int) -> None:
    """What the database rejects for its data names the column but not the value."""
    error = mysql_error(
        pymysql.DataError(code, "Incorrect value: 'secret' for column `db`.`t`.`speed` at row 1"), _WHERE
    )
    assert isinstance(error, InvalidEvent)
    assert error.reason is Reason.REJECTED_BY_STORE
    assert "column `speed`" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("code", "words", "advice"),
    [
        (1045, "Access denied for user 'me'@'host' (using password: YES)", "correct the URL"),
        (1044, "Access denied for user 'me'@'host' to database 'features'", "grant it"),
        (1142, "INSERT command denied to user 'me'@'host' for table 'history_plane'", "grant it"),
        (1227, "Access denied; you need (at least one of) the SUPER privilege(s)", "grant it"),
        (1049, "Unknown database 'features'", "oomstream init"),
        (1146, "Table 'features.meta' doesn't exist", "oomstream init"),
        (1054, "Unknown column 'speed' in 'field list'", "oomstream apply"),
        (2026, "the server does not offer TLS", "tls in the URL"),
    ],
)
def test_wrong_settings_say_what_to_do(code: int, words: str, advice: str) -> None:
    """A wrong user, a missing right, database or table is one sentence: where, what, and what to do."""
    error = mysql_error(pymysql.OperationalError(code, words), _WHERE)
    assert isinstance(error, InvalidSetting)
    assert str(error).startswith(_WHERE)
    assert advice in str(error)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "no such host"),
        (TimeoutError(), "no answer in time"),
        (ssl.SSLError(1, "wrong version number"), "TLS failed"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_unreachable_says_why(cause: OSError, reason: str) -> None:
    """A server that cannot be reached is an outage whose sentence says why."""
    exc = pymysql.OperationalError(2003, "Can't connect to MySQL server on 'db'")
    exc.__cause__ = cause
    error = mysql_error(exc, _WHERE)
    assert isinstance(error, StoreUnavailable)
    assert reason in str(error)


def test_other_errors_stop_the_process() -> None:
    """An error of ours, such as a statement that the server does not understand, is not retried for ever."""
    error = mysql_error(pymysql.ProgrammingError(1064, "near 'secret'"), _WHERE)
    assert isinstance(error, Fatal)
    assert "1064" in str(error)
    assert "secret" not in str(error)
    assert isinstance(mysql_error(pymysql.InterfaceError(0, "Not connected"), _WHERE), StoreUnavailable)
