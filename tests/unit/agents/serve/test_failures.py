"""Each error has its status, and none that is foreseen is INTERNAL."""

from __future__ import annotations

import logging

import pytest
from grpc import StatusCode

from oomstream.agents.serve.failures import HTTP_STATUS, failure_of
from oomstream.schemas import errors
from oomstream.schemas.errors import InvalidEvent, OomstreamError, Reason


def _all(kind: type[OomstreamError]) -> list[type[OomstreamError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in _all(sub))]


@pytest.mark.parametrize("kind", [each for each in _all(OomstreamError) if each is not OomstreamError])
def test_no_error_of_ours_is_internal(kind: type[OomstreamError]) -> None:
    """Every class of the tree has a code of its own meaning, and HTTP a status for it."""
    error = InvalidEvent(Reason.WRONG_TYPE, "a\nb") if issubclass(kind, InvalidEvent) else kind("a\nb")
    failure = failure_of(error)
    assert failure.code is not StatusCode.INTERNAL
    assert failure.sentence == "a b"
    assert 400 <= failure.http_status < 600


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.UnknownGroup("x"), StatusCode.NOT_FOUND, 404),
        (errors.UnknownFeature("x"), StatusCode.INVALID_ARGUMENT, 400),
        (errors.InvalidKey("x"), StatusCode.INVALID_ARGUMENT, 400),
        (errors.InvalidSetting("x"), StatusCode.FAILED_PRECONDITION, 503),
        (errors.StoreUnavailable("x"), StatusCode.UNAVAILABLE, 503),
        (errors.Fenced("x"), StatusCode.ABORTED, 409),
        (errors.PairingMismatch("x"), StatusCode.FAILED_PRECONDITION, 503),
        (TimeoutError(), StatusCode.DEADLINE_EXCEEDED, 504),
    ],
)
def test_codes(error: Exception, code: StatusCode, status: int) -> None:
    """What clients can tell apart."""
    failure = failure_of(error)
    assert (failure.code, failure.http_status) == (code, status)
    assert failure.sentence
    assert HTTP_STATUS[code] == status


def test_a_store_that_stayed_down_is_unavailable() -> None:
    """What ends a worker is for a server's client a store that is down, by the store's own sentence."""
    try:
        raise errors.Fatal("gave up") from errors.StoreUnavailable("tikv://pd: no answer")
    except errors.Fatal as exc:
        failure = failure_of(exc)
    assert (failure.code, failure.sentence) == (StatusCode.UNAVAILABLE, "tikv://pd: no answer")
    assert failure.is_of_a_store


def test_what_nobody_foresaw_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns the class only; the log has the traceback."""
    with caplog.at_level(logging.ERROR):
        failure = failure_of(KeyError("secret"))
    assert (failure.code, failure.http_status) == (StatusCode.INTERNAL, 500)
    assert "secret" not in failure.sentence
    assert "KeyError" in caplog.text
