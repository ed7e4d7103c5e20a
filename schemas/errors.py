"""Every error that oomstream raises, in one tree whose branches decide what happens next.

::

    OomstreamError
    ├── InvalidEvent         the event can never be accepted: dead letter, never retried (has .reason)
    ├── StoreUnavailable     a store, broker or registry did not do its work: retry with backoff
    ├── Fatal                going on would break a promise: stop the process with a non-zero exit
    │   ├── LostRange        the log no longer holds offsets that were never ingested
    │   ├── DlqLimitReached  too many dead letters in a row or in proportion
    │   └── PairingMismatch  the online store belongs to another history database
    ├── InvalidRequest       the caller asked for something wrong: fix the call (exit code 1 or 2)
    │   ├── InvalidDefinition    a group's definition breaks a rule, or an incompatible change
    │   ├── InvalidSetting       a setting or a URL is wrong
    │   ├── InvalidLabels        a label table lacks a column or holds a wrong value
    │   ├── InvalidImport        an imported file has a wrong header or a wrong row
    │   ├── InvalidKey           an entity key is missing or of a wrong type
    │   ├── InvalidTime          a time that cannot be read, or an as_of that is not settled yet
    │   ├── UnknownEntity
    │   ├── UnknownGroup
    │   ├── UnknownFeature
    │   ├── UnknownRevision      a batch group has no revision of that id
    │   └── EmptyGroup           a group never had data
    └── Retake               what the pipeline holds is out of date: take it anew and do the batch again
        ├── Fenced               another owner has claimed the source
        └── DefinitionChanged    the group has a newer definition than the batch was decoded with

Messages are one sentence that names what and where. They never hold an event's values or a password.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an event is a dead letter; stable codes, written into the dead letter's headers."""

    EMPTY_VALUE = "empty_value"
    UNKNOWN_FRAMING = "unknown_framing"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    MALFORMED_AVRO = "malformed_avro"
    MALFORMED_JSON = "malformed_json"
    DUPLICATE_FIELD = "duplicate_field"
    INVALID_TEXT = "invalid_text"
    UNKNOWN_FINGERPRINT = "unknown_fingerprint"
    UNKNOWN_SCHEMA_ID = "unknown_schema_id"
    UNSUPPORTED_SCHEMA = "unsupported_schema"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    NOT_FINITE = "not_finite"
    UNKNOWN_SYMBOL = "unknown_symbol"
    NULL_REQUIRED = "null_required"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    KEY_MISSING = "key_missing"
    KEY_EMPTY = "key_empty"
    KEY_TOO_LONG = "key_too_long"
    EVENT_TIME_TOO_OLD = "event_time_too_old"
    EVENT_TIME_IN_FUTURE = "event_time_in_future"
    REJECTED_BY_STORE = "rejected_by_store"


class OomstreamError(Exception):
    """The root of every error raised on purpose by oomstream."""


class InvalidEvent(OomstreamError):
    """An event that can never be accepted; the caller sends it to the dead-letter topic and goes on.

    Attributes:
        reason: Stable code of the rule that was broken.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StoreUnavailable(OomstreamError):
    """A store, the broker or the schema registry failed or did not answer in time; the caller retries."""


class Fatal(OomstreamError):
    """Going on would break a promise; the process must stop with a non-zero exit code."""


class LostRange(Fatal):
    """The log no longer holds a range of offsets that was never ingested."""


class DlqLimitReached(Fatal):
    """More dead letters in a row, or in proportion, than the settings allow.

    Attributes:
        allowed: How many records of the batch come before the one that passes the limit.
    """

    def __init__(self, message: str, allowed: int = 0) -> None:
        super().__init__(message)
        self.allowed = allowed


class PairingMismatch(Fatal):
    """The online store and the history database were initialised for different partners."""


class InvalidRequest(OomstreamError):
    """The caller asked for something that is wrong in itself; the call must be changed."""


class InvalidDefinition(InvalidRequest):
    """A feature group's definition breaks a rule, or changes in a way that is not allowed."""


class InvalidSetting(InvalidRequest):
    """A setting, a URL or a configuration file is wrong."""


class InvalidLabels(InvalidRequest):
    """A label table lacks a column or holds a value that cannot be used."""


class InvalidImport(InvalidRequest):
    """An imported file has a wrong header or a row that cannot be accepted; nothing of it was kept."""


class InvalidKey(InvalidRequest):
    """An entity key is incomplete or a part of it has a wrong type or length."""


class InvalidTime(InvalidRequest):
    """A time that cannot be read, or one that is not settled yet."""


class UnknownEntity(InvalidRequest):
    """No entity of that name is registered."""


class UnknownGroup(InvalidRequest):
    """No feature group of that name is registered."""


class UnknownFeature(InvalidRequest):
    """No feature of that name is registered.

    Attributes:
        names: The names that are not.
    """

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


class UnknownRevision(InvalidRequest):
    """A batch group has no revision of that id."""


class EmptyGroup(InvalidRequest):
    """A group never had data: import or push some first."""


class Retake(OomstreamError):
    """What the pipeline holds is out of date; it takes it anew and does the batch again."""


class Fenced(Retake):
    """Another owner has claimed the source; nothing of the batch was written."""


class DefinitionChanged(Retake):
    """The group's definition is newer than the one the batch was decoded with; nothing was written."""
