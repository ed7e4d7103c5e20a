"""Read a key through the real client until it works: ``python tikv_probe.py PD_ADDRESS``.

A program of its own, because the client's threads sometimes crash an interpreter that ends (tikv-client 0.0.4), and
because a call of it that hangs can only be ended with its process.
"""

from __future__ import annotations

import asyncio
import os
import sys

from tikv_client.asynchronous import TransactionClient

_ATTEMPT_TIMEOUT_S = 5.0
_PAUSE_S = 0.05


async def _read(address: str) -> None:
    client = await TransactionClient.connect([address])
    await client.snapshot(await client.current_timestamp(), pessimistic=False).get(b"probe")


async def _main(address: str) -> None:
    while True:
        try:
            await asyncio.wait_for(_read(address), _ATTEMPT_TIMEOUT_S)
        except Exception as exc:  # The client raises nothing more specific.
            print(exc or type(exc).__name__, flush=True)
            await asyncio.sleep(_PAUSE_S)
        else:
            return


asyncio.run(_main(sys.argv[1]))
# Without the interpreter's own end, in which the client's threads may crash it.
os._exit(0)
