"""One session of a worker: which failures end it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from oomstream.agents.broker import EmbeddedBroker
from oomstream.agents.worker.metrics import WorkerMetrics
from oomstream.agents.worker.session import Session
from oomstream.agents.worker.transport import BatchConsumerThread, EndedThread
from oomstream.schemas.errors import Fatal
from oomstream.stores.settings import load_settings
from oomstream.streams.broker import parse_broker


def test_only_the_present_app_ends_the_session_when_it_crashes() -> None:
    """Case 30: an app that did not start while Kafka was away, and was given up, may say so late: nothing ends."""

    async def scenario() -> None:
        broker = parse_broker("kafka://127.0.0.1:1")
        given_up: Any
        present: Any
        given_up, present = object(), object()
        session = Session(
            load_settings(),
            broker,
            [],
            lambda name: pytest.fail(str(name)),
            WorkerMetrics(),
            ready=asyncio.Event(),
            stuck_s=1,
        )
        session._app = present
        session._crashed(given_up, ConnectionError("refused"))
        assert not session._failure.done()
        session._crashed(present, ConnectionError("refused"))
        with pytest.raises(Fatal, match="Faust crashed"):
            session._failure.result()

    asyncio.run(scenario())


def test_a_connection_in_the_making_holds_up_no_end() -> None:
    """A consumer whose connection has no reader yet is closed all the same, with all of its connections."""

    async def scenario(address: str) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=address)
        await consumer.start()
        assert await consumer._client.ready(consumer._client.get_random_node())
        connections = list(consumer._client._conns.values())
        assert connections
        connections[0]._read_task.cancel()
        connections[0]._read_task = None
        thread: Any = BatchConsumerThread.__new__(BatchConsumerThread)
        thread._consumer = consumer
        thread._method_queue = None
        await thread.on_thread_stop()
        assert not any(each.connected() for each in connections)

    with EmbeddedBroker() as embedded:
        asyncio.run(scenario(",".join(embedded.broker.servers)))


def test_a_thread_that_has_ended_leaves_no_coroutine_behind() -> None:
    """What a consumer's thread is asked after its end is an error at once, and is not left to be collected."""

    async def work() -> None:
        raise AssertionError

    thread: Any = BatchConsumerThread.__new__(BatchConsumerThread)
    thread.thread_loop = asyncio.new_event_loop()
    thread.thread_loop.close()
    asked = work()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(thread.run_here(asked, 1))
    assert inspect.getcoroutinestate(asked) == inspect.CORO_CLOSED


def test_a_thread_that_is_only_beginning_is_ended_too() -> None:
    """A worker that is stopped while its consumer's thread begins leaves no thread behind, which would go on."""
    gate = threading.Event()

    class Beginning(EndedThread):
        def _start_thread(self) -> None:
            gate.wait()
            super()._start_thread()

    async def scenario() -> None:
        service = Beginning()
        starting = asyncio.ensure_future(service.start())
        await asyncio.sleep(0)
        starting.cancel()
        stopping = asyncio.ensure_future(service.stop())
        await asyncio.sleep(0)
        gate.set()
        async with asyncio.timeout(10):
            await stopping
        thread: Any = service._thread
        assert not thread.is_alive()

    asyncio.run(scenario())
