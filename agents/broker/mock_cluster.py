"""librdkafka's mock cluster through ctypes, on the library that confluent-kafka carries.

What it can and cannot do was measured with librdkafka 2.16: it keeps about 5 MB a partition and drops older messages
silently, forgets everything at exit, answers no admin requests, and listens on the loopback interface only.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import confluent_kafka

from oomstream.schemas.errors import Fatal, InvalidRequest

PARTITION_BYTES = 5 * 1024 * 1024
"""What the mock keeps of one partition (``max_size`` in rdkafka_mock.c)."""

_PRODUCER = 0
_TOPIC_ALREADY_EXISTS = 36


@cache
def _library() -> Any:
    """The librdkafka of confluent-kafka's wheel (Linux and macOS layouts), else the system's."""
    package = Path(confluent_kafka.__file__).parent
    bundled = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    path = str(bundled[0]) if bundled else ctypes.util.find_library("rdkafka")
    if path is None:
        raise Fatal("the embedded broker needs librdkafka, which this build of confluent-kafka does not carry")
    library = ctypes.CDLL(path)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_conf_set", number, [pointer, text, text, text, ctypes.c_size_t]),
        ("rd_kafka_new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [pointer]),
        ("rd_kafka_err2str", text, [number]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_topic_create", number, [pointer, text, number, number]),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class MockCluster:
    """One mock broker in this process; `with MockCluster() as cluster:` starts and ends it."""

    def __init__(self) -> None:
        self._handle: int | None = None
        self._cluster: int | None = None

    def __enter__(self) -> Self:
        library = _library()
        error = ctypes.create_string_buffer(256)
        conf = library.rd_kafka_conf_new()
        # The client that carries the cluster has no servers of its own, and would say so on stderr.
        library.rd_kafka_conf_set(conf, b"log_level", b"0", error, len(error))
        self._handle = library.rd_kafka_new(_PRODUCER, conf, error, len(error))
        if self._handle is None:
            raise Fatal(f"the embedded broker could not start: {error.value.decode()}")
        self._cluster = library.rd_kafka_mock_cluster_new(self._handle, 1)
        if self._cluster is None:
            library.rd_kafka_destroy(self._handle)
            raise Fatal("the embedded broker could not start: no loopback port is free")
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cluster, self._cluster = self._cluster, None
        handle, self._handle = self._handle, None
        if cluster is not None:
            _library().rd_kafka_mock_cluster_destroy(cluster)
        if handle is not None:
            _library().rd_kafka_destroy(handle)

    @property
    def server(self) -> str:
        """``127.0.0.1:PORT``."""
        bootstraps: bytes = _library().rd_kafka_mock_cluster_bootstraps(self._running)
        return bootstraps.decode()

    @property
    def _running(self) -> int:
        if self._cluster is None:
            raise Fatal("the embedded broker is not running")
        return self._cluster

    def create_topic(self, name: str, partitions: int) -> bool:
        """Make a topic; False if it exists already.

        Raises:
            InvalidRequest: The cluster refuses the name or the number.
        """
        code = _library().rd_kafka_mock_topic_create(self._running, name.encode(), partitions, 1)
        if code and code != _TOPIC_ALREADY_EXISTS:
            why = _library().rd_kafka_err2str(code).decode()
            raise InvalidRequest(f"the embedded broker cannot make topic {name!r} with {partitions} partitions: {why}")
        return not code
