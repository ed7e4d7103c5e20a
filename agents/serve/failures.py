"""What a failed request is told: one table from errors to gRPC's status codes and HTTP's."""

from __future__ import annotations

import logging
from typing import NamedTuple

from grpc import StatusCode

from oomstream.schemas.errors import (
    EmptyGroup,
    Fatal,
    InvalidEvent,
    InvalidRequest,
    InvalidSetting,
    OomstreamError,
    Retake,
    StoreUnavailable,
    UnknownEntity,
    UnknownGroup,
    UnknownRevision,
)

log = logging.getLogger(__name__)

HTTP_STATUS: dict[StatusCode, int] = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 413,
    StatusCode.INTERNAL: 500,
    StatusCode.FAILED_PRECONDITION: 503,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
"""The HTTP status that goes with each code."""

_CODES: tuple[tuple[type[Exception], StatusCode], ...] = (
    (UnknownGroup, StatusCode.NOT_FOUND),
    (UnknownEntity, StatusCode.NOT_FOUND),
    (UnknownRevision, StatusCode.NOT_FOUND),
    (EmptyGroup, StatusCode.FAILED_PRECONDITION),
    (InvalidSetting, StatusCode.FAILED_PRECONDITION),
    (InvalidRequest, StatusCode.INVALID_ARGUMENT),
    (InvalidEvent, StatusCode.INVALID_ARGUMENT),
    (StoreUnavailable, StatusCode.UNAVAILABLE),
    (Retake, StatusCode.ABORTED),
    (Fatal, StatusCode.FAILED_PRECONDITION),
    (TimeoutError, StatusCode.DEADLINE_EXCEEDED),
)
"""The first that fits is the one."""


CALLS_PER_REQUEST = 3
"""A request ends by the deadline of so many calls to stores and broker: what one of them has to say is heard first."""


class Failure(NamedTuple):
    """What to tell whoever asked.

    Attributes:
        code: gRPC's code.
        sentence: What went wrong, in one line; no value of an event.
    """

    code: StatusCode
    sentence: str

    @property
    def http_status(self) -> int:
        """HTTP's status for the same."""
        return HTTP_STATUS[self.code]

    @property
    def is_of_a_store(self) -> bool:
        """Whether it is a store's or the broker's trouble, not the request's."""
        return self.code in {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}


def failure_of(error: Exception) -> Failure:
    """What an error means to whoever asked; one that nobody foresaw is logged with its traceback."""
    # A store that stayed down past the budget is Fatal to a worker, which then ends; a server goes on.
    if isinstance(error, Fatal) and isinstance(error.__cause__, StoreUnavailable):
        return Failure(StatusCode.UNAVAILABLE, _one_line(error.__cause__))
    code = next((code for kind, code in _CODES if isinstance(error, kind)), StatusCode.INTERNAL)
    if code is StatusCode.INTERNAL:
        log.error("unexpected %s while a request was answered", type(error).__name__, exc_info=error)
        return Failure(code, f"unexpected {type(error).__name__} in oomstream (its log says more)")
    sentence = _one_line(error)
    if not isinstance(error, OomstreamError) and not sentence:
        sentence = f"it took longer than {CALLS_PER_REQUEST} times OOMSTREAM_CALL_TIMEOUT"
    return Failure(code, sentence)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
