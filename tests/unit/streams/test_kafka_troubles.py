"""Why a broker does not answer, from what librdkafka says."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from oomstream.schemas.errors import InvalidSetting, StoreUnavailable
from oomstream.streams.kafka_troubles import KafkaTroubles

HANDSHAKE = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed (after 3ms in state CONNECT)"
TIMED_OUT = KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.mark.parametrize("code", [KafkaError._SSL, KafkaError._TRANSPORT])
def test_a_handshake_that_failed_is_named_by_either_code(code: int) -> None:
    """Whether librdkafka calls it TLS or the connection: a certificate that is not trusted is a wrong setting."""
    troubles = KafkaTroubles()
    troubles.note(KafkaError(code, HANDSHAKE))
    troubles.note(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    error = troubles.error(TIMED_OUT, "broker kafka://localhost:9093")
    assert isinstance(error, InvalidSetting)
    assert str(error).startswith("broker kafka://localhost:9093: TLS failed (certificate verify failed): see ")


def test_a_connection_that_is_refused_is_an_outage() -> None:
    """A broker that is not there may come back: it is waited for, and the sentence asks whether it runs."""
    troubles = KafkaTroubles()
    troubles.note(KafkaError(KafkaError._TRANSPORT, "localhost:9093/bootstrap: Connect to failed: Connection refused"))
    error = troubles.error(TIMED_OUT, "broker kafka://localhost:9093")
    assert isinstance(error, StoreUnavailable)
    assert "cannot be reached (connection refused)" in str(error)
