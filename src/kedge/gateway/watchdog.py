"""Watchdog of a gateway worker: the kernel ends a worker whose serving loop stands still.

Only a turning loop puts the alarm off. Its signal keeps its default action, so that it works while
code in C holds the interpreter for ever, and needs neither a thread nor the supervisor. The alarm
counts processor time: a worker that was stopped, or a machine that slept, did not hang. A loop that
waits without working is not ended by it; a model that was proven plain waits for nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

HANG_S = 10.0
"""Processor time of the process without a turn. What holds the loop longest in order is one answer of a model that was proven plain, at most
some tenths of a second for the most rows that a request may have, and a collection of garbage.
Ten seconds are far above both on a busy machine, and a third of what a caller waits for."""
FEED_S = 1.0


@asynccontextmanager
async def watched_loop() -> AsyncIterator[None]:
    """End this process when the running loop does not turn for `HANG_S`; called on the main thread."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    feeding = asyncio.create_task(_feed())
    try:
        yield
    finally:
        feeding.cancel()
        signal.setitimer(signal.ITIMER_PROF, 0)


async def _feed() -> None:
    while True:
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        await asyncio.sleep(FEED_S)
