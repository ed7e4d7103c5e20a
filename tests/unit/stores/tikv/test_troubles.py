"""What the client's errors mean. The texts are those that a server provoked, shortened at the end."""

from __future__ import annotations

import pytest

from oomstream.stores.tikv.troubles import NO_ANSWER, UNKNOWN, Remedy, answer_bytes, trouble_of

_SOURCE = "[client-rust/src"
_GRPC = 'gRPC api error: status: {}, message: "{}", details: [], metadata: MetadataMap {{ headers: {{}} }}'
_KEY_ERROR = 'Multiple key errors: [KeyError(KeyError { locked: None, retryable: "", abort: "", conflict: '
_TOO_LARGE = (
    'Region error: Error { message: "raft entry is too large", not_leader: None, server_is_busy: None, '
    "raft_entry_too_large: Some(RaftEntryTooLarge { region_id: 2, entry_size: 9000006 }), disk_full: None }"
)
_REGION = 'Region error: Error { message: "", not_leader: None, server_is_busy: %s, disk_full: %s }'


@pytest.mark.parametrize(
    ("text", "remedy", "said"),
    [
        (_KEY_ERROR + "Some(WriteConflict { start_ts: 4, conflict_ts: 5, key: [120] }) })]", Remedy.AGAIN, "writers"),
        ("Failed to resolve lock", Remedy.AGAIN, "locked"),
        (
            'Multiple errors: [StringError("Multiple key errors: [KeyError(KeyError { '
            'retryable: \\"retryable: lock not found\\", conflict: None })]")]',
            Remedy.AGAIN,
            "refuses to commit",
        ),
        (
            _GRPC.format("OutOfRange", "Error, message length too large: found 5600120 bytes, the limit is: 4194304"),
            Remedy.HALVE,
            "in one answer",
        ),
        (_TOO_LARGE, Remedy.STOP, "size"),
        (_SOURCE + "/pd/timestamp.rs:72]: TimestampRequest channel is closed", Remedy.RENEW, "PD was lost"),
        ("Leader of region 2 is not found", Remedy.RENEW, "no leader"),
        (_SOURCE + "/pd/cluster.rs:189]: PD cluster failed to respond", Remedy.COUNT, "PD does not answer"),
        (
            _SOURCE + '/pd/cluster.rs:279]: failed to connect to [Member { name: "pd", member_id: 1 }]',
            Remedy.COUNT,
            "PD does not answer",
        ),
        (
            _GRPC.format(
                "Unavailable", "error trying to connect: tcp connect error: Connection refused (os error 111)"
            ),
            Remedy.COUNT,
            "refuses connections",
        ),
        (_GRPC.format("Unknown", "transport error"), Remedy.COUNT, "broke"),
        ("gRPC error: transport error", Remedy.COUNT, "broke"),
        (_GRPC.format("Cancelled", "Timeout expired"), Remedy.COUNT, "does not answer"),
        (_GRPC.format("DeadlineExceeded", "context deadline exceeded"), Remedy.COUNT, "does not answer"),
        (_GRPC.format("Unavailable", "KvCommit refused on request"), Remedy.COUNT, "refuses a call"),
        (_REGION % ("None", "Some(DiskFull { store_id: [1] })"), Remedy.COUNT, "disk is full"),
        (_REGION % ('Some(ServerIsBusy { reason: "" })', "None"), Remedy.COUNT, "overloaded"),
        (_REGION % ("None", "None"), Remedy.COUNT, "moving"),
    ],
)
def test_table(text: str, remedy: Remedy, said: str) -> None:
    """Every error that a server provokes has its remedy and its sentence."""
    trouble = trouble_of(Exception(text))
    assert trouble is not None
    assert trouble.remedy is remedy
    assert said in trouble.said


def test_time_is_up() -> None:
    """A call that runs into its deadline is an answer that did not come."""
    assert trouble_of(TimeoutError()) is NO_ANSWER


def test_unknown_text() -> None:
    """An error of the client's that nobody has seen yet is retried, and never shown: it may hold keys."""
    trouble = trouble_of(Exception("something new about key [115, 101, 99, 114, 101, 116]"))
    assert trouble is UNKNOWN
    assert "115" not in trouble.said + trouble.advice


def test_our_own_mistakes_pass() -> None:
    """A programming error is not taken for a store that is down."""
    assert trouble_of(TypeError("oops")) is None
    assert trouble_of(KeyboardInterrupt()) is None


def test_panics_are_errors_of_the_client() -> None:
    """A panic in Rust, which is no Exception in Python, is one of its errors."""
    panic = type("PanicException", (BaseException,), {})
    assert trouble_of(panic("called `Option::unwrap()` on a `None` value")) is UNKNOWN


def test_size_of_a_refused_answer() -> None:
    """The size that the client tells is read from its text."""
    assert (
        answer_bytes(Exception("message length too large: found 5600120 bytes, the limit is: 4194304 bytes")) == 5600120
    )
    assert answer_bytes(Exception("message length too large")) == 0
