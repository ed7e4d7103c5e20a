"""What the errors of MySQL's family of servers mean, by their number.

Only words that cannot hold a row's values are taken over from a server: who was denied what, and names of columns.

Source:
    TiDB's error codes (docs.pingcap.com, "Error Codes and Troubleshooting"); MySQL 8.0 Error Message Reference.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

import pymysql

from oomstream.schemas.errors import Fatal, InvalidEvent, InvalidSetting, OomstreamError, Reason, StoreUnavailable
from oomstream.stores.sql.dialects import Conflict

_CONFLICTS = {
    1007: "the database was being made by another client",
    1020: "a row was changed by another transaction",
    1050: "the table was being made by another client",
    1060: "the column was being added by another client",
    1061: "the index was being made by another client",
    1062: "another transaction stored the same row first",
    1213: "a deadlock with another transaction",
    8002: "a write conflict with another transaction",
    8005: "a write conflict with another transaction",
    8022: "the commit lost against another transaction",
    8028: "a table was altered meanwhile",
    9007: "a write conflict with another transaction",
}
"""The transaction is gone and may be done again at once."""

_DOWN = {
    1021: "the server's disk is full",
    1030: "the server's storage reports an error",
    1037: "the server is out of memory",
    1040: "the server has too many connections",
    1041: "the server is out of memory",
    1053: "the server is shutting down",
    1105: "the server reports an error without a number of its own",
    1114: "the table, or the server's disk, is full",
    1129: "the server has blocked this host after too many failed connections",
    1158: "the connection failed while reading",
    1159: "the connection failed while reading",
    1160: "the connection failed while writing",
    1161: "the connection failed while writing",
    1180: "the commit failed",
    1203: "this user has too many connections",
    1205: "waited too long for a row that another client has locked",
    1226: "this user has used up a resource that is limited",
    1290: "the server is read-only",
    1317: "the statement was interrupted by the server",
    1792: "the transaction is read-only",
    1836: "the server is read-only",
    1927: "the server closed the connection",
    1969: "the statement took longer than the server allows",
    2003: "the server cannot be reached",
    2006: "the connection was lost",
    2013: "the connection was lost",
    2014: "the connection was out of step",
    2055: "the connection was lost",
    3024: "the statement took longer than the server allows",
    3168: "the server is not ready",
    4031: "the server closed the idle connection",
    8027: "the server's table definitions are out of date",
    8175: "the statement needed more memory than the server allows",
    9001: "the placement driver (PD) does not answer",
    9002: "TiKV does not answer",
    9003: "TiKV is busy",
    9004: "too many transactions wait for the same row",
    9005: "a region of TiKV is not available",
    9006: "garbage collection has removed what the read needs: raise tidb_gc_life_time (10 minutes by default)",
    9008: "too many transactions wait for the same row",
}
"""Nothing was done, or it is unknown: try again later."""

_REJECTED = {
    1048: "null where there must be a value",
    1118: "the row is too large",
    1153: "the statement is too large",
    1264: "out of range",
    1265: "cut off",
    1292: "not a value of the type",
    1366: "not a value of the type",
    1367: "not a number",
    1406: "too long",
    1690: "out of range",
    3140: "not a value of the type",
    8004: "the transaction is too large",
    8025: "the row is too large",
}
"""The data can never be stored as it is; halving the batch finds the row."""

_NOT_LET_IN = frozenset({1045, 1130, 1251, 1524, 1698, 1820, 1862, 2059, 3118, 3159})
_MAY_NOT = frozenset({1044, 1142, 1143, 1227, 1370, 1410, 8121})
_COLUMN = re.compile(r"\bcolumn ((?:[`'][^`']*[`']\.?)+)", re.IGNORECASE)
_UNKNOWN_DATABASE, _NO_TABLE, _NO_COLUMN, _TLS = 1049, 1146, 1054, 2026


def error_code(exc: BaseException) -> int:
    """The number of a driver's exception; 0 if it has none."""
    code = exc.args[0] if exc.args else 0
    return code if isinstance(code, int) else 0


def mysql_error(exc: BaseException, where: str) -> OomstreamError:
    """What a driver's exception means to us.

    Args:
        exc: It.
        where: What the sentence begins with: the store and its URL, password masked.
    """
    code, words = error_code(exc), _words(exc)
    if code in _CONFLICTS:
        return Conflict(f"{where}: {_CONFLICTS[code]} (error {code})")
    if code in _REJECTED:
        return InvalidEvent(
            Reason.REJECTED_BY_STORE,
            f"{where} rejects a row for its data: {_REJECTED[code]}{_column(words)} (error {code})",
        )
    if code == _UNKNOWN_DATABASE:
        return InvalidSetting(f"{where} is not there: run `oomstream init`, or correct the URL")
    if code == _NO_TABLE:
        return InvalidSetting(f"{where} is not initialised ({words}): run `oomstream init`")
    if code == _NO_COLUMN:
        return InvalidSetting(f"{where}: its tables are not of this version ({words}): run `oomstream apply`")
    if code == _TLS:
        return InvalidSetting(f"{where}: no TLS ({words}): correct the server's settings, or tls in the URL")
    if code in _NOT_LET_IN:
        return InvalidSetting(f"{where} does not let this user in ({words}): correct the URL, or the user's account")
    if code in _MAY_NOT:
        return InvalidSetting(f"{where}: this user lacks a right ({words}): grant it, see docs/operations.md")
    return _unavailable(exc, code, where)


def _unavailable(exc: BaseException, code: int, where: str) -> OomstreamError:
    if (reason := _why_unreachable(exc)) is not None:
        return StoreUnavailable(f"{where} cannot be reached ({reason}): is it running, and are host and port right?")
    if code in _DOWN:
        return StoreUnavailable(f"{where}: {_DOWN[code]} (error {code})")
    # Numbers from 2000 are the driver's, from 8000 TiDB's and TiKV's: of those, what is not known passes.
    if isinstance(exc, pymysql.InterfaceError) or 2000 <= code < 3000 or 8000 <= code < 10_000:
        return StoreUnavailable(f"{where}: the server did not do its work (error {code})")
    return Fatal(f"{where}: the server answers with error {code} ({type(exc).__name__})")


def _why_unreachable(exc: BaseException) -> str | None:
    for cause in _causes(exc):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"its TLS certificate is not valid for this host: {cause.verify_message}"
            case ssl.SSLError():
                return f"TLS failed: {cause.args[-1]}"
            case TimeoutError():
                return "no answer in time"
            case ConnectionRefusedError():
                return "connection refused"
            case socket.gaierror():
                return "no such host"
            case OSError() if error_code(exc) == 2003:
                return cause.strerror or type(cause).__name__
    return None


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause = exc.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _words(exc: BaseException) -> str:
    return str(exc.args[1]) if len(exc.args) > 1 else str(exc)


def _column(words: str) -> str:
    found = _COLUMN.search(words)
    return f", column {found[1].split('.')[-1]}" if found else ""
