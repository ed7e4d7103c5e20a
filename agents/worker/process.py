"""The worker as a process: signals, logging, exit codes.

Exit codes: 0 drained after SIGTERM or SIGINT; 1 stopped by an error, which is one sentence in the log; 2 the settings
are wrong; 70 the orderly end took too long and the process was ended hard (positions are in the database, so that
costs nothing but repeated work).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from oomstream.agents.worker.worker import Worker
from oomstream.schemas.errors import InvalidRequest, OomstreamError
from oomstream.stores.crash_points import arm
from oomstream.stores.settings import Settings
from oomstream.streams.broker import Broker

log = logging.getLogger(__name__)

EXIT_DEADLINE = 70
"""Exit code of a process that could not end in order (EX_SOFTWARE of sysexits.h)."""

_CONTAINERS_A_SEARCH = 200_000
"""A few batches of several partitions together."""

END_S = 60.0
"""How long the orderly end may take, seconds."""


class HardExit:
    """Ends the process when its orderly end does not come; nothing in Python can hold that up.

    Args:
        seconds: How long the orderly end may take.
    """

    def __init__(self, seconds: float = END_S) -> None:
        self._timer = threading.Timer(seconds, self._exit)
        self._timer.daemon = True
        self._armed = False

    def arm(self) -> None:
        """Begin to count, once."""
        if not self._armed:
            self._armed = True
            self._timer.start()

    @staticmethod
    def _exit() -> None:
        sys.stderr.write("the worker did not end in time; ended hard\n")
        sys.stderr.flush()
        os._exit(EXIT_DEADLINE)


def quiet_libraries() -> None:
    """Keep Faust and aiokafka from writing what is ours to say.

    Both note every rebalance, and aiokafka a dozen errors a second while a broker is away; the worker says each once.
    """
    for name, level in (("faust", logging.WARNING), ("mode", logging.ERROR), ("aiokafka", logging.CRITICAL)):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def collect_seldom() -> None:
    """Have Python look for cycles of garbage seldom, and never again among what is loaded by now.

    A batch makes tens of thousands of containers at once, all of which go with it, by their reference counts; at the
    usual threshold of 700 every batch is searched dozens of times (measured: a fifth of a worker's work). Cycles are
    still found: they count up, as nothing frees them.
    """
    gc.freeze()
    gc.set_threshold(_CONTAINERS_A_SEARCH, 10, 10)


def worker_main(
    settings: Settings, groups: Sequence[str] | None = None, *, broker: Broker | None = None, debug: bool = False
) -> int:
    """Run a worker as the main thing of this process.

    Args:
        settings: Where the broker and the stores are, and every limit.
        groups: Names of the groups to read; None = all.
        broker: The broker; None = the one that the settings name or the data folder tells of.
        debug: Log everything, with tracebacks.

    Returns:
        The exit code.
    """
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    if not debug:
        quiet_libraries()
    collect_seldom()
    hard_exit = HardExit()
    try:
        arm(settings.crash_at)
        asyncio.run(_run(settings, groups, broker, hard_exit))
    except OomstreamError as exc:
        log.critical("%s", exc, exc_info=exc if debug else None)
        return 2 if isinstance(exc, InvalidRequest) else 1
    except Exception:
        log.critical("the worker failed", exc_info=True)
        return 1
    log.info("drained")
    return 0


async def _run(settings: Settings, groups: Sequence[str] | None, broker: Broker | None, hard_exit: HardExit) -> None:
    worker = Worker(settings, groups, broker=broker)
    loop = asyncio.get_running_loop()

    def asked_to_end() -> None:
        hard_exit.arm()
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end)
    try:
        await worker.run()
    finally:
        hard_exit.arm()
        gc.collect()  # connections that were given up: they close by the loop that is about to end
