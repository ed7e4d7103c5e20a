"""Why a broker does not answer: librdkafka says it beside the call that fails, which itself only knows that it did."""

from __future__ import annotations

import re
import time

from confluent_kafka import KafkaError, KafkaException

from oomstream.schemas.errors import InvalidSetting, OomstreamError, StoreUnavailable

_KEPT_S = 120.0
_SILENCE = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
    }
)
_STATE = re.compile(r" \(after \d+ms in state .*\)$")
_OPENSSL = re.compile(r"SSL routines:[^:]*:([^:]+)")
_RUNS = "is it running, and is OOMSTREAM_BROKER_URL right?"
_DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


class KafkaTroubles:
    """The last trouble that clients of a broker met; written by their callbacks, from any thread."""

    def __init__(self) -> None:
        self._last: tuple[float, KafkaError] | None = None
        self.all_down = False
        """Whether a client has found no broker that it could connect to."""

    def note(self, error: KafkaError) -> None:
        """A client's ``error_cb``."""
        # That all brokers are down follows what brought them down, and says less.
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.all_down = True
        else:
            self._last = (time.monotonic(), error)

    @property
    def last(self) -> KafkaError | None:
        """The last trouble, if it is not long ago."""
        if self._last is None or time.monotonic() - self._last[0] > _KEPT_S:
            return None
        return self._last[1]

    def error(self, exc: object, where: str) -> OomstreamError:
        """What a failed call means.

        Args:
            exc: What it raised or was told; anything that is not Kafka's own = no answer in time.
            where: What the sentence begins with; ends with the broker's URL.
        """
        error = exc.args[0] if isinstance(exc, KafkaException) and exc.args else exc
        if isinstance(error, KafkaError) and error.code() not in _SILENCE:
            return _meaning(error, where)
        last, self.all_down = self.last, False
        return StoreUnavailable(f"{where} does not answer: {_RUNS}") if last is None else _meaning(last, where)

    @staticmethod
    def is_silence(exc: KafkaException) -> bool:
        """Whether a call failed because no broker answered, not because one refused."""
        return exc.args[0].code() in _SILENCE


def _meaning(error: KafkaError, where: str) -> OomstreamError:
    said = _plain(error)
    match error.code():
        case KafkaError._AUTHENTICATION | KafkaError.SASL_AUTHENTICATION_FAILED:
            return InvalidSetting(
                f"{where} does not let this user in ({said}): correct OOMSTREAM_KAFKA_USER, "
                "OOMSTREAM_KAFKA_PASSWORD or OOMSTREAM_KAFKA_SASL_MECHANISM"
            )
        case _ if _is_tls(error):
            return InvalidSetting(f"{where}: TLS failed ({said}): see OOMSTREAM_KAFKA_TLS and OOMSTREAM_KAFKA_CA")
        case code if code in _DENIED:
            return InvalidSetting(f"{where}: this user lacks a right ({said}): grant it, see docs/operations.md")
        case code if code in _SILENCE:
            return StoreUnavailable(f"{where} cannot be reached ({said}): {_RUNS}")
    return StoreUnavailable(f"{where}: {said}")


def _is_tls(error: KafkaError) -> bool:
    """Whether TLS failed: of a handshake that OpenSSL refused librdkafka says now that, now that the connection did."""
    return error.code() == KafkaError._SSL or (error.code() in _SILENCE and _OPENSSL.search(error.str()) is not None)


def _plain(error: KafkaError) -> str:
    """What librdkafka says, without addresses of its own and without where in its code it was."""
    text = _STATE.sub("", error.str())
    if _is_tls(error):
        found = _OPENSSL.search(text)
        return found[1].strip() if found else text.rpartition(": ")[2]
    if error.code() in _SILENCE:
        text = text.rpartition(": ")[2]
    return text[:1].lower() + text[1:]
