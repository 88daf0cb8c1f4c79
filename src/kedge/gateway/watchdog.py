"""Watchdog of a gateway worker: a worker whose serving loop stands still is ended.

Only a turning loop puts it off. There are two, since no one clock tells both kinds of standing
still from a machine that slept or a worker that was stopped:

* *working*: an alarm of the kernel that counts processor time. Its signal keeps its default action,
  so it works while code in C holds the interpreter for ever, and needs no thread.
* *waiting*: a thread that counts its own seconds. They pass only while this process runs, so a stop
  or a sleep adds one and not an hour. It ends the worker by the same signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

HANG_S = 10.0
"""Processor time of the process without a turn. What holds the loop longest in order is one answer of a model that was proven plain. It takes
at most some tenths of a second for the most rows that a request may have. The other is a collection of garbage.
Ten seconds are far above both on a busy machine, and a third of what a caller waits for."""
WAIT_TICKS = 30
"""Seconds of the waiting thread without a turn: as long as a caller waits, so no caller of this loop
is left. It is longer than `HANG_S` since a full machine may keep the loop waiting."""
FEED_S = 1.0


class _Turns:
    """Turns of the loop, counted by the loop and compared by the thread."""

    def __init__(self) -> None:
        """Begin at none."""
        self.count = 0
        self.ended = threading.Event()

    async def feed(self) -> None:
        """Count, and put the kernel's alarm off, at each turn."""
        while True:
            self.count += 1
            signal.setitimer(signal.ITIMER_PROF, HANG_S)
            await asyncio.sleep(FEED_S)

    def watch(self) -> None:
        """End this process when `WAIT_TICKS` of this thread pass without a turn."""
        seen, ticks = self.count, 0
        while not self.ended.wait(FEED_S):
            seen, ticks = (seen, ticks + 1) if self.count == seen else (self.count, 0)
            if ticks >= WAIT_TICKS:
                os.kill(os.getpid(), signal.SIGPROF)


@asynccontextmanager
async def watched_loop() -> AsyncIterator[None]:
    """End this process when the running loop stands still; called on the main thread."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    turns = _Turns()
    feeding = asyncio.create_task(turns.feed())
    threading.Thread(target=turns.watch, name="kedge-watchdog", daemon=True).start()
    try:
        yield
    finally:
        turns.ended.set()
        feeding.cancel()
        signal.setitimer(signal.ITIMER_PROF, 0)
